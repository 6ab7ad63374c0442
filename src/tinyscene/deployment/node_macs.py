"""Multiply-accumulates of the nodes of an ONNX file, by the counters of `tinyscene.accounting`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tinyscene.accounting import COUNTERS, LayerRow, Uncounted

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

CONVOLUTIONS = {"Conv", "ConvTranspose"}
PRODUCTS = {"Gemm", "MatMul"}
POOLINGS = {"MaxPool", "AveragePool"}
AVERAGES = {"GlobalAveragePool", "ReduceMean"}
NORMS = {"BatchNormalization"}
# A file with more single numbers than this counts them as weights: they could be put together one by one.
MOST_NUMBERS = 16


@dataclass(frozen=True)
class Call:
    """One node with the shapes that it runs on.

    Attributes:
        kernel: shape of a convolution's weight or of a pooling's window; empty elsewhere.
        parameters: weights, biases, scales and shifts that it reads from the file.
        flattened_channels: of what a dense layer reads, where it was flattened; 0 elsewhere.
    """

    node: "onnx.NodeProto"
    input: Shape
    output: Shape
    kernel: Shape
    parameters: int
    flattened_channels: int

    @property
    def kind(self) -> str:
        return str(self.node.op_type)

    @property
    def whole_map(self) -> bool:
        """Whether an average takes all bands and frames."""
        spatial = self.output[2:] if len(self.output) == len(self.input) else ()
        return self.kind in AVERAGES and len(self.input) == 4 and prod(spatial) == 1


def scaled(integers: npt.NDArray[Any], scales: int, layer: bool) -> bool:
    """Whether so many numbers are the scales of stored integers; else they are weights that only pass for them.

    There are more integers than scales, and not all alike. A layer's own weights may be one a channel.
    """
    if integers.size == scales:
        return layer
    return bool(integers.size > scales and (not integers.any() or integers.min() != integers.max()))


def multiplications(call: Call) -> int:
    """Multiplications by the weights of convolutions and dense layers, and of products of activations."""
    if call.kind == "Conv":
        return prod(call.kernel) * call.output[0] * prod(call.output[2:])
    if call.kind == "ConvTranspose":
        return prod(call.kernel) * call.input[0] * prod(call.input[2:])
    if call.kind in PRODUCTS:
        return prod(call.output) * call.input[-1]
    return 0


def by_torchinfo(call: Call) -> int:
    """(weights + biases) x output positions for convolutions, once a clip for all else."""
    positions = prod(call.output[2:]) if call.kind in CONVOLUTIONS else 1
    return call.parameters * call.output[0] * positions if call.parameters else 0


def by_nessi(call: Call) -> int:
    """Also poolings, means and sums; a dense layer after a flatten reads channels alone."""
    if call.kind == "Gemm" and call.flattened_channels:
        return call.flattened_channels * call.output[-1]
    if call.kind in POOLINGS:
        return prod(call.output) * prod(call.kernel)
    if call.kind in AVERAGES:
        return prod(call.input)
    return prod(call.output) if call.kind == "Add" else multiplications(call)


def by_fvcore(call: Call) -> int:
    """Also two operations an element of batch norm, and the averages of whole maps."""
    if call.kind in NORMS:
        return 2 * prod(call.input)
    return prod(call.input) if call.whole_map else multiplications(call)


def by_thop(call: Call) -> int:
    """Also four operations an element of batch norm, and the averages' additions and divisions."""
    if call.kind in NORMS:
        return 4 * prod(call.input)
    if call.kind == "AveragePool":
        return prod(call.output)
    if call.whole_map:
        return int((prod(call.input[2:]) + 1) * prod(call.input[:2]))
    return multiplications(call)


RULES: dict[str, Callable[[Call], int]] = {
    "conv_only": multiplications,
    "torchinfo": by_torchinfo,
    "nessi": by_nessi,
    "fvcore": by_fvcore,
    "thop": by_thop,
}
assert RULES.keys() == COUNTERS.keys()


def uncounted(layers: Iterable[LayerRow]) -> tuple[Uncounted, ...]:
    """What a counter misses of a file's layers: those that it counts at less than they multiply.

    NeSsi's smaller figure for a dense layer after a flatten is its own rule.
    """
    return tuple(
        Uncounted(counter, row.layer, row.layer_type, row.macs["conv_only"] - macs)
        for row in layers
        for counter, macs in row.macs.items()
        if macs < row.macs["conv_only"] and not (counter == "nessi" and macs)
    )
