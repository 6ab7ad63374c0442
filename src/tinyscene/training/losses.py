"""Losses as values, on logits and targets that are probabilities (mixup mixes them)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy, optionally with smoothed targets."""

    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(batch, classes), (batch, classes) -> ()"""
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


Loss = CrossEntropy
