"""The ledger of a LiteRT file, from the flatbuffer alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyscene.accounting import LayerRow, Ledger, Role, TensorRow
from tinyscene.accounting.memory import peak_values
from tinyscene.deployment.described import inputs_of
from tinyscene.deployment.frontend_constants import is_of_frontend
from tinyscene.deployment.litert import METADATA_PREFIX, read_model
from tinyscene.deployment.node_macs import RULES, Call, uncounted
from tinyscene.errors import InputError
from tinyscene.models.tracing import Step, Trace

Array = npt.NDArray[Any]

# LiteRT's names of the operators that a MAC counter looks at, and ONNX's.
_COUNTED = {
    "CONV_2D": "Conv",
    "DEPTHWISE_CONV_2D": "Conv",
    "FULLY_CONNECTED": "Gemm",
    "BATCH_MATMUL": "MatMul",
    "MAX_POOL_2D": "MaxPool",
    "AVERAGE_POOL_2D": "AveragePool",
    "MEAN": "ReduceMean",
    "ADD": "Add",
}
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_VIEWS = {"RESHAPE"}
# Inputs that say where values go, and never what they are.
_STRUCTURE = {
    "RESHAPE": (1,),
    "TRANSPOSE": (1,),
    "PAD": (1,),
    "PADV2": (1,),
    "MEAN": (1,),
    "REDUCE_MAX": (1,),
    "SUM": (1,),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "BROADCAST_TO": (1,),
    "SPLIT": (0,),
    "SPLIT_V": (1, 2),
}
_HIDING = {
    "BUCKETIZE",
    "CALL_ONCE",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "CUSTOM",
    "EMBEDDING_LOOKUP",
    "EMBEDDING_LOOKUP_SPARSE",
    "IF",
    "MULTINOMIAL",
    "SVDF",
    "TRANSPOSE_CONV",
    "WHILE",
}
# More whole numbers than this are no shape, axis or border.
_LONGEST_SHAPE = 16


@dataclass(frozen=True)
class Operator:
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


class File:
    """One checked file: tensors and operators of its graph."""

    def __init__(self, path: Path) -> None:
        try:
            self._read(path)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: can't be counted ({error!r}); accepted: a file of export") from error

    def _read(self, path: Path) -> None:
        self.path, model = path, read_model(path)
        names = {value: name for name, value in vars(_schema().BuiltinOperator).items() if isinstance(value, int)}
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        for fault in _faults(model, [names[code] for code in codes]):
            raise InputError(f"{path}: {fault}; accepted: one flat graph of standard operators that holds its weights")
        (graph,) = model.subgraphs
        self.tensors, self.inputs, self.outputs = graph.tensors, tuple(graph.inputs), tuple(graph.outputs)
        self.operators = [
            Operator(names[codes[op.opcodeIndex]], tuple(op.inputs), tuple(op.outputs), op.builtinOptions)
            for op in graph.operators
        ]
        self.metadata = {
            entry.name.decode().removeprefix(METADATA_PREFIX): bytes(model.buffers[entry.buffer].data).decode()
            for entry in model.metadata or []
            if entry.name.decode().startswith(METADATA_PREFIX)
        }
        if not len(self.inputs) == len(self.outputs) == inputs_of(self.metadata):
            raise InputError(
                f"{path}: reads {len(self.inputs)} inputs and gives {len(self.outputs)} outputs, and weights could be "
                f"among them; accepted: a file of export"
            )
        types = {value: name for name, value in vars(_schema().TensorType).items() if isinstance(value, int)}
        self.dtypes = [np.dtype(types[t.type].lower().replace("bool", "bool_")) for t in graph.tensors]
        self.constants: dict[int, Array] = {}
        for place, tensor in enumerate(graph.tensors):
            content = model.buffers[tensor.buffer].data
            if content is not None and len(content):
                self.constants[place] = np.frombuffer(bytes(content), self.dtypes[place])
                if self.constants[place].size != prod(self.shape(place)):
                    raise InputError(
                        f"{path}: {len(content)} B for a tensor of shape {self.shape(place)}; accepted: as many as it "
                        f"has values"
                    )

    def shape(self, place: int) -> tuple[int, ...]:
        return tuple(int(size) for size in (() if self.tensors[place].shape is None else self.tensors[place].shape))

    @cached_property
    def uses(self) -> dict[int, list[tuple[str, int]]]:
        """The operators that read each tensor, and as which input; weights first."""
        found: dict[int, list[tuple[str, int]]] = {}
        for operator in self.operators:
            for position, place in enumerate(operator.inputs):
                found.setdefault(place, []).append((operator.name, position))
        for uses in found.values():
            uses.sort(key=lambda use: use[0] not in _WEIGHTED)
        return found

    def use(self, place: int) -> tuple[str, int]:
        """The dearest of them."""
        return self.uses.get(place, [("unused", 0)])[0]

    @cached_property
    def frontend(self) -> set[int]:
        """Constants that are the front end's own, by their values: what the file says of it is computed anew."""
        return {place for place, values in self.constants.items() if is_of_frontend(values, self.metadata)}

    @cached_property
    def before_network(self) -> set[int]:
        """Operators, by number, that read the front end's constants, and all in front of them."""
        makers = {place: number for number, operator in enumerate(self.operators) for place in operator.outputs}
        stack = [n for n, operator in enumerate(self.operators) if self.frontend.intersection(operator.inputs)]
        found: set[int] = set()
        while stack:
            if (number := stack.pop()) not in found:
                found.add(number)
                stack += [makers[place] for place in self.operators[number].inputs if place in makers]
        for place in {place for number in found for place in self.operators[number].inputs} - self.frontend:
            if place in self.constants and self.constants[place].size > 1 and not self.is_shape(place):
                raise InputError(
                    f"{self.path}: weights are read in front of constants of the front end; accepted: a file of export"
                )
        return found

    def is_shape(self, place: int) -> bool:
        """Whether it only says where values go."""
        values = self.constants[place]
        places = all(position in _STRUCTURE.get(kind, ()) for kind, position in self.uses.get(place, [("", 0)]))
        return places and values.dtype.kind == "i" and values.size <= _LONGEST_SHAPE


