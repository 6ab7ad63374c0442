"""The cost of a network as a function of its widths, and the widths that use up budgets."""

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt
from torch import nn

from tinyscene.accounting import CONVENTIONS, Ledger, TensorRow
from tinyscene.compression.channels import Coupled, Side, known, size_of

Widths = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float64]

# Tensors of a layer that torchinfo counts.
_COUNTED = ("weight", "bias", "norm")
# The share of a budget that may stay unused: invisible at four printed digits.
_TOLERANCE = 5e-5
# The number of widths exchanged at once, and of ways tried.
_AT_ONCE, _WAYS = 5, 2**20
# Small exchanges come before larger ones.
_PARTS = (1 / 8, 1 / 4, 1 / 2, 1.0)


def quadratic_costs(ledger: Ledger, network: nn.Module, coupled: Sequence[Coupled]) -> dict[str, Matrix]:
    """Parameters, MACs and bytes at any widths n, in units of each set: v @ matrix @ v with v = (1, *n).

    A weight holds outputs x inputs values, and both are affine in the widths. The counts are those of
    `tinyscene.count` after the cut: parameters by the convention "bn2", bytes by "bn4", MACs by torchinfo.

    Args:
        ledger: of the network, or of its int8 form.
        network: the one with these sets of channels.
    """
    layers = dict(network.named_modules())
    constant = np.zeros((len(coupled) + 1, len(coupled) + 1))
    constant[0, 0] = 1
    full = np.array([1, *(group.units for group in coupled)])

    def values(row: TensorRow) -> Matrix:
        layer, found = layers.get(row.layer), constant
        if layer is not None and known(layer) and row.values >= size_of(layer, "out"):
            found = np.outer(_channels(row.layer, layer, "out", coupled), constant[0])
            if row.role == "weight":
                found = np.outer(found[:, 0], _channels(row.layer, layer, "in", coupled))
        scaled: Matrix = found * row.values / (full @ found @ full)
        return scaled

    by_row = {row: values(row) for row in ledger.tensors}
    macs = np.zeros_like(constant)
    for layer in ledger.layers:
        held = [by_row[row] for row in ledger.tensors if row.layer == layer.layer and row.role in _COUNTED]
        # A layer without tensors of its own reads another's, whose channels all stay.
        matrix = np.sum(held, 0) if held else constant
        macs += matrix * layer.macs["torchinfo"] / (full @ matrix @ full)
    bn2, bn4 = (CONVENTIONS[name].counted(ledger.tensors) for name in ("bn2", "bn4"))
    return {
        "parameters": np.sum([by_row[row] for row in bn2], 0),
        "bytes": np.sum([by_row[row] * row.itemsize for row in bn4], 0),
        "macs": macs,
    }


def _channels(path: str, layer: nn.Module, side: Side, coupled: Sequence[Coupled]) -> Matrix:
    """(1 + sets,): the constant channels of a layer, and those of each unit."""
    affine = np.zeros(len(coupled) + 1)
    affine[0] = size_of(layer, side)
    for i, group in enumerate(coupled):
        for member in group.members:
            if (member.path, member.side) == (path, side):
                tied = int((member.unit_of >= 0).sum())
                affine[0] -= tied
                affine[1 + i] = tied / group.units
    return affine


def value(matrix: Matrix, widths: Widths) -> npt.NDArray[np.int64]:
    """A quadratic cost at widths (..., sets) -> (...,)"""
    v = np.concatenate([np.ones((*widths.shape[:-1], 1)), widths], -1)
    costs: npt.NDArray[np.int64] = np.rint(((v @ matrix) * v).sum(-1)).astype(np.int64)
    return costs


def fill(costs: Sequence[Matrix], limits: Sequence[int], start: Widths, units: Widths, share: float) -> Widths:
    """Widths near `start` that meet all limits and leave the least unused; of equal ones, the nearest.

    Args:
        costs: a matrix a limit, of `quadratic_costs`.
        limits: of each cost.
        start: (sets,), widths that meet them.
        units: (sets,), the widths before pruning.
        share: of the units, how far a width may move.
    """
    best, unused, way = start, *_rating(costs, limits, start, start[None], units)
    windows = _windows(len(units))
    for part in _PARTS:
        reach = np.floor(share * part * units).astype(np.int64)
        low, high = np.maximum(1, start - reach), np.minimum(units, start + reach)
        for last, others in ((last, [g for g in window if g != last]) for window in windows for last in window):
            tried = _exchanges(best, low, high, others, _WAYS // len(windows))
            tried[:, last] = np.minimum(_most(costs, limits, tried, last), high[last])
            tried = tried[tried[:, last] >= low[last]]
            left, moved = _rating(costs, limits, start, tried, units)
            if len(tried) and (left.min(), moved[left == left.min()].min()) < (unused[0], way[0]):
                found = np.lexsort((moved, left))[:1]
                best, unused, way = tried[found[0]], left[found], moved[found]
        if unused[0] == 0:
            break
    highest = np.minimum(units, start + np.floor(share * units).astype(np.int64))
    for group in range(len(units)):
        # Windows and steps may leave room for more of a single set.
        best = best.copy()
        best[group] = min(highest[group], max(best[group], _most(costs, limits, best[None], group)[0]))
    return best


def _rating(
    costs: Sequence[Matrix], limits: Sequence[int], start: Widths, widths: Widths, units: Widths
) -> tuple[Matrix, Matrix]:
    """(n, sets) -> (n,) twice: unused budgets beyond the tolerance, infinite where exceeded; and the distance."""
    left = np.stack([1 - value(cost, widths) / limit for cost, limit in zip(costs, limits, strict=True)])
    unused = np.where((left < 0).any(0), np.inf, np.maximum(left - _TOLERANCE, 0).sum(0))
    return unused, (abs(widths - start) / units).sum(-1)


def _windows(groups: int) -> list[list[int]]:
    """Neighbouring sets of channels, all of them where they are few."""
    if groups <= _AT_ONCE:
        return [list(range(groups))]
    return [[(first + i) % groups for i in range(_AT_ONCE)] for first in range(groups)]


def _exchanges(best: Widths, low: Widths, high: Widths, groups: list[int], ways: int) -> Widths:
    """`best` with all widths of `groups` from low to high, or nearer to `best` where those are too many."""
    reach = int((ways ** (1 / max(len(groups), 1)) - 1) / 2)
    axes = [np.arange(max(low[g], best[g] - reach), min(high[g], best[g] + reach) + 1) for g in groups]
    widths = np.tile(best, (prod(map(len, axes)), 1))
    for group, column in zip(groups, np.meshgrid(*axes, indexing="ij"), strict=True):
        widths[:, group] = column.ravel("F")
    return widths


def _most(costs: Sequence[Matrix], limits: Sequence[int], widths: Widths, last: int) -> Widths:
    """(n, sets) -> (n,): the largest width of the set `last` that meets all limits, negative where there is none."""
    v = np.concatenate([np.ones((len(widths), 1)), widths], 1)
    v[:, 1 + last] = 0
    found = []
    for cost, limit in zip(costs, limits, strict=True):
        # a x^2 + b x = room, in the last width.
        a, b = cost[1 + last, 1 + last], v @ (cost[1 + last] + cost[:, 1 + last])
        room = limit - ((v @ cost) * v).sum(1)
        root = np.sqrt(np.maximum(b * b + 4 * a * room, 0))
        found.append(np.where(room < 0, -1, 2 * np.maximum(room, 0) / (b + root)))
    most: Widths = np.floor(np.min(found, 0) + 1e-9).astype(np.int64)
    return most
