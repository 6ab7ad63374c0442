"""Scores without a classifier: labels and probabilities drawn from a seed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinyscene.data import Clip, Clips
from tinyscene.evaluation import Scores

SCENES = ("airport", "bus", "park", "tram")
DEVICES = ("a", "b", "s1", "s4")
CITIES = ("lisbon", "milan", "paris")


@pytest.fixture(scope="session")
def draw_scores() -> Callable[..., Scores]:
    """draw_scores(number, seed, skill, clips_a_recording): `skill` is what the true class's logit is raised by."""

    def draw(number: int = 240, seed: int = 0, skill: float = 1.0, clips_a_recording: int = 1) -> Scores:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, len(SCENES), number)
        labels[: len(SCENES)] = np.arange(len(SCENES))
        logits = rng.normal(size=(number, len(SCENES)))
        logits[np.arange(number), labels] += skill
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        rows = tuple(
            Clip(
                f"audio/{i}.wav",
                SCENES[label],
                "test",
                device=DEVICES[i % 4],
                city=CITIES[i // 4 % 3],
                recording=f"place-{i // clips_a_recording}",
                row=f"list.csv:{i + 2}",
            )
            for i, label in enumerate(labels)
        )
        return Scores(Clips("drawn", Path("nowhere"), SCENES, rows), probabilities, ("a", "b", "s1"))

    return draw
