"""Check a submission, ours or anybody's: every problem, each with its place and with what would be accepted."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyscene.data import Clips
from tinyscene.data.tables import read_table
from tinyscene.errors import InputError
from tinyscene.submission.build import evaluation_clips
from tinyscene.submission.complexity import figures, ledgers_of, misstated, over_limits, stated_over_limits
from tinyscene.submission.edition import META, MOST_SYSTEMS, Edition
from tinyscene.submission.meta import check_meta
from tinyscene.submission.output import Output, check_output
from tinyscene.submission.package import FOLDER
from tinyscene.submission.problems import Problem, Report
from tinyscene.submission.run_package import run_package
from tinyscene.submission.runs import System, load_systems
from tinyscene.submission.team import YAML, read_yaml
from tinyscene.submission.unpack import opened


@dataclass(frozen=True)
class _Found:
    """A file of the package: where it is, and its path from the package's root."""

    path: Path
    name: str

    @property
    def label(self) -> str:
        return self.path.name.split(".")[0]

    @property
    def ending(self) -> str:
        return self.path.name.partition(".")[2]


def check(
    package: Path,
    edition: Edition,
    *,
    evaluation: Path | None = None,
    audio: Path | None = None,
    models: Sequence[Path] = (),
    inference: Path | None = None,
    python: str | None = None,
    run: bool = True,
) -> Report:
    """Look over a zip, or a folder of the same content.

    Args:
        package: the zip, the folder that `build` wrote, or one with the systems' folders in it.
        evaluation: the evaluation list, to compare rows with; without it, their number alone is known.
        audio: the evaluation set's folder; a package of 2025 then predicts some of its clips.
        models: the runs that were handed in, in the systems' order, to count anew.
        inference: the inference package of 2025, which holds setup.py; `inference/` in the folder or beside it where
            None.
        python: the interpreter in which that package is run, of an environment that holds its requirements.
        run: whether it is run at all: it is somebody's code.

    Raises:
        InputError: the package, the list or a model can't be read at all.
    """
    clips = evaluation_clips(audio, evaluation, edition) if audio is not None else None
    listed = _listed(evaluation, clips)
    systems = load_systems(list(models), edition) if models else []
    with opened(package) as (root, zipped):
        files = [_Found(path, _named(path, root)) for path in _files(root, zipped)]
        labels = sorted({one.label for one in files if one.ending == META or one.ending in edition.outputs})
        if systems and len(systems) != len(labels):
            raise InputError(f"{len(systems)} models for {len(labels)} systems; accepted: one for each, in order")
        problems = [*_check_layout(files, labels, edition, zipped), *_check_labels(labels, package, edition)]
        stated: dict[str, dict[str, float]] = {}
        outputs: dict[str, Output] = {}
        for one in sorted(files, key=lambda one: (one.label, one.name)):
            if one.ending in edition.outputs:
                outputs[one.label], found = check_output(one.path, one.name, edition, listed)
                problems += found
            elif one.ending == META:
                stated[one.label], found = _check_meta(one, edition)
                problems += found
        for label, system in zip(labels, systems, strict=False):
            problems += _check_model(label, system, stated.get(label, {}), edition)
        beside = (folder for folder in (root / FOLDER, package.resolve().parent / FOLDER) if folder.is_dir())
        packaged = (inference or next(beside, None)) if edition.package and run else None
        if packaged is not None:
            problems += run_package(packaged, labels, edition, stated, outputs, clips, python)
        notes = _notes(root, edition, listed, counted=bool(models), ran=packaged is not None, python=python)
    return Report(tuple(labels), tuple(problems), notes)


def _check_meta(file: _Found, edition: Edition) -> tuple[dict[str, float], list[Problem]]:
    meta, fault = read_yaml(file.path)
    if fault:
        return {}, [Problem(file.name, f"row {fault.row}" if fault.row else "", fault.said, YAML)]
    stated, problems = check_meta(meta, file.name, file.label, edition)
    return stated, problems + stated_over_limits(edition, stated, file.name)


