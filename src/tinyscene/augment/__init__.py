"""Augmentations, as values: of one clip, of a batch of waveforms, or of a batch of features (its `domain`)."""

from tinyscene.augment.device import DeviceImpulseResponse
from tinyscene.augment.mixup import Mixup
from tinyscene.augment.spectrogram import FreqMixStyle, SpecAugment
from tinyscene.augment.waveform import Crop, Gain, Noise, Speed, TimeRoll

OnClip = Crop | Gain | Noise | TimeRoll | Speed | DeviceImpulseResponse
OnBatch = Mixup | SpecAugment | FreqMixStyle
Augmentation = OnClip | OnBatch

__all__ = [
    "Augmentation",
    "Crop",
    "DeviceImpulseResponse",
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
