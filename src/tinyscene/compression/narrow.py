"""The projection of filter pruning: from a network's values to the nearest of a narrower one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tinyscene.compression.admm import Tensors
from tinyscene.compression.channels import Coupled
from tinyscene.compression.filters import Criterion
from tinyscene.compression.importance import Importance, Kept

# The units that stay and what is reachable depend on each other; two or three rounds settle them.
_ROUNDS = 8


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
            before, kept = kept, tuple(map(best, self.importance(kept), self.widths))
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


def best(scores: Tensor, number: int) -> Tensor:
    """(units,) -> (units,), True for the highest; of equal ones, the first."""
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    chosen[scores.argsort(descending=True, stable=True)[:number]] = True
    return chosen
