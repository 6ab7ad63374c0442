"""An ONNX file as it is read for counting: every stored tensor found, and what can't be seen into refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinyscene.deployment.described import inputs_of
from tinyscene.deployment.frontend_constants import is_of_frontend
from tinyscene.deployment.runtime import refusals, session
from tinyscene.errors import InputError

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]
Array = npt.NDArray[Any]

# Inputs that say where values go, and never what they are.
_STRUCTURE: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Shape": (0,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
}
# Weights drawn from a seed would cost nothing.
_DRAWN = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
# They hold weights, and no MAC counter of ours knows them.
_UNCOUNTED = {
    "Attention",
    "ConvInteger",
    "DeformConv",
    "Einsum",
    "GRU",
    "LSTM",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "RNN",
}
# More numbers than this in an operator's attribute are no setting of it.
_LONGEST_SETTING = 8
_ACCEPTED = "accepted: one flat graph of standard operators that holds its weights itself, such as export writes"


@dataclass(frozen=True)
class Graph:
    """A checked file.

    Attributes:
        stored: every tensor that it holds and that is not merely a shape, in the file's order.
    """

    path: Path
    model: "onnx.ModelProto"
    stored: dict[str, Array]

    @property
    def nodes(self) -> list["onnx.NodeProto"]:
        return list(self.model.graph.node)

    @property
    def inputs(self) -> list[str]:
        return _inputs(self.model)

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self.model.graph.output]

    @property
    def metadata(self) -> dict[str, str]:
        return metadata_of(self.model)

    @cached_property
    def makers(self) -> dict[str, "onnx.NodeProto"]:
        """The node that makes each value."""
        return {name: node for node in self.nodes for name in node.output}

    @cached_property
    def readers(self) -> dict[str, list[tuple["onnx.NodeProto", int]]]:
        """The nodes that read each value, and as which input."""
        found: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.nodes:
            for position, name in enumerate(node.input):
                found.setdefault(name, []).append((node, position))
        return found

    @cached_property
    def activations(self) -> set[str]:
        """Values that depend on the input and reach the output."""
        depend = set(self.inputs)
        for node in self.nodes:
            if node.op_type != "Shape" and depend.intersection(node.input):
                depend.update(node.output)
        return depend & _data(self.model)

    @cached_property
    def live(self) -> set[str]:
        """Values that the output is computed from, or shaped by."""
        needed = set(self.outputs)
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update([*node.input, *node.output])
        return needed

    @cached_property
    def frontend(self) -> set[str]:
        """Stored tensors that are the front end's own, by their values."""
        return {name for name, array in self.stored.items() if is_of_frontend(array, self.metadata)}

    @cached_property
    def before_network(self) -> set[str]:
        """Values that the front end's tensors make, and all that these are made of.

        Raises:
            InputError: weights are among them, which would be a network in front of the front end.
        """
        found: set[str] = set()
        for node in reversed(self.nodes):
            if self.frontend.intersection(node.input) or found.intersection(node.output):
                found.update([*node.input, *node.output])
        weights = [n for n in found & self.stored.keys() - self.frontend if self.stored[n].size > 1]
        if weights:
            raise InputError(f"{self.path}: {weights[0]} is read in front of constants of the front end; {_ACCEPTED}")
        return found

    def shapes(self, input_shape: Shape) -> dict[str, tuple[Shape, int]]:
        """Shape and bytes a value of all that is computed or stored, for an input of this shape, as ONNX Runtime says.

        A stream's state has the shape that the file gives it.

        Raises:
            InputError: the graph can't take it.
        """
        import onnx

        opened = onnx.ModelProto()
        opened.CopyFrom(self.model)
        names = sorted(_data(self.model) & self.makers.keys())
        del opened.graph.output[:]
        opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        silent = {self.inputs[0]: np.zeros(input_shape, np.float32)}
        for value in [value for value in opened.graph.input if value.name in self.inputs[1:]]:
            sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            silent[value.name] = np.zeros((input_shape[0], *sizes[1:]), np.float32)
        try:
            made = session(opened.SerializeToString(), optimized=False).run(names, silent)
        except refusals() as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{self.path}: no input of shape {input_shape} ({reason}); {_ACCEPTED}") from error
        arrays = {**silent, **self.stored, **dict(zip(names, made, strict=True))}
        return {name: (array.shape, array.dtype.itemsize) for name, array in arrays.items()}


