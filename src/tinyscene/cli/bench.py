"""`tinyscene bench`."""

import platform
import tempfile
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyscene.cli.options import Json, screen, whole_numbers, write_json
from tinyscene.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from tinyscene.deployment.bench import Measured, Opener, Timing
    from tinyscene.deployment.formats import Format

_MIB = 1024**2
_LEGEND = (
    "ms: median of single runs, 10th to 90th percentile in brackets, on noise. Network: features to logits. Clip: "
    "waveform to probabilities; a front end outside runs in torch. x: the first row's median over this one's, at as "
    "many threads and the same length; above 1 is faster. Cold: from opening the file, its runtime imported, to the "
    "first clip, in a new process that holds torch already. RAM: peak resident memory of the process above what it "
    "held before; torch itself is not in it."
)


def bench(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Exported files; or, with --runtimes, folders of models.")
    ],
    runtimes: Annotated[
        str | None, typer.Option(help="Export a model for these and compare: all, or some, such as onnx,tflite.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Where the exported files stay [default: removed].")] = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads, such as 1 2.")] = "1",
    clip_s: Annotated[
        float | None,
        typer.Option(help="Length of a clip in seconds, where the file leaves it open [default: as trained, or 1]."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="In each, the files take turns in a random order.")] = 10,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs in a turn.")] = 5,
    json_file: Json = None,
) -> None:
    """Measure exported files: ms a clip, warm and cold, memory and bytes, each in a process of its own.

    Ratios are to the first file: put the float32 one there to see what int8 brings. With --runtimes, a saved model is
    measured in torch, and as a file of every runtime with its front end outside and inside.
    """
    from tinyscene.deployment import bench as measuring
    from tinyscene.systems.receipt import machine

    counts = whole_numbers("--threads", threads, at_least=1)
    if clip_s is not None and not 0 < clip_s < inf:
        raise InputError(f"--clip-s {clip_s}; accepted: a length above 0 s")
    with ExitStack() as stack:
        if runtimes is None:
            openers, faults = _files(files, keep, clip_s), dict[str, str]()
        else:
            into = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            openers, faults = measuring.export_all(files, _formats(runtimes), into, clip_s)
        found = measuring.measure(openers, counts, rounds, runs)
    found += [measuring.Measured(name, counts[0], fault=why) for name, why in faults.items()]
    place = {"machine": machine(), "python": platform.python_version(), "rounds": rounds, "runs": runs}
    if json_file:
        write_json({**place, "rows": [row.to_json() | ratios(row, found) for row in found]}, json_file)
    else:
        screen().print(table_of(found, f"{place['machine']}, Python {place['python']}"))
        screen().print(_LEGEND, highlight=False)
        for name, why in {row.name: row.fault for row in found if row.fault}.items():
            screen().print(f"{name} was not measured: {why}", highlight=False)
    if all(row.fault for row in found):
        raise typer.Exit(2)


def _files(files: list[Path], keep: Path | None, clip_s: float | None) -> "dict[str, Opener]":
    from tinyscene.deployment.bench import OpenFile
    from tinyscene.deployment.menu import format_of

    if keep:
        raise InputError(f"--keep {keep} without --runtimes; accepted: with it, for files that bench exports")
    for file in files:
        if file.is_dir():
            raise InputError(f"{file}: a folder; accepted: exported files, or a model's folder with --runtimes all")
        format_of(file)
        if not file.is_file():
            raise InputError(f"{file}: no such file; accepted: one that `tinyscene export` wrote")
    return {str(file): OpenFile(file, clip_s) for file in files}


def _formats(runtimes: str) -> "list[Format]":
    from tinyscene.deployment.menu import FORMATS

    named = {suffix.removeprefix("."): format_ for suffix, format_ in FORMATS.items()}
    if runtimes == "all":
        return list(named.values())
    asked = [name.strip().removeprefix(".") for name in runtimes.split(",")]
    if unknown := [name for name in asked if name not in named]:
        raise InputError(f"--runtimes {runtimes}: {unknown[0]!r} is none; accepted: all, or some of {', '.join(named)}")
    return [named[name] for name in dict.fromkeys(asked)]


def ratios(row: "Measured", found: "list[Measured]") -> dict[str, float | None]:
    """How many times faster than the first row with as many threads and clips of the same length; None without one."""
    first = next(other for other in found if other.threads == row.threads)
    alike = first.facts.get("clip_s") == row.facts.get("clip_s")
    pairs = {"clip": (first.clip, row.clip), "network": (first.network, row.network)}
    return {
        f"{name}_speed_up": theirs.median / ours.median if alike and theirs and ours else None
        for name, (theirs, ours) in pairs.items()
    }


def table_of(found: "list[Measured]", title: str) -> "Table":
    """One row a measurement."""
    from tinyscene.tables import table

    rows = []
    for row in found:
        facts: dict[str, Any] = {"runtime": "not measured" if row.fault else ""} | row.facts
        ratio = ratios(row, found)
        rows.append(
            {
                "file": row.name,
                "runtime": str(facts.get("runtime", "-")),
                "weights": str(facts.get("precision", "-")),
                "front end": str(facts.get("front_end", "-")),
                "clip, s": _number(facts.get("clip_s"), "g"),
                "threads": str(row.threads),
                "network, ms": _timing(row.network),
                "x, network": _number(ratio["network_speed_up"], ".2f"),
                "clip, ms": _timing(row.clip),
                "x, clip": _number(ratio["clip_speed_up"], ".2f"),
                "cold, ms": _number(row.cold_ms, ".0f"),
                "RAM, MiB": _number(None if row.peak_bytes is None else row.peak_bytes / _MIB, ".1f"),
                "file, B": _number(facts.get("bytes"), ",d"),
            }
        )
    return table(title, rows)


def _timing(timing: "Timing | None") -> str:
    return f"{timing.median:.3f} ({timing.p10:.3f}-{timing.p90:.3f})" if timing else "-"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
