"""Build a submission: output files, meta files, the zip, and for 2025 the inference package."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyscene.accounting import Ledger, count_classifier, get_convention
from tinyscene.data import Clips, load_tau_evaluation
from tinyscene.errors import InputError
from tinyscene.evaluation import Scores, probabilities_of
from tinyscene.features import Gammatone, LogMel, Raw
from tinyscene.files import write_whole_folder
from tinyscene.models.classifier import SceneClassifier
from tinyscene.submission import inference
from tinyscene.submission.edition import DEVELOPMENT, DEVICES, META, MOST_SYSTEMS, TASK, Edition
from tinyscene.submission.meta import PLACEHOLDER, meta_model, problems_of, read_authors, write_yaml
from tinyscene.submission.output import write_output
from tinyscene.submission.package import FOLDER, write_package
from tinyscene.training.run import Run

_FEATURES = {LogMel: "log-mel energies", Gammatone: "gammatone spectrogram", Raw: "raw waveform"}


class _System(NamedTuple):
    label: str
    models: dict[str, dict[str, SceneClassifier]]
    """By split ("" where there are none), and there by device ("" for all others)."""
    meta: dict[str, Any]


def evaluation_clips(audio: Path, edition: Edition, evaluation: Path | None = None) -> Clips:
    """The evaluation set in the folder `audio`, by a list: evaluation_setup/fold1_test.csv in it where None.

    Raises:
        InputError: list or recordings are missing.
    """
    listed = evaluation or audio / "evaluation_setup" / "fold1_test.csv"
    return load_tau_evaluation(audio, listed.resolve(), classes=edition.rules.classes)


def build(
    runs: list[Path], edition: Edition, clips: Clips, *, authors: Path, out: Path, report: Path | None = None
) -> Path:
    """Classify the evaluation set with every run, and write all that is handed in into `out`.

    Args:
        runs: one to four systems. Each is the folder of a model, or that of `reproduce` with one variant and seed in
            it. For 2024 it is a folder with one of these for each split, called split_5 and so on; for 2025, models
            for single devices lie in `devices/ID` beside the model for all others.
        clips: the evaluation set (`evaluation_clips`).
        authors: the authors' file; an example is written where there is none.
        out: a folder that is not there yet; the zip lies in it beside what it holds.
        report: the technical report, a PDF.

    Raises:
        InputError: a run, a recording, the authors' file or `out` can't be used, or a model exceeds the edition's
            limits; nothing is left then.
    """
    if not 1 <= len(runs) <= MOST_SYSTEMS:
        raise InputError(f"{len(runs)} runs; accepted: 1 to {MOST_SYSTEMS}, a system each")
    given = read_authors(authors, edition, len(runs))
    if report is not None and (report.suffix.lower() != ".pdf" or not report.is_file()):
        raise InputError(f"{report}: {'not a PDF' if report.is_file() else 'no such file'}; accepted: a .pdf")
    if out.exists():
        raise InputError(f"{out}: is there already; accepted: a new folder")
    name = f"{given['team']}_{TASK}"
    systems = [_system(edition, f"{name}_{index}", run, given) for index, run in enumerate(runs, 1)]
    with write_whole_folder(out) as partial:
        for label, models, meta in systems:
            place = partial / TASK / label
            place.mkdir(parents=True)
            write_yaml(place / f"{label}.{META}", meta)
            for ending, split in edition.outputs.items():
                probabilities = _by_device(models[split], clips)
                write_output(place / f"{label}.{ending}", edition, [clip.path for clip in clips], probabilities)
        if report is not None:
            shutil.copyfile(report, partial / TASK / f"{name}.technical_report.pdf")
        if edition.package:
            write_package(partial / FOLDER, name, {label: models[""] for label, models, _ in systems})
        shutil.make_archive(str(partial / name), "zip", partial, TASK)
    return out


def _model_folder(run: Path) -> Path:
    if (run / "model.json").is_file():
        return run
    below = sorted(path.parent for path in run.glob("*/seed-*/model.json"))
    if len(below) != 1:
        raise InputError(f"{run}: {len(below)} models in it; accepted: a model's folder, or a run with one model")
    return below[0]


def _system(edition: Edition, label: str, run: Path, given: dict[str, Any]) -> _System:
    """Models and meta file of a run; raises InputError where it, or what the authors gave, does not fit the edition."""
    folders = {split: _model_folder(run / split) for split in edition.outputs.values()}
    models = {split: inference.load_by_device(folder) for split, folder in folders.items()}
    ledgers = []
    for split, by_device in models.items():
        if len(by_device) > 1 and not edition.package:
            raise InputError(
                f"{folders[split] / inference.DEVICES}: models for single devices; accepted for {edition.year}: one "
                f"model, since the evaluation set doesn't tell devices"
            )
        for device, classifier in by_device.items():
            which = f"{folders[split]}{device and f', device {device}'}"
            if classifier.classes != edition.rules.classes:
                classes = ", ".join(classifier.classes)
                raise InputError(f"{which}: the classes {classes}; accepted: {', '.join(edition.rules.classes)}")
            ledgers.append(count_classifier(classifier, edition.rules.clip_s))
            if not (verdict := edition.rules.judge(ledgers[-1])).passed:
                raise InputError(f"{which}: {verdict.text}")
    meta = _meta(edition, label, given, next(iter(models.values()))[""])
    meta["system"]["complexity"] = _complexity(edition, ledgers)
    meta["results"] = {"development_dataset": _results(folders, edition)}
    if problems := problems_of(meta_model(edition, label), meta, f"{label}.{META}"):
        raise InputError("\n".join(problems))
    return _System(label, models, meta)


def _by_device(by_device: Mapping[str, SceneClassifier], clips: Clips) -> npt.NDArray[np.float64]:
    """Probabilities of every clip by the model for its device, (clips, classes)."""
    probabilities = np.empty((len(clips), len(clips.classes)))
    for device, classifier in by_device.items():
        mine = [(clip.device if clip.device in by_device else "") == device for clip in clips]
        rows = tuple(clip for clip, taken in zip(clips, mine, strict=True) if taken)
        if rows:
            probabilities[mine] = probabilities_of(classifier, replace(clips, rows=rows), Run())[1]
    return probabilities


def _complexity(edition: Edition, ledgers: list[Ledger]) -> dict[str, int]:
    """Of several networks (splits, devices) the largest figure, by the edition's convention."""
    size, macs = edition.rules.limits
    convention = get_convention(size.convention)
    return {
        "total_model_size": max(size.measure(ledger) for ledger in ledgers),
        "total_parameters": max(convention(ledger.tensors).parameters for ledger in ledgers),
        "macs": max(macs.measure(ledger) for ledger in ledgers),
    }


