"""The importance of every filter of a network among the remaining ones (Schmidt et al., DCASE 2022, section 2.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tinyscene.compression.admm import Tensors, largest
from tinyscene.compression.channels import Coupled
from tinyscene.compression.filters import Criterion
from tinyscene.errors import InputError

Kept = tuple[Tensor, ...]
# The units that stay and what is reachable depend on each other; two or three rounds settle them.
_ROUNDS = 8


class Importance:
    """The importance of every unit of channels: `by` of the filters that make it.

    A filter is judged by its reachable inputs. Where several layers make a channel, it is the norm over
    their filters' importances. With `normalise` each is divided by the mean over all filters that the layer had, and
    the root mean square replaces the norm: a channel is then important relative to others of its layers, whatever the
    number of their inputs, before and after removals, and whatever the number of layers.

    Args:
        network: as given to `coupled_channels`; later changes of its weights count.
        coupled: sets that can be pruned.
        by: (filters, ...) -> (filters,)
        normalise: see above.
    """

    def __init__(self, network: nn.Module, coupled: Sequence[Coupled], by: Criterion, normalise: bool) -> None:
        self.network, self.coupled, self.by, self.normalise = network, tuple(coupled), by, normalise
        self.everything: Kept = tuple(torch.ones(group.units, dtype=torch.bool) for group in self.coupled)
        self.reads = {
            member.path: [
                (i, other.unit_of)
                for i, group in enumerate(self.coupled)
                for other in group.members
                if other.side == "in" and other.path == member.path
            ]
            for group in self.coupled
            for member in group.producers(network)
        }

    @torch.no_grad()
    def __call__(self, kept: Kept) -> Kept:
        """(units,) of every set, True for the remaining ones -> (units,) of every set, their importance."""
        return tuple(self._of_set(group, kept) for group in self.coupled)

    def survivors(self, threshold: float) -> Kept:
        """Units above `threshold`, until reachability no longer changes; always the best unit of a set.

        Removed units stay removed, even where a criterion's value rises with fewer inputs.
        """
        kept = self.everything
        while True:
            fewer = tuple(_above(*pair, threshold) for pair in zip(self(kept), kept, strict=True))
            if all(map(torch.equal, fewer, kept)):
                return kept
            kept = fewer

    def _of_set(self, group: Coupled, kept: Kept) -> Tensor:
        squares, filters = torch.zeros(group.units), torch.zeros(group.units)
        for member in group.producers(self.network):
            scores = self._filters(member.path, kept)
            if self.normalise:
                scores = scores / scores.mean().clamp_min(torch.finfo(scores.dtype).tiny)
            made = member.unit_of >= 0
            squares.index_add_(0, member.unit_of[made], scores[made] ** 2)
            filters.index_add_(0, member.unit_of[made], torch.ones(int(made.sum())))
        return (squares / filters if self.normalise else squares).sqrt()

    def _filters(self, path: str, kept: Kept) -> Tensor:
        """(filters,): importance of a layer's filters over their reachable inputs."""
        layer = self.network.get_submodule(path)
        weight = layer.weight.detach().float().cpu()  # type: ignore[operator]
        for i, unit_of in self.reads[path]:
            # All groups of a convolution keep the same of their inputs.
            reachable = (kept[i][unit_of] | (unit_of < 0))[: weight.shape[1]]
            weight = weight * reachable.view(1, -1, *[1] * (weight.ndim - 2))
        scores = self.by(weight)
        if (scores < 0).any():
            raise InputError(
                f"by={self.by!r} gives {float(scores.min()):.3g} for a filter of {path}; accepted: at least 0"
            )
        return scores


def _above(scores: Tensor, kept: Tensor, threshold: float) -> Tensor:
    above = kept & (scores > threshold)
    if not above.any():
        above[scores.masked_fill(~kept, -torch.inf).argmax()] = True
    return above


@dataclass(frozen=True)
class Narrow:
    """Zero everything that makes the channels of the least important units, so that `widths` of every set stay.

    The hard threshold of Schmidt et al. (DCASE 2022 Task 1, section 2.3) with the widths that their threshold gives,
    which meet the budgets however training changes the weights. With a filter go its bias and its norms'
    scales and shifts: a norm would restore a small filter's size, and shift a filter of zeros.

    Args:
        widths: units that stay, of every set.
        by, normalise: as `BudgetPruning`'s.
        importance: of a copy of the network, whose values it overwrites.
    """

    widths: tuple[int, ...]
    by: Criterion
    normalise: bool
    importance: Importance = field(repr=False, compare=False)

    def __call__(self, values: Tensors) -> Tensors:
        """Values by path, the same paths and shapes back."""
        kept = self.kept(values)
        gone: dict[str, Tensor] = {}
        for group, units in zip(self.importance.coupled, kept, strict=True):
            for path, _, unit_of in group.makers():
                rows = ~units[unit_of] & (unit_of >= 0)
                gone[path] = gone.get(path, torch.zeros_like(rows)) | rows
        projected = {}
        for path, value in values.items():
            rows = gone[path.rpartition(".")[0]].to(value.device)
            projected[path] = value.masked_fill(rows.view(-1, *[1] * (value.ndim - 1)), 0.0)
        return projected

    def kept(self, values: Tensors) -> Kept:
        """(units,) of every set, True for the most important: by the filters in `values`, over reachable inputs."""
        for path, value in values.items():
            self.importance.network.get_parameter(path).data.copy_(value)
        kept = self.importance.everything
        for _ in range(_ROUNDS):
            before, kept = kept, tuple(map(largest, self.importance(kept), self.widths))
            if all(map(torch.equal, before, kept)):
                break
        return kept


def makers_parameters(network: nn.Module, coupled: Sequence[Coupled]) -> tuple[str, ...]:
    """Paths of all that make the channels of these sets: weights, biases, and scales and shifts of norms."""
    layers = dict.fromkeys(path for group in coupled for path, _, _ in group.makers())
    return tuple(
        f"{layer}.{name}"
        for layer in layers
        for name, _ in network.get_submodule(layer).named_parameters(recurse=False)
    )
