"""How long files take for a clip, and how much memory: each in a process of its own, in turns."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.bench_process import Opened, Opener, serve
from tinyscene.deployment.export import export
from tinyscene.deployment.formats import Format, Values
from tinyscene.deployment.forms import FrontEnd
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.progress import track

ROUNDS, RUNS = 10, 5
FORMS: tuple[FrontEnd, ...] = ("outside", "inside")
_MS = 1000


@dataclass(frozen=True)
class Timing:
    """Of single runs, in ms."""

    median: float
    p10: float
    p90: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        p10, median, p90 = (float(value) * _MS for value in np.percentile(seconds, (10, 50, 90)))
        return cls(median, p10, p90, len(seconds))


@dataclass(frozen=True)
class Measured:
    """One thing at one number of threads.

    Attributes:
        facts: runtime, precision, front_end, clip_s and bytes, where it could be opened.
        load_ms: opening it, with what its runtime imports.
        cold_ms: opening it, and the first clip.
        clip: from waveform to probabilities, warm; a front end that is outside runs in torch. Of a stream, one step.
        network: from features to logits, warm; None where it can't be run alone.
        peak_bytes: of resident memory, above what the process held before opening; None where there is no /proc.
        fault: why there are no figures; empty where there are.
    """

    name: str
    threads: int
    facts: dict[str, Any] = field(default_factory=dict)
    load_ms: float | None = None
    cold_ms: float | None = None
    clip: Timing | None = None
    network: Timing | None = None
    peak_bytes: int | None = None
    fault: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class OpenFile:
    """Opens an exported file; one for any length hears clips of `clip_s` seconds. Raises InputError if it can't.

    Where that is None, they are as long as those it was trained on, or 1 s where it doesn't say.
    """

    path: Path
    clip_s: float | None

    def __call__(self, threads: int) -> Opened:
        artifact = Artifact.load(self.path, threads)
        rate = artifact.sample_rate
        clip_s = _clip_s(self.clip_s, artifact.trained_clip_s)
        samples = artifact.clip_samples or max(round(clip_s * rate), artifact.shortest_samples)
        waveform = _noise(samples)
        facts = {
            "runtime": f"{artifact.format.runtime} {artifact.format.version()}",
            "precision": _precision(artifact),
            "front_end": "inside" if artifact.inside else "outside",
            "clip_s": samples / rate,
            "bytes": artifact.bytes_on_disk,
        }
        if artifact.step_samples:
            stream, step = artifact.stream(), _noise(artifact.step_samples)
            facts["front_end"] = f"inside, steps of {artifact.step_samples / rate:.3g} s"
            return Opened(lambda: stream(step), None, facts)
        run, network = artifact.run, None
        if not artifact.inside:
            features = artifact.classifier.features(torch.from_numpy(waveform)).numpy()
            network = lambda: run(features)[0]  # noqa: E731
        return Opened(lambda: artifact.probabilities(waveform), network, facts)


@dataclass(frozen=True)
class OpenModel:
    """Opens a saved model in torch, for clips of `clip_s` seconds as in `OpenFile`. Raises InputError if it can't."""

    folder: Path
    clip_s: float | None

    def __call__(self, threads: int) -> Opened:
        classifier = SceneClassifier.load(self.folder).eval()
        clip_s = _clip_s(self.clip_s, classifier.trained_clip_s)
        samples = max(round(clip_s * classifier.sample_rate), classifier.shortest_samples)
        waveform = torch.from_numpy(_noise(samples))
        facts = {
            "runtime": f"torch {torch.__version__}",
            "precision": classifier.precision,
            "front_end": "outside",
            "clip_s": samples / classifier.sample_rate,
            "bytes": sum((self.folder / name).stat().st_size for name in ("model.json", "weights.safetensors")),
        }
        with torch.inference_mode():
            features = classifier.features(waveform)
        network = torch.inference_mode()(lambda: classifier.classify(features))
        return Opened(torch.inference_mode()(lambda: classifier(waveform).softmax(-1)), network, facts)


def measure(
    openers: Mapping[str, Opener],
    threads: Sequence[int] = (1,),
    rounds: int = ROUNDS,
    runs: int = RUNS,
    *,
    seed: int = 0,
    quiet: bool = False,
) -> list[Measured]:
    """Measure each in a process of its own; in every round they take turns in a random order.

    What drifts on the machine then hits all alike. Numbers of threads come one after the other.

    Args:
        openers: by name, picklable.
        rounds: with so many timed `runs` of each.

    Returns:
        One for each name at each number of threads; what went wrong with one is its `fault`.
    """
    if min(rounds, runs, *threads) < 1:
        raise InputError(f"bench was given rounds={rounds}, runs={runs}, threads={tuple(threads)}; accepted: from 1 on")
    order = random.Random(seed)
    return [measured for count in threads for measured in _at(count, openers, rounds, runs, order, quiet)]


