"""Counting a network: its stored tensors, and one traced forward pass for MACs and RAM."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from tinyscene.accounting.counters import COUNTERS, Call
from tinyscene.accounting.ledger import (
    BYTES_OF_PRECISION,
    FOLDED,
    LayerRow,
    Ledger,
    Precision,
    Role,
    TensorRow,
    Uncounted,
    precision_of,
)
from tinyscene.errors import InputError
from tinyscene.features.spectrogram import BandSpectrogram
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.folding import Affine, foldable
from tinyscene.models.masks import SUFFIX as MASK
from tinyscene.models.quantized import Int8Network
from tinyscene.models.tracing import ModuleCall, Trace, trace_forward


def count(network: nn.Module, example: Tensor, *, precision: Precision | None = None) -> Ledger:
    """The cost of `network` for one clip, from one forward pass of a float32 copy in evaluation mode.

    Args:
        network: left unchanged, its own data types reported.
        example: (1, channels, bands, frames) or (1, samples), of any values.
        precision: of the activations, for the peak RAM only; where None, int8 for int8 networks, otherwise float32.

    Raises:
        InputError: the batch is not one clip, the network can't take it, the precision is unknown, or there are weights
            outside parameters and buffers, which can't be counted or saved.
    """
    held_as = precision_of(precision or ("int8" if isinstance(network, Int8Network) else "float32"))
    trace = trace_forward(network.origin.folded() if isinstance(network, Int8Network) else network, example)
    _refuse_hidden(network, trace)
    return _ledger(_tensor_rows(network, foldable(trace)), trace, example, held_as)


def _ledger(tensors: Iterable[TensorRow], trace: Trace, example: Tensor, precision: Precision) -> Ledger:
    peak = peak_values(trace) * BYTES_OF_PRECISION[precision]
    return Ledger(tuple(tensors), _layer_rows(trace), tuple(example.shape), peak, precision, tuple(_uncounted(trace)))


def count_classifier(
    classifier: SceneClassifier, clip_s: float, *, inside: nn.Module | None = None, precision: Precision | None = None
) -> Ledger:
    """The cost of a classifier for one clip: its network, and its front end where that has parameters.

    Of such a front end everything counts except a Fourier transform and the fixed weights of a spectrogram's bands.

    Args:
        clip_s: length of the clip, in seconds.
        inside: the front end as a file holds it; its constants become separate rows, which no challenge counts.
        precision: as `count`'s.

    Raises:
        InputError: as `count`.
    """
    ledger, frontend = count(classifier.network, classifier.example(clip_s), precision=precision), classifier.frontend
    learned = any(True for _ in frontend.parameters())
    if learned:
        # So that the layers' names begin with the front end's.
        named = nn.Sequential(OrderedDict(frontend=frontend))
        waveforms = torch.zeros(1, round(clip_s * classifier.sample_rate), device=classifier.standardize.mean.device)
        trace = trace_forward(named, waveforms)
        trace.calls = [call for call in trace.calls if not _fixed(named, call)]
        first = _ledger(_tensor_rows(named, {}), trace, waveforms, "float32")
        higher = max(ledger, first, key=lambda one: one.peak_ram_bytes)
        ledger = Ledger(
            tensors=(*first.tensors, *ledger.tensors),
            layers=(*first.layers, *ledger.layers),
            input_shape=first.input_shape,
            peak_ram_bytes=higher.peak_ram_bytes,
            precision=higher.precision,
            uncounted=(*first.uncounted, *ledger.uncounted),
        )
    if inside is None:
        return ledger
    counted = set(frontend.state_dict()) if learned else set()
    constants = [_constant(name, tensor) for name, tensor in inside.named_buffers() if name not in counted]
    return replace(ledger, tensors=(*ledger.tensors, *constants))


def _constant(name: str, tensor: Tensor) -> TensorRow:
    """The row of what a front end inside a file holds."""
    values, nonzero = tensor.numel(), int(torch.count_nonzero(tensor))
    dtype, size = str(tensor.dtype).removeprefix("torch."), tensor.element_size()
    return TensorRow("frontend", name, values, values, nonzero, dtype, size, "frontend", "constants")


def _fixed(frontend: nn.Module, call: Call) -> bool:
    """Whether a call is part of a transform that doesn't learn."""
    if isinstance(call, ModuleCall):
        return False
    layer = frontend.get_submodule(call.layer)
    weighs = isinstance(layer, BandSpectrogram) and not isinstance(layer.weights, nn.Parameter)
    return call.name == "stft" or (weighs and call.name == "matmul" and call.args[0] == layer.weights.shape)


