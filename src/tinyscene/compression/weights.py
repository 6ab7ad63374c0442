"""Unstructured pruning: single weights are masked, and stay zero in training."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.fit import Fit
from tinyscene.training.run import Run, Stage

# A growing sparsity moves in this many steps over a fit of any length.
_LEVELS = 100


@dataclass(frozen=True)
class MagnitudePruning(Stage):
    """Set the share `ratio` of all trainable values to zero, those of least magnitude, and mask them.

    Biases and batch norm's scales and shifts are trainable and included; its running statistics are not. The number is
    rounded to the nearest, half to even, and kept exactly: of equal magnitudes the first go. What an earlier pruning
    masked stays masked and counts.

    With `fit`, the share grows from 0 during training, and stays constant from `end` on:
    ratio x (1 - (1 - t)^power), t from 0 at `begin` to 1 at `end` (Zhu and Gupta 2017, equation 1). It depends only on
    the progress of the fit, so that a killed run resumes with the same masks.

    Args:
        ratio: between 0 and 1, of the included values.
        scope: "global" ranks all values together (Byttebier et al., DCASE 2021, section 3.3), "layer" takes the share
            from every tensor.
        what: "all" values, or "weights", only those of convolutions and dense layers.
        fit: training during which the share grows; without it, one shot and no training.
        begin, end: shares of the fit's steps.
        power: 1 grows in a straight line, 3 fast at first.
    """

    ratio: float
    scope: Literal["global", "layer"] = "global"
    what: Literal["all", "weights"] = "all"
    fit: Fit | None = None
    begin: float = 0.0
    end: float = 0.75
    power: float = 3.0

    def __post_init__(self) -> None:
        check(self, ratio=Numbers(above=0, below=1), scope=("global", "layer"), what=("all", "weights"), fit=Fit | None)
        check(self, begin=Numbers(least=0, below=1), end=Numbers(above=0, most=1), power=Numbers(above=0))
        if not self.begin < self.end:
            raise InputError(f"MagnitudePruning(begin={self.begin}, end={self.end}); accepted: begin below end")
        if self.fit is not None and (self.fit.early_stopping or self.fit.stop_after is not None):
            raise InputError(
                "MagnitudePruning(fit=...) with early_stopping or stop_after; accepted: a fit that runs to its end, "
                "since an earlier epoch is less sparse"
            )
        if self.fit is not None and self.fit.init is not None:
            raise InputError(
                f"MagnitudePruning(fit=...) with init={str(self.fit.init)!r}; accepted: a fit that continues from the "
                f"trained weights"
            )

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Mask the whole share by the current weights."""
        classifier.require_float("MagnitudePruning")
        masks.refuse_computed_weights(classifier.network, "MagnitudePruning")
        pruned = copy.deepcopy(classifier)
        self.mask(pruned.network, self.ratio)
        kept = [mask for name, mask in masks.masks_of(pruned.network).items()]
        if all(bool(mask.all()) for mask in kept):
            raise InputError(
                f"{self}: removes none of {sum(mask.numel() for mask in kept):,} values; try a larger ratio"
            )
        return pruned

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Prune by the weights only; with `fit`, by those that it trains.

        Raises:
            InputError: a test clip is among the clips, the weights are not float32, the share is not a single value, or
                what `Fit` raises.
        """
        pruned = self.shape(classifier)
        if self.fit is None:
            return pruned
        started = copy.deepcopy(classifier)
        # From the first step on, so that checkpoints include them.
        self.mask(started.network, 0.0)
        return self.fit.apply(started, clips, run, partial(_grow, self))

    def sparsity(self, progress: float) -> float:
        """The masked share at this progress of the fit, both from 0 to 1."""
        t = min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)
        share: float = self.ratio * (1 - (1 - t) ** self.power)
        return share

    @torch.no_grad()
    def mask(self, network: nn.Module, ratio: float) -> None:
        """Mask the share `ratio` in place. Masked values stay masked, even where that is more."""
        taking_part = masks.prunable(network, "MagnitudePruning", self.what == "weights")
        earlier = masks.masks_of(network)
        kept = {
            name: earlier.get(name, torch.ones_like(parameter, dtype=torch.bool)).flatten()
            for name, parameter in taking_part.items()
        }
        changed = {name: mask for name, mask in kept.items() if name not in earlier}
        for names in [list(kept)] if self.scope == "global" else [[name] for name in kept]:
            together = torch.cat([kept[name] for name in names])
            number = round(ratio * len(together))
            if number > int((~together).sum()):
                magnitudes = torch.cat([taking_part[name].abs().flatten() for name in names])
                # Below every magnitude, so that masked values stay masked.
                order = torch.argsort(magnitudes.masked_fill(~together, -1.0), stable=True)
                together[order[:number]] = False
                sizes = [kept[name].numel() for name in names]
                changed |= dict(zip(names, torch.split(together, sizes), strict=True))
        for name, mask in changed.items():
            masks.attach(network, name, mask.view(taking_part[name].shape))


def _grow(pruning: MagnitudePruning, network: nn.Module, progress: float) -> None:
    """`Fit` calls this after every step. Most calls change nothing, since sorting all weights is slow."""
    level = progress if progress >= pruning.end else int(progress * _LEVELS) / _LEVELS
    pruning.mask(network, pruning.sparsity(level))
