"""An int8 network lowered to ExecuTorch's operators of CMSIS-NN. Imports what is slow to import."""

import importlib
import operator
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from math import prod
from typing import Any, cast
from unittest.mock import MagicMock

import torch
from torch import fx
from torch._ops import OpOverload

from tinyscene.deployment.executorch import fresh
from tinyscene.deployment.forms import Form
from tinyscene.deployment.portable import module_of
from tinyscene.deployment.pte import METHOD
from tinyscene.errors import InputError
from tinyscene.models.fake_quantize import aten, q
from tinyscene.models.tensors import get_tensor, set_tensor
from tinyscene.progress import silence

# The core that DCASE's budgets are for. A file asks for as much scratch memory as CMSIS-NN does on a core with DSP.
CORE = "cortex-m4"
_TOSA = "tosa_serializer"
_PASSES = "executorch.backends.cortex_m.passes.cortex_m_pass_manager"
_DEQUANTIZE, _QUANTIZE = q.dequantize_per_tensor.default, q.quantize_per_tensor.default
_DEQUANTIZE_CHANNELS = q.dequantize_per_channel.default
_DEQUANTIZED = {_DEQUANTIZE, _DEQUANTIZE_CHANNELS}
_ROUNDS = _DEQUANTIZED | {_QUANTIZE}
_ELEMENTWISE, _MAXIMA = {aten.add.Tensor, aten.mul.Tensor}, {aten.max_pool2d_with_indices.default}
_READS_MAPS = _ELEMENTWISE | {aten.conv2d.default, aten.avg_pool2d.default, aten.max_pool2d.default}
_RESHAPED = {aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten._unsafe_view.default}
_INTEGER = _ELEMENTWISE | _MAXIMA | {aten.convolution.default, aten.avg_pool2d.default, aten.sigmoid.default}


