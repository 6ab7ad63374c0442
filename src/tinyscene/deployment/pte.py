"""A `.pte` file as it is read for counting: the program and the graphs that it hands to XNNPACK, in one list."""

import json
import re
import tempfile
from dataclasses import dataclass, field
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyscene.errors import InputError
from tinyscene.progress import silence

Shape = tuple[int, ...]

METHOD = "forward"
_BACKEND = "XnnpackBackend"
# "No value", as XNNPACK writes it.
_NONE = 2**32 - 1
_XNNPACK_TYPES = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_qcint8": "int8",
    "xnn_datatype_quint8": "uint8",
    "xnn_datatype_qint32": "int32",
    "xnn_datatype_qcint32": "int32",
    "xnn_datatype_int32": "int32",
}
TORCH_TYPES = {
    "BYTE": "uint8",
    "CHAR": "int8",
    "SHORT": "int16",
    "INT": "int32",
    "LONG": "int64",
    "HALF": "float16",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "BOOL": "bool",
}
_ACCEPTED = "accepted: a .pte file of export, its constants inside, for XNNPACK or portable kernels"


@dataclass(frozen=True)
class Value:
    """A tensor.

    Attributes:
        name: its own in the file.
        constant, scale: keys in `Pte.stored`, of its values and of their scales; empty where it has none.
        graph: number of the graph of XNNPACK that computes it and no one else sees; -1 for the program's.
    """

    name: str
    shape: Shape
    dtype: str
    constant: str = ""
    scale: str = ""
    graph: int = -1

    @property
    def bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Node:
    """An operation: of XNNPACK under its name there (`Conv2d`), of the program under its own (`aten::mean`).

    Attributes:
        inputs: tensors, by their position or name.
        window: of a pooling.
        graph: as of a value.
    """

    kind: str
    inputs: dict[str, Value]
    output: Value
    window: Shape = ()
    graph: int = -1


@dataclass
class Pte:
    """What a file holds.

    Attributes:
        inputs: shapes of what the method takes.
        planned_bytes: memory that the program itself asks for; XNNPACK's comes on top.
        nodes: in the order in which they run.
        stored: constants by key.
    """

    path: Path
    inputs: list[Shape]
    planned_bytes: int
    nodes: list[Node] = field(default_factory=list)
    stored: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


def read(path: Path) -> Pte:
    """Open a file for counting.

    Raises:
        InputError: it is no `.pte` file, computes something where it can't be seen into, or keeps constants elsewhere.
    """
    file = opened(path)
    try:
        with silence():
            return _Reader(path, file).read()
    except InputError:
        raise
    except Exception as error:  # flatbuffers raise what the bytes lead them to
        raise InputError(f"{path}: not a .pte file ({type(error).__name__}: {error}); {_ACCEPTED}") from error


