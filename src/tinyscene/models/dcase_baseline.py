"""The baselines of DCASE 2020 Task 1b and DCASE 2021 Task 1a, two or three 7x7 convolutions and a dense layer.

Sources: the baseline of 2021 as Singh et al. describe and prune it (DCASE 2021 Task 1a), and the parameter counts that
the organisers publish: 115,219 (2020, without batch norm) and 46,246 (2021, batch norm at four values a channel).
The 2022 edition runs the network of 2021 on 1 s clips.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.models.blocks import MaxPoolAllFrames, initialise_as_keras
from tinyscene.models.network import Locality, Network

FIRST_POOL = 5
LAST_POOL_BANDS = 4
FEWEST_BANDS = FIRST_POOL * LAST_POOL_BANDS


class Baseline2021(Network):
    """[conv, BN, ReLU] x 3 with pool 5 before the last, pool over time, dense, output.

    The number of parameters does not depend on the number of frames, since the last pooling takes all of them.

    Args:
        filters: of the convolutions `L1`, `L2` ...
        dense: outputs of the first dense layer.
        classes: number of scenes.
        bands: of the features.

    Raises:
        InputError: fewer than 20 bands.
    """

    shortest_frames = FIRST_POOL
    initialise = staticmethod(initialise_as_keras)

    def __init__(
        self, filters: Sequence[int] = (16, 16, 32), dense: int = 100, classes: int = 10, bands: int = 40
    ) -> None:
        super().__init__()
        if bands < FEWEST_BANDS:
            raise InputError(f"bands={bands}: the two poolings need at least {FEWEST_BANDS} bands")
        for i, (inputs, outputs) in enumerate(pairwise((1, *filters)), 1):
            self.add_module(f"L{i}", nn.Conv2d(inputs, outputs, 7, padding=3))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        self.convolutions = len(filters)
        self.pool1, self.pool2 = nn.MaxPool2d(FIRST_POOL), MaxPoolAllFrames(LAST_POOL_BANDS)
        self.dense = nn.Linear(filters[-1] * (bands // FEWEST_BANDS), dense)
        self.output = nn.Linear(dense, classes)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(0.3)
        self.locality = Locality.of("max", [(7, 1)] * (self.convolutions - 1) + [(FIRST_POOL, FIRST_POOL), (7, 1)])
        self.apply(self.initialise)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits; at least `shortest_frames` frames."""
        return self.classify_map(self.local(features))

    def local(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, filters[-1], bands / 5, frames / 5), rounded down"""
        x = features
        for i in range(1, self.convolutions + 1):
            if i == self.convolutions:
                x = self.dropout(self.pool1(x))
            x = self.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"L{i}")(x)))
        return x

    def classify_map(self, mapped: Tensor) -> Tensor:
        """The output of `local` -> (batch, classes), logits"""
        x = self.dropout(self.pool2(mapped))
        x = self.dropout(self.relu(self.dense(torch.flatten(x, 1))))
        logits: Tensor = self.output(x)
        return logits


class Baseline2020(Baseline2021):
    """The same with two convolutions; 115,219 parameters without batch norm."""

    def __init__(self, filters: Sequence[int] = (32, 64), dense: int = 100, classes: int = 3, bands: int = 40) -> None:
        super().__init__(filters, dense, classes, bands)
