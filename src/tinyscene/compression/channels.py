"""Which channels of a network can only go together, and the cut that removes them.

A residual sum ties the channels of all that is added, a depthwise convolution its outputs to its inputs, a flattening
many features to one channel. Torch-Pruning's dependency graph finds out (Fang et al., "DepGraph: towards any structural
pruning", CVPR 2023), once a network; what is removed, and how, is ours.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import lcm
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from tinyscene.errors import InputError
from tinyscene.models.bc_resnet_mod import SubSpectralNorm
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
    """Channels that several layers share: what goes from one of them goes from all.

    Attributes:
        name: path of the first layer that makes them.
        units: how many can go one by one. A unit is one channel, or where a convolution in groups makes or reads them
            one from each of its groups, so that these stay equal.
        members: each layer that makes, normalises or reads them.
        exempt: why none of them can go; empty where they can.
    """

    name: str
    units: int
    members: tuple[Member, ...]
    exempt: str = ""

    def makers(self) -> list[Member]:
        """Whatever gives the channels their values: convolutions, dense layers and norms."""
        return [member for member in self.members if member.side == "out"]

    def producers(self, network: nn.Module) -> list[Member]:
        """The convolutions and dense layers that make the channels."""
        norms = {path for path, layer in network.named_modules() if isinstance(layer, _BatchNorm)}
        return [member for member in self.makers() if member.path not in norms]


class _Found(NamedTuple):
    """A layer that depends on a group: its channels `indices` on the group's `roots`, one by one."""

    path: str
    layer: nn.Module
    side: Side
    indices: list[int]
    roots: list[int]


def coupled_channels(network: nn.Module, example: Tensor) -> tuple[Coupled, ...]:
    """Every set of channels that are tied together, in the network's order; those that can't be pruned say why.

    Exempt are the logits, channels that become another dimension (the height of an image, as AemNet's), those that are
    the input's own, and single ones.

    Args:
        network: convolutions, dense layers, batch norms, sub-spectral norms, and whatever has no parameters.
        example: (1, channels, bands, frames), as long as the network needs.
    """
    import torch_pruning

    twin, parts = _traceable(network)
    graph = torch_pruning.DependencyGraph()
    with torch.enable_grad():
        graph.build_dependency(twin, (example.detach().float().cpu(),), verbose=False)
        _number_concatenated(graph)
    paths = {layer: path for path, layer in twin.named_modules()}
    order = list(paths.values())
    coupled = [_coupled(graph, group, paths, parts) for group in graph.get_all_groups()]
    return _complete(sorted(coupled, key=lambda group: order.index(group.name)))


