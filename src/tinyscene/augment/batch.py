"""Augmentations of a batch of features or waveforms."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tinyscene.errors import Numbers, check


@dataclass(frozen=True)
class SpecAugment:
    """Mask bands and frames with the clip's own mean in every channel (Park et al., Interspeech 2019).

    Every clip loses at most `bands` neighbouring bands and at most `frames` neighbouring frames. Park et al. mask with
    zero, the mean of their normalised features; of features in dB, zero would be louder than any sound.
    """

    bands: int = 8
    frames: int = 0
    domain: ClassVar[str] = "features"

    def __post_init__(self) -> None:
        check(self, bands=Numbers(least=0, whole=True), frames=Numbers(least=0, whole=True))

    def __call__(self, features: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, channels, bands, frames) -> the same shape; targets unchanged"""
        mean = features.mean((2, 3), keepdim=True)
        for axis, most in ((2, self.bands), (3, self.frames)):
            features = torch.where(_stretches(features.shape, axis, most, rng).to(features.device), mean, features)
        return features, targets


@dataclass(frozen=True)
class Excerpt:
    """A stretch of every clip's frames at a random place, so that an epoch takes a fraction of the time.

    It is also played faster or slower, and moved along the bands, by linear interpolation, as in BYOL-A's
    RandomResizeCrop (Niizumi et al., IJCNN 2021). Features stay computed once.

    Args:
        share: of a clip's frames.
        speed: the largest change; 0.2 is from a fifth slower to a fifth faster, drawn evenly on a logarithmic scale,
            but no faster than the clip lasts.
        shift: the largest move, either way, as a share of the bands.
    """

    share: float
    speed: float = 0.0
    shift: float = 0.0
    domain: ClassVar[str] = "features"

    def __post_init__(self) -> None:
        check(self, share=Numbers(above=0, most=1), speed=Numbers(least=0, below=1), shift=Numbers(least=0, most=1))

    def frames(self, clip: int) -> int:
        """Of the excerpt of a clip of that many frames."""
        return max(1, round(self.share * clip))

    def __call__(self, features: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, channels, bands, frames) -> (batch, channels, bands, fewer frames); targets unchanged"""
        batch, channels, bands, frames = features.shape
        wanted = self.frames(frames)
        step = np.exp(rng.uniform(-1, 1, batch) * np.log1p(self.speed)).clip(max=(frames - 1) / max(wanted - 1, 1))
        start = rng.uniform(0, 1, batch) * (frames - 1 - step * (wanted - 1))
        move = rng.uniform(-1, 1, batch) * self.shift * bands
        if not self.speed and not self.shift:
            taken = np.rint(start).astype(np.int64)[:, None] + np.arange(wanted)
            index = torch.from_numpy(taken).to(features.device)[:, None, None]
            return features.gather(3, index.expand(batch, channels, bands, wanted)), targets
        # From -1 to 1, the centres of the first and the last frame or band.
        across = 2 * (start[:, None] + step[:, None] * np.arange(wanted)) / max(frames - 1, 1) - 1
        along = 2 * (np.arange(bands) + move[:, None]) / max(bands - 1, 1) - 1
        grid = np.empty((batch, bands, wanted, 2), np.float32)
        grid[..., 0], grid[..., 1] = across[:, None], along[:, :, None]
        at = torch.from_numpy(grid).to(features)
        return F.grid_sample(features, at, padding_mode="border", align_corners=True), targets


@dataclass(frozen=True)
class FreqMixStyle:
    """Mix the statistics of every band with another clip's, with probability `p` a batch (Schmid et al., DCASE 2022).

    Mean and standard deviation over channels and time are normalised away, and restored mixed by Beta(alpha, alpha).
    """

    p: float = 0.4
    alpha: float = 0.3
    domain: ClassVar[str] = "features"

    def __post_init__(self) -> None:
        check(self, p=Numbers(least=0, most=1), alpha=Numbers(above=0))

    def __call__(self, features: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, channels, bands, frames) -> the same shape; targets unchanged"""
        batch = len(features)
        weights, order, fires = rng.beta(self.alpha, self.alpha, batch), rng.permutation(batch), rng.random() < self.p
        if not fires:
            return features, targets
        weight = torch.from_numpy(weights).to(features)[:, None, None, None]
        mean = features.mean((1, 3), keepdim=True)
        std = (features.var((1, 3), keepdim=True) + 1e-6).sqrt()
        other = torch.from_numpy(order).to(features.device)
        mixed_mean = weight * mean + (1 - weight) * mean[other]
        mixed_std = weight * std + (1 - weight) * std[other]
        return (features - mean) / std * mixed_std + mixed_mean, targets


