"""Augmentations, as values: of one clip, or of a batch of waveforms or features (its `domain`)."""

from typing import Protocol

import numpy as np
from torch import Tensor

from tinyscene.audio import Waveform
from tinyscene.augment.batch import BetweenClass, Excerpt, FreqMixStyle, Mixup, SpecAugment, TimeRoll
from tinyscene.augment.waveform import Crop, DeviceImpulseResponse, Equalizer, Gain, Noise, Speed


class OnClip(Protocol):
    """Changes one waveform; an augmentation without `domain` is one of these."""

    def __call__(self, waveform: Waveform, sample_rate: int, rng: np.random.Generator) -> Waveform:
        """(samples,) -> (samples,), of any length"""
        ...


class OnBatch(Protocol):
    """Changes a batch of waveforms or features, as `domain` states, and its targets."""

    @property
    def domain(self) -> str:
        """ "waveforms" or "features"."""
        ...

    def __call__(self, batch: Tensor, targets: Tensor, rng: np.random.Generator, /) -> tuple[Tensor, Tensor]:
        """(batch, ...), (batch, classes) -> the same shapes, frames perhaps fewer.

        With a teacher, its probabilities follow in the targets' rows: (batch, 2 x classes).
        """
        ...


Augmentation = OnClip | OnBatch

__all__ = [
    "Augmentation",
    "BetweenClass",
    "Crop",
    "DeviceImpulseResponse",
    "Equalizer",
    "Excerpt",
    "FreqMixStyle",
    "Gain",
    "Mixup",
    "Noise",
    "OnBatch",
    "OnClip",
    "SpecAugment",
    "Speed",
    "TimeRoll",
]
