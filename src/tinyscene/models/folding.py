"""Batch norm merged into the layer that feeds it, or made an explicit affine where none does."""

import copy
from collections import Counter
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinyscene.models.tracing import ModuleCall, Trace, trace_forward


def foldable(trace: Trace) -> dict[str, str]:
    """Batch norms that can merge into the layer before them, and that layer: it runs once and feeds nothing else."""
    calls = [call for call in trace.calls if isinstance(call, ModuleCall)]
    times = Counter(call.layer for call in calls)
    readers = Counter(key for step in trace.steps for key in set(step.reads))
    makers = {
        call.writes: call.layer
        for call in calls
        if isinstance(call.module, _ConvNd | nn.Linear) and not isinstance(call.module, _ConvTransposeNd)
    }
    return {
        call.layer: makers[call.reads]
        for call in calls
        if isinstance(call.module, _BatchNorm)
        and call.module.running_mean is not None
        and call.reads in makers
        and readers[call.reads] == 1
        and times[call.layer] == times[makers[call.reads]] == 1
    }


class Affine(nn.Module):
    """A scale and a shift a channel: a batch norm that no layer can take in."""

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

    What a weight mask removed stays zero: a channel's factor can't bring it back. A bias made by folding has no mask.

    Args:
        example: (1, ...), runs through the network once to see which layer feeds which norm.
        keep: patterns over module paths, such as "blocks.*.se"; what stands below them stays as it is.
    """
    folded = copy.deepcopy(network)
    pairs = {norm: into for norm, into in foldable(trace_forward(network, example)).items() if not inside(into, keep)}
    for path, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and not inside(path, keep):
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
    # A factor that a mask removed takes its whole filter with it.
    if "weight_mask" in masks[1]:
        kept = masks[0].get("weight_mask", torch.ones_like(weight, dtype=torch.bool))
        layer.register_buffer("weight_mask", kept & masks[1]["weight_mask"].view(-1, *[1] * (weight.ndim - 1)))


@torch.no_grad()
def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """y = scale x + shift, what `norm` computes in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        return scale * norm.weight, norm.bias - norm.running_mean * scale * norm.weight
    return scale, -norm.running_mean * scale
