"""A file format with the runtime that it is for: written, run, read back and counted."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tinyscene.accounting import Ledger
from tinyscene.deployment.forms import Form
from tinyscene.errors import InputError

Values = npt.NDArray[np.float32]
# A batch of each input in, in order; as many of each output out.
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
        runtime: what runs it, as its makers write it.
        extra: of this package, that installs the runtime; empty where it is always there.
        any_length: whether one file takes clips of any number of frames where the front end is outside.
        runs_here: whether its runtime is there on a computer; else a reference of its operators runs the file.
        rounds_otherwise: whether its plainest integer kernels round as no torch does: in fixed point, and twice.
        steps: of the int8 output that its kernels may be off in any case.
        ways: to write the same file; where the first does not come out right, the next is tried.
    """

    suffix: ClassVar[str]
    runtime: ClassVar[str]
    extra: ClassVar[str] = ""
    any_length: ClassVar[bool] = False
    runs_here: ClassVar[bool] = True
    rounds_otherwise: ClassVar[bool] = False
    steps: ClassVar[float] = 1.0
    ways: ClassVar[tuple[str, ...]] = ("",)

    @abstractmethod
    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        """Write `form` to `path`. Raises InputError where the format can't hold it, or the runtime is missing."""

    @abstractmethod
    def metadata(self, path: Path) -> dict[str, str]:
        """What `write` was given. Raises InputError for a file of another kind."""

    @abstractmethod
    def runners(self, path: Path, threads: int = 1) -> dict[str, Runner]:
        """Ways to run a file, by name; the last is the one that users get, the first the plainest that there is.

        All take and give float32, whatever the file's own input and output are. Raises InputError where the runtime
        refuses the file; a runner does where it refuses the input.
        """

    def runner(self, path: Path, threads: int = 1) -> Runner:
        """The last of `runners`; a format that can open it alone does. 0 threads leaves their number to the runtime."""
        return list(self.runners(path, threads).values())[-1]

    @abstractmethod
    def check(self, form: Form, path: Path) -> None:
        """Raise InputError where the file's tensors are not those of `form`, or it can't be counted."""

    @abstractmethod
    def layers_by_kernel(self, path: Path) -> tuple[int, int]:
        """How many layers with weights run on integers, and how many in float."""

    @abstractmethod
    def ledger(self, path: Path, example: tuple[int, ...]) -> Ledger:
        """What the file costs for one input of shape `example`, read from the file alone."""

    @abstractmethod
    def version(self) -> str:
        """Of the runtime."""
