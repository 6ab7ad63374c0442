"""Unstructured pruning: single weights are masked, and stay zero whatever trains them."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.run import Run


@dataclass(frozen=True)
class MagnitudePruning:
    """Set the share `ratio` of all trainable values to zero, those of least magnitude, and mask them.

    Biases and batch norm's scales and shifts are trainable and take part; its running statistics are not. The number is
    rounded to the nearest, half to even, and kept exactly: of equal magnitudes the first go. What an earlier pruning
    masked stays masked and counts.

    Args:
        ratio: between 0 and 1, of the network's values.
        scope: "global" ranks all values together (Byttebier et al., DCASE 2021, section 3.3), "layer" takes the share
            from every tensor.
    """

    ratio: float
    scope: Literal["global", "layer"] = "global"

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise InputError(f"MagnitudePruning(ratio={self.ratio}); accepted: above 0 and below 1")
        if self.scope not in ("global", "layer"):
            raise InputError(f'MagnitudePruning(scope={self.scope!r}); accepted: "global" or "layer"')

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Mask by the weights as they are."""
        classifier.require_float("MagnitudePruning")
        pruned = copy.deepcopy(classifier)
        parameters = {name: p for name, p in pruned.network.named_parameters() if p.requires_grad}
        earlier = masks.masks_of(pruned.network)
        # Below every magnitude, so that what is masked stays so.
        magnitudes = [
            parameter.detach().abs().masked_fill(~earlier.get(name, torch.ones_like(parameter, dtype=torch.bool)), -1.0)
            for name, parameter in parameters.items()
        ]
        for name, kept in zip(parameters, self._kept(magnitudes), strict=True):
            masks.attach(pruned.network, name, kept)
        return pruned

    def __call__(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Pruning looks at the weights alone."""
        clips.refuse_test("MagnitudePruning")
        return self.shape(classifier)

    def _kept(self, magnitudes: list[Tensor]) -> list[Tensor]:
        """One mask a tensor, of its shape."""
        flat = [tensor.flatten() for tensor in magnitudes]
        if self.scope == "layer":
            kept = [self._largest(tensor) for tensor in flat]
        else:
            kept = list(torch.split(self._largest(torch.cat(flat)), [tensor.numel() for tensor in flat]))
        if all(bool(mask.all()) for mask in kept):
            raise InputError(
                f"{self}: removes none of {sum(mask.numel() for mask in kept):,} values; accepted: a larger ratio"
            )
        return [mask.view(tensor.shape) for mask, tensor in zip(kept, magnitudes, strict=True)]

    def _largest(self, magnitudes: Tensor) -> Tensor:
        """False for the share of least magnitude, and for what was masked before: (values,) -> (values,)"""
        number = max(round(self.ratio * len(magnitudes)), int((magnitudes < 0).sum()))
        kept = torch.ones_like(magnitudes, dtype=torch.bool)
        kept[torch.argsort(magnitudes, stable=True)[:number]] = False
        return kept
