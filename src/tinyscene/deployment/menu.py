"""The formats by suffix."""

from pathlib import Path

from tinyscene.deployment.c_format import C
from tinyscene.deployment.executorch import ExecuTorch
from tinyscene.deployment.formats import Format
from tinyscene.deployment.litert import LiteRT
from tinyscene.deployment.onnx_format import Onnx
from tinyscene.errors import InputError

FORMATS: dict[str, Format] = {form.suffix: form for form in (Onnx(), LiteRT(), ExecuTorch(), C())}


def format_of(path: Path) -> Format:
    """The format of a file name. Raises InputError for an unknown suffix."""
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: accepted: a name that ends in {', '.join(FORMATS)}")
    return FORMATS[path.suffix]
