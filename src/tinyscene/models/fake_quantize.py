"""Fake quantization that converts itself to integers: the modules that PT2E puts into a graph."""

from typing import Any

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e import (
    FakeQuantize,
    FakeQuantizeBase,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from tinyscene.errors import InputError
from tinyscene.models.ranges import cheapest, histogram
from tinyscene.models.tensors import aten, get_tensor, q, set_tensor

INT8, INT32 = (-128, 127), (-(2**31), 2**31 - 1)
# A filter of tiny weights would have so small a scale that its bias would not fit 32 bits.
_SMALLEST_WEIGHT_SCALE = 2.0**-20
# Zeros are zeros at any scale: this one leaves room for the bias of a fully masked filter.
_SCALE_OF_ZEROS = 2.0**-10
# The same for an activation that was always zero.
_SMALLEST_ACTIVATION_SCALE = 2.0**-16
# Values of each clip of a batch, in every step.
_TRAINING_VALUES = 1 << 9


class RangeObserver(MovingAverageMinMaxObserver):  # type: ignore[misc]
    """The range of least cost (`models/ranges.py`) for the observed values; in training, a moving average."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """(clips, ...) -> the same tensor"""
        if self.training:
            super().forward(torch.stack(cheapest(histogram(x, _TRAINING_VALUES))))
        else:
            self.seen.append(histogram(x))
        return x

    def settle(self) -> None:
        """Choose the range for everything observed since the last call."""
        low, high = cheapest(torch.cat(self.seen))
        self.min_val.copy_(low)
        self.max_val.copy_(high)
        self.seen.clear()


class UnitObserver(RangeObserver):
    """From 0 to almost 1 for any values: the only range of a sigmoid for which LiteRT has integer kernels."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same tensor"""
        self.min_val.fill_(0.0)
        self.max_val.fill_(255 / 256)
        return x

    def settle(self) -> None:
        """Nothing to choose."""


class ActivationQuantize(FakeQuantize):  # type: ignore[misc]
    """Fake quantization of one activation tensor; conversion replaces it by quantize and dequantize."""

    path: str

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape; not rounded while ranges are being set."""
        if self.training or self.fake_quant_enabled[0]:
            return super().forward(x)  # type: ignore[no-any-return]
        return self.activation_post_process(x)  # type: ignore[no-any-return]

    def settle(self) -> None:
        """Take the range of least cost for everything that passed."""
        self.activation_post_process.settle()
        scale, zero_point = self.calculate_qparams()
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def convert(self, model: fx.GraphModule, node: fx.Node) -> None:
        """PT2E calls this for every place of this quantizer in the graph."""
        scale, zero_point = self.scale.squeeze(0), self.zero_point.squeeze(0).to(torch.int8)
        held = _hold(model, node, {f"{self.path}_scale": scale, f"{self.path}_zero_point": zero_point})
        with model.graph.inserting_before(node):
            quantized = model.graph.call_function(
                q.quantize_per_tensor.tensor, (node.args[0], *held, *INT8, torch.int8)
            )
            restored = model.graph.call_function(q.dequantize_per_tensor.tensor, (quantized, *held, *INT8, torch.int8))
        _replace(model, node, restored)


class PerChannelWeightQuantize(FakeQuantize):  # type: ignore[misc]
    """Fake quantization of a weight tensor, by its current range."""

    path: str

    def enable_observer(self, enabled: bool = True) -> None:
        """Weights are always available, so that their ranges are never stale."""

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scales and zero points, (channels,)"""
        scale, zero_point = super().calculate_qparams()
        seen = self.activation_post_process
        return scale.masked_fill((seen.min_val == 0) & (seen.max_val == 0), _SCALE_OF_ZEROS), zero_point

    def whole(self, weight: Tensor) -> Tensor:
        """(channels, ...) -> the same shape, int8; sets the scales."""
        self(weight)
        # Rounds as `torch.fake_quantize_per_channel_affine`, which multiplies by the reciprocal.
        inverse = (1.0 / self.scale).view(-1, *[1] * (weight.ndim - 1))
        return torch.round(weight * inverse).clamp(-127, 127).to(torch.int8)

    def convert(self, model: fx.GraphModule, node: fx.Node) -> None:
        """Store the weight as int8, with its scales; the graph dequantizes it."""
        whole = self.whole(get_tensor(model, node.args[0]).detach())
        held = _hold(model, node, {self.path: whole, f"{self.path}_scale": self.scale})
        with model.graph.inserting_before(node):
            arguments = (*held, None, 0, -127, 127, torch.int8)
            restored = model.graph.call_function(q.dequantize_per_channel.default, arguments)
        _replace(model, node, restored)


class BiasQuantize(FakeQuantizeBase):  # type: ignore[misc]
    """Fake quantization of a bias to int32, at the product of the scales of the layer's input and weight."""

    path: str

    def __init__(self, activation: ActivationQuantize, weight: PerChannelWeightQuantize) -> None:
        super().__init__()
        # Kept out of the module tree, which holds them already.
        self.__dict__["read"] = activation, weight

    @property
    def scale(self) -> Tensor:
        """(channels,)"""
        activation, weight = self.__dict__["read"]
        product: Tensor = activation.scale * weight.scale
        return product

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scales and zero points, (channels,)"""
        return self.scale, torch.zeros_like(self.scale, dtype=torch.int32)

    def forward(self, bias: Tensor) -> Tensor:
        """(channels,) -> (channels,)"""
        if not self.fake_quant_enabled[0]:
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
        activation, weight = self.__dict__["read"]
        paths = {self.path: whole, f"{activation.path}_scale": None, f"{weight.path}_scale": None}
        bias, activation_scale, weight_scale = _hold(model, node, paths)
        with model.graph.inserting_before(node):
            scale = model.graph.call_function(aten.mul.Tensor, (activation_scale, weight_scale))
            arguments = (bias, scale, None, 0, *INT32, torch.int32)
            restored = model.graph.call_function(q.dequantize_per_channel.default, arguments)
        _replace(model, node, restored)


def _activation(observer: type[RangeObserver]) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=ActivationQuantize.with_args(observer=observer, eps=_SMALLEST_ACTIVATION_SCALE),
        quant_min=INT8[0],
        quant_max=INT8[1],
        qscheme=torch.per_tensor_affine,
    )


ACTIVATION, UNIT = _activation(RangeObserver), _activation(UnitObserver)
WEIGHT = QuantizationSpec(
    dtype=torch.int8,
    observer_or_fake_quant_ctr=PerChannelWeightQuantize.with_args(
        # A moving average with all the weight on the newest value: the current range.
        observer=MovingAveragePerChannelMinMaxObserver,
        averaging_constant=1.0,
        eps=_SMALLEST_WEIGHT_SCALE,
    ),
    # Symmetric: -128 would have no counterpart.
    quant_min=-127,
    quant_max=127,
    qscheme=torch.per_channel_symmetric,
    ch_axis=0,
)


def quantize_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """(channels,), (channels,) -> (channels,), int32"""
    # In float64: float32 can't hold all of int32.
    return torch.round(bias.double() / scale.double()).clamp(*INT32).to(torch.int32)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(channels, ...) -> the same shape, int8, and its scales (channels,)"""
    quantizer = WEIGHT.observer_or_fake_quant_ctr(
        dtype=torch.int8, quant_min=-127, quant_max=127, qscheme=WEIGHT.qscheme, ch_axis=0
    )
    return quantizer.whole(weight), quantizer.scale


def activation_qparams(values: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point, (1,) each, for the activations (clips, ...)."""
    quantizer = ACTIVATION.observer_or_fake_quant_ctr(
        dtype=torch.int8, quant_min=INT8[0], quant_max=INT8[1], qscheme=ACTIVATION.qscheme
    )
    quantizer.activation_post_process.eval()(values)
    quantizer.settle()
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


def _replace(model: fx.GraphModule, node: fx.Node, by: fx.Node) -> None:
    node.replace_all_uses_with(by)
    model.graph.erase_node(node)
