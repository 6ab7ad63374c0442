"""The runs that are handed in: folders of saved models, one a system, or one a split or device of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyscene.errors import InputError
from tinyscene.evaluation import Scores
from tinyscene.models.classifier import SceneClassifier
from tinyscene.submission.edition import MOST_SYSTEMS, Edition
from tinyscene.submission.inference import DEVICES, load_by_device


@dataclass(frozen=True)
class System:
    """What one run holds.

    Attributes:
        run: as it was given.
        models: classifiers by split ("" where there are no splits), each by device ("" for all others).
        results: scores on the development set's test part by split; None where there are none.
    """

    run: Path
    models: Mapping[str, Mapping[str, SceneClassifier]]
    results: Mapping[str, Scores | None]

    @property
    def classifiers(self) -> dict[str, SceneClassifier]:
        """All of them, by what problems call them."""
        return {
            " ".join(filter(None, (split, device and f"device {device}"))) or "the model": classifier
            for split, by_device in self.models.items()
            for device, classifier in by_device.items()
        }


def load_systems(runs: list[Path], edition: Edition) -> list[System]:
    """Load one to four runs.

    A run is the folder of a model, or that of `reproduce` with one variant and seed in it. Where the edition has
    splits, it is a folder with one of these for each, called split_5 and so on; where it takes models for single
    devices, these lie in `devices/ID` beside the model for all others.

    Raises:
        InputError: none or too many, a folder without a model or with several, or classes that are not the edition's.
    """
    if not 1 <= len(runs) <= MOST_SYSTEMS:
        raise InputError(f"{len(runs)} runs; accepted: 1 to {MOST_SYSTEMS}, a system each")
    return [_load(run, edition) for run in runs]


def _load(run: Path, edition: Edition) -> System:
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; accepted: the folder of a model, or that of a run")
    lacking = [split for split in edition.splits if not (run / split).is_dir()]
    if lacking:
        raise InputError(
            f"{run}: has no folder {', '.join(lacking)}; accepted for {edition.year}: the model of every split, in "
            f"{', '.join(edition.splits)}"
        )
    folders = {split: _model_folder(run / split) for split in edition.splits or ("",)}
    models = {split: load_by_device(folder) for split, folder in folders.items()}
    for split, by_device in models.items():
        for device, classifier in by_device.items():
            if device and not edition.package:
                raise InputError(
                    f"{folders[split] / DEVICES}: models for single devices; accepted for {edition.year}: one model, "
                    f"since the evaluation set doesn't tell devices"
                )
            if classifier.classes != edition.classes:
                raise InputError(
                    f"{folders[split]}: has the classes {', '.join(classifier.classes)}; accepted for {edition.year}: "
                    f"{', '.join(edition.classes)}"
                )
    return System(run, models, {split: _development_scores(folder, edition) for split, folder in folders.items()})


def _model_folder(run: Path) -> Path:
    if (run / "model.json").is_file():
        return run
    below = sorted(path.parent for path in run.glob("*/seed-*/model.json"))
    if len(below) != 1:
        named = ", ".join(map(str, below[:MOST_SYSTEMS])) or "none"
        raise InputError(f"{run}: holds {len(below)} models ({named}); accepted: the folder of one")
    return below[0]


def _development_scores(folder: Path, edition: Edition) -> Scores | None:
    """Those of a run on the edition's own data set; other data would be taken for it."""
    predictions, receipt = folder / "predictions.csv", folder.resolve().parents[1] / "receipt.json"
    if not predictions.is_file() or not receipt.is_file():
        return None
    dataset = json.loads(receipt.read_text()).get("dataset")
    return Scores.load(predictions) if dataset == edition.development else None
