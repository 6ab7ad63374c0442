"""Replacements for what torch.export can't capture at any length."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_Size = int | Sequence[int]


class Capturable(TorchFunctionMode):
    """max_pool1d as the equal max_pool2d: its own kernel takes the length of its input as a constant."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        options = dict(kwargs or {})
        if func in (functional.max_pool1d, torch.max_pool1d) and not options.pop("return_indices", False):
            return _max_pool1d(*args, **options)
        return func(*args, **(kwargs or {}))


def _max_pool1d(
    input: Tensor,
    kernel_size: _Size,
    stride: _Size | None = None,
    padding: _Size = 0,
    dilation: _Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    def wide(size: _Size, across: int) -> list[int]:
        return [across, *([size] if isinstance(size, int) else size)]

    sizes = wide(kernel_size, 1), wide(stride or kernel_size, 1), wide(padding, 0), wide(dilation, 1)
    return torch.max_pool2d(input.unsqueeze(-2), *sizes, ceil_mode).squeeze(-2)
