"""Networks under fake quantization, and with int8 weights; on torchao's PT2E."""

import copy
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.folding import fold_batch_norm, inside
from tinyscene.models.streaming import Locality

_aten = torch.ops.aten
DROPOUTS = {_aten.dropout.default, _aten.feature_dropout.default}
SHAPES = {_aten.flatten.using_ints, _aten.view.default, _aten.reshape.default, _aten.squeeze.dim}


@dataclass(frozen=True)
class Origin:
    """What an int8 network is built from again: the float network's structure, and what stays in float."""

    network: nn.Module
    keep_float: tuple[str, ...]
    example: tuple[int, ...]

    def folded(self) -> nn.Module:
        """The float network with batch norm folded, its values without meaning: what counting runs."""
        empty = copy.deepcopy(self.network).to_empty(device="cpu")
        for tensor in [*empty.parameters(), *empty.buffers()]:
            tensor.data.zero_()
        return fold_batch_norm(empty, torch.zeros(self.example), self.keep_float)


class FakeQuantized(nn.Module):
    """A network that rounds as its int8 form will, in float: what quantization-aware training trains."""

    origin: Origin

    def __init__(self, graph: fx.GraphModule, origin: Origin) -> None:
        super().__init__()
        self.graph, self.origin = graph, origin
        self.shortest_frames = int(getattr(origin.network, "shortest_frames", 1))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes)"""
        logits: Tensor = self.graph(features)
        return logits

    def train(self, mode: bool = True) -> "FakeQuantized":
        """Ranges of activations follow what passes in training only.

        Exported graphs hold dropout and batch norm as functions: their flag stands in the graph.
        """
        super().train(mode)
        aten = torch.ops.aten
        flags = {aten.dropout.default: 2, aten.feature_dropout.default: 2, aten.batch_norm.default: 5}
        for node in self.graph.graph.nodes:
            if (position := flags.get(node.target)) is not None:
                node.args = (*node.args[:position], mode, *node.args[position + 1 :])
        self.graph.recompile()
        for quantizer in self.quantizers():
            quantizer.enable_observer(mode)
        return self

    @torch.no_grad()
    def set_ranges(self, batches: Iterable[Tensor]) -> None:
        """Widen the range of every activation to all that `batches` bring; nothing is rounded on the way."""
        self.eval()
        for quantizer in self.quantizers():
            quantizer.enable_observer()
            quantizer.enable_fake_quant(False)
        for features in batches:
            self(features)
        for quantizer in self.quantizers():
            quantizer.enable_fake_quant()
        self.eval()

    def quantizers(self) -> list[Any]:
        """Of activations, weights and biases."""
        from torchao.quantization.pt2e import FakeQuantizeBase

        return [module for module in self.graph.modules() if isinstance(module, FakeQuantizeBase)]

    def convert(self) -> "Int8Network":
        """Integers in place of what was rounded; the logits stay the same, bit for bit."""
        copied = copy.deepcopy(self).cpu().eval()
        graph = copied.graph
        with warnings.catch_warnings():
            # Where only the structure is wanted, nothing was observed.
            warnings.filterwarnings("ignore", "must run observer")
            # convert_pt2e calls the same hooks, after a search for unfolded batch norms that takes it 15 seconds.
            for node in list(graph.graph.nodes):
                if node.op == "call_module":
                    quantizer: Any = graph.get_submodule(node.target)
                    quantizer.convert(graph, node)
        return Int8Network(graph, self.origin)


class Int8Network(nn.Module):
    """A network with int8 weights, int32 biases and int8 activations.

    Tensors stand under the paths of the layers that they came from: `conv.weight`, `conv.weight_scale`, `conv.bias`,
    `conv.output_scale`, `conv.output_zero_point`; a bias's scale is the product of the input's and the weight's.
    Arithmetic is that of the dequantized values, which is how ONNX defines it.
    """

    origin: Origin

    def __init__(self, converted: fx.GraphModule, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.graph = converted.graph
        self.shortest_frames = int(getattr(origin.network, "shortest_frames", 1))
        layers = origin.folded()
        for name, child in layers.named_children():
            self.add_module(name, child)
        stored = {**dict(converted.named_parameters()), **dict(converted.named_buffers())}
        used = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for path, tensor in stored.items():
            if path in used or path.endswith(masks.SUFFIX):
                self._put(path, tensor.detach())
        # Another order of summation would round one value in a million to its other neighbour.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _put(self, path: str, tensor: Tensor) -> None:
        """Store a tensor by its path: int8 ones as buffers, since nothing trains them."""
        parent, _, name = path.rpartition(".")
        module = self.get_submodule(parent)
        if not tensor.is_floating_point() and name in module._parameters:
            delattr(module, name)
        if name in module._parameters:
            module._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        else:
            module.register_buffer(name, tensor)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes)"""
        logits: Tensor = fx.Interpreter(self, graph=self.graph).run(features)
        return logits

    @property
    def locality(self) -> Locality | None:
        """As of the float network: see `models/streaming.py`."""
        found: Locality | None = getattr(self.origin.network, "locality", None)
        return found

    def local(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the map in front of the pooling over time"""
        (given,) = (node for node in self.graph.nodes if node.op == "placeholder")
        mapped: Tensor = fx.Interpreter(self, graph=_between(self.graph, given, self._pooled())).run(features)
        return mapped

    def head(self, mapped: Tensor) -> Tensor:
        """What `local` gives -> (batch, classes)"""
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
            InputError: the logits come from something other than a dense layer.
        """
        dense = self._dense()
        weight_node, bias_node = dense.args[1], dense.args[2]
        path = str(weight_node.args[0].target).removesuffix(".weight")
        weight = self._tensor(weight_node.args[0]) * self._tensor(weight_node.args[1])[:, None]
        step, scales = (self._tensor(node) for node in bias_node.args[1].args)
        return path, weight, self._tensor(bias_node.args[0]) * (step * scales)

    @torch.no_grad()
    def replace_dense(self, weight: Tensor, bias: Tensor, output_range: tuple[float, float]) -> None:
        """Quantize another last layer in place of the one there is, and give the logits another range."""
        from tinyscene.models.fake_quantize import activation_qparams, quantize_bias, quantize_weight

        dense = self._dense()
        weight_node, bias_node = dense.args[1], dense.args[2]
        whole, scales = quantize_weight(weight.cpu())
        step = self._tensor(bias_node.args[1].args[0]).cpu()
        self._tensor(weight_node.args[0]).copy_(whole)
        self._tensor(weight_node.args[1]).copy_(scales)
        self._tensor(bias_node.args[0]).copy_(quantize_bias(bias.cpu(), step * scales))
        scale, zero_point = activation_qparams(*output_range)
        *_, last = (node for node in self.graph.nodes if node.op == "call_function")
        self._tensor(last.args[1]).copy_(scale[0])
        self._tensor(last.args[2]).copy_(zero_point[0])

    def _dense(self) -> Any:
        *_, last = (node for node in self.graph.nodes if node.op == "call_function")
        quantized = last.target == torch.ops.quantized_decomposed.dequantize_per_tensor.tensor
        source = last.args[0].args[0] if quantized else last
        if source.target != torch.ops.aten.linear.default or len(source.args) < 3 or not quantized:
            raise InputError(
                f"the logits come from {source.target}; accepted: a network that ends with a dense layer with bias, "
                f"not kept in float"
            )
        return source

    @property
    def output_step(self) -> float:
        """What one step of the int8 logits is worth."""
        *_, last = (node for node in self.graph.nodes if node.op == "call_function")
        return float(self._tensor(last.args[1]))

    def _tensor(self, node: Any) -> Tensor:
        parent, _, name = str(node.target).rpartition(".")
        tensor: Tensor = getattr(self.get_submodule(parent), name)
        return tensor


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


def prepare(network: nn.Module, example: Tensor, keep_float: tuple[str, ...] = ()) -> FakeQuantized:
    """Fold batch norm, export the graph and insert fake quantization.

    Args:
        example: (1, ...), as long as the network needs; batch and frames stay free.
        keep_float: patterns over module paths, such as "blocks.*.se", of what stays in float.

    Raises:
        InputError: a pattern matches no module, or the network can't be exported for any length.
    """
    for pattern in keep_float:
        if not any(inside(path, (pattern,)) for path, _ in network.named_modules() if path):
            names = ", ".join(name for name, _ in network.named_children())
            raise InputError(f"keep_float={pattern!r} matches no module; accepted: a path in {names}, * for any text")
    origin = Origin(copy.deepcopy(network).to("meta"), tuple(keep_float), tuple(example.shape))
    folded = fold_batch_norm(network, example, keep_float).cpu().eval()
    graph = _exported(folded, example)
    # Loading torchao's CUDA parts fails on a machine without, and says so at length.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from torchao.quantization.pt2e.prepare import prepare as insert

    from tinyscene.models.quantizer import SceneQuantizer

    quantizer = SceneQuantizer(keep_float)
    # prepare_qat_pt2e would also rewrite the batch norms that stay, as if they were to be folded.
    naming = quantizer.prepare_obs_or_fq_callback
    inserted = insert(quantizer.annotate(graph), {}, is_qat=True, obs_or_fq_callback=naming)
    _unshare_dropout(inserted)
    for path, kept in masks.masks_of(folded).items():
        masks.attach(inserted, path, kept)
    return FakeQuantized(inserted.to(memory_format=torch.channels_last), origin)


def _unshare_dropout(graph: fx.GraphModule) -> None:
    """Take out quantizers that would see what dropout scales up, and have stood before it already."""
    dropped = {node for node in graph.graph.nodes if node.target in DROPOUTS}
    before: set[nn.Module] = set()
    for node in list(graph.graph.nodes):
        if node.target in SHAPES and node.args[0] in dropped:
            dropped.add(node)
        elif node.op == "call_module" and node.args[0] not in dropped:
            before.add(graph.get_submodule(node.target))
        elif node.op == "call_module" and graph.get_submodule(node.target) in before:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.recompile()


def _exported(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """The network's graph of ATen operations, for any batch and any length."""
    # Sizes 0 and 1 would be taken for constants.
    several = torch.cat([example, example]).cpu()
    free = {0: torch.export.Dim.DYNAMIC, example.ndim - 1: torch.export.Dim.DYNAMIC}
    try:
        exported = torch.export.export(network, (several,), dynamic_shapes=(free,))
    except (torch._dynamo.exc.UserError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"{type(network).__name__} can't be exported for any batch and length ({first}); accepted: a network whose "
            f"forward takes its sizes from the input's shape"
        ) from error
    module = exported.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    # A tensor in and a tensor out: no nests to be flattened on every call.
    *_, output = module.graph.nodes
    (output.args,) = output.args
    module.graph.set_codegen(fx.graph.CodeGen())
    module.recompile()
    return module
