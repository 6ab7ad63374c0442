"""`tinyscene bench`."""

import platform
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyscene.cli.options import Json, show, whole_numbers
from tinyscene.errors import InputError
from tinyscene.progress import say

if TYPE_CHECKING:
    from rich.table import Table

    from tinyscene.deployment.bench import Measured, Open, Timing

_LEGEND = (
    "ms: median of single runs, 10th to 90th percentile in brackets, on noise. Network: features to logits. Clip: "
    "waveform to probabilities; a front end outside runs in torch. x: the first row's median over this one's, at as "
    "many threads and the same length; above 1 is faster. Cold: from opening the file, its runtime imported, to the "
    "first clip, in a new process that holds torch already. RAM: peak resident memory of the process above what it "
    "held before; torch itself is not in it."
)


def bench(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Exported files, or folders or names of models, which run in torch."),
    ],
    runtimes: Annotated[
        str | None, typer.Option(help="Also export the models for these: all, or some, such as onnx,tflite.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for the exported files [default: temporary].")] = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads, such as 1 2.")] = "1",
    clip_s: Annotated[
        float | None,
        typer.Option(help="Clip length in seconds, for files that take any [default: as trained, or 1]."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Number of rounds; in each, the files take turns of 5 runs, in random order.")
    ] = 10,
    json_file: Json = None,
) -> None:
    """Measure models and exported files: ms a clip, warm and cold, memory and bytes, each in a process of its own.

    Ratios are to the first: put float32 there to see the gain of int8. With --runtimes, a saved model is measured in
    torch, and as a file of every runtime with its front end outside and inside.
    """
    from tinyscene.deployment.bench import Measured, measure
    from tinyscene.systems.receipt import machine

    counts = whole_numbers("--threads", threads, at_least=1)
    if clip_s is not None and not 0 < clip_s < inf:
        raise InputError(f"--clip-s {clip_s}; accepted: a length above 0 s")
    if keep and not runtimes:
        raise InputError(f"--keep {keep} without --runtimes; accepted: with it, since it exports the files")
    with ExitStack() as stack:
        into = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        openers, faults = _openers(files, runtimes, into, clip_s)
        found = [row for count in counts for row in measure(openers, count, rounds)]
    found += [Measured(name, counts[0], fault=why) for name, why in faults.items()]
    place = {"machine": machine(), "python": platform.python_version(), "rounds": rounds}
    plain = {**place, "rows": [asdict(row) | speed_ups(row, found) for row in found]}
    faulty = [f"{row.name} was not measured: {row.fault}" for row in found if row.fault]
    show(plain, json_file, table_of(found, f"{place['machine']}, Python {place['python']}"), _LEGEND, *faulty)
    if all(row.fault for row in found):
        raise typer.Exit(2)


def _openers(
    files: list[Path], runtimes: str | None, into: Path, clip_s: float | None
) -> "tuple[dict[str, Open], dict[str, str]]":
    """What is measured, by name; and of files that could not be exported, why. Raises InputError for a file given."""
    from tinyscene.deployment import Artifact, export
    from tinyscene.deployment.bench import FORMS, Open
    from tinyscene.models.classifier import SceneClassifier
    from tinyscene.models.pretrained import located

    openers, faults = dict[str, Open](), dict[str, str]()
    for number, model in enumerate(files):
        given = located(model)
        openers[str(model)] = Open(given, clip_s)
        if not given.is_dir():
            Artifact.load(given)
            continue
        classifier = SceneClassifier.load(given)
        stem = f"{number}-{classifier.precision}" if len(files) > 1 else classifier.precision
        for suffix, form in product(_suffixes(runtimes), FORMS):
            path = into / f"{stem}-{form}{suffix}"
            say(f"exporting {path.name}")
            try:
                export(classifier, path, front_end=form, clip_s=clip_s or classifier.trained_clip_s or 1.0)
                openers[path.name] = Open(path, clip_s)
            except InputError as error:
                faults[path.name] = str(error)
    return openers, faults


def _suffixes(runtimes: str | None) -> list[str]:
    from tinyscene.deployment import FORMATS

    asked = [f".{name.strip().removeprefix('.')}" for name in (runtimes or "").split(",") if name]
    suffixes = [*FORMATS] if runtimes == "all" else asked
    if not {*suffixes} <= FORMATS.keys():
        raise InputError(f"--runtimes {runtimes}; accepted: all, or some of {', '.join(FORMATS)}")
    return suffixes


def speed_ups(row: "Measured", found: "list[Measured]") -> dict[str, float | None]:
    """How many times faster than the first row with as many threads and clips of the same length; None without one."""
    first = next(other for other in found if other.threads == row.threads)
    alike = first.facts.get("clip_s") == row.facts.get("clip_s")

    def ratio(theirs: "Timing | None", ours: "Timing | None") -> float | None:
        return theirs.median / ours.median if alike and theirs and ours else None

    return {"clip_speed_up": ratio(first.clip, row.clip), "network_speed_up": ratio(first.network, row.network)}


def table_of(found: "list[Measured]", title: str) -> "Table":
    """One row a measurement."""
    from tinyscene.tables import table

    rows = []
    for row in found:
        faster = speed_ups(row, found)
        figures = {
            "clip, s": (row.facts.get("clip_s"), "g"),
            "threads": (row.threads, "d"),
            "network, ms": (row.network, ""),
            "x, network": (faster["network_speed_up"], ".2f"),
            "clip, ms": (row.clip, ""),
            "x, clip": (faster["clip_speed_up"], ".2f"),
            "cold, ms": (row.cold_ms, ".0f"),
            "RAM, MiB": (None if row.peak_bytes is None else row.peak_bytes / 1024**2, ".1f"),
            "file, B": (row.facts.get("bytes"), ",d"),
        }
        rows.append(
            {
                "file": row.name,
                "runtime": row.facts.get("runtime", "not measured"),
                "weights": row.facts.get("precision", "-"),
                "front end": row.facts.get("front_end", "-"),
                **{head: "-" if value is None else format(value, how) for head, (value, how) in figures.items()},
            }
        )
    return table(title, rows)
