"""ExecuTorch's `.pte` files: float32 and int8, on XNNPACK where it has a kernel, otherwise on portable kernels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyscene.deployment.formats import Format, Runner, Values, clip_by_clip, installed, reason
from tinyscene.deployment.forms import Form
from tinyscene.deployment.portable import module_of
from tinyscene.errors import InputError
from tinyscene.progress import silence

METHOD = "forward"


class ExecuTorch(Format):
    """One file for one length of clips.

    16-bit weights are widened to 32 bits: XNNPACK's 16-bit kernels round, and the portable ones are slow. Int8
    weights stay int8, biases become int32 again.
    """

    suffix, runtime, package = ".pte", "ExecuTorch", "executorch"

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        """Metadata are methods without inputs, so that their keys have to be identifiers."""
        exir = _installed("exir")
        partitioner = _installed("backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner()
        # Strides of axes of length one are arbitrary in torch, and would be read as another order of axes.
        fresh = tuple(torch.zeros(example.shape) for example in form.examples)
        try:
            with silence(native=True), torch.no_grad():
                edge = exir.to_edge_transform_and_lower(
                    torch.export.export(module_of(form, stored=True), fresh),
                    partitioner=[partitioner],
                    # It refuses quantized operations.
                    compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
                    constant_methods=dict(metadata),
                )
                content: bytes = edge.to_executorch().buffer
        except Exception as error:  # torch.export and the passes raise errors of any type
            raise InputError(
                f"{type(form.module.network).__name__} can't be written as .pte ({reason(error)}); accepted: a network "
                f"that torch.export captures, with operations that ExecuTorch has"
            ) from error
        path.write_bytes(content)

    def metadata(self, path: Path) -> dict[str, str]:
        program = _program(path)
        values = {name: program.load_method(name).execute([])[0] for name in program.method_names - {METHOD}}
        return {name: value for name, value in sorted(values.items()) if isinstance(value, str)}

    def runner(self, path: Path, threads: int = 1) -> Runner:
        return _Runner(path, threads)


class _Runner:
    """Clip by clip: a file has a batch of one."""

    # All methods of a process share one thread pool, and keep pointing to the one they were loaded with.
    generation = 0

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self._load()

    def _load(self) -> None:
        pool = _installed("extension.pybindings.portable_lib")
        with silence(native=True):
            if self.threads and pool._threadpool_get_thread_count() != self.threads:
                pool._unsafe_reset_threadpool(self.threads)
                _Runner.generation += 1
            self.loaded, self.program = _Runner.generation, _program(self.path)
            try:
                self.method = self.program.load_method(METHOD)
            except (RuntimeError, KeyError) as error:
                raise InputError(
                    f"{self.path}: ExecuTorch can't load it ({reason(error)}); accepted: a file that export wrote"
                ) from error
        meta = self.method.metadata
        self.inputs = [torch.empty(*meta.input_tensor_meta(i).sizes()) for i in range(meta.num_inputs())]

    def __call__(self, *given: Values) -> tuple[Values, ...]:
        if self.loaded != _Runner.generation:
            self._load()
        return clip_by_clip(self.path, given, [tensor.shape for tensor in self.inputs], self._once)

    def _once(self, *clip: Values) -> list[Values]:
        # Strides of axes of length one are arbitrary in torch; ExecuTorch would read some as another order of axes.
        for tensor, values in zip(self.inputs, clip, strict=True):
            tensor.numpy()[:] = values  # torch refuses where it was made in inference mode
        try:
            return [np.array(output.numpy()) for output in self.method.execute(self.inputs)]
        except RuntimeError as error:
            raise InputError(
                f"{self.path}: ExecuTorch can't run it ({reason(error)}); accepted: a file that export checked"
            ) from error


def _program(path: Path) -> Any:
    """Open a file. Raises InputError if it is missing or not ExecuTorch's."""
    runtime = _installed("runtime")
    try:
        with silence(native=True):
            return runtime.Runtime.get().load_program(path)
    except RuntimeError as error:
        raise InputError(f"{path}: not a .pte file ({reason(error)}); accepted: one that export wrote") from error


def _installed(module: str) -> Any:
    return installed(f"executorch.{module}", "executorch")
