"""LiteRT files (.tflite) for phones and microcontrollers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from torch import nn

from tinyscene.deployment.formats import Format, Runner, Values, check_inputs
from tinyscene.deployment.forms import Form
from tinyscene.errors import InputError
from tinyscene.progress import silence

# The converter's own rearrangement to channels last is fast, but sometimes wrong or impossible.
CHANNELS_LAST, AS_TORCH = "channels last", "in torch's layout"
# Prefix of our names in the file's metadata.
METADATA_PREFIX = "tinyscene."
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


class LiteRT(Format):
    """Float32, or int8 with int8 input and output where the front end is outside; 16-bit weights become 32 bits wide.

    One clip at a time, of one length.
    """

    suffix, runtime, extra = ".tflite", "LiteRT", "litert"
    ways = (CHANNELS_LAST, AS_TORCH)

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        _require("litert_torch")
        module = self._module(form)
        with silence(native=True), _layout(way):
            import litert_torch
            from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
            from litert_torch.quantize.quant_config import QuantConfig

            # Makes operators between two roundings integer ones; our own graph decides what is quantized.
            static = PT2EQuantizer().set_global(get_symmetric_quantization_config())
            config = QuantConfig(pt2e_quantizer=static) if form.int8 else None
            try:
                converted = litert_torch.convert(module, form.examples, quant_config=config)
                converted.export(str(path))
            except Exception as error:  # the converter raises errors of any type
                raise InputError(
                    f"LiteRT's converter can't take {type(form.network).__name__} ({_first_line(error)}); accepted: a "
                    f"network that it converts"
                ) from error
        _add_metadata(path, metadata)

    def _module(self, form: Form) -> nn.Module:
        """The module to convert: an int8 network as the graph that LiteRT's converter reads."""
        with silence():
            from tinyscene.deployment.portable import module_of
        return module_of(form, stored=False)

    def metadata(self, path: Path) -> dict[str, str]:
        model = read_model(path)
        named = {entry.name.decode(): entry.buffer for entry in model.metadata or []}
        return {
            name.removeprefix(METADATA_PREFIX): bytes(model.buffers[place].data).decode()
            for name, place in named.items()
            if name.startswith(METADATA_PREFIX)
        }

    def runner(self, path: Path, threads: int = 1) -> Runner:
        return _runner(path, threads)

    def layers_by_kernel(self, path: Path) -> tuple[int | None, int | None]:
        kinds = [dtype for name, dtype in _layers(path) if name in _WEIGHTED]
        integer = sum(np.issubdtype(dtype, np.integer) for dtype in kinds)
        return integer, len(kinds) - integer

    def version(self) -> str:
        from importlib.metadata import version

        return version("ai-edge-litert")


def read_model(path: Path) -> Any:
    """A file as objects of LiteRT's schema. Raises InputError if it is missing or not LiteRT's."""
    _require("ai_edge_litert")
    with silence():
        from ai_edge_litert.schema_py_generated import ModelT

    if not path.is_file():
        raise InputError(f"{path}: no such file; accepted: a LiteRT file")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise InputError(f"{path}: not a LiteRT file (no TFL3 at byte 4); accepted: one that export wrote")
    try:
        return ModelT.InitFromPackedBuf(content, 0)
    except Exception as error:  # a broken flatbuffer: any index error beneath
        raise InputError(f"{path}: not a LiteRT file ({error!r}); accepted: one that export wrote") from error


def _add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    import flatbuffers
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT

    model = read_model(path)
    for name, text in metadata.items():
        buffer, entry = BufferT(), MetadataT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        entry.name, entry.buffer = METADATA_PREFIX + name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(path.stat().st_size + sum(map(len, metadata.values())))
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


def _runner(path: Path, threads: int) -> Runner:
    opened = _interpreter(path, threads)
    given_as, made_as = opened.get_input_details(), opened.get_output_details()

    def run(*given: Values) -> tuple[Values, ...]:
        check_inputs(path, given, len(given_as))
        for values, detail in zip(given, given_as, strict=True):
            if tuple(values.shape[1:]) != tuple(detail["shape"][1:]):
                raise InputError(
                    f"{path}: given {values.shape[1:]}; accepted: {tuple(detail['shape'][1:])}, for which it was made"
                )
        made = []
        for clip in zip(*(np.asarray(values, np.float32) for values in given), strict=True):
            for one, detail in zip(clip, given_as, strict=True):
                opened.set_tensor(detail["index"], _quantized(one[None], detail))
            opened.invoke()
            made.append([_dequantized(opened.get_tensor(detail["index"]), detail) for detail in made_as])
        if not made:
            return tuple(np.zeros((0, *detail["shape"][1:]), np.float32) for detail in made_as)
        return tuple(np.concatenate(output) for output in zip(*made, strict=True))

    return run


def _interpreter(path: Path, threads: int) -> Any:
    _require("ai_edge_litert")
    with silence(native=True):
        from ai_edge_litert.interpreter import Interpreter

        try:
            opened = Interpreter(str(path), num_threads=threads or None)
            opened.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: LiteRT can't run it ({_first_line(error)}); try another file") from error
    return opened


def _layers(path: Path) -> Iterator[tuple[str, Any]]:
    """Every operator of the file, and the type of its first input."""
    opened = _interpreter(path, threads=1)
    dtypes = {detail["index"]: detail["dtype"] for detail in opened.get_tensor_details()}
    for operator in opened._get_ops_details():
        yield operator["op_name"], dtypes.get(operator["inputs"][0])


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
    with silence():
        from litert_torch._convert import fx_passes
        from litert_torch.fx_infra import ExportedProgramPassBase, ExportedProgramPassResult

    class Nothing(ExportedProgramPassBase):  # type: ignore[misc]
        def call(self, exported_program: Any) -> Any:
            return ExportedProgramPassResult(exported_program, False)

    if way == CHANNELS_LAST:
        yield
    else:
        with patch.object(fx_passes, "OptimizeLayoutTransposesPass", Nothing):
            yield


def _require(module: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise InputError(
            f'{module} is not installed, which writes and runs LiteRT files; run pip install "tinyscene[litert]"'
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
