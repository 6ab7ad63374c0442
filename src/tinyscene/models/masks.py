"""Masks of pruned weights: boolean buffers `<tensor>_mask` beside their parameters, False where a value stays zero.

They are saved with the weights, and the ledger counts what they keep.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tinyscene.models.tensors import set_tensor

SUFFIX = "_mask"


def attach(network: nn.Module, path: str, kept: Tensor) -> None:
    """Register the mask of the parameter at `path`, in place of an earlier one, and set what it removes to zero."""
    parameter = network.get_parameter(path)
    kept = kept.to(parameter.device, torch.bool)
    set_tensor(network, path + SUFFIX, kept)
    parameter.data.masked_fill_(~kept, 0.0)


def masks_of(network: nn.Module) -> dict[str, Tensor]:
    """The mask of every parameter that has one, by the parameter's path."""
    buffers = dict(network.named_buffers())
    return {path: buffers[path + SUFFIX] for path, _ in network.named_parameters() if path + SUFFIX in buffers}


def removed(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Every masked parameter with what its mask removes; made once, for `apply`."""
    return [(network.get_parameter(path), ~kept) for path, kept in masks_of(network).items()]


@torch.no_grad()
def apply(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Set what the masks remove to zero."""
    for parameter, gone in pairs:
        parameter.masked_fill_(gone, 0.0)


def drop(network: nn.Module) -> None:
    """Forget the masks; what they removed stays zero."""
    for path in masks_of(network):
        owner, _, name = path.rpartition(".")
        delattr(network.get_submodule(owner), name + SUFFIX)


def register(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Register masks for those that stand among saved `tensors`, to be filled by load_state_dict."""
    held = dict(network.state_dict())
    for path, kept in tensors.items():
        if path.endswith(SUFFIX) and path.removesuffix(SUFFIX) in held:
            set_tensor(network, path, torch.ones_like(kept, dtype=torch.bool))
