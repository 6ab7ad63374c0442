"""A network prepared for quantization: folded, exported as a graph, fake quantization inserted.

Weights are int8, symmetric, a scale a channel; activations int8, a scale and a zero point a tensor; biases int32 at the
scale of the sums. Convolutions and dense layers are always int8. An operation without weights is int8 where all that it
reads is; a division, root or logarithm stays in float, and so does what reads it, up to the next
layer with weights. So does a sum with a number before it: a small `var + eps` would otherwise become zero.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.capture import Capturable
from tinyscene.models.fake_quantize import ActivationQuantize, BiasQuantize, UnitQuantize, WeightQuantize
from tinyscene.models.folding import fold_batch_norm, inside
from tinyscene.models.quantized import FakeQuantized, Int8Network, Origin
from tinyscene.models.tensors import aten, laid_out

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
# Attributes of graphs and int8 networks, beside the network's own modules.
_TAKEN = {*dir(fx.GraphModule), *dir(Int8Network), "meta", "memory_format", "origin", "quantizers"}


def prepare(network: nn.Module, example: Tensor, keep_float: tuple[str, ...] = ()) -> FakeQuantized:
    """Fold batch norm, export the graph and insert fake quantization.

    Args:
        example: (1, ...), as long as the network needs; batch and frames stay free.
        keep_float: patterns over module paths, such as "blocks.*.se", that stay in float.

    Raises:
        InputError: a pattern matches no module or one of two that share weights, a module has a name that is taken, the
            network can't be exported for any length, or it gives something other than one tensor.
    """
    for pattern in keep_float:
        if not any(inside(path, (pattern,)) for path, _ in network.named_modules() if path):
            names = ", ".join(name for name, _ in network.named_children())
            raise InputError(f"keep_float={pattern!r} matches no module; accepted: a path in {names}, * for any text")
    for name, _ in network.named_children():
        if name in _TAKEN:
            raise InputError(
                f"{type(network).__name__} has a module called {name!r}, which quantized networks use; "
                f"try another name for it"
            )
    origin = Origin(copy.deepcopy(network).to("meta"), tuple(keep_float), tuple(example.shape))
    folded = fold_batch_norm(network, example, keep_float).cpu().eval()
    _refuse_halves(folded, keep_float)
    graph = _exported(folded, example)
    _Insertion(graph, keep_float)
    for path, kept in masks.masks_of(folded).items():
        masks.attach(graph, path, kept)
    prepared: FakeQuantized = laid_out(FakeQuantized(graph, origin))
    return prepared


def _refuse_halves(network: nn.Module, keep_float: tuple[str, ...]) -> None:
    """Weights are stored once, as int8 or in float."""
    layers: dict[nn.Parameter, list[str]] = {}
    for path, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            layers.setdefault(parameter, []).append(path)
    for sharing in layers.values():
        kept = [path for path in sharing if inside(path, keep_float)]
        if kept and len(kept) < len(sharing):
            raise InputError(
                f"keep_float={keep_float} keeps {', '.join(kept)} in float, but {', '.join(sharing)} share weights; "
                f"accepted: all of these, or none"
            )


def _exported(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """The network's graph of ATen operations, for any batch and any length."""
    # Sizes 0 and 1 would be taken as constants.
    several = torch.cat([example, example]).cpu()
    free = {0: torch.export.Dim.DYNAMIC, example.ndim - 1: torch.export.Dim.DYNAMIC}
    try:
        with Capturable():
            exported = torch.export.export(network, (several,), dynamic_shapes=(free,))
    except (torch._dynamo.exc.UserError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"{type(network).__name__} can't be exported for any batch and length ({first}); accepted: a network whose "
            f"forward takes its sizes from the input's shape"
        ) from error
    if not exported.call_spec.out_spec.is_leaf():
        raise InputError(
            f"{type(network).__name__} gives {len(exported.graph_signature.user_outputs)} outputs in a tuple, list or "
            f"dict; accepted: a network that gives one tensor, its logits (batch, classes)"
        )
    module: Any = exported.module(check_guards=False)
    # A tensor in and a tensor out: nothing to flatten on every call.
    *_, output = module.graph.nodes
    (output.args,) = output.args
    module.graph.set_codegen(fx.graph.CodeGen())
    return fx.GraphModule(module, module.graph)


class _Insertion:
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