def open_file(path: Path) -> "onnx.ModelProto":
    """Parse a file, whatever it holds. Raises InputError if there is none, or none of ONNX."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise InputError(f"{path}: no such file; accepted: an ONNX file")
    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file ({error}); accepted: one that export wrote") from error


def metadata_of(model: "onnx.ModelProto") -> dict[str, str]:
    """What a file says of itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def read(path: Path) -> Graph:
    """Open a file for counting.

    Raises:
        InputError: it is no ONNX file, holds no weights, or could hold some where nobody looks: in another file, in
            subgraphs, functions, operators of its own, attributes, or a random generator's seed.
    """
    model = open_file(path)
    for fault in _faults(model):
        raise InputError(f"{path}: {fault}; {_ACCEPTED}")
    graph = Graph(path, model, _stored(model))
    if not any(array.size > 1 and array.dtype.kind != "b" for array in graph.stored.values()):
        raise InputError(f"{path}: holds no weights; {_ACCEPTED}")
    return graph


def _faults(model: "onnx.ModelProto") -> Iterator[str]:
    import onnx

    graph, kinds = model.graph, onnx.AttributeProto
    if not graph.node or not graph.output:
        yield "holds no graph"
    if len(inputs := _inputs(model)) != inputs_of(metadata_of(model)):
        yield f"reads {len(inputs)} inputs ({', '.join(inputs)}), and weights could be among them"
    if len(graph.output) != inputs_of(metadata_of(model)):
        yield f"gives {len(graph.output)} outputs"
    if model.functions:
        yield f"calls functions of its own ({model.functions[0].name})"
    if graph.sparse_initializer:
        yield "stores sparse tensors"
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield f"keeps {tensor.name} in another file"
    for node in graph.node:
        where = f"{node.op_type} {node.name}".strip()
        if node.op_type in _UNCOUNTED:
            yield f"{where} multiplies by weights, and no counter knows how often"
        if node.domain not in ("", "ai.onnx"):
            yield f"{where} is an operator of the domain {node.domain}"
        if node.op_type in _DRAWN:
            yield f"{where} draws values at random"
        for attribute in node.attribute:
            if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
                yield f"{where} holds a subgraph"
            if attribute.type in (kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS, kinds.TENSORS):
                yield f"{where} holds tensors in its attribute {attribute.name}"
            if attribute.type == kinds.TENSOR and attribute.t.data_location == onnx.TensorProto.EXTERNAL:
                yield f"{where} keeps its values in another file"
            longest = max(len(attribute.floats), len(attribute.ints), int(np.prod(attribute.t.dims)), 0)
            if node.op_type != "Constant" and longest > _LONGEST_SETTING:
                yield f"{where} holds {longest} numbers in its attribute {attribute.name}"


def _inputs(model: "onnx.ModelProto") -> list[str]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in initialized]


def _stored(model: "onnx.ModelProto") -> dict[str, Array]:
    """Initializers and constants, but for whole numbers that decide shapes alone."""
    import onnx

    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            (attribute,) = node.attribute
            value = onnx.helper.get_attribute_value(attribute)
            array = onnx.numpy_helper.to_array(value) if attribute.name == "value" else _as_array(value)
            held[node.output[0]] = array
    data, read_somewhere = _data(model), {name for node in model.graph.node for name in node.input}
    return {
        name: array
        for name, array in held.items()
        if name in data or name not in read_somewhere or array.dtype != np.int64
    }


def _as_array(value: Any) -> Array:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _data(model: "onnx.ModelProto") -> set[str]:
    """Values that the output is computed from, and not merely shaped by."""
    data = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):
        if data.intersection(node.output):
            shaping = _STRUCTURE.get(node.op_type, ())
            data.update(name for position, name in enumerate(node.input) if name and position not in shaping)
    return data
