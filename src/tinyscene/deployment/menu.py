"""The formats there are, by suffix."""

from pathlib import Path

from tinyscene.deployment.cortex_m import CortexM
from tinyscene.deployment.executorch import ExecuTorch
from tinyscene.deployment.formats import Format
from tinyscene.deployment.litert import LiteRT
from tinyscene.deployment.onnx_format import Onnx
from tinyscene.errors import InputError

FORMATS: dict[str, Format] = {form.suffix: form for form in (Onnx(), LiteRT(), CortexM(), ExecuTorch())}


def format_of(path: Path) -> Format:
    """By the name's end, the longest that fits. Raises InputError, naming those there are, for another."""
    for suffix in sorted(FORMATS, key=len, reverse=True):
        if path.name.endswith(suffix):
            return FORMATS[suffix]
    raise InputError(f"{path}: accepted: a name that ends in {', '.join(FORMATS)}")
