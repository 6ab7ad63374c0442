"""Build a submission: outputs, meta files, the zip, and for 2025 the inference package."""

import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyscene.data import Clips, load_tau_evaluation
from tinyscene.data.tau import PLACES
from tinyscene.errors import InputError
from tinyscene.evaluation import Scores, probabilities_of
from tinyscene.files import write_whole, write_whole_folder
from tinyscene.models.classifier import SceneClassifier
from tinyscene.submission.complexity import figures, ledgers_of
from tinyscene.submission.edition import META, Edition
from tinyscene.submission.editions import EDITIONS
from tinyscene.submission.meta import meta_of
from tinyscene.submission.output import write_output
from tinyscene.submission.package import FOLDER, write_package
from tinyscene.submission.runs import System, load_systems
from tinyscene.submission.team import Team, as_yaml, read_team
from tinyscene.training.run import Run

_LISTS = ("fold1_test.csv", "test.csv", "evaluate.csv")
_REPORT = "technical_report.pdf"


def build(
    runs: list[Path],
    edition: Edition,
    *,
    audio: Path,
    authors: Path,
    out: Path,
    evaluation: Path | None = None,
    report: Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Classify the evaluation set with every run, and write all that is handed in into `out`.

    Nothing is judged here: what `check` says of the folder is what there is to mend.

    Args:
        runs: one to four, a system each (`load_systems`).
        audio: the evaluation set's folder, which file names start from.
        authors: the authors' file; an example is written where there is none.
        out: a folder that is not there yet; the zip lies in it beside what it holds.
        evaluation: the list of files; evaluation_setup/fold1_test.csv of `audio` where None.
        report: the technical report, a PDF.
        overwrite: replace `out` where it is there and holds a submission, nothing else.

    Raises:
        InputError: a run, the list, a recording, the authors' file or `out` can't be used; nothing is left then.
    """
    systems = load_systems(runs, edition)
    team = read_team(authors, edition, len(systems))
    clips = evaluation_clips(audio, evaluation, edition)
    if report is not None and (report.suffix.lower() != ".pdf" or not report.is_file()):
        raise InputError(f"{report}: {'not a PDF' if report.is_file() else 'no such file'}; accepted: a .pdf")
    if overwrite:
        _refuse_other_things(out)
    try:
        with write_whole_folder(out, overwrite=overwrite) as partial:
            _write(partial, systems, team, clips, edition, report, quiet)
    except FileExistsError as error:
        if error.filename != str(out):
            raise
        raise InputError(f"{out}: is there already; accepted: another folder, or --overwrite") from error
    return out


def _refuse_other_things(out: Path) -> None:
    """What is replaced is deleted: only what `build` writes may be there."""
    ours = {Path(edition.folder).parts[0] for edition in EDITIONS.values()} | {FOLDER}
    held = sorted(out.iterdir()) if out.is_dir() else [out] if out.exists() else []
    other = [path.name for path in held if path.name not in ours and not re.fullmatch(r".+_task1[ab]?\.zip", path.name)]
    if other:
        raise InputError(
            f"{out}: {', '.join(other[:5])} would be deleted; accepted with --overwrite: a folder with a submission"
        )


def evaluation_clips(audio: Path, evaluation: Path | None, edition: Edition) -> Clips:
    """The clips of an evaluation set. Raises InputError where list or recordings are missing."""
    if evaluation is None:
        found = (audio / place / name for place in PLACES for name in _LISTS)
        evaluation = next((path for path in found if path.is_file()), None)
    if evaluation is None:
        raise InputError(
            f"{audio}: no list of the evaluation set; accepted: {PLACES[0]}/{_LISTS[0]} in it, or --evaluation LIST"
        )
    return load_tau_evaluation(audio, evaluation.resolve(), classes=edition.classes)


def _write(
    out: Path, systems: list[System], team: Team, clips: Clips, edition: Edition, report: Path | None, quiet: bool
) -> None:
    packaged: dict[str, Mapping[str, SceneClassifier]] = {}
    for index, system in enumerate(systems, 1):
        # Features are kept as long as the run: those of one system, whose splits mostly share them.
        run, label = Run(quiet=quiet), edition.label(team.name, index)
        place = out / edition.folder / label
        place.mkdir(parents=True)
        for ending, split in edition.outputs.items():
            probabilities = _by_device(system.models[split], clips, run)
            write_output(place / f"{label}.{ending}", edition, [clip.path for clip in clips], probabilities)
        meta = meta_of(
            edition,
            label,
            team.authors,
            team.systems[index - 1],
            next(iter(system.classifiers.values())),
            figures(edition, ledgers_of(edition, system.classifiers.values())),
            _results(system, edition),
        )
        with write_whole(place / f"{label}.{META}") as partial:
            partial.write_text(as_yaml(meta), encoding="utf-8")
        packaged[label] = system.models[""] if edition.package else {}
    name = f"{team.name}_{edition.task}"
    if report is not None:
        shutil.copyfile(report, out / edition.folder / f"{name}.{_REPORT}")
    if edition.package:
        write_package(out / FOLDER, name, packaged)
    _zip(out / Path(edition.folder).parts[0], out / f"{name}.zip")


def _by_device(by_device: Mapping[str, SceneClassifier], clips: Clips, run: Run) -> npt.NDArray[np.float64]:
    """Probabilities of every clip by the model for its device, (clips, classes)."""
    probabilities = np.empty((len(clips), len(clips.classes)))
    for device, classifier in by_device.items():
        mine = [(clip.device if clip.device in by_device else "") == device for clip in clips]
        rows = tuple(clip for clip, taken in zip(clips, mine, strict=True) if taken)
        if rows:
            probabilities[mine] = probabilities_of(classifier, replace(clips, rows=rows), run)[1]
    return probabilities


def _results(system: System, edition: Edition) -> dict[str, Scores | None]:
    """Scores by block of the meta file. What is known of devices' own models is not known of the general one."""
    if not edition.package:
        return dict(system.results)
    block = "device_specific" if len(system.models[""]) > 1 else "general"
    return {name: system.results[""] if name == block else None for name in edition.results}


def _zip(folder: Path, target: Path) -> None:
    """All files of `folder`, under its name."""
    with write_whole(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent))
