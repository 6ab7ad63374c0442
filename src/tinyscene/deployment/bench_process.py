"""One thing measured in a process of its own: cold, warm, and how much memory it takes."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tinyscene.errors import InputError

WARM_UP = 3


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


def serve(opener: Opener, threads: int, pipe: Connection) -> None:
    """Open, run once, warm up, then run as often as asked until asked for no more; all is said through `pipe`.

    Sends what the cold start took (seconds), then for every number of runs that it receives the seconds of each, then
    for 0 the peak memory (bytes); a sentence in place of any of these says what went wrong.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    try:
        _serve(opener, threads, pipe)
    except InputError as error:
        pipe.send(str(error))
    except (EOFError, BrokenPipeError):
        pass  # nobody is left to measure for
    except Exception as error:  # of a runtime, any
        pipe.send(f"{type(error).__name__}: {error}")


def _serve(opener: Opener, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    before = _restart_peak()
    started = time.perf_counter()
    opened = opener(threads)
    ready = time.perf_counter()
    opened.clip()
    first = time.perf_counter()
    ways = {"clip": opened.clip} | ({"network": opened.network} if opened.network else {})
    for way in ways.values():
        _seconds(way, WARM_UP)
    # Said when all is warm, so that no other's turn begins before.
    pipe.send({"load_s": ready - started, "cold_s": first - started, "facts": opened.facts})
    while runs := pipe.recv():
        # The first run after the others had their turns finds the caches full of theirs.
        pipe.send({name: _seconds(way, runs + 1)[1:] for name, way in ways.items()})
    peak = _status("VmHWM")
    pipe.send({"peak_bytes": None if peak is None or before is None else peak - before})


def _seconds(way: Callable[[], object], runs: int) -> list[float]:
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        way()
        taken.append(time.perf_counter() - started)
    return taken


def _restart_peak() -> int | None:
    """Let the process's peak of resident memory begin here; what it holds now, in bytes. None where there is no /proc.

    getrusage would tell the peak of the process that started this one.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """A figure of /proc/self/status, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
