"""A network in C: the functions of emx-onnx-cgen, with their memory planned.

It starts from the integer graph that ONNX Runtime makes of our ONNX file, since the generator computes quantize and
dequantize operators in float.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyscene.deployment.formats import reason
from tinyscene.errors import InputError

if TYPE_CHECKING:
    import onnx

TEMPLATES = files("tinyscene.deployment") / "c"
# Offsets in the arena are multiples of it.
ALIGNED = 8
_BYTES = {"bool": 1, "int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "float": 4, "int64_t": 8, "double": 8}
# Of ONNX Runtime: the generator has no C for the operators that these make.
_FUSIONS = ["ConvActivationFusion", "GemmActivationFusion", "QuickGeluFusion"]
_FUNCTION = re.compile(r"^EMX_NODE_FN void (\w+)\((.*)\) \{$", re.M)
_SCRATCH = re.compile(r", (\w+) scratch\[(\d+)\]$")
_BODY = re.compile(r"^void scene\((.*)\) \{\n(.*?)^\}\n?", re.M | re.S)
_VALUE = re.compile(r"(\w+) (\w+)((?:\[\d+\])+);")
_CALL = re.compile(r"(\w+)\((.*)\);")


class Buffer(NamedTuple):
    """Bytes that are in use from one call to another, both included; -1 is before the first."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Network:
    """C functions, ending with `scene_network(features, logits, memory)`.

    Attributes:
        text: of all.
        offsets: in the arena, of every value, by name; among them those that were asked for.
        arena: bytes.
    """

    text: str
    offsets: dict[str, int]
    arena: int