def _meta(edition: Edition, label: str, given: dict[str, Any], classifier: SceneClassifier) -> dict[str, Any]:
    """What the authors' file and a classifier tell of the meta file."""
    own = given["systems"][int(label[-1]) - 1]
    known = {
        "input_sampling_rate": f"{classifier.sample_rate / 1000:g}kHz",
        "acoustic_features": _FEATURES.get(type(classifier.frontend), PLACEHOLDER),
        "framework": "pytorch",
    }
    addresses = ("source_code", "inference_code") if edition.package else ("source_code",)
    names = {"label": label, "name": own.get("name"), "abbreviation": own.get("abbreviation")}
    return {
        "submission": names | {"authors": given["authors"]},
        "system": {
            "description": known | own["description"],
            "complexity": {},
            "external_datasets": own.get("external_datasets"),
            **{address: own.get(address) for address in addresses},
        },
    }


def _results(folders: Mapping[str, Path], edition: Edition) -> dict[str, Any]:
    """By block: percent, and means over the classes; null where a run was not scored on the challenge's data set."""
    scores = {split: _development_scores(folder) for split, folder in folders.items()}
    if edition.package:
        # What is known of devices' own models is not known of the general one.
        own = (folders[""] / inference.DEVICES).is_dir()
        scores = {"device_specific": scores[""] if own else None, "general": None if own else scores[""]}

    def rounded(one: Scores | None) -> dict[str, float | None]:
        return {
            "accuracy": round(100 * one.macro_accuracy, 2) if one else None,
            "logloss": round(one.macro_log_loss, 4) if one else None,
        }

    found = {}
    for block, one in scores.items():
        by_class, by_device = (one.by("scene"), one.by("device")) if one else ({}, {})
        found[block] = {
            "overall": rounded(one),
            "class_wise": {scene: rounded(by_class.get(scene)) for scene in edition.rules.classes},
            "device_wise": {device: rounded(by_device.get(device)) for device in DEVICES},
        }
    return found


def _development_scores(folder: Path) -> Scores | None:
    """Those of a run on the challenge's own data set; other data would be taken for it."""
    predictions, receipt = folder / "predictions.csv", folder.resolve().parents[1] / "receipt.json"
    if not predictions.is_file() or not receipt.is_file():
        return None
    return Scores.load(predictions) if json.loads(receipt.read_text()).get("dataset") == DEVELOPMENT else None