def lowered(form: Form, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file of an int8 form. Raises InputError where ExecuTorch lacks the lowering."""
    exir, manager = importlib.import_module("executorch.exir"), pass_manager()
    compiling = importlib.import_module("executorch.backends.cortex_m.edge_compile_config")
    target = importlib.import_module("executorch.backends.cortex_m.target_config").CortexMTargetConfig
    module: Any = module_of(form, stored=True, whole=True)
    # Strides that say channels last, even of one channel, are handed on by the convolutions; the lowering writes
    # paddings by them.
    turned = tuple(
        given.to(memory_format=torch.channels_last) if given.ndim == 4 else given for given in fresh(form.examples)
    )
    for rewrite in (_as_cmsis_nn_has_it, _contiguous_for_others, _channels_last_for_layers):
        module = torch.export.export(module, turned).module()
        rewrite(module)
    edge = exir.to_edge(
        torch.export.export(module, turned),
        constant_methods=dict(metadata),
        compile_config=compiling.cortex_m_edge_compile_config(),
    )
    program = edge.exported_program()
    _annotate(program.graph)
    program = manager(program, target_config=target.from_target_string(CORE)).transform()
    # Weights were copied in another order of axes; both would be in the file.
    transforms = importlib.import_module("executorch.backends.transforms.utils")
    for node in list(program.graph.nodes):
        if node.op == "placeholder" and not node.users and node.name not in program.graph_signature.user_inputs:
            transforms.delete_constant_placeholder(program, node)
    edge._edge_programs[METHOD] = program
    content: bytes = edge.to_executorch().buffer
    return content


def pass_manager() -> Any:
    """ExecuTorch's lowering.

    It imports that of another processor, and this one the serializer of TOSA, which pins older packages than ours and
    computes nothing here: where it is not installed, an empty module stands in for it during the import.
    """
    missing = find_spec(_TOSA) is None and _TOSA not in sys.modules
    if missing:
        sys.modules[_TOSA] = MagicMock()
    try:
        with silence():
            return importlib.import_module(_PASSES).CortexMPassManager
    except ImportError as error:
        raise InputError(
            f"ExecuTorch has no lowering to Cortex-M here ({error}); accepted: after pip install "
            f'"tinyscene[executorch]"'
        ) from error
    finally:
        if missing:
            del sys.modules[_TOSA]


def _as_cmsis_nn_has_it(module: fx.GraphModule) -> None:
    """Write averages, maxima and dense layers as what CMSIS-NN computes.

    Its averages keep the scale of what they read, and the lowering drops the scale that they should have: an average
    is rounded to the one, and then to the other. Its dense layers have one scale, its convolutions one a channel.
    """
    for node in list(module.graph.nodes):
        given = node.args[0] if node.args else None
        if not isinstance(given, fx.Node) or given.target != _DEQUANTIZE:
            continue
        if node.target == aten.linear.default:
            _replace_dense(module, node, given)
        elif window := _window(node, given):
            pooling = aten.max_pool2d.default if node.target == aten.amax.default else aten.avg_pool2d.default
            with module.graph.inserting_after(node):
                _replace(module.graph, node, module.graph.call_function(pooling, (given, *window)), given.args[1:])
    module.graph.eliminate_dead_code()
    module.recompile()


def _window(node: fx.Node, given: fx.Node) -> tuple[Any, ...]:
    """The further arguments of a pooling, if a node is an average or maximum over bands or frames of a map."""
    if node.target == aten.avg_pool2d.default:
        return node.args[1:]
    shape, made = given.meta["val"].shape, cast(torch.Tensor, node.meta.get("val"))
    if node.target == aten.adaptive_avg_pool2d.default and made.shape[2:] == (1, 1):
        axes = {2, 3}
    elif node.target in (aten.mean.dim, aten.amax.default) and len(shape) == 4 and made.ndim in (2, 4):
        axes = {axis % 4 for axis in cast(list[int], node.args[1])}
    else:
        return ()
    return ([shape[axis] if axis in axes else 1 for axis in (2, 3)], [1, 1]) if axes <= {2, 3} else ()


def _replace(graph: fx.Graph, node: fx.Node, made: fx.Node, numbers: tuple[Any, ...]) -> None:
    """`made`, rounded and of the shape of `node`, in its place."""
    with graph.inserting_after(made):
        made = graph.call_function(_QUANTIZE, (made, *numbers))
    if node.meta["val"].ndim == 2:
        with graph.inserting_after(made):
            made = graph.call_function(aten.view.default, (made, list(node.meta["val"].shape)))
    with graph.inserting_after(made):
        restored = graph.call_function(_DEQUANTIZE, (made, *numbers))
    restored.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(restored)


def _replace_dense(module: fx.GraphModule, node: fx.Node, given: fx.Node) -> None:
    """(1, inputs) -> (1, outputs), as a convolution of one band and frame."""
    last = _rounded(node)
    if last is None or given.meta["val"].ndim != 2:
        return
    graph, (_, weight, *bias) = module.graph, cast(Any, node.args)
    path = f"{weight.args[0].target}_of_convolution"
    set_tensor(module, path, get_tensor(module, weight.args[0])[:, :, None, None].contiguous())
    with graph.inserting_before(last):
        seen = graph.call_function(aten.view.default, (given.args[0], [*given.meta["val"].shape, 1, 1]))
        read = graph.call_function(_DEQUANTIZE, (seen, *given.args[1:]))
        restored = graph.call_function(weight.target, (graph.get_attr(path), *weight.args[1:]))
        made = graph.call_function(aten.conv2d.default, (read, restored, *bias))
        if last.args[0] is not node:
            made = graph.call_function(aten.relu.default, (made,))
    _replace(graph, cast(fx.Node, last.args[0]), made, last.args[1:])


def _kind(node: fx.Node) -> Any:
    """The operator of torch, whatever dialect the graph is in."""
    return node.target if isinstance(node.target, OpOverload) else getattr(node.target, "_op", node.target)


def _contiguous_for_others(module: fx.GraphModule) -> None:
    """Turn maps that leave CMSIS-NN's layers back into torch's own order of axes.

    ExecuTorch's kernels refuse maps of two orders, and reshape a map's bytes as they lie. Which order a sum of two has
    is known only after the lowering, so that maps are turned in any case.
    """
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target not in _ROUNDS and not _is_layer(node):
            for given in node.all_input_nodes:
                if given.target == _DEQUANTIZE or node.target in _RESHAPED or given.op == "placeholder":
                    _turn(module.graph, node, given, torch.contiguous_format)
    module.recompile()


def _channels_last_for_layers(module: fx.GraphModule) -> None:
    """Hand CMSIS-NN's layers their maps in the only order of axes that they know."""
    for node in list(module.graph.nodes):
        for given in node.all_input_nodes if _is_layer(node) else []:
            if not given.meta["val"].is_contiguous(memory_format=torch.channels_last):
                _turn(module.graph, node, given, torch.channels_last)
    module.recompile()


def _is_layer(node: fx.Node) -> bool:
    return node.target in _READS_MAPS and all(given.target in _DEQUANTIZED for given in node.all_input_nodes)


def _turn(graph: fx.Graph, node: fx.Node, given: fx.Node, order: torch.memory_format) -> None:
    """Let `node` read a map that it is given, as integers where it was rounded, in another order."""
    value, rounded = given.meta.get("val"), given.target == _DEQUANTIZE
    if not isinstance(value, torch.Tensor) or value.ndim != 4 or given.target == _DEQUANTIZE_CHANNELS:
        return
    if _of_any_order(value) and given.op != "placeholder":
        return
    with graph.inserting_before(node):
        read = graph.call_function(aten.clone.default, (given.args[0] if rounded else given,), {"memory_format": order})
        if rounded:
            read = graph.call_function(_DEQUANTIZE, (read, *given.args[1:]))
    node.replace_input_with(given, read)


def _of_any_order(value: torch.Tensor) -> bool:
    """Whether a map's bytes lie alike whichever axis comes last."""
    return value.shape[1] == 1 or prod(value.shape[2:]) == 1


def _rounded(node: fx.Node) -> fx.Node | None:
    """The rounding of what a layer gives, if that alone reads it, behind a ReLU from the least value on or not."""
    (reader, *others) = node.users
    behind_relu = not others and _kind(reader) == aten.relu.default
    if behind_relu:
        (reader, *others) = reader.users
    if others or _kind(reader) != _QUANTIZE:
        return None
    _, _, zero_point, lowest, *_ = reader.args
    return None if behind_relu and zero_point != lowest else reader


def _annotate(graph: fx.Graph) -> None:
    """Say which nodes of the edge dialect are to be integer ones: those between roundings."""
    annotation = importlib.import_module("executorch.backends.arm.common.annotation_meta").ArmAnnotationInfo
    for node in graph.nodes:
        if _kind(node) not in _INTEGER or not all(_kind(given) in _DEQUANTIZED for given in node.all_input_nodes):
            continue
        last = _rounded(next(iter(node.users)) if _kind(node) in _MAXIMA else node)
        if last is None or not _fits(node, last):
            continue
        for marked in {node, last.args[0]} - {user for user in node.users if user.target == operator.getitem}:
            marked.meta.setdefault("custom", {})[annotation.CUSTOM_META_KEY] = annotation(quantized=True)


def _fits(node: fx.Node, last: fx.Node) -> bool:
    """Whether CMSIS-NN computes it: a convolution of maps, a sum or product of shapes that it knows, a maximum at the
    scale of what it reads.
    """
    shapes = [tuple(given.meta["val"].shape) for given in node.all_input_nodes]
    if _kind(node) == aten.convolution.default and len(shapes[0]) != 4:
        return False
    if _kind(node) in _MAXIMA:
        return node.all_input_nodes[0].args[1:3] == last.args[1:3]
    if _kind(node) in _ELEMENTWISE and len(shapes) == 2 and shapes[0] != shapes[1]:
        (fewer, more) = sorted(shapes, key=prod)
        return len(fewer) == len(more) == 4 and fewer == (1, more[1], 1, 1)
    return True
