"""The tensors of an exported graph that become int8, and the names of their quantizers.

Weights are int8, symmetric, a scale a channel; activations int8, a scale and a zero point a tensor; biases int32 at the
scale of the sums. Convolutions and dense layers are always int8. An operation without weights is int8 where all that it
reads is; a division, root or logarithm stays in float, and so does what reads it, up to the next
layer with weights. So does a sum with a number before it: a small `var + eps` would otherwise become zero.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx

from tinyscene.models.fake_quantize import ActivationQuantize, BiasQuantize, UnitQuantize, WeightQuantize
from tinyscene.models.folding import inside
from tinyscene.models.tensors import aten

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
DROPOUTS = {aten.dropout.default, aten.feature_dropout.default}
SHAPES = {
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.squeeze.dim,
    aten.unsqueeze.default,
}
# The outputs are some of the inputs, so that the scale stays.
PASSING = {
    *DROPOUTS,
    *SHAPES,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.amax.default,
    aten.permute.default,
    aten.transpose.int,
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


class Insertion:
    """Puts fake quantization into `model.graph`, by the rules above.

    Args:
        keep_float: patterns over module paths; matching modules stay in float and their output is quantized.
    """

    def __init__(self, model: fx.GraphModule, keep_float: tuple[str, ...]) -> None:
        self.model, self.keep_float = model, keep_float
        self.int8: set[fx.Node] = set()
        # Of what each node gives: operations that pass values on share that of their input.
        self.quantizers: dict[fx.Node, Any] = {}
        self.names: dict[Any, str] = {}
        self.dropped: set[fx.Node] = set()
        self.taken: set[str] = set()
        nodes = [node for node in model.graph.nodes if node.op in ("placeholder", "call_function")]
        for node in nodes:
            if node.op == "placeholder" or self._is_int8(node):
                self.int8.add(node)
        # Decided before the graph changes.
        self.paths = {node: _name(node) for node in nodes}
        for node, read, made in [(node, self._read(node), self._made(node)) for node in nodes]:
            if read and node.target in WEIGHTED:
                self._round_layer(node, *read)
            else:
                for source in read:
                    self._round_input(source)
            if made:
                self._round_output(node, read, made)
        model.recompile()

    def _is_int8(self, node: fx.Node) -> bool:
        if self._kept(node):
            return False
        if node.target in WEIGHTED:
            # A computed weight, as of weight_norm, is not a tensor that can be stored as int8.
            return node.all_input_nodes[1].op == "get_attr"
        if _of_one(node) and _feeds_singular(node):
            return False
        read = _tensors(node)
        quantized = all(one in self.int8 or self._leaves_float(one) for one in read)
        return node.target in OPERATIONS and quantized and all(one.op != "get_attr" for one in read)

    def _kept(self, node: fx.Node) -> bool:
        return inside(_path(node), self.keep_float)

    def _leaves_float(self, node: fx.Node) -> bool:
        """Whether a module kept in float ends with this node, or all that reads it has its own weights."""
        if node.op != "call_function":
            return False
        if self._kept(node):
            return any(not self._kept(user) for user in node.users)
        return bool(node.users) and all(user.target in WEIGHTED and not self._kept(user) for user in node.users)

    def _read(self, node: fx.Node) -> list[fx.Node]:
        """What a node reads rounded."""
        if node not in self.int8 or (node.target in RELUS and _fused(node)):
            return []
        return node.all_input_nodes if node.target in WEIGHTED else _tensors(node)

    def _made(self, node: fx.Node) -> type[ActivationQuantize] | None:
        """What rounds the output of a node, if anything does."""
        if node not in self.int8:
            return ActivationQuantize if self._leaves_float(node) else None
        if any(user in self.int8 and user.target in RELUS and _fused(user) for user in node.users):
            # One step of an integer kernel: only the output of the ReLU is rounded.
            return None
        return UnitQuantize if node.target == aten.sigmoid.default else ActivationQuantize

    def _round_layer(self, node: fx.Node, data: fx.Node, weight: fx.Node, *bias: fx.Node) -> None:
        self._round_input(data)
        if weight not in self.quantizers:
            self._insert(weight, WeightQuantize(str(weight.target)), self.int8.intersection(weight.users))
        for one in bias:
            # A layer that runs twice has one bias for the scale of each input.
            scales = self.quantizers[data], self.quantizers[weight]
            self._insert(one, BiasQuantize(self._fresh(str(one.target)), *scales), [node])

    def _round_input(self, source: fx.Node) -> None:
        if source not in self.quantizers:
            quantizer = ActivationQuantize(self._fresh(self.paths[source]))
            self._insert(source, quantizer, self.int8.intersection(source.users))

    def _round_output(self, node: fx.Node, read: list[fx.Node], kind: type[ActivationQuantize]) -> None:
        if node not in self.int8 or node.target not in PASSING:
            self._insert(node, kind(self._fresh(self.paths[node])), list(node.users))
            return
        source = read[0]
        if node.target in DROPOUTS or (node.target in SHAPES and source in self.dropped):
            # Dropout scales its values, which would widen the range.
            self.dropped.add(node)
            self.quantizers[node] = self.quantizers[source]
        else:
            self._insert(node, self.quantizers[source], list(node.users))

    def _insert(self, source: fx.Node, quantizer: Any, readers: Iterable[fx.Node]) -> None:
        """Round what `readers` read from `source`."""
        self.quantizers[source] = quantizer
        name = self.names.setdefault(quantizer, f"quantizers.{len(self.names)}")
        self.model.add_submodule(name, quantizer)
        with self.model.graph.inserting_after(source):
            rounded = self.model.graph.call_module(name, (source,))
        for reader in readers:
            reader.replace_input_with(source, rounded)

    def _fresh(self, name: str) -> str:
        """`name`, numbered from the second one on."""
        numbered = (name if i == 0 else f"{name}_{i}" for i in range(len(self.taken) + 1))
        self.taken.add(chosen := next(one for one in numbered if one not in self.taken))
        return chosen


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
