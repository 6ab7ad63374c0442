"""A file format with its runtime: written, run and read back."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tinyscene.deployment.forms import Form
from tinyscene.errors import InputError
from tinyscene.progress import silence

Values = npt.NDArray[np.float32]
# From a batch of each input, in order, to one of each output.
Runner = Callable[..., tuple[Values, ...]]


class Format(ABC):
    """One kind of file.

    Attributes:
        suffix: of the file's name.
        runtime: in its makers' spelling; `package` has its version.
        any_length: whether one file takes clips of any number of frames where the front end is outside.
        keeps_halves: whether 16-bit weights are stored as such, rather than widened to 32 bits.
        concurrent: whether a runner may be called from several threads at once.
        ways: to write the same file; where one fails, the next is tried.
        products: whether a front end inside is written as matrix products, with their constants.
    """

    suffix: ClassVar[str]
    runtime: ClassVar[str]
    package: ClassVar[str]
    any_length: ClassVar[bool] = False
    keeps_halves: ClassVar[bool] = False
    concurrent: ClassVar[bool] = False
    ways: ClassVar[tuple[str, ...]] = ("",)
    products: ClassVar[bool] = True

    @abstractmethod
    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        """Write `form` to `path`.

        Raises InputError where the format can't hold it, the runtime is missing, or, in a format that keeps their
        names, the file's tensors are not the form's.
        """

    @abstractmethod
    def metadata(self, path: Path) -> dict[str, str]:
        """The metadata given to `write`. Raises InputError for a file of another kind."""

    @abstractmethod
    def runner(self, path: Path, threads: int = 1) -> Runner:
        """A runner of the file, as users run it; 0 threads leaves their number to the runtime.

        It takes and gives float32, whatever the file's own input and output are. Raises InputError where the runtime
        refuses the file; the runner does where it refuses the input.
        """

    def checked_runner(self, path: Path) -> Runner:
        """The runner that export compares: of one thread, so that sums are split the same way on every machine."""
        return self.runner(path, threads=1)

    def neighbours(self, path: Path, written: Path) -> dict[Path, str]:
        """Texts that go beside `path`, whose contents are in `written`; none, for most formats.

        Raises InputError for a name that they can't have.
        """
        return {}

    def memory(self, path: Path) -> dict[str, int]:
        """Bytes that the caller provides, by name; empty where the runtime does."""
        return {}

    def layers_by_kernel(self, path: Path) -> tuple[int | None, int | None]:
        """Numbers of layers with weights that run on integers and in float; None if not reported by the runtime."""
        return None, None

    def version(self) -> str:
        """The runtime and its version."""
        return f"{self.runtime} {version(self.package)}"


def installed(module: str, extra: str) -> Any:
    """A module of a runtime. Raises InputError with the command to install it where it is missing."""
    try:
        with silence(native=True):
            return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f'{module} can\'t be imported here ({error}); run pip install "tinyscene[{extra}]"') from error


def reason(error: BaseException) -> str:
    """The first line of an error of other libraries, or of its cause."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def clip_by_clip(
    path: Path, given: Sequence[Values], shapes: Sequence[Sequence[int]], run: Callable[..., Sequence[Values]]
) -> tuple[Values, ...]:
    """Run a file for a batch of one on every clip of a batch. Raises InputError for inputs of other shapes."""
    taken = [tuple(values.shape[1:]) for values in given]
    if taken != [tuple(shape[1:]) for shape in shapes]:
        accepted = " and ".join(f"(any batch, {', '.join(map(str, shape[1:]))})" for shape in shapes)
        raise InputError(f"{path}: given {taken} after the batch; accepted: {accepted}, for which the file was made")
    made = [run(*(values[None] for values in clip)) for clip in zip(*given, strict=True)]
    return tuple(np.concatenate(output) for output in zip(*made, strict=True))
