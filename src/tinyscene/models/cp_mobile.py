"""CP-Mobile as the baseline of DCASE 2024 and 2025 Task 1 uses it: 61,148 parameters, 29,419,156 MACs by torchinfo.

Inverted bottlenecks (1x1 expansion, 3x3 depthwise, 1x1 projection) whose shortcut is averaged where the block has a
stride, with a ReLU after the addition. Source: Schmid et al., "Distilling the knowledge of transformers and CNNs with
CP-Mobile", DCASE Workshop 2023; sizes and strides of github.com/CPJKU/dcase2024_task1_baseline, models/baseline.py.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.models.blocks import conv_bn, round_channels
from tinyscene.models.network import Locality, Network

Stride = tuple[int, int]
UNIT: Stride = (1, 1)


class Bottleneck(nn.Module):
    """Expansion, depthwise and projection; a shortcut where the number of channels stays."""

    def __init__(self, inputs: int, outputs: int, expansion_rate: float, stride: Stride) -> None:
        super().__init__()
        expanded = round_channels(inputs * expansion_rate)
        self.expand = conv_bn(inputs, expanded, 1)
        self.depthwise = conv_bn(expanded, expanded, 3, stride, groups=expanded)
        self.project = conv_bn(expanded, outputs, 1, relu=False)
        self.adds_input = inputs == outputs
        self.shortcut = nn.Identity() if stride == UNIT else nn.AvgPool2d(3, stride, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, bands, frames) -> (batch, outputs, bands / stride, frames / stride), rounded up."""
        y = self.project(self.depthwise(self.expand(x)))
        if self.adds_input:
            y = y + self.shortcut(x)
        activated: Tensor = self.relu(y)
        return activated


class CPMobile(Network):
    """A stem of stride 4, three stages of bottlenecks, and a 1x1 classifier that is averaged over bands and frames.

    Args:
        classes: number of scenes.
        base_channels: channels after the stem.
        channels_multiplier: growth of the width from one stage to the next.
        expansion_rate: width inside a bottleneck over its input's.
        blocks: number of bottlenecks in each stage.
        strides: (bands, frames) of each bottleneck, in order; what is left out has (1, 1).

    Raises:
        InputError: more strides than bottlenecks.
    """

    def __init__(
        self,
        classes: int = 10,
        base_channels: int = 32,
        channels_multiplier: float = 1.8,
        expansion_rate: float = 2.1,
        blocks: Sequence[int] = (3, 2, 1),
        strides: Sequence[Sequence[int]] = ((1, 1), (1, 1), (1, 2), (2, 1)),
    ) -> None:
        super().__init__()
        if len(strides) > sum(blocks):
            raise InputError(
                f"strides={strides}; accepted: at most {sum(blocks)} pairs (bands, frames), one a bottleneck"
            )
        base = round_channels(base_channels)
        widths = [round_channels(base * channels_multiplier**stage) for stage in range(len(blocks))]
        self.stem = nn.Sequential(conv_bn(1, base // 4, 3, stride=2), conv_bn(base // 4, base, 3, stride=2))
        outputs = [width for width, repeats in zip(widths, blocks, strict=True) for _ in range(repeats)]
        steps = [(bands, frames) for bands, frames in (*strides, *[UNIT] * (len(outputs) - len(strides)))]
        self.stages = nn.Sequential(
            *(
                Bottleneck(before, after, expansion_rate, stride)
                for (before, after), stride in zip(pairwise((base, *outputs)), steps, strict=True)
            )
        )
        self.classify = conv_bn(widths[-1], classes, 1, relu=False)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.locality = Locality.of("mean", [(3, 2), (3, 2), *((3, frames) for _, frames in steps)])
        self.apply(_initialise)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits."""
        return self.classify_map(self.local(features))

    def local(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes, bands', frames')"""
        mapped: Tensor = self.classify(self.stages(self.stem(features)))
        return mapped

    def classify_map(self, mapped: Tensor) -> Tensor:
        """(batch, classes, bands', frames') -> (batch, classes), logits."""
        return torch.flatten(self.pool(mapped), 1)


def _initialise(module: nn.Module) -> None:
    # He initialisation by fan-out, which the published baseline uses.
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
