"""An int8 network as a plain graph of PT2E's operations, as read by runtimes other than ONNX Runtime.

Scales are numbers instead of tensors, biases are float (a division by the scale gives their integers), every reader has
its own dequantization, and operations that only move values are followed by a rounding that changes nothing.
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tinyscene.deployment.forms import Form, FormModule
from tinyscene.models.preparation import CURVES, DROPOUTS, RELUS, SHAPES, SINGULAR, SUMS, WEIGHTED
from tinyscene.models.quantized import Int8Network
from tinyscene.models.tensors import aten, get_tensor, q, set_tensor

_DEQUANTIZE = q.dequantize_per_tensor.default
_BY_NUMBERS = {
    q.quantize_per_tensor.tensor: q.quantize_per_tensor.default,
    q.dequantize_per_tensor.tensor: _DEQUANTIZE,
}
# LiteRT's converter would round a tensor for all its readers where one of them rounds it, or something moved, joined or
# chosen from it. It removes a product with 1.
_NEXT_TO_ONE = 1 + 2.0**-23
# Operations whose output has a scale of its own there. All others may pass on that of their input.
_RESCALING = (WEIGHTED | RELUS | SUMS | CURVES | SINGULAR | {aten.mean.dim}) - {aten.cat.default}


def module_of(form: Form, *, stored: bool) -> FormModule:
    """A copy of a form's module at 32 bits, its int8 network as a plain graph.

    Args:
        stored: hold int8 weights as such; otherwise dequantized, followed by a rounding that restores them.
    """
    module = copy.deepcopy(form.module).float()
    if form.int8:
        module.network = _Rewriter(form.module.network, stored).rewritten()  # type: ignore[arg-type]
    return module.eval()


class _Rewriter:
    """Copies a graph node by node."""

    def __init__(self, network: Int8Network, stored: bool) -> None:
        self.network, self.stored = network, stored
        self.root, self.graph = nn.Module(), fx.Graph()
        self.made: dict[fx.Node, fx.Node] = {}
        self.held: dict[fx.Node, tuple[str, Tensor]] = {}

    def rewritten(self) -> fx.GraphModule:
        for node in self.network.graph.nodes:
            if node.op == "get_attr":
                self.held[node] = str(node.target), get_tensor(self.network, node)
            elif node.target == aten.mul.Tensor and all(given in self.held for given in node.args):
                first, second = (self.held[given][1] for given in node.args)
                self.held[node] = "", first * second  # a bias's scale
            else:
                self.made[node] = self._copied(node)
        self.graph.eliminate_dead_code()
        return fx.GraphModule(self.root, self.graph)

    def _copied(self, node: fx.Node) -> fx.Node:
        if node.target in DROPOUTS:
            return self.made[node.args[0]]  # type: ignore[index]
        if node.target in _BY_NUMBERS:
            given, scale, zero_point, *rest = cast(tuple[Any, ...], node.args)
            numbers = float(self.held[scale][1]), int(self.held[zero_point][1])
            read = self._read(given)
            if not self.stored and node.target == q.quantize_per_tensor.tensor and _read_in_float_too(given):
                read = self.graph.call_function(aten.mul.Tensor, (read, _NEXT_TO_ONE))
            return self.graph.call_function(_BY_NUMBERS[node.target], (read, *numbers, *rest))
        if node.target == q.dequantize_per_channel.default:
            return self._dequantized(node)
        new = self.graph.node_copy(node, self._read)
        new.meta = {}
        source = new.args[0] if new.args else None
        if node.target in SHAPES and isinstance(source, fx.Node) and source.target == _DEQUANTIZE:
            rounded = self.graph.call_function(q.quantize_per_tensor.default, (new, *source.args[1:]))
            return self.graph.call_function(_DEQUANTIZE, (rounded, *source.args[1:]))
        return new

    def _dequantized(self, node: fx.Node) -> fx.Node:
        """A weight or a bias."""
        whole, scale, _, axis, low, high, dtype = node.args
        (name, values), scales = self.held[whole], self.held[scale][1]  # type: ignore[index]
        if values.dtype == torch.int32:
            return self._constant(name, values.float() * scales)
        by = self._constant(f"{name}_scale", scales)
        zeros = self._constant(f"{name}_zero_point", torch.zeros_like(scales, dtype=torch.int64))
        settings = (by, zeros, axis, low, high, dtype)
        if self.stored:
            weight = self._constant(name, values)
        else:
            shaped = scales.view(-1, *[1] * (values.ndim - 1))
            weight = self._constant(name, values.float() * shaped)
            weight = self.graph.call_function(q.quantize_per_channel.default, (weight, *settings))
        return self.graph.call_function(q.dequantize_per_channel.default, (weight, *settings))

    def _read(self, node: fx.Node) -> fx.Node:
        """The copy of a node, for one reader."""
        if node not in self.made:
            self.made[node] = self._constant(*self.held[node])
        made = self.made[node]
        return self.graph.call_function(_DEQUANTIZE, made.args) if made.target == _DEQUANTIZE else made

    def _constant(self, name: str, values: Tensor) -> fx.Node:
        set_tensor(self.root, name, values.detach().contiguous())
        return self.graph.get_attr(name)


def _read_in_float_too(node: fx.Node) -> bool:
    """Whether the tensor rounded here, or one that it was moved, joined or chosen from, is also read in float."""
    value = node.meta.get("val")  # None behind a rounding, whose readers each have their own; a number for sizes
    if isinstance(value, Tensor) and len(node.users) > 1:
        return True
    if node.target in _RESCALING or not isinstance(value, Tensor | tuple | list):
        return False
    return any(_read_in_float_too(source) for source in node.all_input_nodes)
