"""ONNX files on ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyscene.accounting import Ledger
from tinyscene.deployment.file_ledger import ledger_of_file
from tinyscene.deployment.formats import Format, Runner, Values, check_inputs
from tinyscene.deployment.forms import Form
from tinyscene.deployment.graph import metadata_of, open_file, read
from tinyscene.deployment.runtime import layers_by_kernel, refusals, session
from tinyscene.deployment.write import onnx_model
from tinyscene.errors import InputError


class Onnx(Format):
    """Float32, float16 or int8 (quantize and dequantize operators), as the weights are stored."""

    suffix, runtime, any_length = ".onnx", "ONNX Runtime", True

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        import onnx

        model = onnx_model(form)
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, path)

    def metadata(self, path: Path) -> dict[str, str]:
        return metadata_of(open_file(path))

    def runners(self, path: Path, threads: int = 1) -> dict[str, Runner]:
        # One thread unless more are asked for: how a sum is split must not depend on the machine.
        return {
            "node by node": _runner(path, optimized=False, threads=threads),
            "optimised": self.runner(path, threads),
        }

    def runner(self, path: Path, threads: int = 1) -> Runner:
        return _runner(path, optimized=True, threads=threads)

    def check(self, form: Form, path: Path) -> None:
        """Every tensor that the file shares with the network is the same, bit for bit, and all of it can be seen."""
        import onnx

        held = form.network.state_dict()
        for stored in onnx.load(path, load_external_data=False).graph.initializer:
            if stored.name not in held:
                continue
            ours, theirs = held[stored.name].cpu().numpy(), onnx.numpy_helper.to_array(stored)
            if ours.dtype != theirs.dtype or not np.array_equal(ours, theirs, equal_nan=True):
                raise InputError(
                    f"{stored.name} in the file is not the classifier's; accepted: a file that holds its weights "
                    f"unchanged"
                )
        read(path)

    def layers_by_kernel(self, path: Path) -> tuple[int, int]:
        return layers_by_kernel(path)

    def ledger(self, path: Path, example: tuple[int, ...]) -> Ledger:
        return ledger_of_file(path, example)

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)


def _runner(path: Path, *, optimized: bool, threads: int) -> Runner:
    try:
        opened = session(path, optimized=optimized, threads=threads)
    except refusals() as error:
        raise InputError(f"{path}: ONNX Runtime can't run it ({_reason(error)}); accepted: another file") from error
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
