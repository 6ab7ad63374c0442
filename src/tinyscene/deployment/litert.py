"""LiteRT files (.tflite) for phones and microcontrollers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tinyscene.deployment.formats import Format, Runner, Values, clip_by_clip, installed, reason
from tinyscene.deployment.forms import Form
from tinyscene.deployment.portable import module_of
from tinyscene.errors import InputError
from tinyscene.progress import silence

# The converter's own rearrangement to channels last is fast, but sometimes wrong or impossible.
CHANNELS_LAST, AS_TORCH = "channels last", "in torch's layout"
# Prefix of our names in the file's metadata.
_PREFIX = "tinyscene."
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


class LiteRT(Format):
    """Float32, or int8 with int8 input and output where the front end is outside; 16-bit weights become 32 bits wide.

    One clip at a time, of one length.
    """

    suffix, runtime, package = ".tflite", "LiteRT", "ai-edge-litert"
    ways = (CHANNELS_LAST, AS_TORCH)

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        converter = installed("litert_torch", "litert")
        quantizer = installed("litert_torch.quantize.pt2e_quantizer", "litert")
        config = None
        if form.int8:
            # Makes operators between two roundings integer ones; our own graph decides what is quantized.
            static = quantizer.PT2EQuantizer().set_global(quantizer.get_symmetric_quantization_config())
            config = installed("litert_torch.quantize.quant_config", "litert").QuantConfig(pt2e_quantizer=static)
        module = module_of(form, stored=False)
        with silence(native=True), _layout(way):
            try:
                converter.convert(module, form.examples, quant_config=config).export(str(path))
            except Exception as error:  # the converter raises errors of any type
                raise InputError(
                    f"LiteRT's converter can't take {type(form.module.network).__name__} ({reason(error)}); accepted: "
                    f"a network that it converts"
                ) from error
        _add_metadata(path, metadata)

    def metadata(self, path: Path) -> dict[str, str]:
        model = _model(path)
        named = {entry.name.decode(): bytes(model.buffers[entry.buffer].data) for entry in model.metadata or []}
        return {name.removeprefix(_PREFIX): text.decode() for name, text in named.items() if name.startswith(_PREFIX)}

    def runner(self, path: Path, threads: int = 1) -> Runner:
        opened = _interpreter(path, threads)
        given_as, made_as = opened.get_input_details(), opened.get_output_details()

        def once(*clip: Values) -> list[Values]:
            for values, detail in zip(clip, given_as, strict=True):
                opened.set_tensor(detail["index"], _quantized(np.asarray(values, np.float32), detail))
            opened.invoke()
            return [_dequantized(opened.get_tensor(detail["index"]), detail) for detail in made_as]

        return lambda *given: clip_by_clip(path, given, [detail["shape"] for detail in given_as], once)

    def layers_by_kernel(self, path: Path) -> tuple[int | None, int | None]:
        opened = _interpreter(path, threads=1)
        dtypes = {detail["index"]: detail["dtype"] for detail in opened.get_tensor_details()}
        weighted = [one["inputs"][0] for one in opened._get_ops_details() if one["op_name"] in _WEIGHTED]
        integer = sum(np.issubdtype(dtypes[given], np.integer) for given in weighted)
        return integer, len(weighted) - integer


def _model(path: Path) -> Any:
    """A file as objects of LiteRT's schema. Raises InputError if it is missing or not LiteRT's."""
    schema = installed("ai_edge_litert.schema_py_generated", "litert")
    try:
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise ValueError("no TFL3 at byte 4")
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except Exception as error:  # a broken flatbuffer: any index error beneath
        raise InputError(f"{path}: not a LiteRT file ({error}); accepted: one that export wrote") from error


def _add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    import flatbuffers
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT

    model = _model(path)
    for name, text in metadata.items():
        buffer, entry = BufferT(), MetadataT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        entry.name, entry.buffer = _PREFIX + name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(path.stat().st_size + sum(map(len, metadata.values())))
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


def _interpreter(path: Path, threads: int) -> Any:
    interpreter = installed("ai_edge_litert.interpreter", "litert")
    with silence(native=True):
        try:
            opened = interpreter.Interpreter(str(path), num_threads=threads or None)
            opened.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: LiteRT can't run it ({reason(error)}); try another file") from error
    return opened


def _quantized(values: Values, detail: dict[str, Any]) -> Any:
    if detail["dtype"] == np.float32:
        return values
    scale, zero_point = detail["quantization"]
    # Rounds as torch, which multiplies by the reciprocal.
    whole = np.rint(values * (np.float32(1) / np.float32(scale))) + zero_point
    limits = np.iinfo(detail["dtype"])
    return whole.clip(limits.min, limits.max).astype(detail["dtype"])


def _dequantized(values: Any, detail: dict[str, Any]) -> Values:
    if detail["dtype"] == np.float32:
        return np.array(values, np.float32)
    scale, zero_point = detail["quantization"]
    restored: Values = (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return restored


@contextmanager
def _layout(way: str) -> Iterator[None]:
    """With or without the converter's rearrangement."""
    from litert_torch._convert import fx_passes
    from litert_torch.fx_infra import ExportedProgramPassBase, ExportedProgramPassResult

    class Nothing(ExportedProgramPassBase):  # type: ignore[misc]
        def call(self, exported_program: Any) -> Any:
            return ExportedProgramPassResult(exported_program, False)

    rearranges = fx_passes.OptimizeLayoutTransposesPass if way == CHANNELS_LAST else Nothing
    with patch.object(fx_passes, "OptimizeLayoutTransposesPass", rearranges):
        yield
