"""Fake quantization that converts itself to integers: the modules that `preparation.py` puts into a graph."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from tinyscene.errors import InputError
from tinyscene.models.ranges import cheapest, histogram
from tinyscene.models.tensors import aten, get_tensor, q, set_tensor

INT8, INT32 = (-128, 127), (-(2**31), 2**31 - 1)
# Symmetric: -128 would have no counterpart.
WEIGHTS = (-127, 127)
# A filter of tiny weights would have so small a scale that its bias would not fit 32 bits.
_SMALLEST_WEIGHT_SCALE = 2.0**-20
# Zeros are zeros at any scale: this one leaves room for the bias of a fully masked filter.
_SCALE_OF_ZEROS = 2.0**-10
# The same for an activation that was always zero.
_SMALLEST_ACTIVATION_SCALE = 2.0**-16
# In training: values of each clip of a batch, and the weight of a batch in the moving average.
_TRAINING_VALUES, _NEWEST = 1 << 9, 0.01


class FakeQuantize(nn.Module):
    """Rounds one tensor, unless `rounds` is off; `convert` replaces a call of it in a graph by integers."""

    scale: Tensor

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.rounds = path, True


class ActivationQuantize(FakeQuantize):
    """Of one activation tensor; conversion replaces it by quantize and dequantize.

    In training, the range is a moving average of those of least cost for the batches (`models/ranges.py`).
    """

    low: Tensor
    high: Tensor
    zero_point: Tensor

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """(clips, ...) -> the same shape; not rounded while ranges are being set."""
        if self.training:
            low, high = cheapest(histogram(x, _TRAINING_VALUES))
            self.set_range(self.low + _NEWEST * (low - self.low), self.high + _NEWEST * (high - self.high))
        elif not self.rounds:
            self.seen.append(histogram(x))
            return x
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, *INT8)

    def settle(self) -> None:
        """Take the range of least cost for everything seen without rounding."""
        self.set_range(*cheapest(torch.cat(self.seen)))
        self.seen.clear()

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take a range that holds zero."""
        self.low.copy_(low)
        self.high.copy_(high)
        self.scale.copy_(((self.high - self.low) / 255).clamp_min(_SMALLEST_ACTIVATION_SCALE))
        self.zero_point.copy_((INT8[0] - torch.round(self.low / self.scale)).clamp(*INT8))

    def convert(self, model: fx.GraphModule, node: fx.Node) -> None:
        """Quantize and dequantize, for every place of this quantizer in the graph."""
        scale, zero_point = self.scale.squeeze(0), self.zero_point.squeeze(0).to(torch.int8)
        held = _hold(model, node, {f"{self.path}_scale": scale, f"{self.path}_zero_point": zero_point})
        quantized = _call(node, q.quantize_per_tensor.tensor, node.args[0], *held, *INT8, torch.int8)
        _replace(node, _call(node, q.dequantize_per_tensor.tensor, quantized, *held, *INT8, torch.int8))


class UnitQuantize(ActivationQuantize):
    """From 0 to almost 1 for any values: the only range of a sigmoid for which LiteRT has integer kernels."""

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take the fixed range."""
        super().set_range(torch.zeros_like(low), torch.full_like(high, 255 / 256))


class WeightQuantize(FakeQuantize):
    """Of a weight tensor, (channels, ...), by its current range."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """(channels, ...) -> the same shape; sets the scales, (channels,)."""
        with torch.inference_mode(False):  # DDP broadcasts the buffer, also after a validation
            most = weight.detach().flatten(1).abs().amax(1)
            self.scale = (most / WEIGHTS[1]).clamp_min(_SMALLEST_WEIGHT_SCALE).masked_fill(most == 0, _SCALE_OF_ZEROS)
        if not self.rounds:
            return weight
        zeros = torch.zeros_like(self.scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, self.scale, zeros, 0, *WEIGHTS)

    def convert(self, model: fx.GraphModule, node: fx.Node) -> None:
        """Store the weight as int8, with its scales; the graph dequantizes it."""
        whole, self.scale = quantize_weight(get_tensor(model, node.args[0]).detach())
        held = _hold(model, node, {self.path: whole, f"{self.path}_scale": self.scale})
        _replace(node, _call(node, q.dequantize_per_channel.default, *held, None, 0, *WEIGHTS, torch.int8))


class BiasQuantize(FakeQuantize):
    """Of a bias to int32, at the product of the scales of the layer's input and weight."""

    def __init__(self, path: str, activation: ActivationQuantize, weight: WeightQuantize) -> None:
        super().__init__(path)
        # In a tuple, since the module tree holds them already.
        self.read = activation, weight

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """(channels,)"""
        activation, weight = self.read
        return activation.scale * weight.scale

    def forward(self, bias: Tensor) -> Tensor:
        """(channels,) -> (channels,)"""
        if not self.rounds:
            return bias
        with torch.no_grad():
            restored = quantize_bias(bias, self.scale) * self.scale
        # The value of one, the gradient of the other.
        return restored + (bias - bias.detach())

    def convert(self, model: fx.GraphModule, node: fx.Node) -> None:
        """Store the bias as int32; its scale is computed from the two stored ones."""
        whole = quantize_bias(get_tensor(model, node.args[0]).detach(), self.scale)
        if int(whole.max()) == INT32[1] or int(whole.min()) == INT32[0]:
            raise InputError(
                f"{self.path}: a bias does not fit 32 bits at the scale of the layer's sums; accepted: a layer "
                f"whose inputs and weights are not almost zero, or keep_float for it"
            )
        activation, weight = self.read
        paths = {self.path: whole, f"{activation.path}_scale": None, f"{weight.path}_scale": None}
        bias, activation_scale, weight_scale = _hold(model, node, paths)
        scale = _call(node, aten.mul.Tensor, activation_scale, weight_scale)
        _replace(node, _call(node, q.dequantize_per_channel.default, bias, scale, None, 0, *INT32, torch.int32))


def quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """(channels,), (channels,) -> (channels,), int32"""
    # In float64: float32 can't hold all of int32.
    return torch.round(bias.double() / scale.double()).clamp(*INT32).to(torch.int32)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(channels, ...) -> the same shape, int8, and its scales (channels,)"""
    quantizer = WeightQuantize("")
    quantizer(weight)
    # Rounds as `torch.fake_quantize_per_channel_affine`, which multiplies by the reciprocal.
    inverse = (1.0 / quantizer.scale).view(-1, *[1] * (weight.ndim - 1))
    return torch.round(weight * inverse).clamp(*WEIGHTS).to(torch.int8), quantizer.scale


def activation_qparams(values: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point, (1,) each, for the activations (clips, ...)."""
    quantizer = ActivationQuantize("")
    quantizer.set_range(*cheapest(histogram(values)))
    return quantizer.scale, quantizer.zero_point


def _hold(model: fx.GraphModule, node: fx.Node, tensors: dict[str, Tensor | None]) -> list[fx.Node]:
    """Register buffers by path, except None for existing ones, and return the nodes that read them."""
    found = []
    for path, tensor in tensors.items():
        if tensor is not None:
            set_tensor(model, path, tensor.detach().clone())
        with model.graph.inserting_before(node):
            found.append(model.graph.create_node("get_attr", path))
    return found


def _call(node: fx.Node, operator: Any, *arguments: Any) -> fx.Node:
    """A new node in front of another."""
    with node.graph.inserting_before(node):
        return node.graph.call_function(operator, arguments)


def _replace(node: fx.Node, by: fx.Node) -> None:
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)
