"""Build a submission: output files, meta files, the zip, and for 2025 the inference package."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinyscene.accounting import count_classifier, get_convention
from tinyscene.data import Clips, load_tau_evaluation
from tinyscene.errors import InputError
from tinyscene.evaluation import Scores, probabilities_of
from tinyscene.features import Gammatone, LogMel, Raw
from tinyscene.files import write_whole_folder
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.quantized import Int8Network
from tinyscene.submission.edition import COMPLEXITY, DEVELOPMENT, DEVICES, FROM_MODEL, META, MOST_SYSTEMS, TASK, Edition
from tinyscene.submission.inference import load_by_device
from tinyscene.submission.meta import read_authors, write_yaml
from tinyscene.submission.output import write_output
from tinyscene.submission.package import FOLDER, write_package
from tinyscene.training.run import Run

_FEATURES = {LogMel: "log-mel energies", Gammatone: "gammatone spectrogram", Raw: "raw waveform"}


# By split ("" where there are none), and there by device ("" for all others).
_Models = Mapping[str, Mapping[str, SceneClassifier]]


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
    if report is not None and not report.is_file():
        raise InputError(f"{report}: no such file; accepted: the technical report, a PDF")
    if out.exists():
        raise InputError(f"{out}: already exists; try a new folder")
    name = f"{given['team']}_{TASK}"
    systems, metas = dict[str, _Models](), dict[str, dict[str, Any]]()
    for index, (run, own) in enumerate(zip(runs, given["systems"], strict=True), 1):
        label = f"{name}_{index}"
        folders = {split: _model_folder(run / split) for split in edition.outputs.values()}
        models: _Models = {split: load_by_device(folder) for split, folder in folders.items()}
        systems[label] = models
        names = {field: own.pop(field) for field in ("name", "abbreviation")}
        own["description"] = _from_model(models) | own["description"]
        metas[label] = {
            "submission": {"label": label, **names, "authors": given["authors"]},
            "system": own | {"complexity": _complexity(edition, folders, models)},
            "results": {"development_dataset": _results(edition, folders, models)},
        }
    with write_whole_folder(out) as partial:
        for label, of_splits in systems.items():
            place = partial / TASK / label
            place.mkdir(parents=True)
            write_yaml(place / f"{label}.{META}", metas[label])
            for ending, split in edition.outputs.items():
                probabilities = _by_device(of_splits[split], clips)
                write_output(place / f"{label}.{ending}", edition, [clip.path for clip in clips], probabilities)
        if report is not None:
            shutil.copyfile(report, partial / TASK / f"{name}.technical_report.pdf")
        if edition.package:
            write_package(partial / FOLDER, name, {label: models[""] for label, models in systems.items()})
        shutil.make_archive(str(partial / name), "zip", partial, TASK)
    return out


def _model_folder(run: Path) -> Path:
    """A model's folder, or where the only model of a run lies."""
    below = [run] if (run / "model.json").is_file() else [path.parent for path in run.glob("*/seed-*/model.json")]
    if len(below) != 1:
        raise InputError(f"{run}: {len(below)} models in it; accepted: a model's folder, or a run with one model")
    return below[0]


def _by_device(by_device: Mapping[str, SceneClassifier], clips: Clips) -> npt.NDArray[np.float64]:
    """Probabilities of every clip by the model for its device, (clips, classes)."""
    probabilities = np.empty((len(clips), len(clips.classes)))
    for device, classifier in by_device.items():
        mine = [row for row, clip in enumerate(clips) if (clip.device if clip.device in by_device else "") == device]
        if mine:
            part = replace(clips, rows=tuple(clips.rows[row] for row in mine))
            probabilities[mine] = probabilities_of(classifier, part, Run())[1]
    return probabilities


def _from_model(models: _Models) -> dict[str, str]:
    """The fields of the description that are known from the model."""
    first = next(iter(models.values()))[""]
    kind = type(first.frontend)
    values = (f"{first.sample_rate / 1000:g}kHz", _FEATURES.get(kind, kind.__name__), "pytorch")
    return dict(zip(FROM_MODEL, values, strict=True))


def _complexity(edition: Edition, folders: Mapping[str, Path], models: _Models) -> dict[str, int]:
    """Of several models (splits, devices) the largest figure, by the edition's convention.

    Raises InputError for a model that does not fit the edition.
    """
    size, macs = edition.rules.limits
    figures = []
    for split, device in [(split, device) for split, by_device in models.items() for device in by_device]:
        classifier, which = models[split][device], f"{folders[split]}{device and f', device {device}'}"
        if classifier.classes != edition.rules.classes:
            classes = ", ".join(classifier.classes)
            raise InputError(f"{which}: the classes {classes}; accepted: {', '.join(edition.rules.classes)}")
        network = classifier.network
        float_network = network.origin.network if isinstance(network, Int8Network) else network
        for part in (classifier.frontend, float_network):
            if edition.package and not type(part).__module__.startswith("tinyscene."):
                raise InputError(
                    f"{which}: {type(part).__name__} is your own, and the inference package holds tinyscene alone; "
                    f"accepted: front ends and networks of tinyscene"
                )
        ledger = count_classifier(classifier, edition.rules.clip_s)
        if not (verdict := edition.rules.judge(ledger)).passed:
            raise InputError(f"{which}: {verdict.text}")
        parameters = get_convention(size.convention)(ledger.tensors).parameters
        figures.append((size.measure(ledger), parameters, macs.measure(ledger)))
    return dict(zip(COMPLEXITY, map(max, zip(*figures, strict=True)), strict=True))


def _results(edition: Edition, folders: Mapping[str, Path], models: _Models) -> dict[str, Any]:
    """By block: percent, and means over the classes; null where a run was not scored on the challenge's data set."""
    scores = {split: _development_scores(folder) for split, folder in folders.items()}
    if edition.package:
        # What is known of devices' own models is not known of the general one.
        scores = {"device_specific" if len(models[""]) > 1 else "general": scores[""]}

    def rounded(one: Scores | None) -> dict[str, float | None]:
        return {
            "accuracy": round(100 * one.macro_accuracy, 2) if one else None,
            "logloss": round(one.macro_log_loss, 4) if one else None,
        }

    def each(one: Scores | None, column: Literal["scene", "device"], values: Sequence[str]) -> dict[str, Any]:
        parts = one.by(column) if one else {}
        return {value: rounded(parts.get(value)) for value in values}

    return {
        block: {
            "overall": rounded(scores.get(block)),
            "class_wise": each(scores.get(block), "scene", edition.rules.classes),
            "device_wise": each(scores.get(block), "device", DEVICES),
        }
        for block in edition.results
    }


def _development_scores(folder: Path) -> Scores | None:
    """Those of a run on the challenge's own data set; other data would be taken for it."""
    predictions, receipt = folder / "predictions.csv", folder.resolve().parents[1] / "receipt.json"
    if not predictions.is_file() or not receipt.is_file():
        return None
    return Scores.load(predictions) if json.loads(receipt.read_text()).get("dataset") == DEVELOPMENT else None
