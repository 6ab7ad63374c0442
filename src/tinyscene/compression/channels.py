"""Channels that can only be removed together, and their removal from the layers that hold them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from tinyscene.errors import InputError
from tinyscene.models.tensors import laid_out

Side = Literal["out", "in"]
_SIZES = {
    "out": ("out_channels", "out_features", "num_features"),
    "in": ("in_channels", "in_features"),
}


class Member(NamedTuple):
    """One side of a layer; `unit_of` (channels,) is the unit that holds each of its channels, -1 where none does."""

    path: str
    side: Side
    unit_of: Tensor


@dataclass(frozen=True, eq=False)
class Coupled:
    """Channels that several layers share: they are removed from all.

    Attributes:
        name: path of the first layer that makes them.
        units: how many can go one by one. A unit is one channel, or where a convolution in groups makes or reads them
            one from each of its groups, so that these stay equal.
        members: each layer that makes, normalises or reads them.
        exempt: why none of them can be removed; empty where they can.
    """

    name: str
    units: int
    members: tuple[Member, ...]
    exempt: str = ""

    def makers(self) -> list[Member]:
        """The layers that compute the channels: convolutions, dense layers and norms."""
        return [member for member in self.members if member.side == "out"]

    def producers(self, network: nn.Module) -> list[Member]:
        """The convolutions and dense layers that make the channels, depthwise ones included."""
        norms = {path for path, layer in network.named_modules() if isinstance(layer, _BatchNorm)}
        return [member for member in self.makers() if member.path not in norms]


@torch.no_grad()
def remove(network: nn.Module, kept: Iterable[tuple[Coupled, Tensor]]) -> None:
    """Remove channels in place, from weights, biases, batch norms with their statistics, and masks: `cut` unproved.

    Data type, device and `requires_grad` stay the same.

    Args:
        network: the one given to `coupled_channels`, its sizes unchanged since.
        kept: sets of channels, each with (units,), True for those that stay.

    Raises:
        InputError: none would be left, or the channels are exempt.
    """
    stays: dict[str, dict[Side, Tensor]] = {}
    for coupled, units in kept:
        if coupled.exempt and not units.all():
            raise InputError(f"{coupled.name}: its channels can't be pruned, {coupled.exempt}; try other layers")
        if not units.any():
            raise InputError(f"{coupled.name}: all {coupled.units} channels would be removed; keep at least one")
        for path, side, unit_of in coupled.members:
            sides = stays.setdefault(path, {})
            # A layer may read the channels of several sets, side by side.
            sides[side] = sides.get(side, torch.tensor(True)) & (units.cpu()[unit_of] | (unit_of < 0))
    for path, sides in stays.items():
        _slice(network.get_submodule(path), sides)
    laid_out(network)


def _slice(layer: nn.Module, stays: dict[Side, Tensor]) -> None:
    groups, tied = groups_of(layer), depthwise(layer)
    for side, kept in stays.items():
        if kept.all():
            continue
        for size in _SIZES[side]:
            if hasattr(layer, size):
                setattr(layer, size, int(kept.sum()))
        if tied:
            layer.in_channels = layer.groups = layer.out_channels
        # Along its inputs, the weight of a convolution in groups holds one group's.
        axis, indices = (0, kept.nonzero()) if side == "out" else (1, kept.view(groups, -1)[0].nonzero())
        for tensor in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            if tensor.ndim > axis:
                tensor.data = tensor.data.index_select(axis, indices[:, 0].to(tensor.device))
                tensor.grad = None


def known(layer: nn.Module) -> bool:
    """Whether `remove` can cut it."""
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear | _BatchNorm)


def depthwise(layer: nn.Module) -> bool:
    """Whether each output depends only on the input of the same number."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels == layer.out_channels


def groups_of(layer: nn.Module) -> int:
    """Of a convolution in groups; 1 for all others, depthwise ones included."""
    return int(getattr(layer, "groups", 1)) if not depthwise(layer) else 1


def size_of(layer: nn.Module, side: Side) -> int:
    return int(next(getattr(layer, size) for size in _SIZES[side] if hasattr(layer, size)))


def along_channels(layer: nn.Module, values: Tensor) -> Tensor:
    """The input or output of a `known` layer, channels first: (channels, ...)"""
    if isinstance(layer, _BatchNorm):
        return values.movedim(1, 0)
    return values.movedim(-1 - len(layer.kernel_size) if isinstance(layer, _ConvNd) else -1, 0)
