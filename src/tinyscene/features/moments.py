"""Moments over time of every band, which ignore the order in time."""

import torch
from torch import Tensor, nn

MOMENTS = ("mean", "variance", "skewness", "kurtosis", "hyperskewness")
# Of the mean's magnitude: a smaller standard deviation is rounding of constant 32-bit values.
_FLAT = 1e-5
# Of standardized features. Below, rounding dominates the gradient by a band's scale, which should be 0.
_STILL = 1e-3


class Moments(nn.Module):
    """Mean, variance, skewness, kurtosis and hyperskewness over time of every band (Schmidt et al., section 3.2).

    The variance is that of a population, divided by the number of frames; skewness, kurtosis (3 for a Gaussian) and
    hyperskewness are the third, fourth and fifth central moment over the standard deviation to the same power. These
    three are 0, with no gradient, where a band doesn't change over time: where its standard deviation is below 1e-3,
    the features being standardized, or below 1e-5 of its mean.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, 5, channels x bands), in the order of `MOMENTS`"""
        return torch.stack(self.each(features), 1)

    def each(self, features: Tensor) -> list[Tensor]:
        """(batch, channels, bands, frames) -> five tensors (batch, channels x bands), in the order of `MOMENTS`"""
        variance, mean = torch.var_mean(features, 3, correction=0, keepdim=True)
        flat = (variance <= (_FLAT * mean).square()) | (variance <= _STILL**2)
        # The root of another number where the variance is zero, since its gradient would be infinite.
        scale = torch.where(flat, 1.0, variance).rsqrt()
        z = torch.where(flat, 0.0, (features - mean) * scale)
        square = z * z
        cube = square * z
        higher = [power.mean(3, keepdim=True) for power in (cube, square * square, square * cube)]
        return [moment.flatten(1) for moment in (mean, variance, *higher)]
