"""Training in bfloat16: activations and products at 16 bit, weights, batch norm's statistics and the loss at 32."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tinyscene.models.fake_quantize import FakeQuantize

TrainingPrecision = Literal["32-true", "bf16-mixed"]
"""As Lightning names them."""


class _StridedInFloat(TorchFunctionMode):
    """Grouped convolutions with a stride in float32: in bfloat16, a CPU takes many times as long for their gradient."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        convolves = func is torch.conv2d or func is torch.conv1d
        # As `nn.Conv2d` calls it: input, weight, bias, stride, padding, dilation, groups.
        if convolves and len(args) > 6 and args[6] > 1 and np.max(args[3]) > 1:
            x, *others = args
            with torch.autocast("cpu", enabled=False):
                return func(x.float(), *others).to(x.dtype)
        return func(*args, **kwargs or {})


def slow_here(precision: TrainingPrecision, device: torch.device) -> bool:
    """Whether this processor computes in bfloat16 by way of float32, which takes longer than float32 itself."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return precision == "bf16-mixed" and device.type == "cpu" and x86 and not native


@contextmanager
def autocast(precision: TrainingPrecision, network: nn.Module, device: torch.device) -> Iterator[None]:
    """For a forward pass while training. Networks that learn to be int8 round float32 values, and stay there."""
    if precision == "32-true" or any(isinstance(module, FakeQuantize) for module in network.modules()):
        yield
    elif device.type == "cpu":
        with torch.autocast("cpu", torch.bfloat16), _StridedInFloat():
            yield
    else:
        with torch.autocast(device.type, torch.bfloat16):
            yield
