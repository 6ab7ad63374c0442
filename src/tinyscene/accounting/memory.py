"""Peak activation RAM of one forward pass, from the storages that each kernel reads and writes."""

import numpy as np
from torch import Tensor, nn

from tinyscene.accounting.ledger import BYTES_OF_PRECISION, Precision
from tinyscene.errors import InputError
from tinyscene.models.tracing import Trace, trace_forward


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


def precision_of(name: str) -> Precision:
    """`name` as a precision. Raises InputError for an unknown one."""
    if name not in BYTES_OF_PRECISION:
        raise InputError(f"unknown precision {name!r}; accepted: {', '.join(BYTES_OF_PRECISION)}")
    return name


def peak_ram_bytes(network: nn.Module, example: Tensor, precision: Precision = "float32") -> int:
    """Peak activation RAM for one clip, without parameters, if every activation is held at `precision`.

    Args:
        network: anything that takes `example`; it is left unchanged.
        example: (1, ...), a batch of one.
        precision: how activations are held on the device.

    Raises:
        InputError: the network can't take the example.
    """
    return peak_values(trace_forward(network, example)) * BYTES_OF_PRECISION[precision]
