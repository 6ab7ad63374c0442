"""Channels that can only be removed together, their removal, and its proof.

The smaller network computes the same as the whole one without the removed channels: there, every removed channel is
NaN, and the layers that are known to read it see zero instead. If anything else depends on a removed channel, the
logits are NaN; if the smaller network confuses channels, its logits differ. A gate with sigmoid(0) = 0.5 in between is
no exception, since nothing reads its output.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from tinyscene.errors import InputError
from tinyscene.models.bc_resnet_mod import ResidualNorm
from tinyscene.models.tensors import laid_out
from tinyscene.models.tracing import tensors_in

Side = Literal["out", "in"]
FAILURES = (RuntimeError, ValueError, IndexError, TypeError, AssertionError)
"""Of a network that is given an input that it can't take, or whose sizes don't fit."""

_TOLERANCE = 1e-6
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


def cut(network: nn.Module, kept: Iterable[tuple[Coupled, Tensor]], example: Tensor) -> None:
    """Remove channels in place, once the rest is proved to compute as before; see `remove`.

    Args:
        network: the one that `coupled_channels` looked at, with its sizes since then unchanged.
        kept: sets of channels, each with (units,), True for those that stay.
        example: (1, channels, bands, frames), as long as the network needs.

    Raises:
        InputError: none would be left, the channels are exempt, or an operation between the layers mixes them.
    """
    kept = [(coupled, units.cpu()) for coupled, units in kept]
    shrinking = [(coupled, units) for coupled, units in kept if not units.all()]
    if shrinking and (operation := fault(stand_in(network), shrinking, example, lengths=(1, 2))):
        names = ", ".join(coupled.name for coupled, _ in shrinking)
        raise InputError(
            f"{names}: without these channels the network would compute something else, since {operation} does not "
            f"keep them separate; accepted: layers without such an operation behind them"
        )
    remove(network, kept)


@torch.no_grad()
def stand_in(network: nn.Module) -> nn.Module:
    """A copy in double precision and evaluation mode with random values, so that no zero hides a dependence.

    Residual normalization, whose statistics are over the existing channels, is left out of the proof.
    """
    twin = copy.deepcopy(network).double().cpu().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.uniform_(0.5, 1.5, generator=generator)
    for path, layer in [*twin.named_modules()]:
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
        elif isinstance(layer, ResidualNorm):
            twin.set_submodule(path, nn.Identity())
    return twin


@torch.no_grad()
def fault(twin: nn.Module, kept: list[tuple[Coupled, Tensor]], example: Tensor, lengths: tuple[int, ...] = (1,)) -> str:
    """The first operation after which the cut network differs; empty where it never does.

    Args:
        twin: a `stand_in`.
        kept: as for `remove`.
        example: (1, channels, bands, frames); noise for two clips of its shape goes through both networks.
        lengths: of the noise, in lengths of the example; the network takes the first.
    """
    small = copy.deepcopy(twin)
    remove(small, kept)
    whole = _without(copy.deepcopy(twin), kept)
    generator = torch.Generator().manual_seed(1)
    for length in lengths:
        shape = 2, *example.shape[1:-1], length * example.shape[-1]
        features = torch.randn(shape, generator=generator, dtype=torch.float64)
        try:
            expected = whole(features)
        except FAILURES:
            if length == lengths[0]:
                raise
            # A dense layer behind a flattening takes only one length.
            continue
        try:
            found = small(features)
            slack = _TOLERANCE * expected.abs().max()
            if found.shape == expected.shape and torch.allclose(found, expected, _TOLERANCE, float(slack)):
                continue
        except FAILURES:
            pass
        return _first_difference(whole, small, features)
    return ""


def _without(whole: nn.Module, kept: list[tuple[Coupled, Tensor]]) -> nn.Module:
    """The whole network, the removed channels NaN where they are made and zero where they are read."""
    for coupled, units in kept:
        for path, side, unit_of in coupled.members:
            layer, gone = whole.get_submodule(path), (unit_of >= 0) & ~units[unit_of]
            if side == "in":
                layer.register_forward_pre_hook(lambda m, args, gone=gone: _marked(m, args[0], gone, 0.0))
            elif not depthwise(layer) and not isinstance(layer, _BatchNorm):
                layer.register_forward_hook(lambda m, _, out, gone=gone: _marked(m, out, gone, torch.nan))
    return whole


def _marked(layer: nn.Module, values: Tensor, gone: Tensor, mark: float) -> Tensor:
    values = values.clone()
    along_channels(layer, values)[gone] = mark
    return values


class _Calls(TorchFunctionMode):
    """Every function called outside the layers that a cut changes, with the values that are not NaN."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.running: list[tuple[str, nn.Module]] = []
        self.found: list[tuple[str, list[Tensor]]] = []
        self.network = self.now = type(network).__name__
        for path, module in network.named_modules():
            module.register_forward_pre_hook(lambda m, _, path=path: self.running.append((path, m)), prepend=True)
            module.register_forward_hook(lambda *_: self.running.pop() and None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        path, module = self.running[-1] if self.running else ("", nn.Identity())
        name = getattr(func, "__name__", "").strip("_")
        if known(module):
            return func(*args, **(kwargs or {}))
        of_torch = type(module).__module__.startswith("torch.nn.modules")
        self.now = f"{type(module).__name__} ({path})" if of_torch and path else f"{name} in {path or self.network}"
        result = func(*args, **(kwargs or {}))
        if name != "get":
            values = [out[~out.isnan()].clone() for out in tensors_in(result) if out.is_floating_point()]
            self.found.append((self.now, values))
        return result


def _first_difference(whole: nn.Module, small: nn.Module, features: Tensor) -> str:
    """The first function whose values differ, or the last before the cut network fails."""
    with _Calls(whole) as expected:
        whole(features)
    calls = _Calls(small)
    try:
        with calls:
            small(features)
    except FAILURES:
        calls.found.append((calls.now, []))
    for (_, values), (name, found) in zip(expected.found, calls.found, strict=False):
        equal = len(values) == len(found) and all(
            one.shape == other.shape and torch.allclose(one, other, _TOLERANCE, _TOLERANCE)
            for one, other in zip(values, found, strict=True)
        )
        if not equal:
            return name
    return calls.found[-1][0]
