"""Masks of pruned weights: boolean buffers `<tensor>_mask` beside their parameters, False where a value stays zero.

They are saved with the weights, and the ledger counts what they keep.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from tinyscene.errors import InputError
from tinyscene.models.tensors import set_tensor

SUFFIX = "_mask"


def attach(network: nn.Module, path: str, kept: Tensor) -> None:
    """Register the mask of the parameter at `path`, replacing an earlier one, and set what it removes to zero."""
    parameter = network.get_parameter(path)
    kept = kept.to(parameter.device, torch.bool)
    set_tensor(network, path + SUFFIX, kept)
    parameter.data.masked_fill_(~kept, 0.0)


def masks_of(network: nn.Module) -> dict[str, Tensor]:
    """The mask of every parameter that has one, by the parameter's path."""
    buffers = dict(network.named_buffers())
    return {path: buffers[path + SUFFIX] for path, _ in network.named_parameters() if path + SUFFIX in buffers}


def prunable(network: nn.Module, stage: str, weights_only: bool) -> dict[str, nn.Parameter]:
    """Trainable parameters by path: all, or the weights of convolutions and dense layers.

    Raises:
        InputError: there are none, or a weight is computed from other tensors.
    """
    refuse_computed_weights(network, stage)
    weighted = {
        f"{path}.weight".removeprefix(".")
        for path, layer in network.named_modules()
        if isinstance(layer, _ConvNd | nn.Linear)
    }
    found = {
        path: parameter
        for path, parameter in network.named_parameters()
        if parameter.requires_grad and (path in weighted or not weights_only)
    }
    if not found:
        what = "weight of a convolution or dense layer" if weights_only else "parameter"
        raise InputError(f"{stage}: {type(network).__name__} has no trainable {what}; accepted: at least one")
    return found


def refuse_computed_weights(network: nn.Module, stage: str) -> None:
    """Raise InputError where a layer's weight is not a parameter, as with weight norm: its zeros would not last."""
    for path, layer in network.named_modules():
        computed = isinstance(layer, _ConvNd | nn.Linear) and "weight" not in layer._parameters
        if computed or parametrize.is_parametrized(layer):
            raise InputError(
                f"{stage}: the weight of {path!r} is computed, as by weight_norm or spectral_norm; "
                f"accepted: the network after torch.nn.utils.parametrize.remove_parametrizations (of the older forms "
                f"torch.nn.utils.remove_weight_norm and remove_spectral_norm)"
            )


def removed(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Every masked parameter with what its mask removes; made once, for `apply`."""
    return [(network.get_parameter(path), ~kept) for path, kept in masks_of(network).items()]


@torch.no_grad()
def apply(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Set what the masks remove to zero."""
    for parameter, gone in pairs:
        parameter.masked_fill_(gone, 0.0)


def drop(network: nn.Module) -> None:
    """Drop the masks; what they removed stays zero."""
    for path in masks_of(network):
        owner, _, name = path.rpartition(".")
        delattr(network.get_submodule(owner), name + SUFFIX)


def register(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Register the masks found in saved `tensors`, to be filled by load_state_dict."""
    held = dict(network.state_dict())
    for path, kept in tensors.items():
        if path.endswith(SUFFIX) and path.removesuffix(SUFFIX) in held:
            set_tensor(network, path, torch.ones_like(kept, dtype=torch.bool))
