"""Time and memory for a clip: models and files, each in its own process, in turns."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
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
        if self.path.is_dir():
            return self._model(SceneClassifier.load(self.path).eval())
        return self._file(Artifact.load(self.path, threads))

    def _model(self, classifier: SceneClassifier) -> Opened:
        waveform = torch.from_numpy(self._noise(classifier))
        with torch.inference_mode():
            features = classifier.features(waveform)
        facts = {
            "runtime": f"torch {torch.__version__}",
            "precision": classifier.precision,
            "front_end": "outside",
            "clip_s": waveform.shape[1] / classifier.sample_rate,
            "bytes": sum((self.path / name).stat().st_size for name in ("model.json", "weights.safetensors")),
        }
        clip = torch.inference_mode()(lambda: classifier(waveform).softmax(-1))
        return Opened(clip, torch.inference_mode()(lambda: classifier.classify(features)), facts)

    def _file(self, artifact: Artifact) -> Opened:
        waveform, run = self._noise(artifact), artifact.run
        facts = {
            "runtime": f"{artifact.format.runtime} {artifact.format.version()}",
            "precision": artifact.certificate.precision if artifact.certificate_path.is_file() else "-",
            "front_end": "inside" if artifact.inside else "outside",
            "clip_s": waveform.shape[1] / artifact.sample_rate,
            "bytes": artifact.bytes_on_disk,
        }
        if artifact.step_samples:
            stream, step = artifact.stream(), waveform[:, : artifact.step_samples]
            facts["front_end"] = f"inside, steps of {artifact.step_samples / artifact.sample_rate:.3g} s"
            return Opened(lambda: stream(step), None, facts)
        if artifact.inside:
            return Opened(lambda: artifact.probabilities(waveform), None, facts)
        features = artifact.classifier.features(torch.from_numpy(waveform)).numpy()
        return Opened(lambda: artifact.probabilities(waveform), lambda: run(features)[0], facts)

    def _noise(self, taken: SceneClassifier | Artifact) -> Values:
        """A clip, (1, samples)"""
        samples = round((self.clip_s or taken.trained_clip_s or 1.0) * taken.sample_rate)
        fixed = taken.clip_samples if isinstance(taken, Artifact) else None
        size = (1, fixed or max(samples, taken.shortest_samples))
        return 0.1 * np.random.default_rng(0).standard_normal(size, dtype=np.float32)


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
    order, faults = random.Random(0), dict[str, str]()
    with ExitStack() as stack:
        # A fork would share this process's memory, and its threads' locks.
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for name in openers}

        def ask(name: str, what: Callable[..., Any], *given: object) -> Any:
            if name in faults:
                return None
            try:
                return pools[name].submit(what, *given).result()
            except InputError as error:
                faults[name] = str(error)
            except BrokenProcessPool:
                faults[name] = "its process ended, killed or by a crash of the runtime; try another runtime"
            except Exception as error:  # of a runtime, any
                faults[name] = f"{type(error).__name__}: {error}"
            return None

        for name, opener in openers.items():
            ask(name, _open, opener, threads)
        for _ in track(range(rounds), f"bench, {threads} threads", rounds, quiet=quiet):
            for name in order.sample([*openers], len(openers)):
                ask(name, _turn, RUNS)
        found = {name: ask(name, _figures) for name in openers}
    return [Measured(name, threads, **(found[name] or {"fault": faults[name]})) for name in openers]


# In the process of its own: what it opened, and what it found.
_held: dict[str, Any] = {}


def _open(opener: Opener, threads: int) -> None:
    """Open, run once, and warm up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(OSError):  # the peak begins here; getrusage would report the parent's
        Path("/proc/self/clear_refs").write_text("5")
    before, started = _resident("VmRSS"), time.perf_counter()
    opened = opener(threads)
    opened.clip()
    cold_ms = _MS * (time.perf_counter() - started)
    _held.update(opened=opened, before=before, cold_ms=cold_ms, clip=[], network=[])
    _turn(WARM_UP)
    _held.update(clip=[], network=[])


def _end_with_parent() -> None:
    """Exit with the measuring process: otherwise, a pool's process would wait forever after it is killed."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _turn(runs: int) -> None:
    """Note the ms of each run."""
    opened = _held["opened"]
    for name, way in (("clip", opened.clip), ("network", opened.network)):
        for _ in range(runs + 1 if way else 0):
            started = time.perf_counter()
            way()
            _held[name].append(_MS * (time.perf_counter() - started))
        # The first run finds the caches full of the others' data.
        del _held[name][-runs - 1 : -runs]


def _figures() -> dict[str, Any]:
    """Of `Measured`."""
    before, peak = _held["before"], _resident("VmHWM")
    ways = {name: np.percentile(_held[name], (50, 10, 90)) for name in ("clip", "network") if _held[name]}
    return {
        "facts": _held["opened"].facts,
        "cold_ms": _held["cold_ms"],
        **{name: Timing(*map(float, of_runs)) for name, of_runs in ways.items()},
        "peak_bytes": None if before is None or peak is None else peak - before,
    }


def _resident(name: str) -> int | None:
    """A size in /proc/self/status, in bytes; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
