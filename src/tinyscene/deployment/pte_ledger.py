"""The ledger of a `.pte` file, from the file alone."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinyscene.accounting import LayerRow, Ledger, Role, TensorRow
from tinyscene.accounting.memory import peak_values
from tinyscene.deployment.described import inputs_of
from tinyscene.deployment.frontend_constants import is_of_frontend
from tinyscene.deployment.node_macs import MOST_NUMBERS, RULES, Call, scaled, uncounted
from tinyscene.deployment.pte import Node, Pte, Shape, Value, read
from tinyscene.errors import InputError
from tinyscene.models.tracing import Step, Trace

# The operator of ONNX that counts the same.
_KINDS = {
    "Conv2d": "Conv",
    "DepthwiseConv2d": "Conv",
    "aten::convolution": "Conv",
    "cortex_m::quantized_conv2d": "Conv",
    "cortex_m::quantized_depthwise_conv2d": "Conv",
    "FullyConnected": "Gemm",
    "aten::linear": "Gemm",
    "aten::addmm": "Gemm",
    "aten::mm": "MatMul",
    "aten::bmm": "MatMul",
    "BatchMatrixMultiply": "MatMul",
    "AvgPooling2d": "AveragePool",
    "cortex_m::quantized_avg_pool2d": "AveragePool",
    "aten::avg_pool2d": "AveragePool",
    "MaxPooling2d": "MaxPool",
    "cortex_m::quantized_max_pool2d": "MaxPool",
    "aten::max_pool2d_with_indices": "MaxPool",
    "GlobalAvgPooling2d": "GlobalAveragePool",
    "aten::mean": "ReduceMean",
    "aten::var_mean": "ReduceMean",
    "Add": "Add",
    "aten::add": "Add",
    "cortex_m::quantized_add": "Add",
}
_WEIGHTED = {"Conv", "Gemm", "MatMul"}
# In XNNPACK these run on (batch, bands, frames, channels), their filters on (outputs, bands, frames, inputs).
_CHANNELS_LAST = {"Conv2d", "DepthwiseConv2d", "AvgPooling2d", "MaxPooling2d", "GlobalAvgPooling2d"}


def ledger_of_pte(path: Path, input_shape: Shape, described: Mapping[str, str]) -> Ledger:
    """What a `.pte` file costs.

    It names no layers: they are numbered by kind, in the order in which they run. MACs are the network's, and not
    those of a front end inside. Scales and zero points of activations stand in the graph and are no tensors.
    Constants of the same content are stored once, and have one row. Masks are not known to the file: it keeps all
    values. A batch norm that follows no convolution is one of its own in XNNPACK, and counts as such.

    Peak RAM is the program's own plan, and XNNPACK's tensors in the graph of its that needs most: it frees each after
    its last use. Weights, and XNNPACK's second copy of them, are left out.

    Args:
        input_shape: (1, ...), what the file was exported for.
        described: its metadata, which says what front end is inside.

    Raises:
        InputError: a file that can't be counted (`pte.read`), or for another input.
    """
    pte = read(path)
    if len(pte.inputs) != inputs_of(described):
        raise InputError(
            f"{path}: reads {len(pte.inputs)} inputs, and weights could be among them; accepted: a file of export"
        )
    if tuple(input_shape) != pte.inputs[0]:
        raise InputError(f"{path}: no input of shape {tuple(input_shape)}; accepted: {pte.inputs[0]}")
    frontend = {key for key, values in pte.stored.items() if is_of_frontend(values, described)}
    rows = tuple(_tensor_rows(pte, frontend))
    layers = tuple(_layer_rows(pte, _before_network(pte, frontend)))
    int8 = any(row.role == "weight" and row.dtype == "int8" for row in rows)
    return Ledger(
        tensors=rows,
        layers=layers,
        input_shape=pte.inputs[0],
        peak_ram_bytes=pte.planned_bytes + max(map(_peak, _graphs(pte)), default=0),
        precision="int8" if int8 else "float32",
        uncounted=uncounted(layers),
    )


def weighted_layers(path: Path) -> tuple[int, int]:
    """How many operations with stored weights run on integers, and how many in float."""
    weights = [weight for node in read(path).nodes if (weight := _weight(node)) is not None]
    integers = sum(weight.dtype == "int8" for weight in weights)
    return integers, len(weights) - integers


def _weight(node: Node) -> Value | None:
    """The stored tensor that a convolution or matrix product multiplies with."""
    if _KINDS.get(node.kind) not in _WEIGHTED:
        return None
    if "filter" in node.inputs:
        return node.inputs["filter"] if node.inputs["filter"].constant else None
    # Biases have one axis.
    return next((value for value in node.inputs.values() if value.constant and len(value.shape) > 1), None)


def _names(pte: Pte) -> Iterator[tuple[Node, str]]:
    numbers: dict[str, int] = {}
    for node in pte.nodes:
        kind = node.kind.rpartition("::")[2]
        numbers[kind] = numbers.get(kind, 0) + 1
        yield node, f"{kind}_{numbers[kind]}"


def _before_network(pte: Pte, frontend: set[str]) -> set[str]:
    """Outputs of the operations that read the front end's constants, and of all in front of them."""
    found: set[str] = set()
    for node in reversed(pte.nodes):
        if node.output.name in found or frontend.intersection(value.constant for value in node.inputs.values()):
            found.update([node.output.name, *(value.name for value in node.inputs.values())])
            for key in {value.constant for value in node.inputs.values()} - frontend - {""}:
                if pte.stored[key].size > 1:
                    raise InputError(
                        f"{pte.path}: weights are read in front of constants of the front end; accepted: a file of "
                        f"export"
                    )
    return found


