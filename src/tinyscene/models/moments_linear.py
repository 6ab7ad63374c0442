"""The linear model of Schmidt et al., DCASE 2022 Task 1: 12,810 parameters on the moments of 256 bands.

Mean, variance, skewness, kurtosis and hyperskewness over time of every band, and one weight from each to each class
(section 2.1).
"""

import torch
from torch import Tensor, nn

from tinyscene.features.moments import MOMENTS, Moments
from tinyscene.features.spectrogram import check_kept
from tinyscene.models.network import Network


class MomentsLinear(Network):
    """Logits that are linear in the moments over time of every band; any number of frames.

    One dense layer for each moment, the first with the bias, so that each has its own int8 range: the fifth moment is
    hundreds of times the first. Under quantization the features, the inputs and outputs of the five layers and the sums
    of their outputs are int8; the moments are computed in float from the int8 features.

    It depends on the whole clip: `predict` takes a long recording in one piece.

    Args:
        classes: number of scenes.
        bands: of the features.
    """

    def __init__(self, classes: int = 10, bands: int = 256) -> None:
        super().__init__()
        self.moments = Moments()
        self.layers = nn.ModuleList(nn.Linear(bands, classes, bias=i == 0) for i in range(len(MOMENTS)))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits."""
        # One by one: in one tensor, a runtime would give them one scale at 8 bits.
        mean, *others = self.moments.each(features)
        logits: Tensor = self.layers[0](mean)
        for layer, moment in zip(list(self.layers)[1:], others, strict=True):
            logits = logits + layer(moment)
        return logits

    @torch.no_grad()
    def select_bands(self, kept: list[int]) -> None:
        """Drop the weights of other bands, in place, masks included.

        Args:
            kept: bands that stay, counted from 0, rising.

        Raises:
            InputError: no bands, or one that doesn't exist.
        """
        check_kept(kept, int(self.arguments["bands"]))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            layer.weight = nn.Parameter(layer.weight[:, kept].clone())
            layer.in_features = len(kept)
            for name, mask in [*layer.named_buffers(recurse=False)]:
                if mask.ndim > 1:  # a bias reads no bands
                    setattr(layer, name, mask[:, kept].clone())
        self.arguments["bands"] = len(kept)
