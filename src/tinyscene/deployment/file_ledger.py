"""The ledger of an ONNX file, from the file alone: what is deployed is counted, not what was trained."""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyscene.accounting import LayerRow, Ledger, Role, TensorRow
from tinyscene.accounting.memory import peak_values
from tinyscene.deployment.described import MASKS
from tinyscene.deployment.graph import Graph, Shape, read
from tinyscene.deployment.node_macs import (
    CONVOLUTIONS,
    MOST_NUMBERS,
    POOLINGS,
    PRODUCTS,
    RULES,
    Call,
    scaled,
    uncounted,
)
from tinyscene.errors import InputError
from tinyscene.models.tracing import Step, Trace

if TYPE_CHECKING:
    import onnx

_VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"}
# What hands a stored tensor on to the layer that it belongs to.
_PASSING = {*_VIEWS, "Cast", "DequantizeLinear", "QuantizeLinear", "Transpose"}
_ROLES: dict[tuple[str, int], Role] = {
    **{(kind, position): "scale" for kind in ("QuantizeLinear", "DequantizeLinear") for position in (1,)},
    **{(kind, position): "zero_point" for kind in ("QuantizeLinear", "DequantizeLinear") for position in (2,)},
    **{("BatchNormalization", position): "norm" for position in (1, 2)},
    **{("BatchNormalization", position): "statistic" for position in (3, 4)},
    **{(kind, 1): "weight" for kind in (*CONVOLUTIONS, *PRODUCTS)},
    **{(kind, 2): "bias" for kind in (*CONVOLUTIONS, *PRODUCTS)},
}


def ledger_of_file(path: Path, input_shape: Shape) -> Ledger:
    """What an ONNX file costs for one input.

    Peak RAM is that of a runtime that fuses what belongs to one int8 layer: dequantized copies are not held, and a
    layer writes its int8 output at once. Weights are left out of it. MACs are the network's, and not those of a front
    end inside.

    Args:
        input_shape: (1, channels, bands, frames), or (1, samples) where the front end is inside.

    Raises:
        InputError: a file that can't be counted (`graph.read`), or takes no such input.
    """
    graph = read(path)
    shapes = graph.shapes(input_shape)
    rows = tuple(_tensor_rows(graph))
    layers = _layer_rows(graph, shapes, {row.name: row for row in rows})
    return Ledger(
        tensors=rows,
        layers=layers,
        input_shape=input_shape,
        peak_ram_bytes=peak_values(_storages(graph, shapes)),
        precision="int8" if any(row.role == "weight" and row.dtype == "int8" for row in rows) else "float32",
        uncounted=uncounted(layers),
    )


