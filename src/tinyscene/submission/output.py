"""The output file of a system: a row a clip, its scene and the probability of every class, separated by tabs."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

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
        writer.writerow(edition.columns)
        for filename, row in zip(filenames, probabilities, strict=True):
            writer.writerow([filename, edition.rules.classes[row.argmax()], *(f"{value:.9g}" for value in row)])


def check_output(path: Path, edition: Edition, listed: Sequence[str] | None) -> tuple[Probabilities, list[str]]:
    """What an output file holds, and what is wrong with it by the edition's columns and the list, where it is known."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file, delimiter="\t")) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        return {}, [f"{path.name}: {error}; accepted: text in UTF-8, a line a row, cells separated by tabs"]
    if sorted(header) != sorted(edition.columns):
        accepted = f"{', '.join(edition.columns)}, separated by tabs, without a byte order mark"
        return {}, [f"{path.name}, row 1: the columns {', '.join(map(repr, header))}; accepted: {accepted}"]
    found: Probabilities = {}
    problems = []
    for number, cells in enumerate(rows, 2):
        row = dict(zip(header, cells, strict=False))
        if len(cells) != len(header):
            wrong = [f"{len(cells)} cells; accepted: {len(header)}, as in the header"]
        else:
            clip = _base(row["filename"])
            wrong = [f"filename: {clip!r} is a duplicate; accepted: every clip once"] if clip in found else []
            found[clip] = [_number(row[scene]) for scene in edition.rules.classes]
            wrong += _check_row(row, dict(zip(edition.rules.classes, found[clip], strict=True)))
        problems += [f"{path.name}, row {number}, {message}" for message in wrong]
    more = [f"{path.name}: {len(problems) - _NAMED:,} more in other rows"] if len(problems) > _NAMED else []
    of_list = [f"{path.name}, filename: {message}" for message in _against_list(found, edition, listed)]
    return found, [*problems[:_NAMED], *more, *of_list]


def _check_row(row: Mapping[str, str], probabilities: Mapping[str, float]) -> Iterator[str]:
    label = row["scene_label"]
    if label not in probabilities:
        yield f"scene_label: {label!r}; accepted: one of {', '.join(probabilities)}"
    wrong = [f"{scene}: {row[scene]!r}" for scene, value in probabilities.items() if not 0 <= value <= 1]
    if wrong:
        yield f"{', '.join(wrong)}; accepted: probabilities from 0 to 1"
    elif abs(sum(probabilities.values()) - 1) > _SUM_SLACK:
        yield f"probabilities: a sum of {sum(probabilities.values()):.4g}; accepted: 1"
    elif probabilities.get(label, math.inf) < max(probabilities.values()):
        best = max(probabilities, key=probabilities.__getitem__)
        yield f"scene_label: {label!r}; accepted: {best}, the most probable class of the row"


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _against_list(found: Probabilities, edition: Edition, listed: Sequence[str] | None) -> Iterator[str]:
    if listed is None:
        if edition.clips not in (None, len(found)):
            yield f"{len(found):,} clips; accepted: {edition.clips:,}, as in the official evaluation set"
        return
    wanted = {_base(filename) for filename in listed}
    for what, names in (("missing", wanted - found.keys()), ("not in the evaluation list", found.keys() - wanted)):
        if names:
            named = ", ".join(sorted(names)[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            yield f"{len(names):,} clips are {what}: {named}; accepted: the {len(wanted):,} of the evaluation list"


def _base(filename: str) -> str:
    # As the organisers' validators compare: "audio/0.wav" and "0.wav" are one.
    return PurePosixPath(filename).name
