"""The baselines of DCASE 2020 Task 1b and DCASE 2021 Task 1a, two or three 7x7 convolutions and a dense layer.

Sources: the baseline of 2021 as Singh et al. describe and prune it (DCASE 2021 Task 1a), and the parameter counts that
the organisers publish: 115,219 (2020, without batch norm) and 46,246 (2021, batch norm at four values a channel).
The 2022 edition runs the network of 2021 on 1 s clips.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.models.blocks import MaxPoolAllFrames, initialise_as_keras
from tinyscene.models.network import Locality, Network

FIRST_POOL = 5
LAST_POOL_BANDS = 4
FEWEST_BANDS = FIRST_POOL * LAST_POOL_BANDS


class _Baseline(Network):
    shortest_frames = FIRST_POOL
    locality = Locality.of("max", [(7, 1), (7, 1), (FIRST_POOL, FIRST_POOL), (7, 1)])
    initialise = staticmethod(initialise_as_keras)
    pool2: MaxPoolAllFrames
    dense: nn.Linear
    output: nn.Linear
    relu: nn.ReLU
    dropout: nn.Dropout

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits; at least `shortest_frames` frames."""
        return self.classify_map(self.local(features))

    def classify_map(self, mapped: Tensor) -> Tensor:
        """The output of `local` -> (batch, classes), logits"""
        x = self.dropout(self.pool2(mapped))
        x = self.dropout(self.relu(self.dense(torch.flatten(x, 1))))
        logits: Tensor = self.output(x)
        return logits


class Baseline2021(_Baseline):
    """L1, L2, L3 and a dense layer: [conv, BN, ReLU] x 2, pool 5, conv, BN, ReLU, pool over time, dense, output.

    The number of parameters does not depend on the number of frames, since the last pooling takes all of them.

    Raises:
        InputError: `filters` are not three, or there are fewer than 20 bands.
    """

    def __init__(
        self, filters: Sequence[int] = (16, 16, 32), dense: int = 100, classes: int = 10, bands: int = 40
    ) -> None:
        super().__init__()
        first, second, third = _checked(filters, 3, bands)
        self.L1 = nn.Conv2d(1, first, 7, padding=3)
        self.bn1 = nn.BatchNorm2d(first)
        self.L2 = nn.Conv2d(first, second, 7, padding=3)
        self.bn2 = nn.BatchNorm2d(second)
        self.pool1 = nn.MaxPool2d(FIRST_POOL)
        self.L3 = nn.Conv2d(second, third, 7, padding=3)
        self.bn3 = nn.BatchNorm2d(third)
        self.pool2 = MaxPoolAllFrames(LAST_POOL_BANDS)
        self.dense = nn.Linear(third * _pooled_bands(bands), dense)
        self.output = nn.Linear(dense, classes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.3)
        self.apply(self.initialise)

    def local(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, filters[2], bands / 5, frames / 5), rounded down"""
        x = self.relu(self.bn1(self.L1(features)))
        x = self.relu(self.bn2(self.L2(x)))
        x = self.dropout(self.pool1(x))
        mapped: Tensor = self.relu(self.bn3(self.L3(x)))
        return mapped


class Baseline2020(_Baseline):
    """[conv, BN, ReLU, pool, dropout] x 2, then a dense layer; 115,219 parameters without batch norm.

    Raises:
        InputError: `filters` are not two, or there are fewer than 20 bands.
    """

    def __init__(self, filters: Sequence[int] = (32, 64), dense: int = 100, classes: int = 3, bands: int = 40) -> None:
        super().__init__()
        first, second = _checked(filters, 2, bands)
        self.L1 = nn.Conv2d(1, first, 7, padding=3)
        self.bn1 = nn.BatchNorm2d(first)
        self.pool1 = nn.MaxPool2d(FIRST_POOL)
        self.L2 = nn.Conv2d(first, second, 7, padding=3)
        self.bn2 = nn.BatchNorm2d(second)
        self.pool2 = MaxPoolAllFrames(LAST_POOL_BANDS)
        self.dense = nn.Linear(second * _pooled_bands(bands), dense)
        self.output = nn.Linear(dense, classes)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.3)
        self.apply(self.initialise)

    def local(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, filters[1], bands / 5, frames / 5), rounded down"""
        x = self.dropout(self.pool1(self.relu(self.bn1(self.L1(features)))))
        mapped: Tensor = self.relu(self.bn2(self.L2(x)))
        return mapped


def _checked(filters: Sequence[int], wanted: int, bands: int) -> tuple[int, ...]:
    if len(filters) != wanted or min(filters) < 1:
        raise InputError(f"filters={tuple(filters)}: this baseline takes {wanted} numbers of filters, each at least 1")
    if bands < FEWEST_BANDS:
        raise InputError(f"bands={bands}: the two poolings need at least {FEWEST_BANDS} bands")
    return tuple(filters)


def _pooled_bands(bands: int) -> int:
    return bands // FIRST_POOL // LAST_POOL_BANDS