def arranged(buffers: Iterable[Buffer]) -> tuple[dict[str, int], int]:
    """Offsets where none overlaps one in use at the same time, and the bytes of all: largest first, then lowest."""
    placed: list[tuple[int, Buffer]] = []
    for buffer in sorted(buffers, key=lambda one: (-one.size, one.name)):
        at = 0
        for start, other in sorted(placed, key=lambda one: one[0]):
            if other.last < buffer.first or buffer.last < other.first:
                continue
            if at + buffer.size <= start:
                break
            at = max(at, -(-(start + other.size) // ALIGNED) * ALIGNED)
        placed.append((at, buffer))
    return {one.name: at for at, one in placed}, max((at + one.size for at, one in placed), default=0)


def network_in_c(model: "onnx.ModelProto", before: Sequence[Buffer]) -> Network:
    """Translate a graph from `features` to `logits`, of one clip.

    Args:
        before: buffers of the caller; `features`, if among them, is held until the network has read it.

    Raises:
        InputError: the generator has no C for an operator.
    """
    from emx_onnx_cgen import compiler

    with tempfile.TemporaryDirectory() as folder:
        graph = _integer_graph(model, Path(folder))
        own = Path(folder) / "templates"
        generator = Path(compiler.__file__).parent / "templates"
        shutil.copytree(generator, own)
        shutil.copytree(generator, own / "generator")
        for template in TEMPLATES.iterdir():
            (own / template.name).write_text(template.read_text())
        options = compiler.CompilerOptions(
            template_dir=own, model_name="scene", large_temp_threshold_bytes=0, large_weight_threshold=0
        )
        try:
            text: str = compiler.Compiler(options).compile(graph)
        except Exception as error:  # the generator raises errors of several kinds
            raise InputError(
                f"emx-onnx-cgen has no C for this network ({reason(error)}); accepted: a network of operators that it "
                f"has, or another format"
            ) from error
    return _planned(_tidied(text), before)


def _integer_graph(model: "onnx.ModelProto", folder: Path) -> "onnx.ModelProto":
    """As ONNX Runtime would run it, with every value's shape: the generator doesn't know those of its operators."""
    import onnx
    import onnxruntime

    plain, optimized = folder / "plain.onnx", folder / "optimized.onnx"
    for axis in [*model.graph.input[0].type.tensor_type.shape.dim, *model.graph.output[0].type.tensor_type.shape.dim]:
        if axis.dim_param == "batch":
            axis.Clear()
            axis.dim_value = 1
    del model.metadata_props[:]
    onnx.save(model, plain)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimized)
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(str(plain), options, providers=providers, disabled_optimizers=_FUSIONS)
    graph = onnx.load(optimized)
    known = {value.name for value in graph.graph.output}
    made = [name for node in graph.graph.node for name in node.output if name and name not in known]
    asked = onnx.ModelProto()
    asked.CopyFrom(graph)
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    onnx.save(asked, plain)
    options.optimized_model_filepath = ""
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    opened = onnxruntime.InferenceSession(str(plain), options, providers=providers)
    (given,) = opened.get_inputs()
    values = opened.run([*made, *known], {given.name: np.zeros(given.shape, np.float32)})
    del graph.graph.value_info[:]
    for name, value in zip(made, values, strict=False):
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    return graph


def _tidied(text: str) -> str:
    """Without the generator's preamble; constants private to the file and several numbers to a line."""
    text = text[text.index("#ifndef idx_t") :]
    text = re.sub(r"^extern const .*\n", "", text, flags=re.M)
    text = re.sub(r"^_Bool scene_load\(.*?^\}\n", "", text, flags=re.M | re.S)
    text = text.replace("EMX_NODE_FN static inline", "EMX_NODE_FN static")
    text = re.sub(r"^const EMX_UNUSED ", "static const EMX_UNUSED ", text, flags=re.M)
    return re.sub(r"^(static const EMX_UNUSED [^\n]* = \{\n)(.*?)^(\};)", _compact, text, flags=re.M | re.S)


def _compact(found: re.Match[str]) -> str:
    words = re.sub(r"\s+", " ", found[2]).strip().replace("{ ", "{").replace(" }", "}")
    lines, line = [], "   "
    for word in words.split(" "):
        if len(line) + len(word) > 118:
            lines.append(line)
            line = "   "
        line += " " + word
    return found[1] + "\n".join([*lines, line]) + "\n" + found[3]


def _planned(text: str, before: Sequence[Buffer]) -> Network:
    """Put the values between the functions into the arena."""
    body = _BODY.search(text)
    assert body is not None, "the generator's function has another form"
    scratch = {name: found for name, given in _FUNCTION.findall(text) if (found := _SCRATCH.search(given))}
    lines = [line.strip() for line in body[2].splitlines()]
    values = {found[2]: (found[1], found[3]) for line in lines if (found := _VALUE.fullmatch(line))}
    calls = [(found[1], found[2].split(", ")) for line in lines if (found := _CALL.fullmatch(line))]
    assert len(values) + len(calls) == len(lines), "the generator's function has other lines"
    used: dict[str, list[int]] = {}
    for number, (_, given) in enumerate(calls):
        for name in given:
            used.setdefault(name, []).append(number)
    buffers = [Buffer(name, _size(*values[name]), used[name][0], used[name][-1]) for name in values if name in used]
    for number, (name, _) in enumerate(calls):
        if name in scratch:
            size = _size(scratch[name][1], f"[{scratch[name][2]}]")
            buffers.append(Buffer(f"scratch {number}", size, number, number))
    own = [one._replace(last=used["features"][-1]) if one.name == "features" else one for one in before]
    offsets, arena = arranged([*buffers, *own])
    written = []
    for name, (kind, shape) in values.items():
        if name in used:
            inner = shape[shape.index("]") + 1 :]
            pointer = f"(*const {name}){inner}" if inner else f"*const {name}"
            written.append(f"    {kind} {pointer} = (void *)(memory + {offsets[name]});")
    for number, (name, given) in enumerate(calls):
        more = [f"(void *)(memory + {offsets[f'scratch {number}']})"] if name in scratch else []
        written.append(f"    {name}({', '.join([*given, *more])});")
    unused = "" if values or scratch else "    (void)memory;\n"
    function = (
        f"static void scene_network({body[1]}, unsigned char *memory)\n{{\n{unused}" + "\n".join(written) + "\n}\n"
    )
    return Network(text[: body.start()] + function + text[body.end() :], offsets, arena)


def _size(kind: str, shape: str) -> int:
    """Bytes of an array."""
    return _BYTES[kind] * int(np.prod([int(axis) for axis in re.findall(r"\d+", shape)]))