def ledger_of_file(path: Path, example: tuple[int, ...]) -> Ledger:
    """What a LiteRT file costs for a clip.

    Peak RAM is that of the largest sum of tensors that live at once, views sharing theirs; weights are left out of it.
    MACs are the network's, and not those of a front end inside.

    Args:
        example: the input's shape, the only one that it takes.

    Raises:
        InputError: a file that can't be counted, or takes no such input.
    """
    file = File(path)
    if (takes := file.shape(file.inputs[0])) != tuple(example):
        raise InputError(f"{path}: given {tuple(example)}; accepted: {takes}, for which the file was made")
    rows, layers = tuple(_tensor_rows(file)), tuple(_layer_rows(file))
    return Ledger(
        tensors=rows,
        layers=layers,
        input_shape=takes,
        peak_ram_bytes=peak_values(_storages(file)),
        precision="int8" if any(row.role == "weight" and row.dtype == "int8" for row in rows) else "float32",
        uncounted=uncounted(layers),
    )


def operators_of(path: Path) -> dict[str, int]:
    """Operators of a file, and how often each stands in it."""
    names = [operator.name for operator in File(path).operators]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def _faults(model: Any, operators: list[str]) -> Iterator[str]:
    if len(model.subgraphs) != 1:
        yield f"holds {len(model.subgraphs)} graphs"
    for name in operators:
        if name in _HIDING or "RANDOM" in name or "LSTM" in name or "RNN" in name:
            yield f"{name} is an operator that can't be seen into, or that no counter knows"
    for buffer in model.buffers:
        if getattr(buffer, "offset", 0) > 1 or getattr(buffer, "externalBufferId", 0):
            yield "keeps values outside its buffers"
    for graph in model.subgraphs:
        if any(getattr(tensor, "sparsity", None) is not None for tensor in graph.tensors):
            yield "stores sparse tensors"