def _traceable(network: nn.Module) -> tuple[nn.Module, dict[str, int]]:
    """A copy that the dependency graph can read, and the values that each of its sub-spectral norms has a channel.

    Torch-Pruning follows gradients, and takes no view as (batch, channels x sub-bands, ...) apart.
    """
    twin = copy.deepcopy(network).float().cpu().eval().requires_grad_(True)
    parts = {path: norm.sub_bands for path, norm in twin.named_modules() if isinstance(norm, SubSpectralNorm)}
    for path, each in parts.items():
        values = int(twin.get_submodule(path).norm.num_features)  # type: ignore[union-attr, arg-type]
        twin.set_submodule(path, nn.BatchNorm2d(values // each).eval())
    return twin, parts


def _number_concatenated(graph: Any) -> None:
    """Give concatenated channels their places where a flattening follows, which Torch-Pruning 1.6.1 does not.

    It compares the number of flattened features with that of channels, and takes the difference for another dimension.
    """
    from torch_pruning.dependency import index_mapping, shape_infer
    from torch_pruning.ops import OPTYPE

    for node in graph.module2node.values():
        if node.type != OPTYPE.CONCAT or node.module.offsets is not None or node.grad_fn._saved_dim != 1:
            continue
        sizes = [shape_infer.infer_channels_between(graph, source, node) for source in node.inputs]
        for source, span in zip(node.inputs, pairwise(accumulate(sizes, initial=0)), strict=True):
            for origin, target, back in ((node, source, True), (source, node, False)):
                for dependency in origin.dependencies:
                    if dependency.target is target:
                        dependency.index_mapping[1] = index_mapping._ConcatIndexMapping(span, reverse=back)


def _complete(coupled: list[Coupled]) -> tuple[Coupled, ...]:
    """Exempt what shares a layer's side with channels that no set holds: something was not understood."""
    held: dict[tuple[str, Side], Tensor] = {}
    for group in coupled:
        for path, side, unit_of in group.members:
            held[path, side] = held.get((path, side), torch.zeros(len(unit_of), dtype=torch.int64)) + (unit_of >= 0)
    broken = {key for key, times in held.items() if not (times == 1).all()}

    return tuple(
        replace(group, exempt=group.exempt or f"which channels of {unclear[0]} are theirs is not known")
        if (unclear := [m.path for m in group.members if (m.path, m.side) in broken])
        else group
        for group in coupled
    )


def _coupled(graph: Any, group: Any, paths: dict[nn.Module, str], parts: dict[str, int]) -> Coupled:
    found, reasons = [], []
    for item in group:
        node, layer = item.dep.target, item.dep.target.module
        side: Side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        if not node.outputs and (side == "out" or layer not in paths):
            reasons.append("they are the logits")
        if isinstance(layer, nn.Parameter) or (layer in paths and not known(layer) and [*layer.parameters()]):
            reasons.append(f"{type(layer).__name__} depends on them, which no cut here takes apart")
        elif layer in paths and known(layer):
            found.append(_Found(paths[layer], layer, side, item.idxs, item.root_idxs))
            if not node.inputs and (depthwise(layer) or isinstance(layer, _BatchNorm)):
                reasons.append("they are the input's")
    channels = len(group[0].idxs)
    groups = lcm(*(getattr(f.layer, "groups", 1) for f in found if not depthwise(f.layer)))
    units = channels // groups
    # Some layers' names come before those of the layer at which the search began.
    order = list(paths.values())
    found.sort(key=lambda f: order.index(f.path))
    name = next(f.path for f in found if f.side == "out" and not isinstance(f.layer, _BatchNorm))
    fitting = [f for f in found if max(f.indices) < size_of(f.layer, f.side)]
    if len(fitting) < len(found):
        reasons.append("they become another dimension of what the next layer reads")
    members = tuple(_member(f, units, parts) for f in fitting)
    if not all(_even(m.unit_of, units, f.layer) for m, f in zip(members, fitting, strict=True)):
        reasons.append("the units are of unequal size")
    if units == 1:
        reasons.append("only one can go at a time, and one has to stay")
    return Coupled(name, units, members, reasons[0] if reasons else "")


def _member(found: _Found, units: int, parts: dict[str, int]) -> Member:
    unit_of = torch.full((size_of(found.layer, found.side),), -1)
    unit_of[found.indices] = torch.tensor(found.roots) % units
    if found.path in parts:
        return Member(f"{found.path}.norm", "out", unit_of.repeat_interleave(parts[found.path]))
    return Member(found.path, found.side, unit_of)


def _even(unit_of: Tensor, units: int, layer: nn.Module) -> bool:
    """Whether every unit holds as many channels, and the same ones of each of a convolution's groups."""
    sizes = unit_of[unit_of >= 0].bincount(minlength=units)
    rows = unit_of.view(_groups(layer), -1)
    return bool((sizes == sizes[0]).all() and (rows == rows[0]).all())


@torch.no_grad()
def cut(network: nn.Module, kept: Iterable[tuple[Coupled, Tensor]]) -> None:
    """Remove channels in place, from weights, biases, batch norms with their statistics, and masks.

    What stays is as it was: data type, device, whether it is trained.

    Args:
        network: the one that `coupled_channels` looked at, with its sizes since then unchanged.
        kept: sets of channels, each with (units,), True for those that stay.

    Raises:
        InputError: none would stay, or the channels are exempt.
    """
    stays: dict[str, dict[Side, Tensor]] = {}
    for coupled, units in kept:
        if coupled.exempt and not units.all():
            raise InputError(f"{coupled.name}: its channels can't be pruned, {coupled.exempt}; accepted: other layers")
        if not units.any():
            raise InputError(f"{coupled.name}: all {coupled.units} channels would go; accepted: one at least stays")
        for path, side, unit_of in coupled.members:
            sides = stays.setdefault(path, {})
            # A layer may read the channels of several sets, side by side.
            sides[side] = sides.get(side, torch.tensor(True)) & (units.cpu()[unit_of] | (unit_of < 0))
    for path, sides in stays.items():
        _slice(network.get_submodule(path), sides)
    laid_out(network)


def _slice(layer: nn.Module, stays: dict[Side, Tensor]) -> None:
    groups, tied = _groups(layer), depthwise(layer)
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
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear | _BatchNorm)


def depthwise(layer: nn.Module) -> bool:
    """Whether each output is made of the input of the same number alone."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels == layer.out_channels


def _groups(layer: nn.Module) -> int:
    """Of a convolution in groups; 1 for all else, depthwise ones included."""
    return int(getattr(layer, "groups", 1)) if not depthwise(layer) else 1


def size_of(layer: nn.Module, side: Side) -> int:
    return int(next(getattr(layer, size) for size in _SIZES[side] if hasattr(layer, size)))