def _at(
    threads: int, openers: Mapping[str, Opener], rounds: int, runs: int, order: random.Random, quiet: bool
) -> list[Measured]:
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(name, opener, threads)) for name, opener in openers.items()]
        for _ in track(range(rounds), f"bench, {threads} threads", rounds, quiet=quiet):
            for worker in order.sample(workers, len(workers)):
                worker.take_turn(runs)
        return [worker.finish() for worker in workers]


class _Worker:
    """A process that measures, seen from outside."""

    def __init__(self, name: str, threads: int, process: BaseProcess, pipe: Connection) -> None:
        self.name, self.threads, self.process, self.pipe = name, threads, process, pipe
        self.seconds: dict[str, list[float]] = {}
        self.fault = ""
        self.cold = self._hear()

    def take_turn(self, runs: int) -> None:
        for name, seconds in self._ask(runs).items():
            self.seconds.setdefault(name, []).extend(seconds)

    def finish(self) -> Measured:
        peak = self._ask(0).get("peak_bytes")
        if self.fault:
            return Measured(self.name, self.threads, self.cold.get("facts", {}), fault=self.fault)
        timings = {name: Timing.of(seconds) for name, seconds in self.seconds.items()}
        load_ms, cold_ms = (self.cold[name] * _MS for name in ("load_s", "cold_s"))
        facts = self.cold["facts"]
        return Measured(self.name, self.threads, facts, load_ms, cold_ms, timings["clip"], timings.get("network"), peak)

    def _ask(self, runs: int) -> dict[str, Any]:
        if self.fault:
            return {}
        try:
            self.pipe.send(runs)
        except OSError:
            return self._ended()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        try:
            said = self.pipe.recv()
        except (EOFError, OSError):
            return self._ended()
        if isinstance(said, str):
            self.fault = said
            return {}
        heard: dict[str, Any] = said
        return heard

    def _ended(self) -> dict[str, Any]:
        self.process.join()
        self.fault = (
            f"its process ended with status {self.process.exitcode}; accepted: a file that its runtime survives"
        )
        return {}


@contextmanager
def _worker(name: str, opener: Opener, threads: int) -> Iterator[_Worker]:
    # A fork would share this process's memory, and its threads' locks.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(opener, threads, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield _Worker(name, threads, process, ours)
    finally:
        ours.close()
        process.join(timeout=1)
        process.kill()
        process.join()


def export_all(
    folders: Sequence[Path], formats: Sequence[Format], into: Path, clip_s: float | None, *, quiet: bool = False
) -> tuple[dict[str, Opener], dict[str, str]]:
    """Each saved model in torch, and its files: in every format, the front end outside and inside.

    Returns:
        What opens them, by name; and for those that could not be written, why.
    """
    openers: dict[str, Opener] = {}
    faults: dict[str, str] = {}
    for number, folder in enumerate(folders):
        classifier = SceneClassifier.load(folder)
        stem = f"{number}-{classifier.precision}" if len(folders) > 1 else classifier.precision
        openers[f"{stem} in torch"] = OpenModel(folder, clip_s)
        forms = [(format_, form) for format_ in formats for form in FORMS]
        for format_, form in track(forms, f"exporting {folder}", len(forms), quiet=quiet):
            path = into / f"{stem}-{form}{format_.suffix}"
            if missing := not_installed(format_):
                faults[path.name] = missing
                continue
            try:
                export(classifier, path, front_end=form, clip_s=_clip_s(clip_s, classifier.trained_clip_s))
                openers[path.name] = OpenFile(path, clip_s)
            except InputError as error:
                faults[path.name] = str(error)
    return openers, faults


def not_installed(format_: Format) -> str:
    """A sentence where a format's runtime is missing; empty where it is there."""
    try:
        format_.version()
    except ImportError:  # importlib.metadata's error is one too
        way = f'pip install "tinyscene[{format_.extra}]"' if format_.extra else f"pip install {format_.runtime}"
        return f"{format_.runtime} is not installed, which runs {format_.suffix} files; accepted: {way}"
    return ""


def _clip_s(asked: float | None, trained: float | None) -> float:
    return asked or trained or 1.0


def _noise(samples: int) -> Values:
    """(1, samples)"""
    return 0.1 * np.random.default_rng(0).standard_normal((1, samples), dtype=np.float32)


def _precision(artifact: Artifact) -> str:
    """Of the weights, as the certificate says it; without one, as far as the file does."""
    try:
        return artifact.certificate.precision
    except InputError:
        return "int8" if artifact.facts["int8"] else "float"
