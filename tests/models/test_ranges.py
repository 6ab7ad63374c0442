import pytest
import torch
from torch import Tensor

from tinyscene.models.fake_quantize import activation_qparams
from tinyscene.models.ranges import cheapest, histogram


def laplace(clips: int, values: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clips, values, generator=generator) * torch.randn(clips, values, generator=generator)


def cost(x: Tensor, low: Tensor | float, high: Tensor | float) -> float:
    """Measured: the mean over clips of squared error over energy, at most 1, of what int8 gives back."""
    scale = max(float(high) - float(low), 1e-12) / 255
    zero = -128 - round(float(low) / scale)
    restored = torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)
    each = (restored - x).square().sum(1) / x.square().sum(1)
    return float(each.clamp_max(1).mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [lambda x: x, torch.relu, lambda x: x - 3, torch.sigmoid, lambda x: x**3])
def test_no_range_that_is_tried_one_by_one_costs_much_less(shape, seed):
    x = shape(laplace(12, 4000, seed) * torch.logspace(-1, 1, 12)[:, None])
    low, high = x.min().clamp_max(0), x.max().clamp_min(0)
    tried = [2 ** (-i / 3) for i in range(18)]
    least = min(cost(x, low * a, high * b) for a in tried for b in tried)
    assert cost(x, *cheapest(histogram(x))) < 1.25 * least


def test_one_clip_thirty_times_louder_leaves_the_others_as_they_were():
    x = laplace(128, 2000)
    louder = torch.cat([30 * x[:1], x[1:]])
    before = cost(x[1:], *cheapest(histogram(x)))
    assert cost(x[1:], louder.min(), louder.max()) > 300 * before
    assert cost(x[1:], *cheapest(histogram(louder))) < 10 * before


def test_silent_clips_do_not_count():
    x = torch.cat([laplace(4, 500), torch.zeros(3, 500)])
    assert cheapest(histogram(x)) == cheapest(histogram(x[:4]))
    assert cheapest(histogram(0 * x)) == (0, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_is_in_every_range_and_exact(sign):
    x = sign * (5 + laplace(6, 300).abs())
    scale, zero = activation_qparams(x)
    assert -128 <= int(zero) <= 127
    assert float(torch.fake_quantize_per_tensor_affine(torch.zeros(1), scale, zero, -128, 127)) == 0
    low, high = cheapest(histogram(x))
    assert low <= 0 <= high


def test_ten_logits_a_clip_are_decided_as_before():
    logits = 4 * laplace(500, 10)
    scale, zero = activation_qparams(logits)
    restored = torch.fake_quantize_per_tensor_affine(logits, scale, zero, -128, 127)
    assert (restored.argmax(1) == logits.argmax(1)).float().mean() > 0.98
