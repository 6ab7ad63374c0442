"""Zero mean and unit variance per band, fitted on training clips."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.features.spectrogram import check_kept

# A constant band (above the bandwidth of the recordings) is centred, and not amplified.
_SMALLEST_STD = 1e-3


class Standardize(nn.Module):
    """Subtract the mean of every band and divide by its standard deviation.

    The identity until `fit` has seen the training part.
    """

    def __init__(self, bands: int, channels: int = 1) -> None:
        self.arguments = {"bands": bands, "channels": channels}
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.fitted: Tensor
        self.register_buffer("mean", torch.zeros(channels, bands, 1))
        self.register_buffer("std", torch.ones(channels, bands, 1))
        self.register_buffer("fitted", torch.tensor(False))

    @classmethod
    def identity(cls, bands: int, channels: int = 1) -> "Standardize":
        """One that stays the identity: no stage fits it."""
        standardize = cls(bands, channels)
        standardize.fitted.fill_(True)
        return standardize

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit mean and standard deviation of every band over batches of shape (batch, channels, bands, frames)."""
        frames = 0
        total, squares = (
            torch.zeros_like(self.mean, dtype=torch.float64),
            torch.zeros_like(self.mean, dtype=torch.float64),
        )
        for features in batches:
            exact = features.double()
            frames += features.shape[0] * features.shape[-1]
            total += exact.sum((0, 3)).unsqueeze(-1)
            squares += exact.square().sum((0, 3)).unsqueeze(-1)
        mean = total / frames
        self.mean.copy_(mean)
        self.std.copy_((squares / frames - mean.square()).clamp_min(0).sqrt().clamp_min(_SMALLEST_STD))
        self.fitted.fill_(True)

    @torch.no_grad()
    def select(self, kept: list[int], factors: Tensor | None = None) -> None:
        """Keep some bands, in place, and multiply the output of each by its factor.

        Args:
            kept: bands that stay, counted from 0, rising.
            factors: (len(kept),), nonzero; 1 where None.

        Raises:
            InputError: no bands, a band that doesn't exist, or factors that don't fit.
        """
        check_kept(kept, int(self.mean.shape[1]))
        factors = torch.ones(len(kept)) if factors is None else factors
        if factors.shape != (len(kept),) or not bool(factors.isfinite().all() and factors.all()):
            raise InputError(
                f"factors of shape {tuple(factors.shape)} for {len(kept)} bands; accepted: one for each, finite and "
                f"not zero"
            )
        self.mean, self.std = self.mean[:, kept].clone(), self.std[:, kept] / factors.to(self.std)[:, None]
        self.arguments["bands"] = len(kept)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the same shape, in float32"""
        standardized = (features - self.mean) / self.std
        return standardized if standardized.dtype == self.mean.dtype else standardized.to(self.mean.dtype)