def _check_layout(files: list[_Found], labels: list[str], edition: Edition, zipped: bool) -> Iterator[Problem]:
    accepted_files = ", ".join(f"LABEL.{ending}" for ending in (*edition.outputs, META))
    for one in files:
        if one.ending not in (*edition.outputs, META):
            yield Problem(one.name, "", "unexpected", f"{accepted_files}, and the report as .pdf")
            continue
        wanted = Path(edition.folder, one.label, one.path.name)
        parts = Path(one.name).parts
        # Names of outer folders are not checked by the organisers; the task's own, and how deep a system lies, are.
        deep = len(parts) == len(wanted.parts) and parts[-3].startswith("task1")
        if one.path.parent.name != one.label or (zipped and not deep):
            yield Problem(one.name, "", "lies elsewhere", f"{wanted}")
    present: dict[tuple[str, str], str] = {}
    for one in files:
        if one.ending in (*edition.outputs, META):
            first = present.setdefault((one.label, one.ending), one.name)
            if first != one.name:
                yield Problem(one.name, "", f"stands already as {first}", "every system once")
    for label in labels:
        for ending in (*edition.outputs, META):
            if (label, ending) not in present:
                yield Problem(
                    f"{label}.{ending}", "", "missing", f"{', '.join(edition.outputs)} and {META} of every system"
                )


def _check_labels(labels: list[str], package: Path, edition: Edition) -> Iterator[Problem]:
    if not labels:
        accepted = f"{edition.folder}/LABEL/LABEL.{META} and {', '.join(edition.outputs)}"
        yield Problem(str(package), "", "holds no system", accepted)
    if len(labels) > MOST_SYSTEMS:
        yield Problem(str(package), "", f"{len(labels)} systems", f"{MOST_SYSTEMS} at most")
    for label in labels:
        if not re.fullmatch(rf"[^_]+_[^_]+_{edition.task}_[1-{MOST_SYSTEMS}]", label):
            accepted = f"Lastname_Institute_{edition.task}_N, with N from 1 to {MOST_SYSTEMS}"
            yield Problem(label, "label", repr(label), accepted)


def _check_model(label: str, system: System, stated: dict[str, float], edition: Edition) -> list[Problem]:
    ledgers = ledgers_of(edition, system.classifiers.values())
    problems = misstated(edition, stated, figures(edition, ledgers), f"{label}.{META}", f"{system.run}")
    for name, ledger in zip(system.classifiers, ledgers, strict=True):
        problems += over_limits(edition, f"{name} in {system.run}", ledger, label)
    return problems


def _listed(evaluation: Path | None, clips: Clips | None) -> list[str] | None:
    if evaluation is not None:
        return [row.cells["filename"] for row in read_table(evaluation, ["filename"])]
    return [clip.path for clip in clips] if clips is not None else None


def _named(path: Path, root: Path) -> str:
    """From the package's root, and in letters that can be printed whatever the disk holds."""
    return os.fsencode(path.relative_to(root)).decode(errors="replace")


def _files(root: Path, zipped: bool) -> list[Path]:
    """All but the report, the zip that `build` puts beside the systems, and the inference package."""
    others = (".pdf",) if zipped else (".pdf", ".zip")
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix.lower() not in others)
    return [path for path in found if path.relative_to(root).parts[0] != FOLDER and not path.name.startswith(".")]


def _notes(
    root: Path, edition: Edition, listed: list[str] | None, *, counted: bool, ran: bool, python: str | None
) -> tuple[str, ...]:
    """What could not be looked at."""
    notes = []
    if listed is None:
        known = f"compared with the official set's {edition.clips:,}" if edition.clips else "not compared with any"
        notes.append(f"file names were not compared with the evaluation list (--evaluation); their number was {known}")
    if edition.package and not ran:
        notes.append(f"the inference package was not run; it is looked for in {FOLDER}/, or where --inference says")
    if ran and python is None:
        notes.append("the inference package was run in this environment, whatever its own requirements say (--python)")
    if not counted and not ran:
        notes.append("complexity was compared with the limits as it is stated; --model counts it anew")
    if not any(path.suffix.lower() == ".pdf" for path in root.rglob("*")):
        notes.append("no technical report (.pdf) is in the package; the challenge wants one in the zip")
    return tuple(notes)