def opened(path: Path) -> Any:
    """A file as the objects of ExecuTorch's schema. Raises InputError if there is none, or none of ExecuTorch."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    if not path.is_file():
        raise InputError(f"{path}: no such file; {_ACCEPTED}")
    try:
        with silence():
            return deserialize_pte_binary(path.read_bytes())
    except Exception as error:  # flatbuffers raise what the bytes lead them to
        raise InputError(f"{path}: not a .pte file ({type(error).__name__}: {error}); {_ACCEPTED}") from error


def plan_of(program: Any) -> Any:
    """What computes."""
    (plan,) = (plan for plan in program.execution_plan if plan.name == METHOD)
    return plan


class _Reader:
    """Joins the program's values and those of XNNPACK's graphs."""

    def __init__(self, path: Path, opened: Any) -> None:
        self.path, self.program = path, opened.program
        self.plan = plan_of(self.program)
        for plan in self.program.execution_plan:
            if plan is not self.plan and (plan.operators or plan.delegates):
                raise self._fault(f"computes in {plan.name} as well as in {METHOD}")
        named = opened.named_data
        self.named = (
            {key: bytes(named.buffers[entry.buffer_index]) for key, entry in named.pte_data.items()} if named else {}
        )
        inputs = [tuple(self.plan.values[given].val.sizes) for given in self.plan.inputs]
        self.pte = Pte(path, inputs, sum(self.plan.non_const_buffer_sizes[1:]))

    def read(self) -> Pte:
        (chain,) = self.plan.chains
        graphs = 0
        for instruction in chain.instructions:
            call = instruction.instr_args
            if hasattr(call, "op_index"):
                self._kernel(call)
            elif hasattr(call, "delegate_index"):
                self._delegate(call, graphs)
                graphs += 1
        # What no operation reads is in the file all the same.
        for place in range(len(self.plan.values)):
            self._tensor(place)
        for number, buffer in enumerate(self.program.constant_buffer):
            self.pte.stored.setdefault(f"constant_{number}", np.frombuffer(bytes(buffer.storage), np.uint8))
        for key, content in self.named.items():
            self.pte.stored.setdefault(key, np.frombuffer(content, np.uint8))
        self.pte.stored = {key: array for key, array in self.pte.stored.items() if array.size}
        return self.pte

    def _fault(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}; {_ACCEPTED}")

    def _tensor(self, index: int) -> Value | None:
        tensor = self.plan.values[index].val
        if not hasattr(tensor, "scalar_type"):
            return None
        dtype, shape, constant = TORCH_TYPES[tensor.scalar_type.name], tuple(tensor.sizes), ""
        extra = tensor.extra_tensor_info
        if extra is not None and extra.location.name == "EXTERNAL":
            raise self._fault("keeps constants in another file")
        if tensor.data_buffer_idx and tensor.allocation_info is None:
            constant = f"constant_{tensor.data_buffer_idx}"
            # Padding follows.
            content = self.program.constant_buffer[tensor.data_buffer_idx].storage
            self._store(constant, bytes(content)[: prod(shape) * np.dtype(dtype).itemsize], shape, dtype)
        return Value(f"value_{index}", shape, dtype, constant)

    def _store(self, key: str, content: bytes, shape: Shape, dtype: str) -> None:
        array = np.frombuffer(content, dtype)
        if array.size != prod(shape):
            raise self._fault(f"{key} holds {len(content):,} bytes for {shape} of {dtype}")
        self.pte.stored[key] = array.reshape(shape)

    def _kernel(self, call: Any) -> None:
        places, windows = dict[int, None](), list[Shape]()
        for place in call.args:
            listed = self.plan.values[place].val
            if type(listed).__name__ == "IntList":
                windows.append(tuple(self.plan.values[item].val.int_val for item in listed.items))
            # The items of lists of tensors are places of their own, below zero where there is none.
            several = type(listed).__name__ in ("TensorList", "OptionalTensorList")
            places.update(dict.fromkeys(item for item in listed.items if item >= 0) if several else {place: None})
        *inputs, output = [value for place in places if (value := self._tensor(place)) is not None]
        named = {str(position): value for position, value in enumerate(inputs)}
        window = windows[0] if windows else ()
        self.pte.nodes.append(Node(self.plan.operators[call.op_index].name, named, output, window))

    def _delegate(self, call: Any, number: int) -> None:
        delegate = self.plan.delegates[call.delegate_index]
        if delegate.id != _BACKEND:
            raise self._fault(f"computes on {delegate.id}, which can't be seen into")
        graph = _graph(bytes(self.program.backend_delegate_data[delegate.processed.index].data))
        keys = [constant["named_key"] for constant in graph["constant_data"]]
        values = {}
        for described in graph["xvalues"]:
            value, quantized = described["xvalue_union"], {}
            if "tensor_value" in value:
                value, quantized = value["tensor_value"], value["quant_params"]
            made = self._xnnpack_value(value, quantized, keys, number)
            outside = value["external_id"]
            values[value["id_out"]] = made if outside == _NONE else self._tensor(call.args[outside])
        for described in graph["xnodes"]:
            self.pte.nodes.append(_xnnpack_node(described, values, number))

    def _xnnpack_value(self, value: Any, quantized: Any, keys: list[str], number: int) -> Value:
        if value["datatype"] not in _XNNPACK_TYPES:
            raise self._fault(f"computes with {value['datatype']}")
        dtype, shape = _XNNPACK_TYPES[value["datatype"]], tuple(value["dims"])
        key = keys[value["constant_buffer_idx"]]
        if value["constant_buffer_idx"] and not key:
            raise self._fault("keeps constants within a graph of XNNPACK, as older versions of ExecuTorch did")
        if key:
            self._store(key, self.named[key], shape, dtype)
        scale = keys[quantized.get("scale_buffer_idx", 0)] if key else ""
        if scale:
            self._store(scale, self.named[scale], (quantized["num_scales"],), "float32")
        return Value(f"graph_{number}_{value['id_out']}", shape, dtype, key, scale, number)


def _xnnpack_node(described: Any, values: dict[int, Any], number: int) -> Node:
    node = described["xnode_union"]
    inputs = {
        name.removesuffix("_id"): values[place]
        for name, place in node.items()
        if name.endswith("_id") and name != "output_id" and place in values
    }
    window = (node["pooling_height"], node["pooling_width"]) if "pooling_height" in node else ()
    kind = described["xnode_union_type"].removeprefix("XNN")
    return Node(kind, inputs, values[node["output_id"]], window, number)


def _graph(blob: bytes) -> Any:
    """What XNNPACK's flatbuffer says, by the schema in ExecuTorch's wheel."""
    from executorch.backends.xnnpack import serialization
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(blob[: XNNHeader.EXPECTED_LENGTH])
    start, end = header.flatbuffer_offset, header.flatbuffer_offset + header.flatbuffer_size
    with tempfile.TemporaryDirectory() as folder:
        schema, content = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
        schema.write_bytes(files(serialization).joinpath("schema.fbs").read_bytes())
        content.write_bytes(blob[start:end])
        _flatc_decompile(folder, str(schema), str(content), ["--raw-binary"])
        text = (Path(folder) / "graph.json").read_text()
    # Bounds of ReLUs, which flatc writes as JSON doesn't.
    return json.loads(re.sub(r"(?<=: )(-?)(inf|nan)\b", r'"\1\2"', text))
