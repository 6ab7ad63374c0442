"""Parameters and buffers by path, and their order in memory."""

import copy
from operator import attrgetter
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators of `q`, without importing torchao
from torch import Tensor, nn

aten, q = torch.ops.aten, torch.ops.quantized_decomposed


def get_tensor(network: nn.Module, node: Any) -> Tensor:
    """The tensor that a graph's `get_attr` node reads."""
    tensor: Tensor = attrgetter(node.target)(network)
    return tensor


def set_tensor(network: nn.Module, path: str, tensor: Tensor) -> None:
    """Replace the parameter or buffer at `path`; missing modules are created."""
    *above, name = path.split(".")
    for step in above:
        if step not in network._modules:
            network.add_module(step, nn.Module())
        network = network.get_submodule(step)
    if isinstance(tensor, nn.Parameter):
        network.register_parameter(name, tensor)
        return
    if name in network._parameters:
        delattr(network, name)
    network.register_buffer(name, tensor)


def memory_format(network: nn.Module) -> torch.memory_format:
    """The memory order of its maps: where possible channels last, which halves the time of a convolution on CPUs."""
    found: torch.memory_format = getattr(network, "memory_format", torch.channels_last)
    return found


def laid_out(network: nn.Module) -> Any:
    """The network, its weights changed in place to the order of its maps."""
    # One order everywhere keeps rounding the same.
    return network.to(memory_format=memory_format(network))  # type: ignore[call-overload]


def set_memory_format(network: nn.Module, features: Tensor) -> None:
    """Mark its maps as contiguous where it fails on others, as `view` does after a convolution.

    Args:
        features: (batch, channels, bands, frames), of any values.
    """
    if hasattr(network, "memory_format"):
        return
    if all(tensor.ndim != 4 for tensor in [*network.parameters(), *network.buffers()]):
        network.memory_format = torch.contiguous_format  # type: ignore[assignment]
        return
    copied = laid_out(copy.deepcopy(network).cpu().eval())
    try:
        with torch.no_grad():
            copied(features.contiguous(memory_format=torch.channels_last))
    except Exception as error:
        # Other failures are reported at its first use.
        if "view size is not compatible" in str(error):
            network.memory_format = torch.contiguous_format  # type: ignore[assignment]