def differences(file: Ledger, classifier: Ledger) -> tuple[str, ...]:
    """Where a file's tensors and MACs are not the classifier's, a sentence each; empty where they agree."""
    ours, theirs = ({row.name: row for row in ledger.tensors} for ledger in (classifier, file))
    found = [f"{name}: in the classifier alone, {ours[name].bytes:,} B" for name in ours if name not in theirs]
    found += [f"{name}: in the file alone, {theirs[name].bytes:,} B" for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        for fact in ("values", "kept", "nonzero", "dtype", "role", "folds_into"):
            before, after = getattr(ours[name], fact), getattr(theirs[name], fact)
            if before != after:
                found.append(f"{name}: {fact} {after} in the file, {before} in the classifier")
    for counter in file.macs.keys() & classifier.macs.keys():
        before, after = classifier.macs[counter], file.macs[counter]
        if before != after:
            found.append(f"MACs by {counter}: {after:,} in the file, {before:,} in the classifier")
    return tuple(sorted(found))


def _tensor_rows(graph: Graph) -> Iterator[TensorRow]:
    masks = json.loads(graph.metadata.get(MASKS, "{}"))
    folds = dict(_foldable(graph))
    numbers = sum(array.size == 1 and not _ROLES.get(_use(graph, name)) for name, array in graph.stored.items())
    for name, array in graph.stored.items():
        layer, _, tensor = name.rpartition(".")
        use = _use(graph, name)
        nonzero = int(np.count_nonzero(array))
        kept = int(masks.get(name, array.size))
        if not nonzero <= kept <= array.size:
            raise InputError(
                f"{graph.path}: {name} is said to keep {kept:,} values, but has {nonzero:,} that are not zero; "
                f"accepted: a mask that keeps all of them"
            )
        yield TensorRow(
            layer=layer,
            tensor=tensor,
            values=array.size,
            kept=kept,
            nonzero=nonzero,
            dtype=str(array.dtype),
            itemsize=array.dtype.itemsize,
            role="frontend" if name in graph.frontend else _role(graph, name, use, numbers),
            layer_type=use[0] or "unused",
            folds_into=folds.get(name, ""),
        )


def _use(graph: Graph, name: str) -> tuple[str, int]:
    """Which operator a stored tensor serves, and as which input."""
    # What is a scale or a statistic to one reader, and something else to another, is that.
    return min(_uses(graph, name), key=_dearness, default=("", 0))


def _uses(graph: Graph, name: str) -> Iterator[tuple[str, int]]:
    """Those that reach the output, through what hands a tensor on and through products of scales."""
    for node, position in graph.readers.get(name, []):
        if node.output[0] not in graph.live:
            continue
        product = node.op_type == "Mul" and node.output[0] not in graph.activations
        if (node.op_type, position) not in _ROLES and (product or (node.op_type in _PASSING and position == 0)):
            yield from _uses(graph, node.output[0])
        else:
            yield node.op_type, position


def _dearness(use: tuple[str, int]) -> int:
    """Weights first, then what is not known, then what counts as little."""
    role = _ROLES.get(use)
    if role in ("weight", "bias"):
        return 0
    return 2 if role in ("scale", "zero_point", "statistic") else 1


def _role(graph: Graph, name: str, use: tuple[str, int], numbers: int) -> Role:
    role, values = _ROLES.get(use), graph.stored[name]
    if role == "scale":
        return role if all(_scales(graph, *reader, name) for reader in graph.readers[name]) else "weight"
    if role == "zero_point":
        return role if values.size == 1 or not values.any() else "weight"
    if role:
        return role
    if name.endswith("bias"):
        return "bias"
    if use[0] in ("Mul", "Add") and name.rpartition(".")[2] in ("scale", "shift"):
        return "norm"  # a batch norm that was made explicit
    # A file does not tell buffers from parameters: what holds several values is a weight.
    alone = values.size == 1 and numbers <= MOST_NUMBERS and _meets_activations(graph, name)
    return "constant" if alone and not name.endswith("weight") else "weight"


def _scales(graph: Graph, node: "onnx.NodeProto", position: int, name: str) -> bool:
    """Whether a reader takes `name` as the scale of a quantization, and not as numbers to multiply by.

    Activations are divided by the scale that they are multiplied by. A product of scales is a bias's.
    """
    if node.op_type == "Mul":
        readers = [reader for product in node.output for reader in graph.readers.get(product, [])]
        made = [reader for dequantize, _ in readers for reader in graph.readers.get(dequantize.output[0], [])]
        biases = all(kind.op_type in (*CONVOLUTIONS, *PRODUCTS) and place == 2 for kind, place in made)
        others = [given for given, place in graph.readers[name] if given.op_type == "DequantizeLinear" and place == 1]
        return (
            bool(others) and biases and all((kind.op_type, place) == ("DequantizeLinear", 1) for kind, place in readers)
        )
    if position != 1:
        return False
    if node.op_type == "QuantizeLinear":
        return all(_restores(graph, reader, name) for reader in graph.readers.get(node.output[0], []))
    held = graph.stored.get(_origin(graph, node.input[0]))
    if held is not None:
        readers = graph.readers.get(node.output[0], [])
        layer = all(kind.op_type in (*CONVOLUTIONS, *PRODUCTS) and place == 1 for kind, place in readers)
        return scaled(held, graph.stored[name].size, layer)
    maker = graph.makers.get(node.input[0])
    while maker is not None and maker.op_type in _VIEWS:
        maker = graph.makers.get(maker.input[0])
    return maker is not None and maker.op_type == "QuantizeLinear" and maker.input[1] == name


def _restores(graph: Graph, reader: tuple["onnx.NodeProto", int], scale: str) -> bool:
    """Whether integers are multiplied by `scale` again, moved before or not."""
    node, position = reader
    if node.op_type in _VIEWS:
        return all(_restores(graph, further, scale) for further in graph.readers.get(node.output[0], []))
    return node.op_type == "DequantizeLinear" and position == 0 and node.input[1] == scale


def _meets_activations(graph: Graph, name: str) -> bool:
    """Whether all that read a number compute with activations: several numbers could be put together to weights."""
    for node, _ in graph.readers.get(name, []):
        if node.op_type in ("Cast", *_VIEWS) and node.output[0] not in graph.activations:
            if not _meets_activations(graph, str(node.output[0])):
                return False
        elif node.op_type == "Concat" or node.output[0] not in graph.activations:
            return False
    return True


def _foldable(graph: Graph) -> Iterator[tuple[str, str]]:
    """The tensors of batch norms that can merge into the layer before them, and that layer."""
    for node in graph.nodes:
        maker = graph.makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if maker is not None and maker.op_type in {"Conv", "ConvTranspose", "Gemm"}:
            layer = _layer_of(graph, maker)
            if layer and len(graph.readers[node.input[0]]) == 1:
                for name in node.input[1:]:
                    yield _origin(graph, name), layer


def _origin(graph: Graph, name: str) -> str:
    """The stored tensor that a value is a copy of; the value itself where there is none."""
    while name not in graph.stored and (node := graph.makers.get(name)) is not None and node.op_type in _PASSING:
        name = node.input[0]
    return name


def _layer_of(graph: Graph, node: "onnx.NodeProto") -> str:
    """The path of the layer whose tensors a node reads; empty where it reads none."""
    for name in (_origin(graph, given) for given in node.input):
        if name in graph.stored:
            return name.rpartition(".")[0]
    return ""


def _layer_rows(
    graph: Graph, shapes: dict[str, tuple[Shape, int]], tensors: dict[str, TensorRow]
) -> tuple[LayerRow, ...]:
    rows: dict[str, LayerRow] = {}
    for node in graph.nodes:
        if node.op_type in _PASSING or node.output[0] not in graph.activations.difference(graph.before_network):
            continue
        call = _call(graph, node, shapes, tensors)
        macs = {counter: rule(call) for counter, rule in RULES.items()}
        layer = _layer_of(graph, node) or str(node.output[0])
        if not any(macs.values()):
            continue
        if layer in rows:
            macs = {counter: macs[counter] + rows[layer].macs[counter] for counter in macs}
        rows[layer] = LayerRow(layer, node.op_type, call.output, macs)
    return tuple(rows.values())


def _call(
    graph: Graph, node: "onnx.NodeProto", shapes: dict[str, tuple[Shape, int]], tensors: dict[str, TensorRow]
) -> Call:
    held = [_origin(graph, name) for name in node.input if name]
    # Explicit scales and shifts stand under names that torchinfo passes over.
    roles = ("weight", "bias", "norm") if node.op_type not in ("Mul", "Add") else ("weight", "bias")
    counted = [tensors[name] for name in held if name in tensors and tensors[name].role in roles]
    kernel: Shape = ()
    if node.op_type in CONVOLUTIONS:
        kernel = shapes[node.input[1]][0]
    elif node.op_type in POOLINGS:
        kernel = next(tuple(a.ints) for a in node.attribute if a.name == "kernel_shape")
    source = next((name for name in node.input if name in graph.activations), node.input[0])
    channels = 0
    if node.op_type == "Gemm":
        name = source
        while (maker := graph.makers.get(name)) is not None and maker.op_type in _PASSING:
            name = maker.input[0]
        before = shapes[name][0]
        channels = before[1] if len(before) > 2 else 0
    parameters = sum(row.values for row in counted)
    if node.op_type in CONVOLUTIONS or node.op_type in PRODUCTS:
        # Weights may have been computed from what is stored.
        own = [name for name in node.input[1:3] if name and name not in graph.activations]
        parameters = sum(prod(shapes[name][0]) for name in own)
    return Call(node, shapes[source][0], shapes[node.output[0]][0], kernel, parameters, channels)


def _storages(graph: Graph, shapes: dict[str, tuple[Shape, int]]) -> Trace:
    """Which storages each node reads and writes, with their bytes."""
    trace, keys = Trace(), dict[str, int]()

    def key(name: str) -> int:
        held = _holder(graph, name)
        if held not in keys:
            keys[held] = len(keys)
            shape, itemsize = shapes[held]
            trace.values[keys[held]] = prod(shape) * itemsize
        return keys[held]

    trace.inputs = tuple(key(name) for name in graph.inputs)
    for node in graph.nodes:
        if node.output[0] in graph.activations and node.op_type not in _VIEWS:
            reads = tuple(key(name) for name in node.input if name in graph.activations)
            trace.steps.append(Step(reads, tuple(key(name) for name in node.output if name in graph.activations)))
    trace.outputs = tuple(key(name) for name in graph.outputs)
    return trace


def _holder(graph: Graph, name: str) -> str:
    """The value whose memory holds `name`: views share theirs, and int8 layers write what is quantized."""
    maker = graph.makers.get(name)
    if maker is not None and maker.op_type in {*_VIEWS, "DequantizeLinear"}:
        return _holder(graph, maker.input[0])
    into = name
    while len(readers := graph.readers.get(into, [])) == 1 and readers[0][0].op_type in ("Relu", "Clip"):
        into = readers[0][0].output[0]
    if len(readers) == 1 and readers[0][0].op_type == "QuantizeLinear":
        return str(readers[0][0].output[0])
    return name
