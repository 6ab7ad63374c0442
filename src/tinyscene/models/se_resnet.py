"""The grouped SE-ResNet of Byttebier et al., DCASE 2021 Task 1a: 114,094 parameters, 82,078 with channels (20, 40).

A 3x3 convolution and six double-convolution blocks with squeeze-and-excitation, then mean and standard deviation over
time, and one dense layer (section 2.3, figures 1 to 3). The report gives the total stride over bands, 8, but neither
the strides' places nor those over frames: here the first, second and fourth block halve both, so that most of the
work is done on small maps. Batch norm comes before the ReLU inside squeeze-and-excitation, which isn't in the text
either. Every convolution has a bias; those of the shortcuts have no batch norm.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod

import torch
from torch import Tensor, nn

from tinyscene.models.blocks import SqueezeExcite, StatisticsPooling, conv_bn
from tinyscene.models.network import Network

# Channels inside squeeze-and-excitation, for the first three blocks and the last three.
SQUEEZED = (4, 8)
STRIDES = ((2, 2), (2, 2), (1, 1), (2, 2), (1, 1), (1, 1))


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, the second one in groups, and squeeze-and-excitation; a 1x1 shortcut where `bridged`."""

    def __init__(
        self, inputs: int, outputs: int, stride: tuple[int, int], groups: int, squeezed: int, bridged: bool
    ) -> None:
        super().__init__()
        self.first = conv_bn(inputs, outputs, 3, stride, bias=True)
        self.second = conv_bn(outputs, outputs, 3, groups=groups, bias=True)
        self.se = SqueezeExcite(outputs, squeezed)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if bridged else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, bands, frames) -> (batch, outputs, bands / stride, frames / stride), rounded up."""
        y: Tensor = self.se(self.second(self.first(x)))
        return y if self.shortcut is None else y + self.shortcut(x)


class SEResNet(Network):
    """A convolution, six double-convolution blocks, statistics over time and a dense layer; any number of frames.

    Args:
        channels: of the stem and the first three blocks, and of the last three.
        classes: number of scenes.
        bands: of the features; the dense layer reads each one that the strides leave.
        cardinality: groups of every block's second convolution.
        strides: (bands, frames) of each block's first convolution.
    """

    def __init__(
        self,
        channels: Sequence[int] = (24, 48),
        classes: int = 10,
        bands: int = 128,
        cardinality: int = 4,
        strides: Sequence[Sequence[int]] = STRIDES,
    ) -> None:
        super().__init__()
        narrow, wide = channels
        widths = [narrow] * 4 + [wide] * 3
        self.stem = conv_bn(1, narrow, 3, bias=True)
        self.blocks = nn.Sequential(
            *(
                DoubleConv(before, after, (down, along), cardinality, SQUEEZED[i >= 3], bridged=i > 0)
                for i, ((before, after), (down, along)) in enumerate(zip(pairwise(widths), strides, strict=True))
            )
        )
        self.pooling = StatisticsPooling()
        # Rounding up once by the product is the same as at every stride.
        self.dense = nn.Linear(2 * wide * ceil(bands / prod(down for down, _ in strides)), classes)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits."""
        statistics = self.pooling(self.blocks(self.stem(features)))
        logits: Tensor = self.dense(torch.flatten(statistics, 1))
        return logits