def peak_values(trace: Trace) -> int:
    """Largest number of activation values that are live at once, over the kernels in execution order.

    A storage lives from the kernel that makes it to the last one that reads it; the input lives from the start, the
    output to the end. Kernels are taken as PyTorch runs them: a runtime that fuses batch norm or ReLU needs less.
    """
    moments = [trace.inputs, *((*step.reads, *step.writes) for step in trace.steps), trace.outputs]
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for moment, storages in enumerate(moments):
        for key in storages:
            first.setdefault(key, moment)
            last[key] = moment
    changes = np.zeros(len(moments) + 1, np.int64)
    for key, start in first.items():
        changes[start] += trace.values[key]
        changes[last[key] + 1] -= trace.values[key]
    return int(changes.cumsum().max())


def _refuse_hidden(network: nn.Module, trace: Trace) -> None:
    made = set(trace.inputs)
    hidden: set[int] = set()
    for step in trace.steps:
        hidden.update(key for key in step.reads if key not in made and trace.values[key] > 1)
        made.update((*step.reads, *step.writes))
    if hidden:
        values = sum(trace.values[key] for key in hidden)
        raise InputError(
            f"{type(network).__name__} computes with {values:,} values that are neither parameters nor buffers; "
            f"accepted: a network whose tensors are registered, so that they are counted and saved"
        )


def _tensor_rows(network: nn.Module, folds: dict[str, str]) -> Iterator[TensorRow]:
    seen: set[int] = set()
    gained = _gained_biases(network) if isinstance(network, Int8Network) else set()
    for layer, module in network.named_modules():
        saved = module.state_dict(keep_vars=True)
        stored = {name: one for name, one in saved.items() if isinstance(one, Tensor) and "." not in name}
        for name, tensor in stored.items():
            mask_of_another = name.endswith(MASK) and name.removesuffix(MASK) in stored
            if id(tensor) in seen or mask_of_another or name == "num_batches_tracked":
                continue
            seen.add(id(tensor))
            mask = stored.get(name + MASK)
            yield TensorRow(
                layer=layer,
                tensor=name,
                values=tensor.numel(),
                kept=tensor.numel() if mask is None else int(mask.sum()),
                nonzero=int(torch.count_nonzero(tensor)),
                dtype=str(tensor.dtype).removeprefix("torch."),
                itemsize=tensor.element_size(),
                role=_role(module, name, isinstance(tensor, nn.Parameter)),
                layer_type=FOLDED if name == "bias" and layer in gained else type(module).__name__,
                folds_into=folds.get(layer, ""),
            )


def _gained_biases(network: Int8Network) -> set[str]:
    """Layers without a bias before batch norm was folded into them."""
    layers = network.origin.network.named_modules()
    return {layer for layer, module in layers if isinstance(module, _ConvNd | nn.Linear) and module.bias is None}


def _role(module: nn.Module, name: str, is_parameter: bool) -> Role:
    if isinstance(module, Affine) and name in ("scale", "shift"):
        return "norm"
    if isinstance(module, _BatchNorm):
        return "norm" if is_parameter else "statistic"
    if name.endswith("bias"):
        return "bias"
    if is_parameter or name.endswith("weight"):
        return "weight"
    if name.endswith("zero_point"):
        return "zero_point"
    return "scale" if name.endswith("scale") else "constant"


def _layer_rows(trace: Trace) -> tuple[LayerRow, ...]:
    macs: dict[str, dict[str, int]] = {}
    described: dict[str, tuple[str, tuple[int, ...]]] = {}
    for call in trace.calls:
        counted = {name: counter.rule(call) for name, counter in COUNTERS.items()}
        # A function outside any layer, such as a residual addition, gets a row only where it costs something.
        if not isinstance(call, ModuleCall) and not any(counted.values()):
            continue
        before = macs.setdefault(call.layer, dict.fromkeys(COUNTERS, 0))
        macs[call.layer] = {name: before[name] + counted[name] for name in COUNTERS}
        kind = type(call.module).__name__ if isinstance(call, ModuleCall) else call.layer_type
        described[call.layer] = kind, call.output
    return tuple(LayerRow(layer, *described[layer], macs[layer]) for layer in macs)


def _uncounted(trace: Trace) -> Iterator[Uncounted]:
    by_layer: dict[str, list[Call]] = {}
    for call in trace.calls:
        by_layer.setdefault(call.layer, []).append(call)
    for name, counter in COUNTERS.items():
        for layer, calls in by_layer.items():
            missed: dict[str, int | None] = {}
            for call, macs in counter.missed(calls):
                before = missed.get(call.name, 0)
                missed[call.name] = None if macs is None or before is None else before + macs
            yield from (Uncounted(name, layer, operation, macs) for operation, macs in missed.items())
