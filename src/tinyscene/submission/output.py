"""The output file of a system: a row a clip, its scene and the probability of every class, separated by tabs."""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyscene.files import write_whole
from tinyscene.submission.edition import Edition
from tinyscene.submission.problems import Problem, quoted

# Files of others may round their probabilities to two decimals.
_SUM_SLACK = 0.01
_NAMED = 5


def write_output(
    path: Path, edition: Edition, filenames: Sequence[str], probabilities: npt.NDArray[np.float64]
) -> None:
    """Write one row a clip.

    Args:
        filenames: as the evaluation list has them.
        probabilities: (clips, classes), in the order of the edition's classes.
    """
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(edition.columns)
        for filename, row in zip(filenames, probabilities, strict=True):
            writer.writerow([filename, edition.classes[int(row.argmax())], *(f"{value:.9g}" for value in row)])


@dataclass(frozen=True)
class Output:
    """What an output file says of each clip: probabilities (classes,) by file name, without folders."""

    probabilities: dict[str, npt.NDArray[np.float64]]


def check_output(path: Path, name: str, edition: Edition, listed: Sequence[str] | None) -> tuple[Output, list[Problem]]:
    """Compare an output file with the edition's columns, and with the evaluation list where it is known.

    Args:
        path: of the file.
        name: what problems call it.
        listed: file names of the evaluation list.
    """
    problems: list[Problem] = []
    said = Output({})
    accepted = "text in UTF-8 without a byte order mark, a line a row, cells separated by tabs"
    try:
        # As the organisers' validators read it, which end at a byte order mark or a line of carriage returns.
        text = path.read_bytes().decode("utf-8")
        rows = list(csv.reader(StringIO(text), delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return said, [Problem(name, "", f"can't be read ({error})", accepted)]
    if text.startswith("\ufeff"):
        problems.append(Problem(name, "row 1", "begins with a byte order mark", accepted))
        rows[0][0] = rows[0][0].removeprefix("\ufeff")
    header = rows[0] if rows else []
    if wrong := _header_problem(name, header, edition):
        return said, [*problems, wrong]
    seen: dict[str, int] = {}
    for number, cells in enumerate(rows[1:], 2):
        if len(cells) != len(header):
            problems.append(Problem(name, f"row {number}", f"{len(cells)} cells", f"{len(header)}, as in the header"))
            continue
        row = dict(zip(header, cells, strict=True))
        clip = _base(row["filename"])
        if clip in seen:
            given = f"{row['filename']} stands already at row {seen[clip]}"
            problems.append(Problem(name, f"row {number}, filename", given, "every clip once"))
        seen.setdefault(clip, number)
        values, wrong_values = _probabilities(name, number, row, edition)
        problems += wrong_values
        if values is not None:
            said.probabilities[clip] = values
    problems += _against_list(name, seen, edition, listed)
    return said, problems


def _header_problem(name: str, header: list[str], edition: Edition) -> Problem | None:
    accepted = f"the columns {', '.join(edition.columns)}, separated by tabs"
    missing = [column for column in edition.columns if column not in header]
    if missing and len(header) == 1:
        return Problem(name, "row 1", "one cell, with no tab in it" if header[0] else "empty", accepted)
    further = [column for column in header if column not in edition.columns]
    if missing:
        instead = f", but {', '.join(map(quoted, further[:_NAMED]))}" if further else ""
        return Problem(name, "row 1", f"no column {', '.join(missing)}{instead}" if header else "empty", accepted)
    if further or len(header) != len(edition.columns):
        given = f"the column {', '.join(map(quoted, further)) or 'of one name twice'} as well"
        return Problem(name, "row 1", given, accepted)
    return None


def _probabilities(
    name: str, number: int, row: dict[str, str], edition: Edition
) -> tuple[npt.NDArray[np.float64] | None, list[Problem]]:
    problems = []
    label = row["scene_label"]
    if label not in edition.classes:
        accepted = f"one of {', '.join(edition.classes)}"
        problems.append(Problem(name, f"row {number}, scene_label", quoted(label), accepted))
    values = []
    for scene in edition.classes:
        value = _number(row[scene])
        if not 0 <= value <= 1:
            problems.append(Problem(name, f"row {number}, {scene}", quoted(row[scene]), "a probability from 0 to 1"))
        values.append(value)
    if not all(0 <= value <= 1 for value in values):
        return None, problems
    if abs(sum(values) - 1) > _SUM_SLACK:
        given = f"the probabilities add up to {sum(values):.4g}"
        problems.append(Problem(name, f"row {number}", given, "probabilities that add up to 1"))
    elif label in edition.classes and values[edition.classes.index(label)] < max(values):
        best = edition.classes[int(np.argmax(values))]
        given = f"{label!r}, while {best} is the most probable"
        problems.append(Problem(name, f"row {number}, scene_label", given, "the class of the largest probability"))
    return np.array(values), problems


def _number(cell: str) -> float:
    """NaN for what is no number outside Python either, which takes 1_0 for 10."""
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def _against_list(name: str, seen: dict[str, int], edition: Edition, listed: Sequence[str] | None) -> Iterator[Problem]:
    if listed is None:
        if edition.clips is not None and len(seen) != edition.clips:
            given = f"{len(seen):,} clips"
            yield Problem(name, "", given, f"{edition.clips:,}, as the official evaluation set has")
        for clip, number in seen.items():
            if edition.clips is not None and not _official(clip, edition.clips):
                accepted = f"0.wav to {edition.clips - 1}.wav, as the official files are named"
                yield Problem(name, f"row {number}, filename", quoted(clip), accepted)
        return
    wanted = {_base(filename): filename for filename in listed}
    for clip, number in seen.items():
        if clip not in wanted:
            yield Problem(name, f"row {number}, filename", quoted(clip), "a file of the evaluation list")
    missing = [filename for clip, filename in wanted.items() if clip not in seen]
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        given = f"{len(missing):,} of {len(wanted):,} clips are missing: {named}"
        yield Problem(name, "", given, "a row for every file of the evaluation list")


def _official(clip: str, clips: int) -> bool:
    found = re.fullmatch(r"(0|[1-9][0-9]{0,8})\.wav", clip)
    return found is not None and int(found[1]) < clips


def _base(filename: str) -> str:
    # As the organisers' validators compare: "audio/0.wav" and "0.wav" are one.
    return filename.replace("\\", "/").rsplit("/", 1)[-1]
