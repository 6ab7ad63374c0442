"""Parameters and buffers by path, whichever of the two there is."""

from operator import attrgetter
from typing import Any

from torch import Tensor, nn


def get_tensor(network: nn.Module, node: Any) -> Tensor:
    """What a graph's `get_attr` node reads."""
    tensor: Tensor = attrgetter(node.target)(network)
    return tensor


def set_tensor(network: nn.Module, path: str, tensor: Tensor) -> None:
    """Put a parameter, or a buffer, in place of what stands at `path`; modules that are missing there are made."""
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
