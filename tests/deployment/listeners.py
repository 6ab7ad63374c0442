"""A model that answers from the samples alone, and sound for it."""

from collections import deque
from typing import NamedTuple

import numpy as np

from tinyscene.audio import Waveform
from tinyscene.deployment.formats import Values


class Said(NamedTuple):
    """The answer to a command."""

    status: int
    out: str
    err: str


class Ear:
    """Probabilities from four weighted sums over the clip, so that no two clips, and no order, sound the same."""

    classes = ("bus", "park", "tram", "a, b")
    step_samples = None

    def __init__(self, clip_samples: int | None = 4000, sample_rate: int = 8000) -> None:
        self.clip_samples, self.sample_rate, self.channel = clip_samples, sample_rate, "mean"
        self.shortest_samples = clip_samples or 400
        self.trained_clip_s: float | None = None
        self.asked: deque[int] = deque(maxlen=8)

    def probabilities(self, waveforms: Values) -> Values:
        """(batch, samples) -> (batch, classes)"""
        assert waveforms.dtype == np.float32
        self.asked.append(waveforms.shape[1])
        turns = np.arange(waveforms.shape[1])[:, None] * np.array([0.01, 0.1, 0.7, 1.3])
        logits = np.tanh(waveforms.astype(np.float64) @ np.cos(turns))
        shares = np.exp(3 * logits)
        found: Values = (shares / shares.sum(-1, keepdims=True)).astype(np.float32)
        return found


def noise(samples: int, seed: int = 0) -> Waveform:
    """Its level wanders, so that no two seconds sound the same."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.uniform(0.01, 1, samples // 1000 + 1), 1000)[:samples]
    return (rng.uniform(-0.5, 0.5, samples) * level).astype(np.float32)
