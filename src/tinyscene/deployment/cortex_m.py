"""`.cortex_m.pte` files: int8 networks for ExecuTorch on microcontrollers, whose layers call CMSIS-NN."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tinyscene.deployment.executorch import ExecuTorch, installed
from tinyscene.deployment.formats import Runner
from tinyscene.deployment.forms import Form
from tinyscene.deployment.pte_reference import ReferenceRunner
from tinyscene.errors import InputError
from tinyscene.progress import silence


class CortexM(ExecuTorch):
    """One file for one length of clips, of int8 networks.

    Convolutions, dense layers, additions, products and poolings become calls of CMSIS-NN; what stays in float runs on
    ExecuTorch's portable kernels. No kernel of a microcontroller runs here: files are compared as ExecuTorch's
    reference of each operator computes them, instruction by instruction, in the memory that they plan.
    """

    suffix: ClassVar[str] = ".cortex_m.pte"
    runtime: ClassVar[str] = "ExecuTorch's reference of CMSIS-NN"
    runs_here: ClassVar[bool] = False
    rounds_otherwise: ClassVar[bool] = True
    # An average is rounded to the scale of what goes in, and then to that of what comes out.
    steps: ClassVar[float] = 2.0

    def runners(self, path: Path, threads: int = 1) -> dict[str, Runner]:
        """See `Format.runners`. Threads change nothing."""
        _lowering().pass_manager()  # it defines the operators
        return {"reference": ReferenceRunner(path)}

    def _content(self, form: Form, metadata: Mapping[str, str]) -> bytes:
        if not form.int8:
            raise InputError(f"{type(form.network).__name__} is in float; accepted: an int8 model, of `Quantize`")
        content: bytes = _lowering().lowered(form, metadata)
        return content


def _lowering() -> Any:
    installed("executorch.exir")
    with silence():
        from tinyscene.deployment import cmsis_nn
    return cmsis_nn
