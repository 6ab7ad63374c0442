"""Check a submission, ours or anybody's: every problem, each with its place and with what would be accepted."""

import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.submission.edition import META, MOST_SYSTEMS, TASK, Edition
from tinyscene.submission.meta import check_meta
from tinyscene.submission.output import Probabilities, check_output
from tinyscene.submission.run_package import run_package


class Report(NamedTuple):
    """Of the systems with these labels, what is wrong, a sentence each, and what could not be looked at."""

    systems: list[str]
    problems: list[str]
    notes: list[str]


def check(
    package: Path,
    edition: Edition,
    *,
    clips: Clips | None = None,
    listed: Sequence[str] | None = None,
    inference: Path | None = None,
    python: str | None = None,
) -> Report:
    """Look over a zip, or a folder of the same content, such as `build` writes.

    Args:
        clips: the evaluation set; rows are compared with it, and a package of 2025 predicts some of it.
        listed: the file names of the evaluation list, where its audio is not there.
        inference: the folder of the inference package of 2025, which holds setup.py; it is not run where None.
        python: of an environment to run it in, which holds its requirements; this one where None.

    Raises:
        InputError: the zip can't be opened.
    """
    names = [clip.path for clip in clips] if clips is not None else listed
    with tempfile.TemporaryDirectory() as unpacked:
        place = (package if package.is_dir() else Path(unpacked)) / TASK
        if not package.is_dir():
            try:
                zipfile.ZipFile(package).extractall(unpacked)
            except (OSError, zipfile.BadZipFile) as error:
                raise InputError(f"{package}: {error}; accepted: a submission's .zip, or its folder") from error
        folders = sorted(path for path in place.glob("*") if path.is_dir())
        problems = [*_layout(package, place, edition)]
        if inference is not None and not any((inference / name).is_file() for name in ("setup.py", "pyproject.toml")):
            problems.append(f"{inference}/setup.py: missing; accepted: a package that `pip install` takes")
        for folder in folders:
            stated, found = check_meta(folder / f"{folder.name}.{META}", edition)
            problems += found
            output: Probabilities = {}
            for ending in edition.outputs:
                if (path := folder / f"{folder.name}.{ending}").is_file():
                    output, found = check_output(path, edition, names)
                    problems += found
            if inference is not None:
                problems += run_package(inference, folder.name, edition, stated, output, clips, python)
        notes = {
            "file names were not compared with the evaluation list": names is None,
            "the inference package was not run": edition.package and inference is None,
            "no technical report (.pdf) is in the package; the challenge wants one": not any(place.glob("*.pdf")),
        }
    return Report([folder.name for folder in folders], problems, [note for note, holds in notes.items() if holds])


def _layout(package: Path, place: Path, edition: Edition) -> Iterator[str]:
    """What lies elsewhere than in task1/LABEL/LABEL.ENDING, is lacking there, or has another label."""
    endings = (*edition.outputs, META)
    accepted = f"accepted: {', '.join(f'{TASK}/LABEL/LABEL.{ending}' for ending in endings)}"
    wanted = {place / path.name / f"{path.name}.{ending}" for path in place.glob("*/") for ending in endings}
    present = {path for path in place.rglob("*") if path.is_file() and path.suffix.lower() != ".pdf"}
    if not wanted:
        yield f"{package}: no system in it; {accepted}"
    for path in sorted(wanted ^ present):
        yield f"{path.relative_to(place.parent)}: {'missing' if path in wanted else 'unexpected'}; {accepted}"
    for label in sorted({path.parent.name for path in wanted}):
        if not re.fullmatch(rf"[^_]+_[^_]+_{TASK}_[1-{MOST_SYSTEMS}]", label):
            yield f"{label}, label: accepted: Lastname_Institute_{TASK}_N, with N from 1 to {MOST_SYSTEMS}"
