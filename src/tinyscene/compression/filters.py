"""Layers of another size: filters removed with all that depends on them, a dense layer replaced by a new one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tinyscene.compression.channels import cut
from tinyscene.compression.coupling import coupled_channels
from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.batches import INITIAL
from tinyscene.training.run import Run, Stage

Criterion = Callable[[Tensor], Tensor]

_STEPS, _CLOSE = 200, 1e-10


def l1_norm(filters: Tensor) -> Tensor:
    """Sum of magnitudes of every filter (Li et al., ICLR 2017): (filters, ...) -> (filters,)"""
    return filters.flatten(1).abs().sum(1)


def frobenius_norm(filters: Tensor) -> Tensor:
    """Root of the sum of squares of every filter (Schmidt et al., DCASE 2022, 2.3): (filters, ...) -> (filters,)"""
    norms: Tensor = torch.linalg.vector_norm(filters.flatten(1), dim=1)
    return norms


def max_norm(filters: Tensor) -> Tensor:
    """Largest magnitude of every filter (Schmidt et al., DCASE 2022, section 2.3): (filters, ...) -> (filters,)"""
    return filters.flatten(1).abs().amax(1)


def geometric_median(filters: Tensor) -> Tensor:
    """Distance of every filter from the layer's geometric median (He et al., CVPR 2019): (filters, ...) -> (filters,)

    The median minimises the sum of Euclidean distances; Weiszfeld's iteration finds it, with Vardi and Zhang's step
    (PNAS 2000) where it meets a filter.
    """
    points = filters.flatten(1).double()
    median = points.mean(0)
    for _ in range(_STEPS):
        distances = (points - median).norm(dim=1)
        apart = distances > _CLOSE * (1 + median.norm())
        if not apart.any():
            break
        weights = 1 / distances[apart]
        target = (weights[:, None] * points[apart]).sum(0) / weights.sum()
        pull = (weights[:, None] * (points[apart] - median)).sum(0).norm()
        stay = min(1.0, float((~apart).sum() / pull)) if pull > 0 else 1.0
        moved = (1 - stay) * target + stay * median
        if (moved - median).norm() <= _CLOSE * (1 + median.norm()):
            break
        median = moved
    scores: Tensor = (points - median).norm(dim=1).to(filters.dtype)
    return scores


@dataclass(frozen=True)
class FilterPruning(Stage):
    """Remove the share `ratio` of a layer's filters that `by` scores lowest.

    What depends on them is removed too: the tensors get smaller, and the rest of the network computes what it would if
    nothing read those filters' outputs, as proved on random inputs (`channels.cut`). Several layers are pruned in
    one shot; levels are several stages with a `Fit` between.

    Args:
        layer: path of a convolution in the network, or of several.
        ratio: between 0 and 1; the number of filters removed is rounded to the nearest.
        by: a criterion, (filters, ...) -> (filters,): `l1_norm`, `geometric_median`, or your own.

    Raises:
        InputError: when applied, a path without a convolution, a ratio that removes none or all, rounded weights, or
            filters that can't be removed; it names what mixes them with others, such as a group norm.
    """

    layer: str | tuple[str, ...]
    ratio: float
    by: Criterion = l1_norm

    def __post_init__(self) -> None:
        check(self, layer=str | tuple, ratio=Numbers(above=0, below=1), by=Callable)

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Prune by the current weights."""
        classifier.require_float("FilterPruning")
        masks.refuse_computed_weights(classifier.network, "FilterPruning")
        pruned = copy.deepcopy(classifier)
        for path in (self.layer,) if isinstance(self.layer, str) else self.layer:
            remove_filters(pruned, path, self.choose(pruned, path))
        return pruned

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Prune by the weights only."""
        return self.shape(classifier)

    def choose(self, classifier: SceneClassifier, path: str) -> list[int]:
        """Indices of the filters to remove; of equal scores, the first."""
        weight = _layer(classifier.network, path, nn.Conv1d | nn.Conv2d, "convolution").weight.detach()
        number = round(self.ratio * len(weight))
        if number == 0:
            raise InputError(
                f"FilterPruning({path!r}, ratio={self.ratio}): removes none of {len(weight)} filters; "
                f"accepted: a ratio of at least {0.5 / len(weight):.3g}, rounded up"
            )
        return sorted(torch.argsort(self.by(weight), stable=True)[:number].tolist())


def remove_filters(classifier: SceneClassifier, path: str, filters: list[int]) -> None:
    """Cut `filters` out of the convolution at `path`, in place, with all that depends on them, masks included."""
    network, example = classifier.network, classifier.short_example()
    coupled, member = next(
        (group, member)
        for group in coupled_channels(network, example)
        for member in group.members
        if (member.path, member.side) == (path, "out")
    )
    if coupled.exempt:
        raise InputError(f"{path}: filters {filters} can't be cut, {coupled.exempt}; try another convolution")
    gone = torch.zeros(coupled.units, dtype=torch.bool)
    gone[member.unit_of[filters]] = True
    if int(gone[member.unit_of].sum()) != len(set(filters)):
        raise InputError(
            f"{path}: its filters go {int((member.unit_of == 0).sum())} at a time, to keep groups equal (of a "
            f"convolution or a shuffle behind it); try another convolution or BudgetPruning"
        )
    cut(network, [(coupled, ~gone)], example)


@dataclass(frozen=True)
class ReplaceDense(Stage):
    """Replace a dense layer by one of `units`, and the one that reads it; everything else is unchanged.

    Both are newly initialised: the third level of Singh et al. (DCASE 2021, section 4) keeps only the convolutions.

    Args:
        units: outputs of the new layer.
        layer, reader: paths of the layer and of the one that reads it.
    """

    units: int
    layer: str = "dense"
    reader: str = "output"

    def __post_init__(self) -> None:
        check(self, units=Numbers(least=1, whole=True))

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Replace with values from torch's generator."""
        classifier.require_float("ReplaceDense")
        replaced = copy.deepcopy(classifier)
        network = replaced.network
        old, old_reader = (_layer(network, path, nn.Linear, "dense layer") for path in (self.layer, self.reader))
        if self.layer == self.reader or old_reader.in_features != old.out_features:
            raise InputError(
                f"{self.reader!r} takes {old_reader.in_features} inputs and does not read the "
                f"{old.out_features} outputs of {self.layer!r}; accepted: the dense layer that does"
            )
        sizes = (old.in_features, self.units), (self.units, old_reader.out_features)
        for path, size, before in zip((self.layer, self.reader), sizes, (old, old_reader), strict=True):
            layer = nn.Linear(*size, bias=before.bias is not None)
            if (initialise := getattr(network, "initialise", None)) is not None:
                initialise(layer)
            network.set_submodule(path, layer)
        return replaced.to(old.weight.device)

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Replace with values from the run's seed."""
        with torch.random.fork_rng(devices=[]):
            run.seed_torch(INITIAL, self.units)
            return self.shape(classifier)


def _layer(network: nn.Module, path: str, kinds: Any, what: str) -> Any:
    """The layer of one of these kinds at `path`. Raises InputError if there is none."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, kinds)}
    if path not in layers:
        raise InputError(f"no {what} {path!r}; accepted: {', '.join(layers)}")
    return layers[path]