def _tensor_rows(file: File) -> Iterator[TensorRow]:
    for place, values in file.constants.items():
        if file.is_shape(place):
            continue
        yield _row(file, place, "", values, _role(file, place, values))
    for place, tensor in enumerate(file.tensors):
        quantized = tensor.quantization
        if quantized is not None and quantized.scale is not None:
            yield _row(file, place, "_scale", np.asarray(quantized.scale, np.float32), "scale")
            yield _row(file, place, "_zero_point", np.asarray(quantized.zeroPoint, np.int64), "zero_point")


def _row(file: File, place: int, what: str, values: Array, role: Role) -> TensorRow:
    layer, _, tensor = file.tensors[place].name.decode().rpartition(".")
    kind = file.use(place)[0]
    nonzero = int(np.count_nonzero(values))
    return TensorRow(
        layer, tensor + what, values.size, values.size, nonzero, str(values.dtype), values.dtype.itemsize, role, kind
    )


def _role(file: File, place: int, values: Array) -> Role:
    kind, position = file.use(place)
    if place in file.frontend:
        return "frontend"
    if kind in _WEIGHTED and position in (1, 2):
        return "weight" if position == 1 else "bias"
    # A file does not tell buffers from parameters: what holds several values is a weight.
    return "constant" if values.size == 1 else "weight"


def _layer_rows(file: File) -> Iterator[LayerRow]:
    for number, operator in enumerate(file.operators):
        if operator.name not in _COUNTED or number in file.before_network:
            continue
        call = _call(file, operator)
        macs = {counter: rule(call) for counter, rule in RULES.items()}
        if any(macs.values()):
            name = file.tensors[operator.outputs[0]].name.decode().split(";")[0]
            yield LayerRow(f"{number} {name}", operator.name, call.output, macs)


def _call(file: File, operator: Operator) -> Call:
    """The operator as ONNX has it, channels first."""
    given, made = file.shape(operator.inputs[0]), file.shape(operator.outputs[0])
    kernel: tuple[int, ...] = ()
    parameters = 0
    if operator.name in _WEIGHTED:
        kernel = file.shape(operator.inputs[1])
        # Weights may have been computed from what is stored.
        parameters = sum(prod(file.shape(place)) for place in operator.inputs[1:3] if place >= 0)
        if operator.name == "FULLY_CONNECTED":
            given = (*given[:-1], kernel[-1])  # it flattens by itself
    elif operator.name == "BATCH_MATMUL" and operator.options.adjX:
        given = (*given[:-2], given[-1], given[-2])
    elif operator.name.endswith("POOL_2D"):
        kernel = (operator.options.filterHeight, operator.options.filterWidth)
    if len(given) == 4 and operator.name not in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        given = (given[0], given[3], *given[1:3])
        made = (made[0], made[3], *made[1:3]) if len(made) == 4 else made
    return Call(SimpleNamespace(op_type=_COUNTED[operator.name]), given, made, kernel, parameters, 0)  # type: ignore[arg-type]


def _storages(file: File) -> Trace:
    """Which tensors each operator reads and writes, with their bytes."""
    trace, holder = Trace(), dict[int, int]()

    def key(place: int) -> int:
        while place in holder:
            place = holder[place]
        trace.values.setdefault(place, prod(file.shape(place)) * file.dtypes[place].itemsize)
        return place

    trace.inputs = tuple(key(place) for place in file.inputs)
    for operator in file.operators:
        reads = [place for place in operator.inputs if place >= 0 and place not in file.constants]
        if operator.name in _VIEWS and reads:
            holder[operator.outputs[0]] = reads[0]
        elif reads:
            trace.steps.append(Step(tuple(map(key, reads)), tuple(map(key, operator.outputs))))
    trace.outputs = tuple(key(place) for place in file.outputs)
    return trace
