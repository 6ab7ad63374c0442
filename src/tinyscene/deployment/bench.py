"""How long files take for a clip, and how much memory: each in a process of its own, in turns."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.export import export
from tinyscene.deployment.formats import Format, Values
from tinyscene.deployment.forms import Place
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.progress import track

ROUNDS, RUNS, WARM_UP = 10, 5, 3
FORMS: tuple[Place, ...] = ("outside", "inside")
_MS = 1000


@dataclass(frozen=True)
class Opened:
    """What runs one clip, again and again.

    Attributes:
        clip: from the waveform to the probabilities.
        network: from the features to the logits; None where that can't be run alone.
        facts: of what was opened, plain values.
    """

    clip: Callable[[], object]
    network: Callable[[], object] | None
    facts: dict[str, Any] = field(default_factory=dict)


# Opens something for so many threads. It must be picklable: it is called in a process of its own.
Opener = Callable[[int], Opened]


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
    found = []
    for count in threads:
        with ExitStack() as stack:
            each = [_Measuring(name, count, opener, stack) for name, opener in openers.items()]
            for _ in track(range(rounds), f"bench, {count} threads", rounds, quiet=quiet):
                for one in order.sample(each, len(each)):
                    one.take_turn(runs)
            found += [one.finish() for one in each]
    return found


class _Measuring:
    """One thing in its process, which holds it open."""

    def __init__(self, name: str, threads: int, opener: Opener, stack: ExitStack) -> None:
        self.name, self.threads, self.fault = name, threads, ""
        self.seconds: dict[str, list[float]] = {}
        # A fork would share this process's memory, and its threads' locks.
        self.process = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        self.cold: dict[str, Any] = self._ask(_open, opener, threads)

    def take_turn(self, runs: int) -> None:
        for name, seconds in self._ask(_turn, runs).items():
            self.seconds.setdefault(name, []).extend(seconds)

    def finish(self) -> Measured:
        held = self._ask(_peak)
        if self.fault:
            return Measured(self.name, self.threads, self.cold.get("facts", {}), fault=self.fault)
        timings = {name: Timing.of(seconds) for name, seconds in self.seconds.items()}
        load_ms, cold_ms = (self.cold[name] * _MS for name in ("load_s", "cold_s"))
        before, peak = self.cold["before"], held["peak"]
        return Measured(
            self.name,
            self.threads,
            self.cold["facts"],
            load_ms,
            cold_ms,
            timings["clip"],
            timings.get("network"),
            None if before is None or peak is None else peak - before,
        )

    def _ask(self, what: Callable[..., dict[str, Any]], *given: object) -> dict[str, Any]:
        if self.fault:
            return {}
        try:
            return self.process.submit(what, *given).result()
        except InputError as error:
            self.fault = str(error)
        except BrokenProcessPool:
            self.fault = "its process ended; accepted: a file that its runtime survives"
        except Exception as error:  # of a runtime, any
            self.fault = f"{type(error).__name__}: {error}"
        return {}


# In the process of its own

_open_here: list[Opened] = []


def _open(opener: Opener, threads: int) -> dict[str, Any]:
    """Open, run once, and warm up; what the cold start took, in seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    before = _restart_peak()
    started = time.perf_counter()
    opened = opener(threads)
    ready = time.perf_counter()
    opened.clip()
    first = time.perf_counter()
    _open_here.append(opened)
    _turn(WARM_UP)
    return {"load_s": ready - started, "cold_s": first - started, "before": before, "facts": opened.facts}


def _end_with_parent() -> None:
    """A process of a pool waits for work for ever where the one that measures was killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _turn(runs: int) -> dict[str, list[float]]:
    """Seconds of each run."""
    (opened,) = _open_here
    ways = {"clip": opened.clip} | ({"network": opened.network} if opened.network else {})
    # The first run after the others had their turns finds the caches full of theirs.
    return {name: [_seconds(way) for _ in range(runs + 1)][1:] for name, way in ways.items()}


def _seconds(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def _restart_peak() -> int | None:
    """Let the process's peak of resident memory begin here; what it holds now, in bytes. None where there is no /proc.

    getrusage would tell the peak of the process that started this one.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _peak() -> dict[str, int | None]:
    return {"peak": _status("VmHWM") if Path("/proc/self/status").exists() else None}


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


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
    """Of the weights, as the certificate says it; empty without one."""
    try:
        return artifact.certificate.precision
    except InputError:
        return ""
