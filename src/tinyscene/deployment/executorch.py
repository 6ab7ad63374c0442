"""ExecuTorch's `.pte` files: float32 and int8, on XNNPACK where it has a kernel, otherwise on portable kernels."""

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from tinyscene.deployment.formats import Format, Runner, Values, check_inputs
from tinyscene.deployment.forms import Form
from tinyscene.errors import InputError
from tinyscene.progress import silence

METHOD = "forward"


class ExecuTorch(Format):
    """One file for one length of clips.

    16-bit weights are widened to 32 bits: XNNPACK's 16-bit kernels round, and the portable ones are slow. Int8
    weights stay int8, biases become int32 again.
    """

    suffix: ClassVar[str] = ".pte"
    runtime: ClassVar[str] = "ExecuTorch"

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        """See `Format.write`. Metadata are methods without inputs, so that their keys have to be identifiers."""
        for key in metadata:
            if not key.isidentifier() or key == METHOD:
                raise InputError(f"metadata {key!r}; accepted in a .pte file: identifiers other than {METHOD!r}")
        installed("executorch.exir")
        try:
            with silence(native=True), torch.no_grad():
                content = _content(form, metadata)
        except Exception as error:  # torch.export and the passes raise errors of any type
            raise InputError(
                f"{type(form.network).__name__} can't be written as .pte ({_reason(error)}); accepted: a network that "
                f"torch.export captures, with operations that ExecuTorch has"
            ) from error
        path.write_bytes(content)

    def metadata(self, path: Path) -> dict[str, str]:
        """See `Format.metadata`."""
        program = _program(path)
        found = {}
        for name in sorted(program.method_names - {METHOD}):
            value, *_ = program.load_method(name).execute([])
            if isinstance(value, str):
                found[name] = value
        return found

    def runner(self, path: Path, threads: int = 1) -> Runner:
        """See `Format.runner`."""
        return _Runner(path, threads)

    def version(self) -> str:
        """See `Format.version`."""
        installed("executorch.runtime")
        return version("executorch")


class _Runner:
    """Clip by clip: a file has a batch of one."""

    # All methods of a process share one thread pool, and keep pointing to the one they were loaded with.
    generation = 0

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self._load()

    def _load(self) -> None:
        pool = installed("executorch.extension.pybindings.portable_lib")
        with silence(native=True):
            if self.threads and pool._threadpool_get_thread_count() != self.threads:
                pool._unsafe_reset_threadpool(self.threads)
                _Runner.generation += 1
            self.loaded, self.program = _Runner.generation, _program(self.path)
            try:
                self.method = self.program.load_method(METHOD)
                meta = self.method.metadata
                self.shapes = [tuple(meta.input_tensor_meta(i).sizes()) for i in range(meta.num_inputs())]
                self.widths = [int(meta.output_tensor_meta(i).sizes()[-1]) for i in range(meta.num_outputs())]
            except (RuntimeError, KeyError) as error:
                raise InputError(
                    f"{self.path}: ExecuTorch can't load it ({_reason(error)}); accepted: a file that export wrote"
                ) from error

    def __call__(self, *given: Values) -> tuple[Values, ...]:
        check_inputs(self.path, given, len(self.shapes))
        for values, shape in zip(given, self.shapes, strict=True):
            if values.shape[1:] != shape[1:]:
                raise InputError(
                    f"{self.path}: takes (any batch, {', '.join(map(str, shape[1:]))}), not {values.shape}; "
                    f"accepted: clips of the exported length"
                )
        if self.loaded != _Runner.generation:
            self._load()
        # Strides of axes of length one are arbitrary in torch; ExecuTorch would read some as another order of axes.
        inputs = [torch.empty(shape) for shape in self.shapes]
        made = []
        for clip in zip(*given, strict=True):
            for tensor, values in zip(inputs, clip, strict=True):
                tensor[0] = torch.as_tensor(values)
            try:
                outputs = self.method.execute(inputs)
            except RuntimeError as error:
                raise InputError(
                    f"{self.path}: ExecuTorch can't run it ({_reason(error)}); accepted: a file that export checked"
                ) from error
            made.append([np.array(output.numpy()) for output in outputs])
        if not made:
            return tuple(np.zeros((0, width), np.float32) for width in self.widths)
        return tuple(np.concatenate(output) for output in zip(*made, strict=True))


def _content(form: Form, metadata: Mapping[str, str]) -> bytes:
    """The bytes of the file."""
    from tinyscene.deployment.portable import module_of

    exir = installed("executorch.exir")
    partitioner = installed("executorch.backends.xnnpack.partition.xnnpack_partitioner").XnnpackPartitioner()
    # Strides of axes of length one are arbitrary in torch, and would be read as another order of axes.
    fresh = tuple(torch.zeros(example.shape) for example in form.examples)
    edge = exir.to_edge_transform_and_lower(
        torch.export.export(module_of(form, stored=True), fresh),
        partitioner=[partitioner],
        # It refuses quantized operations.
        compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
        constant_methods=dict(metadata),
    )
    content: bytes = edge.to_executorch().buffer
    return content


def _program(path: Path) -> Any:
    """Open a file. Raises InputError if it is missing or not ExecuTorch's."""
    runtime = installed("executorch.runtime")
    if not path.is_file():
        raise InputError(f"{path}: no such file; accepted: a .pte file")
    try:
        with silence(native=True):
            return runtime.Runtime.get().load_program(path)
    except RuntimeError as error:
        raise InputError(f"{path}: not a .pte file ({_reason(error)}); accepted: one that export wrote") from error


def installed(module: str) -> Any:
    """A module of ExecuTorch. Raises InputError with the command to install it where it is missing."""
    try:
        with silence():
            return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f".pte files need the package executorch, which can't be imported here ({error}); run "
            f'pip install "tinyscene[executorch]"'
        ) from error


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
