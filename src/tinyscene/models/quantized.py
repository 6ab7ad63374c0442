"""Networks under fake quantization, and with int8 weights."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.fake_quantize import (
    ActivationQuantize,
    BiasQuantize,
    FakeQuantize,
    activation_qparams,
    quantize_bias,
    quantize_weight,
)
from tinyscene.models.folding import fold_batch_norm
from tinyscene.models.network import Network, locality, shortest_frames
from tinyscene.models.tensors import get_tensor, laid_out, memory_format, set_tensor


@dataclass(frozen=True)
class Origin:
    """The recipe of an int8 network: the float network's structure, and the parts that stay in float."""

    network: nn.Module
    keep_float: tuple[str, ...]
    example: tuple[int, ...]

    def folded(self) -> nn.Module:
        """The float network with batch norm folded, its values meaningless: counting runs it."""
        empty = copy.deepcopy(self.network).to_empty(device="cpu")
        for tensor in [*empty.parameters(), *empty.buffers()]:
            tensor.data.zero_()
        return fold_batch_norm(empty, torch.zeros(self.example), self.keep_float)


class FakeQuantized(Network):
    """A float network that rounds like its int8 form: quantization-aware training trains it."""

    origin: Origin

    def __init__(self, graph: fx.GraphModule, origin: Origin) -> None:
        super().__init__()
        self.graph, self.origin = graph, origin
        self.shortest_frames = shortest_frames(origin.network)
        self.memory_format = memory_format(origin.network)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes)"""
        logits: Tensor = self.graph(features)
        return logits

    def train(self, mode: bool = True) -> "FakeQuantized":
        """Ranges of activations follow their inputs only in training.

        Exported graphs hold dropout and batch norm as functions, with their flag in the graph.
        """
        super().train(mode)
        aten = torch.ops.aten
        flags = {aten.dropout.default: 2, aten.feature_dropout.default: 2, aten.batch_norm.default: 5}
        for node in self.graph.graph.nodes:
            if (position := flags.get(node.target)) is not None:
                node.args = (*node.args[:position], mode, *node.args[position + 1 :])
        self.graph.recompile()
        return self

    @torch.no_grad()
    def set_ranges(self, batches: Iterable[Tensor]) -> None:
        """Give activations the ranges of least cost for the clips of `batches`; nothing is rounded meanwhile."""
        self.eval()
        for quantizer in self.quantizers():
            quantizer.rounds = False
        for features in batches:
            self(features)
        for quantizer in self.quantizers():
            if isinstance(quantizer, ActivationQuantize):
                quantizer.settle()
            quantizer.rounds = True

    def quantizers(self) -> list[FakeQuantize]:
        """Of activations, weights and biases."""
        return [module for module in self.graph.modules() if isinstance(module, FakeQuantize)]

    def convert(self) -> "Int8Network":
        """Replace rounded values by integers; the logits stay the same, bit for bit."""
        copied = copy.deepcopy(self).cpu().eval()
        graph = copied.graph
        called = [node for node in graph.graph.nodes if node.op == "call_module"]
        found: list[tuple[fx.Node, Any]] = [(node, graph.get_submodule(node.target)) for node in called]
        # Biases last, since their scale is computed from their weight's.
        for node, quantizer in sorted(found, key=lambda each: isinstance(each[1], BiasQuantize)):
            quantizer.convert(graph, node)
        # Float tensors are integers now, under the same name or that of a layer that shares them.
        graph.graph.eliminate_dead_code()
        return Int8Network(graph, self.origin)


class Int8Network(Network):
    """A network with int8 weights, int32 biases and int8 activations.

    Tensors have the paths of their original layers: `conv.weight`, `conv.weight_scale`, `conv.bias`,
    `conv.output_scale`, `conv.output_zero_point`; a bias's scale is the product of the input's and the weight's.
    Arithmetic is that of the dequantized values, which is how ONNX defines it.
    """

    origin: Origin

    def __init__(self, converted: fx.GraphModule, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.graph, self.locality = converted.graph, locality(origin.network)
        self.shortest_frames = shortest_frames(origin.network)
        self.memory_format = memory_format(origin.network)
        for path, module in origin.folded().named_modules(remove_duplicate=False):
            if path:
                # A module in two places has scales for each.
                self.set_submodule(path, copy.deepcopy(module))
        for module in self.modules():
            for name in dict(module.named_parameters(recurse=False)):
                module.register_parameter(name, None)
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        # A shared tensor is stored under one of its names only.
        for path, tensor in [*converted.named_parameters(remove_duplicate=False), *converted.named_buffers()]:
            if path in read or path.endswith(masks.SUFFIX):
                set_tensor(self, path, tensor)
        self.requires_grad_(False)
        # Another order of summation would round one value in a million the other way.
        laid_out(self)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes)"""
        logits: Tensor = fx.Interpreter(self, graph=self.graph).run(features)
        return logits

    @property
    def in_float(self) -> tuple[str, ...]:
        """Paths of the modules whose weights stayed in float."""
        held = [*self.named_parameters(), *self.named_buffers()]
        names = [name for name, tensor in held if tensor.is_floating_point() and not name.endswith("_scale")]
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in names))

    def local(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the map in front of the pooling over time"""
        (given,) = (node for node in self.graph.nodes if node.op == "placeholder")
        mapped: Tensor = fx.Interpreter(self, graph=_between(self.graph, given, self._pooled())).run(features)
        return mapped

    def classify_map(self, mapped: Tensor) -> Tensor:
        """The output of `local` -> (batch, classes)"""
        *_, output = self.graph.nodes
        logits: Tensor = fx.Interpreter(self, graph=_between(self.graph, self._pooled(), output.args[0])).run(mapped)
        return logits

    def _pooled(self) -> Any:
        """The node that the first pooling over all frames reads."""
        aten = torch.ops.aten
        pools = (aten.adaptive_avg_pool2d.default, aten.mean.dim, aten.amax.default)
        return next(node for node in self.graph.nodes if node.target in pools).args[0]

    def dense_layer(self) -> tuple[str, Tensor, Tensor]:
        """The last layer: its path, weight (classes, inputs) and bias (classes,), dequantized.

        Raises:
            InputError: the logits don't come from a dense layer.
        """
        path, whole, scales, bias, step = self._dense()
        return path, whole * scales[:, None], bias * (step * scales)

    @torch.no_grad()
    def replace_dense(self, weight: Tensor, bias: Tensor, logits: Tensor) -> None:
        """Replace the last layer, with a range for its `logits` (clips, classes)."""
        _, whole, scales, whole_bias, step = self._dense()
        rounded, steps = quantize_weight(weight.cpu())
        whole.copy_(rounded)
        scales.copy_(steps)
        whole_bias.copy_(quantize_bias(bias.cpu(), step.cpu() * steps))
        scale, zero_point = activation_qparams(logits)
        last = self._last()
        get_tensor(self, last.args[1]).copy_(scale[0])
        get_tensor(self, last.args[2]).copy_(zero_point[0])

    def _last(self) -> Any:
        """The node that gives the logits."""
        *_, output = self.graph.nodes
        return output.args[0]

    def _dense(self) -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
        """The path of the last layer, its weight and their scales, its bias and the scale of its input."""
        last = self._last()
        quantized = _dequantizes(last)
        source = last.args[0].args[0] if quantized else last
        if source.target != torch.ops.aten.linear.default or len(source.args) < 3 or not quantized:
            raise InputError(
                f"the logits come from {source.target}; accepted: a network that ends with a dense layer with bias, "
                f"not kept in float"
            )
        weight, bias = source.args[1:3]
        read = [*weight.args[:2], bias.args[0], bias.args[1].args[0]]
        whole, scales, whole_bias, step = (get_tensor(self, node) for node in read)
        return str(weight.args[0].target).removesuffix(".weight"), whole, scales, whole_bias, step

    @property
    def output_step(self) -> float | None:
        """One step of the int8 logits; None where they are float."""
        last = self._last()
        return float(get_tensor(self, last.args[1])) if _dequantizes(last) else None


def _dequantizes(node: fx.Node) -> bool:
    return node.target == torch.ops.quantized_decomposed.dequantize_per_tensor.tensor


def _between(graph: fx.Graph, given: fx.Node, wanted: fx.Node) -> fx.Graph:
    """The part of a graph that computes `wanted` from `given`."""
    needed, stack = {given}, [wanted]
    while stack:
        if (node := stack.pop()) not in needed:
            needed.add(node)
            stack += node.all_input_nodes
    part = fx.Graph()
    made = {given: part.placeholder("given")}
    for node in graph.nodes:
        if node in needed - {given}:
            made[node] = part.node_copy(node, made.__getitem__)
    part.output(made[wanted])
    return part
