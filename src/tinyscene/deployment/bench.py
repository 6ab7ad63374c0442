"""Time and memory for a clip: models and files, each in its own process, in turns."""

import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.formats import Values
from tinyscene.deployment.forms import Place
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.progress import track

ROUNDS, RUNS, WARM_UP = 10, 5, 3
FORMS: tuple[Place, ...] = ("outside", "inside")
_MS = 1000


@dataclass(frozen=True)
class Opened:
    """A model or file that is open and ready to run a clip.

    Attributes:
        clip: from the waveform to the probabilities; of a stream, one step.
        network: from the features to the logits; None where that can't be run alone.
        facts: runtime, precision, front_end, clip_s and bytes.
    """

    clip: Callable[[], object]
    network: Callable[[], object] | None
    facts: dict[str, Any]


# Opens something for so many threads. It must be picklable: it is called in a process of its own.
Opener = Callable[[int], Opened]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of single runs."""

    median: float
    p10: float
    p90: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.p10:.3f}-{self.p90:.3f})"


@dataclass(frozen=True)
class Measured:
    """A model or file at one number of threads.

    Attributes:
        facts: of `Opened`.
        cold_ms: opening it, with what its runtime imports, and the first clip.
        clip, network: of `Opened`, warm.
        peak_bytes: of resident memory, above what the process held before opening; None where there is no /proc.
        fault: why it was not measured; empty where it was.
    """

    name: str
    threads: int
    facts: dict[str, Any] = field(default_factory=dict)
    cold_ms: float | None = None
    clip: Timing | None = None
    network: Timing | None = None
    peak_bytes: int | None = None
    fault: str = ""


@dataclass(frozen=True)
class Open:
    """Opens the folder of a model in torch, or an exported file on its runtime. Raises InputError if it can't.

    Clips have `clip_s` seconds; where that is None, as many as those of training, or 1 where that is not known. A file
    for clips of one length keeps it.
    """

    path: Path
    clip_s: float | None = None

    def __call__(self, threads: int) -> Opened:
        model = SceneClassifier.load(self.path).eval() if self.path.is_dir() else Artifact.load(self.path, threads)
        fixed = model.clip_samples if isinstance(model, Artifact) else None
        samples = round((self.clip_s or model.trained_clip_s or 1.0) * model.sample_rate)
        size = (1, fixed or max(samples, model.shortest_samples))
        noise = 0.1 * np.random.default_rng(0).standard_normal(size, dtype=np.float32)
        opened = _of_file(model, noise) if isinstance(model, Artifact) else _of_model(model, torch.from_numpy(noise))
        files = [self.path / "model.json", self.path / "weights.safetensors"] if self.path.is_dir() else [self.path]
        opened.facts.update(clip_s=size[1] / model.sample_rate, bytes=sum(file.stat().st_size for file in files))
        return opened


def _of_model(model: SceneClassifier, noise: torch.Tensor) -> Opened:
    features, quick = model.features(noise), torch.inference_mode()
    facts = {"runtime": f"torch {torch.__version__}", "precision": model.precision, "front_end": "outside"}
    return Opened(quick(lambda: model(noise).softmax(-1)), quick(lambda: model.classify(features)), facts)


def _of_file(artifact: Artifact, noise: Values) -> Opened:
    facts = {
        "runtime": artifact.format.version(),
        "precision": artifact.certificate.precision if artifact.certificate_path.is_file() else "-",
        "front_end": "inside" if artifact.inside else "outside",
    }
    if artifact.step_samples:
        facts["front_end"] = f"inside, steps of {artifact.step_samples / artifact.sample_rate:.3g} s"
        return Opened(partial(artifact.stream(), noise[:, : artifact.step_samples]), None, facts)
    clip = partial(artifact.probabilities, noise)
    if artifact.inside:
        return Opened(clip, None, facts)
    features = artifact.classifier.features(torch.from_numpy(noise)).numpy()
    return Opened(clip, lambda: artifact.run(features)[0], facts)


def measure(
    openers: Mapping[str, Opener], threads: int = 1, rounds: int = ROUNDS, *, quiet: bool = False
) -> list[Measured]:
    """Measure each in a process of its own; in every round they take turns in a random order, `RUNS` runs a turn.

    What drifts on the machine then affects all alike.

    Args:
        openers: by name, picklable.

    Returns:
        One for each name; what went wrong with one is its `fault`.
    """
    # A fork would share this process's memory, and its threads' locks.
    order, context = random.Random(0), get_context("spawn")
    pipes, found = dict[str, Any](), dict[str, dict[str, Any]]()
    for name, opener in openers.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, opener, threads), daemon=True).start()
        theirs.close()
        found[name] = _answer(pipes[name])
    for runs in (*track([RUNS] * rounds, f"bench, {threads} threads", rounds, quiet=quiet), 0):
        for name in order.sample([*openers], len(openers)):
            if "fault" not in found[name]:
                found[name] = _answer(pipes[name], runs)
    return [Measured(name, threads, **found[name]) for name in openers]


def _answer(pipe: Any, *asked: int) -> dict[str, Any]:
    """What the process at the other end sends, after what it is asked."""
    try:
        for runs in asked:
            pipe.send(runs)
        answer: dict[str, Any] = pipe.recv()
        return answer
    except (EOFError, OSError):
        return {"fault": "its process ended, killed or by a crash of the runtime; try another runtime"}


def _serve(pipe: Any, opener: Opener, threads: int) -> None:
    """In a process of its own: open, take a turn of as many runs as asked, and when asked for 0, send the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pipe's end ends this process
    torch.set_num_threads(threads)
    with suppress(OSError):  # the peak begins here; getrusage would report the parent's
        Path("/proc/self/clear_refs").write_text("5")
    try:
        before, started = _resident("VmRSS"), time.perf_counter()
        opened = opener(threads)
        opened.clip()
        cold_ms = _MS * (time.perf_counter() - started)
        ways = {name: way for name, way in (("clip", opened.clip), ("network", opened.network)) if way}
        for way in ways.values():
            _turn(way, WARM_UP)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        pipe.send({})
        while runs := pipe.recv():
            for name, way in ways.items():
                taken[name] += _turn(way, runs)
            pipe.send({})
        peak = _resident("VmHWM")
        timings = {name: Timing(*map(float, np.percentile(taken[name], (50, 10, 90)))) for name in ways}
        peak_bytes = None if before is None or peak is None else peak - before
        pipe.send({"facts": opened.facts, "cold_ms": cold_ms, **timings, "peak_bytes": peak_bytes})
    except (EOFError, BrokenPipeError):  # who measures is gone
        pass
    except Exception as error:  # of a runtime, any
        pipe.send({"fault": str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"})


def _turn(way: Callable[[], object], runs: int) -> list[float]:
    """The ms of each run, after one that finds the caches full of the others' data."""
    marks = [time.perf_counter()]
    for _ in range(runs + 1):
        way()
        marks.append(time.perf_counter())
    taken: list[float] = (_MS * np.diff(marks)[1:]).tolist()
    return taken


def _resident(name: str) -> int | None:
    """A size in /proc/self/status, in bytes; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
