"""Losses as values, of logits and of targets that are probabilities (for mixup)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from tinyscene.errors import Numbers, check


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy, optionally with smoothed targets."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check(self, label_smoothing=Numbers(least=0, most=1))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(batch, classes), (batch, classes) -> ()"""
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class KLDivergence:
    """Kullback-Leibler divergence of the predicted from the target distribution, averaged over a batch.

    Equation (1) of Pham et al. (DCASE 2020 Task 1b) adds (lambda / 2) ||theta||^2, whose gradient is lambda theta:
    `Adam(weight_decay=lambda)` and `SGD(weight_decay=lambda)` add this to the gradient of every trainable value. The
    term is only in the gradient, not in the reported loss.
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(batch, classes), (batch, classes) -> ()"""
        return F.kl_div(F.log_softmax(logits, 1), targets, reduction="batchmean")


Loss = CrossEntropy | KLDivergence | Callable[[Tensor, Tensor], Tensor]