@dataclass(frozen=True)
class Mixup:
    """Mix every clip of a batch, and its target, with another one by Beta(alpha, alpha) (Zhang et al., ICLR 2018).

    `domain` is what is mixed: "waveforms" or "features".
    """

    alpha: float = 0.2
    domain: Literal["waveforms", "features"] = "features"

    def __post_init__(self) -> None:
        check(self, alpha=Numbers(above=0), domain=("waveforms", "features"))

    def __call__(self, batch: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, ...), (batch, classes) -> the same shapes"""
        weights = torch.from_numpy(rng.beta(self.alpha, self.alpha, len(batch))).to(batch)
        other = torch.from_numpy(rng.permutation(len(batch))).to(batch.device)
        weight = weights.view(-1, *[1] * (batch.ndim - 1))
        mixed = weight * batch + (1 - weight) * batch[other]
        return mixed, weights[:, None] * targets + (1 - weights[:, None]) * targets[other]


@dataclass(frozen=True)
class BetweenClass:
    """Mix every waveform with another one so that both are heard in the ratio of their targets (Tokozume, Ushiku and
    Harada, ICLR 2018, equations 2 and 3).

    The ratio is drawn from Beta(alpha, alpha), which at 1 is the paper's uniform distribution. Levels are root mean
    squares, where the paper has the loudest A-weighted frame; below -60 dB they count as that.
    """

    alpha: float = 1.0
    domain: ClassVar[str] = "waveforms"

    def __post_init__(self) -> None:
        check(self, alpha=Numbers(above=0))

    def __call__(self, waveforms: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, samples), (batch, classes) -> the same shapes"""
        ratio = torch.from_numpy(rng.beta(self.alpha, self.alpha, (len(waveforms), 1))).to(waveforms)
        other = torch.from_numpy(rng.permutation(len(waveforms))).to(waveforms.device)
        level = waveforms.square().mean(1, keepdim=True).sqrt().clamp_min(1e-3)
        share = ratio * level[other] / (ratio * level[other] + (1 - ratio) * level)
        mixed = (share * waveforms + (1 - share) * waveforms[other]) / (share.square() + (1 - share).square()).sqrt()
        return mixed, ratio * targets + (1 - ratio) * targets[other]


@dataclass(frozen=True)
class TimeRoll:
    """A circular shift of every clip by at most `fraction` of it, either way.

    `domain` is what is shifted: "waveforms", or "features" by whole frames, which are then computed once and not in
    every epoch. Where the ends meet, these are frames of two ends, not of the joined sound.
    """

    fraction: float = 0.5
    domain: Literal["waveforms", "features"] = "waveforms"

    def __post_init__(self) -> None:
        check(self, fraction=Numbers(least=0, most=1), domain=("waveforms", "features"))

    def __call__(self, batch: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(batch, ...), (batch, classes) -> the same shapes; targets unchanged"""
        most = int(self.fraction * batch.shape[-1])
        shifts = rng.integers(-most, most + 1, len(batch)).tolist()
        return torch.stack([clip.roll(shift, -1) for clip, shift in zip(batch, shifts, strict=True)]), targets


def _stretches(shape: torch.Size, axis: int, most: int, rng: np.random.Generator) -> Tensor:
    """True over one stretch of 0 to `most` places of `axis` for each clip, broadcast over the other axes."""
    size = shape[axis]
    width = rng.integers(0, min(most, size) + 1, shape[0])
    start = rng.integers(0, size - width + 1)
    place = np.arange(size)
    inside = (place >= start[:, None]) & (place < (start + width)[:, None])
    view = [shape[0], 1, 1, 1]
    view[axis] = size
    return torch.from_numpy(inside).view(view)
