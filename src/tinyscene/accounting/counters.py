"""Five ways to count multiply-accumulates (MACs), each by a rule that agrees with its tool.

They disagree on the same network: for CP-Mobile, a challenge's limit of 30 M lies between them. A rule takes
one call of the trace and gives its MACs; nothing here imports the tools.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from tinyscene.models.tracing import FunctionCall, ModuleCall

Call = ModuleCall | FunctionCall

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "mm"}
FVCORE = {"linear", "addmm", "einsum", "multi_head_attention_forward"}
FVCORE_BLIND = {"aten::baddbmm", "aten::_scaled_dot_product_flash_attention_for_cpu"}
POOLINGS = {"max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"}
ADAPTIVE_POOLINGS = {"adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"}
SUMS = {"add", "add_", "__add__", "__iadd__", "__radd__"}
# The number of averages in each: a variance also averages squares.
MEANS = {"mean": 1, "var_mean": 2}


@dataclass(frozen=True)
class Counter:
    """A named count of MACs, with the reason why it differs from the others."""

    name: str
    reason: str
    rule: Callable[[Call], int]
    excused: str = ""
    """A function whose smaller count, of a single row, is the counter's rule and not an oversight."""

    def missed(self, calls: list[Call]) -> Iterator[tuple[FunctionCall, int | None]]:
        """Functions of one layer whose products it doesn't count, or only in part; None where no formula exists."""
        of_modules = sum(self.rule(call) for call in calls if isinstance(call, ModuleCall))
        for call in calls:
            if not isinstance(call, FunctionCall) or not call.products:
                continue
            excused = call.name == self.excused and prod(call.output[:-1]) == 1
            counted = call.macs if excused else min(self.rule(call), call.macs)
            seen = min(call.macs, counted + of_modules)
            of_modules -= seen - counted
            if None in call.products.values():
                yield call, None
            elif seen < call.macs:
                yield call, call.macs - seen


def multiplications(call: Call) -> int:
    """Every product of weights or activations, kernel by kernel (`models.kernels`)."""
    return call.macs if isinstance(call, FunctionCall) else 0


def by_torchinfo(call: Call) -> int:
    """torchinfo 1.8.0: (weights + biases) x output positions for classes called Conv, once a clip for all others."""
    if not isinstance(call, ModuleCall):
        return 0
    macs = 0
    is_convolution = "Conv" in type(call.module).__name__
    for name, parameter in call.module.named_parameters():
        if name in ("weight", "bias"):
            positions = prod(call.output[2:]) if is_convolution else 1
            macs += parameter.numel() * call.output[0] * positions
        elif "weight" in name or "bias" in name:
            macs += parameter.numel() * prod(call.output[:2])
    return macs


def by_nessi(call: Call) -> int:
    """NeSsi on a TFLite file: also poolings, means and sums; a dense layer after a flatten reads only channels."""
    if not isinstance(call, FunctionCall):
        return 0
    if call.name == "linear":
        source = call.shape(0, "input")
        flattened = len(source) == 2 and len(call.born_as) > 2
        read = call.born_as[1] if flattened else prod(source)
        return read * int(call.shape(1, "weight")[0])
    if call.name in CONVOLUTIONS | TRANSPOSED | PRODUCTS:
        return call.macs
    if call.name in POOLINGS:
        return prod(call.output) * _kernel_area(call)
    if call.name in ADAPTIVE_POOLINGS:
        return prod(call.shape(0, "input"))
    if call.name in MEANS:
        return MEANS[call.name] * prod(call.shape(0, "input"))
    if call.name in SUMS:
        return prod(call.output)
    return 0


def by_fvcore(call: Call) -> int:
    """fvcore 0.1.5: multiplications, normalisations and averages element by element; blind to padding="same"."""
    if not isinstance(call, FunctionCall):
        return 0
    if call.name in CONVOLUTIONS and isinstance(call.argument(4, "padding", 0), str):
        return 0
    if call.name == "batch_norm":
        source = prod(call.shape(0, "input"))
        affine = call.argument(3, "weight") is not None
        if call.argument(5, "training", False):
            return source * (5 if affine else 4)
        return source * (2 if affine else 1)
    if call.name in ("layer_norm", "group_norm"):
        affine = call.argument(2, "weight") is not None
        return prod(call.shape(0, "input")) * (5 if affine else 4)
    if call.name == "adaptive_avg_pool2d":
        return prod(call.shape(0, "input"))
    if call.name in CONVOLUTIONS | TRANSPOSED | PRODUCTS | FVCORE:
        return sum(macs or 0 for kernel, macs in call.products.items() if kernel not in FVCORE_BLIND)
    return 0


def by_thop(call: Call) -> int:
    """thop 0.1.1: multiplications, four operations an element of batch norm, averages; by a module's exact type."""
    if not isinstance(call, ModuleCall):
        return 0
    module, kind = call.module, type(call.module)
    elements = prod(call.input)
    if isinstance(module, _ConvNd) and kind.__module__ == _ConvNd.__module__:
        inputs_each = call.input[1] // module.groups
        return prod(call.output) * inputs_each * prod(module.weight.shape[2:])
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        return module.in_features * prod(call.output)
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.LayerNorm):
        affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
        return elements * (4 if affine else 2)
    if kind in (nn.AvgPool1d, nn.AvgPool2d):
        return prod(call.output)
    if kind in (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d):
        return int((prod(call.input[2:]) / prod(call.output[2:]) + 1) * prod(call.output))
    if kind is nn.PReLU:
        return elements
    if isinstance(module, nn.Softmax):
        features = call.input[module.dim if module.dim is not None else 1]
        return elements // features * (3 * features - 1)
    return 0


def _kernel_area(call: FunctionCall) -> int:
    kernel: Any = call.argument(1, "kernel_size")
    dimensions = 1 if call.name.endswith("1d") else 2
    return int(kernel) ** dimensions if isinstance(kernel, int) else prod(kernel)


_LISTED = (
    Counter(
        "conv_only",
        "every product of weights or activations: convolutions, dense and recurrent layers, attention; no biases, no "
        "batch norm",
        multiplications,
    ),
    Counter(
        "torchinfo",
        "adds each convolution's bias at every position, and batch norm's parameters once: folding raises it",
        by_torchinfo,
    ),
    Counter(
        "nessi",
        "of a TFLite file, batch norm folded: adds poolings, means and sums, and takes only the channels as the "
        "inputs of a dense layer after a flatten (given a PyTorch network, NeSsi returns torchinfo's count)",
        by_nessi,
        excused="linear",
    ),
    Counter(
        "fvcore",
        'adds two operations an element of batch norm and one of adaptive averages; misses padding="same"',
        by_fvcore,
    ),
    Counter(
        "thop",
        "adds four operations an element of batch norm, and the averages' additions and divisions",
        by_thop,
    ),
)
COUNTERS = {one.name: one for one in _LISTED}
