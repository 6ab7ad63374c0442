"""Mixup."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tinyscene.errors import Numbers, check


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