def _tensor_rows(pte: Pte, frontend: set[str]) -> Iterator[TensorRow]:
    uses: dict[str, list[tuple[str, str, Role, str]]] = {}
    for node, name in _names(pte):
        weight = _weight(node)
        fixed_point = _fixed_point_scales(node)
        for place, value in node.inputs.items():
            tensor, role = fixed_point.get(place) or _described(
                place, value, value is weight, _KINDS.get(node.kind) in _WEIGHTED
            )
            uses.setdefault(value.constant, []).append((name, tensor, role, node.kind))
            scales: Role = "scale" if role == "bias" or _scaled(pte, value, value is weight) else "weight"
            uses.setdefault(value.scale, []).append((name, f"{tensor}_scale", scales, node.kind))
    numbers = sum(array.size == 1 for array in pte.stored.values())
    for key, array in pte.stored.items():
        # What is a scale or a bias to one reader, and a weight to another, is that.
        layer, tensor, role, kind = min(uses.get(key, [("", key, "weight", "unused")]), key=_dearness)
        if role == "constant" and numbers > MOST_NUMBERS:
            role = "weight"
        nonzero, whose = int(np.count_nonzero(array)), "frontend" if key in frontend else role
        yield TensorRow(layer, tensor, array.size, array.size, nonzero, str(array.dtype), array.itemsize, whose, kind)


def _scaled(pte: Pte, value: Value, layer: bool) -> bool:
    return bool(value.scale) and scaled(pte.stored[value.constant], pte.stored[value.scale].size, layer)


def _dearness(use: tuple[str, str, Role, str]) -> int:
    return ("weight", "bias", "constant", "scale").index(use[2])


def _fixed_point_scales(node: Node) -> dict[str, tuple[str, Role]]:
    """CMSIS-NN's convolutions hold a scale a channel as a multiplier and a shift, behind weight and bias."""
    if not node.kind.startswith("cortex_m::") or _KINDS.get(node.kind) != "Conv":
        return {}
    *_, multiplier, shift = (place for place, value in node.inputs.items() if value.constant)
    return {multiplier: ("multiplier", "scale"), shift: ("shift", "scale")}


def _described(place: str, value: Value, is_weight: bool, weighted: bool) -> tuple[str, Role]:
    if is_weight:
        return "weight", "weight"
    if weighted and len(value.shape) == 1:
        return "bias", "bias"
    # A file does not tell buffers from parameters: what holds several values is a weight.
    return f"input_{place.removeprefix('input')}", "weight" if prod(value.shape) > 1 else "constant"


def _layer_rows(pte: Pte, before: set[str]) -> Iterator[LayerRow]:
    makers = {node.output.name: node for node in pte.nodes}
    for node, name in _names(pte):
        if node.kind not in _KINDS or node.output.name in before:
            continue
        call = _call(node, makers)
        times = 2 if node.kind == "aten::var_mean" else 1
        macs = {counter: times * rule(call) for counter, rule in RULES.items()}
        if any(macs.values()):
            yield LayerRow(name, node.kind, call.output, macs)


def _call(node: Node, makers: dict[str, Node]) -> Call:
    kind, weight = _KINDS[node.kind], _weight(node)
    given = next((value for value in node.inputs.values() if not value.constant), node.output)
    kernel = node.window
    if kind == "Conv" and weight is not None:
        kernel = weight.shape
    parameters = sum(prod(value.shape) for value in node.inputs.values() if value.constant) if kind in _WEIGHTED else 0
    stands_for: Any = SimpleNamespace(op_type=kind)
    channels = _flattened(given, makers) if kind == "Gemm" else 0
    return Call(stands_for, _shape(node, given), _shape(node, node.output), kernel, parameters, channels)


def _shape(node: Node, value: Value) -> Shape:
    """(batch, channels, bands, frames)"""
    if node.kind in _CHANNELS_LAST and value.graph >= 0:
        batch, *spatial, channels = value.shape
        return batch, channels, *spatial
    return value.shape


def _flattened(value: Value, makers: dict[str, Node]) -> int:
    """Channels of the map that was flattened into `value`; 0 where none was."""
    while (maker := makers.get(value.name)) is not None and maker.kind in (
        "StaticReshape",
        "Convert",
        "aten::view_copy",
    ):
        (value,) = (one for one in maker.inputs.values() if not one.constant)
        if len(value.shape) > 2:
            return value.shape[1]
    return 0


def _graphs(pte: Pte) -> list[list[Node]]:
    numbers = sorted({node.graph for node in pte.nodes} - {-1})
    return [[node for node in pte.nodes if node.graph == number] for number in numbers]


def _peak(nodes: list[Node]) -> int:
    """Bytes of the tensors of one graph of XNNPACK that live at once."""
    trace, keys = Trace(), dict[str, int]()

    def key(value: Value) -> int:
        trace.values[keys.setdefault(value.name, len(keys))] = value.bytes
        return keys[value.name]

    for node in nodes:
        reads = tuple(key(value) for value in node.inputs.values() if value.graph >= 0 and not value.constant)
        trace.steps.append(Step(reads, (key(node.output),) if node.output.graph >= 0 else ()))
    return peak_values(trace)
