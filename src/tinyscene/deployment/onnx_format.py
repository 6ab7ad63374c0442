"""ONNX files on ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyscene.deployment.formats import Format, Runner, Values, check_inputs
from tinyscene.deployment.forms import Form
from tinyscene.deployment.runtime import layers_by_kernel, refusals, session
from tinyscene.deployment.write import onnx_model, stored_name
from tinyscene.errors import InputError

if TYPE_CHECKING:
    import onnx


class Onnx(Format):
    """Float32, float16 or int8 (quantize and dequantize operators), as the weights are stored."""

    suffix, runtime, any_length, keeps_halves = ".onnx", "ONNX Runtime", True, True

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        import onnx

        model = onnx_model(form)
        _refuse_other_tensors(model, form)
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, path)

    def metadata(self, path: Path) -> dict[str, str]:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        if not path.is_file():
            raise InputError(f"{path}: no such file; accepted: an ONNX file")
        try:
            model = onnx.load(path, load_external_data=False)
        except DecodeError as error:
            raise InputError(f"{path}: not an ONNX file ({error}); accepted: one that export wrote") from error
        return {entry.key: entry.value for entry in model.metadata_props}

    def runner(self, path: Path, threads: int = 1) -> Runner:
        return _runner(path, threads)

    def layers_by_kernel(self, path: Path) -> tuple[int | None, int | None]:
        return layers_by_kernel(path)

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)


def _refuse_other_tensors(model: "onnx.ModelProto", form: Form) -> None:
    """The file holds the module's tensors bit for bit, under their names; other tensors are the exporter's own."""
    import onnx

    module = form.module
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    held = {stored_name(name): tensor.detach() for name, tensor in tensors}
    for stored in model.graph.initializer:
        if stored.name not in held:
            continue
        ours, theirs = held[stored.name].cpu().numpy(), onnx.numpy_helper.to_array(stored)
        if ours.dtype != theirs.dtype or not np.array_equal(ours, theirs, equal_nan=True):
            raise InputError(
                f"{stored.name} in the file is not the classifier's; accepted: a file with its weights unchanged"
            )


def _runner(path: Path, threads: int) -> Runner:
    try:
        opened = session(path, threads=threads)
    except refusals() as error:
        raise InputError(f"{path}: ONNX Runtime can't run it ({_reason(error)}); try another file") from error
    names = [value.name for value in opened.get_inputs()]

    def run(*given: Values) -> tuple[Values, ...]:
        check_inputs(path, given, len(names))
        try:
            inputs = [np.ascontiguousarray(values, np.float32) for values in given]
            made: list[Values] = opened.run(None, dict(zip(names, inputs, strict=True)))
        except refusals() as error:
            shapes = " and ".join(str(values.shape) for values in given)
            raise InputError(
                f"ONNX Runtime can't run the file on {shapes} ({_reason(error)}); accepted: a network that runs "
                f"on any batch and on the lengths of the clips given"
            ) from error
        return tuple(made)

    return run


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
