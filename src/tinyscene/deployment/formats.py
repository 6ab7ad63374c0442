"""A file format with its runtime: written, run and read back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tinyscene.deployment.forms import Form
from tinyscene.errors import InputError

Values = npt.NDArray[np.float32]
# From a batch of each input, in order, to one of each output.
Runner = Callable[..., tuple[Values, ...]]


def check_inputs(where: object, given: Sequence[Values], inputs: int) -> None:
    """Raise InputError unless there is a batch for each of a file's inputs, all of one size."""
    batches = [len(values) for values in given]
    if len(batches) != inputs or len(set(batches)) > 1:
        raise InputError(f"{where}: given batches of {batches}; accepted: {inputs} of one size, one for each input")


class Format(ABC):
    """One kind of file.

    Attributes:
        suffix: of the file's name.
        runtime: in its makers' spelling.
        any_length: whether one file takes clips of any number of frames where the front end is outside.
        keeps_halves: whether 16-bit weights are stored as such, rather than widened to 32 bits.
        ways: to write the same file; where one fails, the next is tried.
    """

    suffix: ClassVar[str]
    runtime: ClassVar[str]
    any_length: ClassVar[bool] = False
    keeps_halves: ClassVar[bool] = False
    ways: ClassVar[tuple[str, ...]] = ("",)

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

    def layers_by_kernel(self, path: Path) -> tuple[int | None, int | None]:
        """Numbers of layers with weights that run on integers and in float; None if not reported by the runtime."""
        return None, None

    @abstractmethod
    def version(self) -> str:
        """Version of the runtime."""
