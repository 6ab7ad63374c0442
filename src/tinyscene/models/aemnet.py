"""AemNet as Galindo-Meza et al. use it (DCASE 2021 Task 1a, section 2.1): 319,093 parameters, from the waveform.

Two 1-D convolutions and a pooling make 10 ms frames of a waveform at 16 kHz; their channels then serve as the bands
of an image, which nine depthwise-separable blocks read. Source: Lopez-Meyer et al., "Efficient end-to-end audio
embeddings generation for audio classification on target applications", ICASSP 2021; what neither text states (padding,
the pooling's size, the block that starts from one channel) is chosen to give the report's 319,093 parameters.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.models.blocks import conv_bn
from tinyscene.models.network import Locality, Network

# Outputs of the nine blocks at a width multiplier of 1.
WIDTHS = (32, 64, 64, 128, 128, 256, 256, 512, 512)
# (kernel, stride) of the 1-D convolutions.
CONVOLUTIONS = ((9, 2), (5, 2))
# Five poolings halve the height of the image.
FEWEST_FILTERS = 32


class AemNet(Network):
    """Two 1-D convolutions on the waveform, nine separable blocks on their output, embedding, dense layer.

    Args:
        classes: number of scenes.
        width: multiplies the outputs of the nine blocks.
        pooling: frames of the 1-D convolutions in one column of the image; 40 are 10 ms at 16 kHz.
        filters: of the two 1-D convolutions; the second number is the height of the image, at least 32.
        embedding: values in front of the dense layer.

    Raises:
        InputError: an image too low for five halvings.
    """

    def __init__(
        self,
        classes: int = 10,
        width: float = 0.5,
        pooling: int = 40,
        filters: Sequence[int] = (64, 128),
        embedding: int = 512,
    ) -> None:
        super().__init__()
        if len(filters) != 2 or filters[1] < FEWEST_FILTERS:
            raise InputError(f"filters={tuple(filters)}; accepted: two, the second at least {FEWEST_FILTERS}")
        widths = [round(width * channels) for channels in WIDTHS]
        self.body = _Body(widths, pooling, filters, embedding)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(0.2)
        self.dense = nn.Linear(embedding, classes)
        # A pooling follows blocks 1, 3, 5, 7 and 9.
        blocks = [(3, 1), (2, 2), *[(3, 1), (3, 1), (2, 2)] * 4]
        self.locality = Locality.of("mean", [*CONVOLUTIONS, (pooling, pooling), *blocks])
        self.shortest_frames = self.locality.stride

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, 1, samples) -> (batch, classes), logits; at least `shortest_frames` samples, 5,120 as published.

        With its padding, three samples fewer would also do.
        """
        return self.classify_map(self.local(features))

    def local(self, features: Tensor) -> Tensor:
        """(batch, 1, 1, samples) -> (batch, embedding, filters[1] / 32, samples / shortest_frames), rounded down."""
        mapped: Tensor = self.body(features)
        return mapped

    def classify_map(self, mapped: Tensor) -> Tensor:
        """(batch, embedding, bands, steps) -> (batch, classes), logits"""
        logits: Tensor = self.dense(self.dropout(torch.flatten(self.pool(mapped), 1)))
        return logits


class _Body(nn.Module):
    """Waveform to embeddings: what the report trains at a tenth of the dense layer's rate."""

    def __init__(self, widths: Sequence[int], pooling: int, filters: Sequence[int], embedding: int) -> None:
        super().__init__()
        low: list[nn.Module] = []
        for (inputs, outputs), (kernel, stride) in zip(pairwise((1, *filters)), CONVOLUTIONS, strict=True):
            low += [nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm1d(outputs)]
            low.append(nn.ReLU())
        self.low = nn.Sequential(*low, nn.MaxPool1d(pooling))
        high: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise((1, *widths))):
            high += [conv_bn(inputs, inputs, 3, groups=inputs), conv_bn(inputs, outputs, 1)]
            high += [nn.MaxPool2d(2)] if i % 2 == 0 else []
        self.high = nn.Sequential(*high)
        self.embed = nn.Conv2d(widths[-1], embedding, 1)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, 1, samples) -> (batch, embedding, bands, steps)"""
        image = self.low(features.squeeze(2)).unsqueeze(1)
        embedded: Tensor = self.relu(self.embed(self.high(image)))
        return embedded
