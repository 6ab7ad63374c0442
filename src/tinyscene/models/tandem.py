"""The tandem of Schmidt et al., DCASE 2022 Task 1: a linear model on moments, and a BC-ResNet that improves on it.

At 256 bands and width 8, 12,810 and 315,410 parameters (section 2.1, figure 1).
"""

import torch
from torch import Tensor, nn

from tinyscene.models.bc_resnet_mod import BCResNetMod, check_bands
from tinyscene.models.moments_linear import MomentsLinear
from tinyscene.models.network import Network


class Tandem(Network):
    """The sum of two branches' logits: `linear`, a `MomentsLinear`, and `cnn`, a `BCResNetMod`.

    The network's last convolution starts with weights and bias of zero, so that the first prediction is the linear
    model's. Under quantization both read the same int8 features, and the sum of their int8 logits is int8.

    It depends on the whole clip: `predict` takes a long recording in one piece.

    Args:
        classes: number of scenes.
        bands: of the features, a multiple of 32.
        width: of the network; 8 is the report's.

    Raises:
        InputError: bands that 32 doesn't divide.
    """

    shortest_frames = BCResNetMod.shortest_frames

    def __init__(self, classes: int = 10, bands: int = 256, width: int = 8) -> None:
        super().__init__()
        check_bands(bands)
        self.linear = MomentsLinear(classes, bands)
        self.cnn = BCResNetMod(classes, width)
        nn.init.zeros_(self.cnn.classify.weight)
        assert self.cnn.classify.bias is not None
        nn.init.zeros_(self.cnn.classify.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits; at least 7 frames."""
        logits: Tensor = self.linear(features) + self.cnn(features)
        return logits

    @torch.no_grad()
    def select_bands(self, kept: list[int]) -> None:
        """Drop other bands, in place: weights of the linear branch, rows of the network's input.

        Args:
            kept: bands that stay, counted from 0, rising; a multiple of 32 of them.

        Raises:
            InputError: another number of bands, or one that doesn't exist.
        """
        self.cnn.select_bands(kept)
        self.linear.select_bands(kept)
        self.arguments["bands"] = len(kept)
