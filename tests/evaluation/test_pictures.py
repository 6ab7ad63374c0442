"""Pictures are PNGs of a size to look at, and show what they are drawn from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread

from tinyscene import load_system
from tinyscene.accounting import count
from tinyscene.evaluation import Row, Scores
from tinyscene.evaluation.pictures import draw_confusion, draw_curves, draw_devices, draw_sizes
from tinyscene.models import create_classifier

Draw = Callable[..., Scores]


def pixels(path: Path) -> np.ndarray:
    """(height, width, 3); a file that is no PNG, or a picture with nothing on it, fails."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = imread(path)[..., :3]
    assert 200 <= picture.shape[0] <= 2000
    assert 200 <= picture.shape[1] <= 2000
    assert picture.std() > 0.02
    return picture


def share(picture: np.ndarray, colour: tuple[float, ...]) -> float:
    """Share of the pixels that have the colour."""
    return float((np.abs(picture - np.array(colour[:3])).max(-1) < 0.02).mean())


def test_a_confusion_matrix_is_as_dark_as_its_shares(draw_scores: Draw, tmp_path: Path) -> None:
    scores = draw_scores()
    perfect = replace(scores, probabilities=np.eye(4)[scores.labels])
    draw_confusion(scores, "drawn", tmp_path / "scores.png")
    draw_confusion(perfect, "perfect", tmp_path / "perfect.png")
    full = colormaps["Blues"](1.0)
    assert share(pixels(tmp_path / "perfect.png"), full) > 0.05
    assert scores.by("scene")["bus"].accuracy < 0.9
    assert share(pixels(tmp_path / "scores.png"), full) == 0


def test_devices_are_coloured_by_group(draw_scores: Draw, tmp_path: Path) -> None:
    scores = draw_scores()
    draw_devices(scores, "drawn", tmp_path / "devices.png")
    draw_devices(scores.by_device_group()["real"], "drawn", tmp_path / "real.png")
    unseen = (0.839, 0.153, 0.157)  # matplotlib's C3
    assert share(pixels(tmp_path / "devices.png"), unseen) > 0.01
    assert share(pixels(tmp_path / "real.png"), unseen) == 0


@pytest.mark.parametrize("watched", [True, False], ids=["validation", "no validation"])
def test_curves_of_several_fits_follow_each_other(tmp_path: Path, watched: bool) -> None:
    def row(epoch: int) -> dict[str, float]:
        seen = {"validation_log_loss": 2.5 - 0.1 * epoch, "validation_accuracy": 0.1 * epoch} if watched else {}
        return {"epoch": epoch, "lr": 1e-3, "train_loss": 2 - 0.1 * epoch, "seconds": 1.0, **seen}

    histories = [("Fit", [row(epoch) for epoch in range(5)]), ("Fit", [row(epoch) for epoch in range(3)])]
    draw_curves(histories, "drawn", tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert share(picture, (0.122, 0.467, 0.706)) > 1e-4  # C0, training
    assert (share(picture, (1.0, 0.498, 0.055)) > 1e-4) == watched  # C1, validation


def test_sizes_stand_against_accuracies(draw_scores: Draw, tmp_path: Path) -> None:
    system = next(iter(load_system("singh2021").variants.values()))
    classifier = create_classifier("baseline2021", system.rules.classes, seed=0)
    row = Row(
        system="singh2021",
        variant="unpruned",
        index=0,
        stage="Fit",
        ledger=count(classifier.network, classifier.example(1.0)),
        convention=system.reported.convention,
        rules=system.rules,
        seed=0,
        classes=10,
        scores=draw_scores(),
    )
    rows = [row, replace(row, variant="other", scores=draw_scores(seed=1)), replace(row, seed=1)]
    draw_sizes(rows, "drawn", tmp_path / "sizes.png")
    picture = pixels(tmp_path / "sizes.png")
    assert share(picture, (0.122, 0.467, 0.706)) > 1e-4
    assert share(picture, (1.0, 0.498, 0.055)) > 1e-4
