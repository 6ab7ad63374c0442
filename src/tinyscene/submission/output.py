"""The output file of a system: a row a clip, its scene and the probability of every class, separated by tabs."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyscene.submission.edition import Edition

# Files of others may round their probabilities to two decimals.
_SUM_SLACK = 0.01
_NAMED = 5

Probabilities = dict[str, list[float]]
"""Of the edition's classes, by file name without folders."""


def write_output(
    path: Path, edition: Edition, filenames: Sequence[str], probabilities: npt.NDArray[np.float64]
) -> None:
    """Write one row a clip; `probabilities` are (clips, classes), in the order of the edition's classes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["filename", "scene_label", *edition.rules.classes])
        for filename, row in zip(filenames, probabilities, strict=True):
            writer.writerow([filename, edition.rules.classes[row.argmax()], *(f"{value:.9g}" for value in row)])


def check_output(path: Path, edition: Edition, listed: Sequence[str] | None) -> tuple[Probabilities, list[str]]:
    """What an output file holds, and what is wrong with it by the edition's columns and the list, where it is known."""
    columns, name = ("filename", "scene_label", *edition.rules.classes), path.name
    try:
        header, *rows = csv.reader(path.read_text("utf-8").splitlines() or [""], delimiter="\t")
    except (UnicodeDecodeError, csv.Error) as error:
        return {}, [f"{name}: {error}; accepted: cells separated by tabs, text in UTF-8"]
    if sorted(header) != sorted(columns):
        accepted = f"{', '.join(columns)}, separated by tabs, without a byte order mark"
        return {}, [f"{name}, row 1: the columns {', '.join(map(repr, header))}; accepted: {accepted}"]
    found: Probabilities = {}
    wrong = [(row, _read_row(header, cells, edition.rules.classes, found)) for row, cells in enumerate(rows, 2)]
    problems = [f"{name}, row {row}, {problem}" for row, problem in wrong if problem]
    if more := problems[_NAMED:]:
        problems[_NAMED:] = [f"{name}: {len(more):,} more in other rows"]
    if listed is None and edition.clips not in (None, len(found)):
        problems.append(f"{name}: {len(found):,} clips; accepted: {edition.clips:,}, as in the official evaluation set")
    wanted = {Path(filename).name for filename in listed} if listed is not None else found.keys()
    for what, names in (("missing", wanted - found.keys()), ("not in the evaluation list", found.keys() - wanted)):
        if names:
            named = ", ".join(sorted(names)[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            problems.append(
                f"{name}: {len(names):,} clips are {what}: {named}; accepted: the {len(wanted):,} of the list"
            )
    return found, problems


def _read_row(header: Sequence[str], cells: Sequence[str], classes: Sequence[str], found: Probabilities) -> str:
    """Add it to what was found; the first thing that is wrong with it, or nothing."""
    if len(cells) != len(header):
        return f"{len(cells)} cells; accepted: {len(header)}, as in the header"
    row = dict(zip(header, cells, strict=True))
    # As the organisers' validators compare: "audio/0.wav" and "0.wav" are one.
    clip, label = Path(row["filename"]).name, row["scene_label"]
    if clip in found:
        return f"filename: {clip!r} is a duplicate; accepted: every clip once"
    found[clip] = [math.nan] * len(classes)
    if label not in classes:
        return f"scene_label: {label!r}; accepted: one of {', '.join(classes)}"
    try:
        found[clip] = values = [float(row[scene]) for scene in classes]
    except ValueError as error:
        return f"{error}; accepted: probabilities from 0 to 1"
    if wrong := [f"{scene}: {row[scene]}" for scene, value in zip(classes, values, strict=True) if not 0 <= value <= 1]:
        return f"{', '.join(wrong)}; accepted: probabilities from 0 to 1"
    if abs(sum(values) - 1) > _SUM_SLACK:
        return f"probabilities: a sum of {sum(values):.4g}; accepted: 1"
    if values[classes.index(label)] < max(values):
        return f"scene_label: {label!r}; accepted: {classes[values.index(max(values))]}, the most probable class"
    return ""
