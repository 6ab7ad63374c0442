"""The importance of every filter of a network among the remaining ones (Schmidt et al., DCASE 2022, section 2.3)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tinyscene.compression.channels import Coupled
from tinyscene.errors import InputError

Kept = tuple[Tensor, ...]


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

    def __init__(
        self, network: nn.Module, coupled: Sequence[Coupled], by: Callable[[Tensor], Tensor], normalise: bool
    ) -> None:
        self.network, self.coupled, self.by = network, tuple(coupled), by
        self.everything: Kept = tuple(torch.ones(group.units, dtype=torch.bool) for group in self.coupled)
        self.normalise = normalise
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
