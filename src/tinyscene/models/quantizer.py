"""The tensors of an exported graph that become int8, and the names of their quantizers, for torchao's PT2E.

Weights are int8, symmetric, a scale a channel; activations int8, a scale and a zero point a tensor; biases int32 at the
scale of the sums. Convolutions and dense layers are always int8. An operation without weights is int8 where all that it
reads is; a division, root or logarithm stays in float, and so does what reads it, up to the next
layer with weights. So does a sum with a number before it: a small `var + eps` would otherwise become zero.
"""

from typing import Any

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e.quantizer import (
    DerivedQuantizationSpec,
    QuantizationAnnotation,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from tinyscene.models.fake_quantize import ACTIVATION, INT32, UNIT, WEIGHT, BiasQuantize
from tinyscene.models.folding import inside
from tinyscene.models.tensors import get_tensor

aten = torch.ops.aten
WEIGHTED = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.linear.default,
}
RELUS = {aten.relu.default, aten.relu_.default, aten.hardtanh.default}
SUMS = {aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.cat.default}
MEANS = {aten.mean.dim, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default}
CURVES = {aten.sigmoid.default, aten.hardsigmoid.default, aten.hardswish.default, aten.silu.default}
# The outputs are some of the inputs, so that the scale stays.
PASSING = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.amax.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.unsqueeze.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.contiguous.default,
    aten.clone.default,
}
OPERATIONS = RELUS | SUMS | MEANS | CURVES | PASSING
# Not finite at zero, in value or gradient.
SINGULAR = {
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.log.default,
    aten.reciprocal.default,
    aten.div.Tensor,
    aten.pow.Tensor_Scalar,
}


class SceneQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a graph for PT2E by the rules above, and names every quantizer by module path.

    Args:
        keep_float: patterns over module paths; matching modules stay in float and their output is quantized.
    """

    def __init__(self, keep_float: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.keep_float = keep_float

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Mark which edges and outputs of `model.graph` are quantized."""
        int8: dict[fx.Node, None] = {}
        for node in model.graph.nodes:
            if node.op == "placeholder" or (node.op == "call_function" and self._is_int8(node, int8)):
                int8[node] = None
        for node in int8:
            self._annotate(node, int8)
        for node in model.graph.nodes:
            if node.op == "call_function" and node not in int8 and self._leaves_float(node, int8):
                node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation({}, ACTIVATION, _annotated=True)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to check: this class marks the graph itself."""

    def prepare_obs_or_fq_callback(self, model: fx.GraphModule, edge_or_node_to_obs_or_fq: dict[Any, Any]) -> None:
        """Name the quantizers, and replace PT2E's for biases, which don't quantize while training."""
        found = edge_or_node_to_obs_or_fq
        taken: set[str] = set()
        for place, quantizer in list(found.items()):
            source, reader = place if isinstance(place, tuple) else (place, None)
            if source.op == "get_attr":
                if get_tensor(model, source).ndim == 1:
                    read = found[reader.args[0], reader], found[reader.args[1], reader]
                    # A layer that runs twice has one bias for the scale of each input.
                    quantizer = found[place] = BiasQuantize(*read)
                    quantizer.path = _fresh(source.target, taken)
                else:
                    quantizer.path = source.target
            elif not hasattr(quantizer, "path"):
                quantizer.path = _fresh(_name(source), taken)

    def _is_int8(self, node: fx.Node, int8: dict[fx.Node, None]) -> bool:
        if self._kept(node):
            return False
        if node.target in WEIGHTED:
            # A computed weight, as of weight_norm, is not a tensor that can be stored as int8.
            return node.all_input_nodes[1].op == "get_attr"
        if _of_one(node) and _feeds_singular(node):
            return False
        read = _tensors(node)
        quantized = all(one in int8 or self._leaves_float(one, int8) for one in read)
        return node.target in OPERATIONS and quantized and all(one.op != "get_attr" for one in read)

    def _kept(self, node: fx.Node) -> bool:
        return inside(_path(node), self.keep_float)

    def _leaves_float(self, node: fx.Node, int8: dict[fx.Node, None]) -> bool:
        """Whether a module kept in float ends with this node, or all that reads it has its own weights."""
        if node.op != "call_function":
            return False
        if self._kept(node):
            return any(not self._kept(user) for user in node.users)
        return bool(node.users) and all(user.target in WEIGHTED and not self._kept(user) for user in node.users)

    def _annotate(self, node: fx.Node, int8: dict[fx.Node, None]) -> None:
        inputs: dict[fx.Node, Any] = {}
        output: Any = ACTIVATION
        if node.target in WEIGHTED:
            data, weight, *bias = node.all_input_nodes
            inputs = {data: ACTIVATION, weight: WEIGHT}
            if bias:
                inputs[bias[0]] = DerivedQuantizationSpec(
                    [(data, node), (weight, node)], _by_callback, torch.int32, *INT32, torch.per_channel_symmetric, 0
                )
        elif node.op != "placeholder":
            inputs = dict.fromkeys(_tensors(node), ACTIVATION)
            if node.target == aten.sigmoid.default:
                output = UNIT
            if node.target in PASSING:
                output = SharedQuantizationSpec((node.all_input_nodes[0], node))
        if any(user in int8 and user.target in RELUS and _fused(user) for user in node.users):
            # One step of an integer kernel: only the output of the ReLU is rounded.
            output = None
        if node.target in RELUS and _fused(node):
            inputs = {}
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(inputs, output, _annotated=True)


def _of_one(node: fx.Node) -> bool:
    """Whether a node reshapes or selects from one tensor, or combines it with a number."""
    return node.target in PASSING or (node.target in SUMS and len(node.all_input_nodes) == 1)


def _feeds_singular(node: fx.Node) -> bool:
    return any(user.target in SINGULAR or (_of_one(user) and _feeds_singular(user)) for user in node.users)


def _tensors(node: fx.Node) -> list[fx.Node]:
    """The nodes that a node reads, without sizes."""
    return [one for one in node.all_input_nodes if one.op == "get_attr" or isinstance(one.meta.get("val"), Tensor)]


def _fused(relu: fx.Node) -> bool:
    source = relu.all_input_nodes[0]
    return source.target in WEIGHTED | SUMS and len(source.users) == 1


def _by_callback(_: list[Any]) -> tuple[Tensor, Tensor]:
    raise AssertionError("BiasQuantize replaces PT2E's derived quantizer")


def _path(node: fx.Node) -> str:
    """The path of the module that a node was traced in; empty for the network itself."""
    return list(node.meta["nn_module_stack"].values())[-1][0] if node.meta.get("nn_module_stack") else ""


def _name(node: fx.Node) -> str:
    """A path for the scale of a node's output: the layer's `output`, or the operation's name in a module of ours."""
    if node.op == "placeholder":
        return "input"
    if node.target in RELUS and _fused(node):
        node = node.all_input_nodes[0]
    layer = bool(_path(node)) and list(node.meta["nn_module_stack"].values())[-1][1].startswith("torch.nn.")
    operation = "output" if layer else str(getattr(node.target, "__name__", node.target)).split(".")[0].strip("_")
    return f"{_path(node)}.{operation}".strip(".")


def _fresh(name: str, taken: set[str]) -> str:
    """`name`, numbered from the second one on."""
    numbered = (name if i == 0 else f"{name}_{i}" for i in range(len(taken) + 1))
    taken.add(chosen := next(one for one in numbered if one not in taken))
    return chosen
