"""Batch norm merged into the layer that feeds it, or made an explicit affine where there is none."""

import copy
from collections import Counter
from fnmatch import fnmatchcase
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinyscene.models.tracing import ModuleCall, Trace, trace_forward


def foldable(trace: Trace) -> dict[str, str]:
    """Batch norms that can merge into the layer before them, and that layer, which runs once and feeds nothing else.

    The norm is over the layer's outputs, and folding is proved: a custom convolution may do more with its weight.
    """
    calls = [call for call in trace.calls if isinstance(call, ModuleCall)]
    times = Counter(call.layer for call in calls)
    readers = Counter(key for step in trace.steps for key in set(step.reads))
    makers = {call.writes: call for call in calls if _outputs_at(call) == 1}
    return {
        call.layer: maker.layer
        for call in calls
        if _is_norm(call.module)
        and call.module.running_mean is not None
        and (maker := makers.get(call.reads)) is not None
        and readers[call.reads] == 1
        and times[call.layer] == times[maker.layer] == 1
        and _folds_exactly(maker, call.module)
    }


def _is_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """A batch norm that computes nothing else."""
    return isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward


def _outputs_at(call: ModuleCall) -> int | None:
    """The dimension of a convolution's or dense layer's outputs, which a norm must scale: a norm's own is 1."""
    if isinstance(call.module, _ConvNd) and not isinstance(call.module, _ConvTransposeNd):
        return len(call.output) - 1 - len(call.module.kernel_size)
    return len(call.output) - 1 if isinstance(call.module, nn.Linear) else None


@torch.no_grad()
def _folds_exactly(call: ModuleCall, norm: _BatchNorm) -> bool:
    """On noise, in double precision, with values and statistics drawn, since untrained ones hide what folding does."""
    layer, norm = copy.deepcopy(call.module).double(), copy.deepcopy(norm).double()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    generator = torch.Generator().manual_seed(0)
    for tensor in (*layer.parameters(), *norm.parameters(), norm.running_mean):
        tensor.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    shape = list(call.input)
    if isinstance(layer, _ConvNd):
        # Two outputs a dimension are enough.
        spans = [each * (kernel - 1) + 2 for each, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
        shape[2:] = map(min, shape[2:], spans)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = norm(layer(noise))
    try:
        _fold(layer, norm)
    except (AttributeError, TypeError, RuntimeError):
        # A weight that is computed from others can't be set.
        return False
    return torch.allclose(layer(noise), expected, 1e-9, 1e-9 * float(expected.abs().max()))


class Affine(nn.Module):
    """A scale and a shift a channel: a batch norm that no layer can absorb."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)
        if (kept := dict(norm.named_buffers(recurse=False)).get("weight_mask")) is not None:
            self.register_buffer("scale_mask", kept.clone())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) -> the same shape"""
        across = (-1, *[1] * (x.ndim - 2))
        return x * self.scale.view(across) + self.shift.view(across)


def fold_batch_norm(network: nn.Module, example: Tensor, keep: tuple[str, ...] = ()) -> nn.Module:
    """A copy that computes the same in evaluation mode, without batch norm outside the modules that `keep` matches.

    Weights that a mask removed stay zero at any factor. A bias made by folding has no mask.

    Args:
        example: (1, ...), run through the network once to find which layer feeds which norm.
        keep: patterns over module paths, such as "blocks.*.se"; modules below them stay as they are.
    """
    folded = copy.deepcopy(network)
    pairs = {norm: into for norm, into in foldable(trace_forward(network, example)).items() if not inside(into, keep)}
    for path, module in network.named_modules():
        if _is_norm(module) and module.running_mean is not None and not inside(path, keep):
            if path in pairs:
                _fold(folded.get_submodule(pairs[path]), module)
            folded.set_submodule(path, nn.Identity() if path in pairs else Affine(module))
    return folded


def inside(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether `path`, or a module above it, matches one of `patterns`."""
    names = path.split(".")
    above = [".".join(names[: i + 1]) for i in range(len(names))]
    return any(fnmatchcase(one, pattern) for one in above for pattern in patterns)


@torch.no_grad()
def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    scale, shift = _affine(norm)
    layer.weight = nn.Parameter(weight * scale.view(-1, *[1] * (weight.ndim - 1)))
    # A layer without bias gains one.
    layer.bias = nn.Parameter(shift if bias is None else bias * scale + shift)  # type: ignore[operator]
    masks = dict(layer.named_buffers(recurse=False)), dict(norm.named_buffers(recurse=False))
    if "bias_mask" in masks[0]:
        del layer.bias_mask
    # A masked factor removes its whole filter.
    if "weight_mask" in masks[1]:
        kept = masks[0].get("weight_mask", torch.ones_like(weight, dtype=torch.bool))
        layer.register_buffer("weight_mask", kept & masks[1]["weight_mask"].view(-1, *[1] * (weight.ndim - 1)))


@torch.no_grad()
def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """y = scale x + shift, the function of `norm` in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        return scale * norm.weight, norm.bias - norm.running_mean * scale * norm.weight
    return scale, -norm.running_mean * scale
