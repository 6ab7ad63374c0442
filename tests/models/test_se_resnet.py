"""The SE-ResNet against the report's counts, hand-made references and torch's own export."""

import pytest
import torch
from torch import nn

from tinyscene.models import SEResNet, create_classifier, create_model
from tinyscene.models.blocks import SqueezeExcite, StatisticsPooling


def drawn(**arguments) -> nn.Module:
    """In evaluation mode, with batch norms whose statistics are those of some features."""
    network = create_model("se_resnet", **arguments, seed=0)
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.bias, -0.3, 0.3, generator=generator)
    with torch.no_grad():
        network(torch.randn(16, 1, 128, 40, generator=generator))
    return network.eval()


def by_kind(network: nn.Module) -> dict[str, int]:
    """Values by the report's items, batch norms outside squeeze-and-excitation left out as if folded."""
    counts = {"weights": 0, "biases": 0, "se": 0, "se_norm": 0, "norm": 0}
    for path, module in network.named_modules():
        inside = ".se." in path
        if isinstance(module, nn.Conv2d | nn.Linear):
            counts["se" if inside else "weights"] += module.weight.numel()
            counts["se" if inside else "biases"] += module.bias.numel()
        elif isinstance(module, nn.BatchNorm2d):
            counts["se_norm" if inside else "norm"] += module.num_features
    return counts


def test_system_1_has_the_reports_items():
    """SYSTEMS.md, byttebier2021: 109,320 weights, 658 biases, 3,132 values and 36 normed channels in SE."""
    counts = by_kind(SEResNet())
    assert counts == {"weights": 109_320, "biases": 658, "se": 3_132, "se_norm": 36, "norm": 456}


def test_system_4_has_the_reports_totals():
    network = SEResNet(channels=(20, 40))
    trainable = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(tensor.numel() for name, tensor in network.named_buffers() if "running" in name)
    assert (trainable, trainable + statistics) == (82_078, 82_910)


def test_the_dense_layer_reads_an_eighth_of_the_bands():
    """Section 2.3: (128 / 2^3) x 48 x 2."""
    network = SEResNet().eval()
    assert network.dense.in_features == 128 // 8 * 48 * 2
    maps = network.blocks(network.stem(torch.randn(1, 1, 128, 20)))
    assert maps.shape[:3] == (1, 48, 16)


@pytest.mark.parametrize("bands", [127, 33, 8, 1])
def test_bands_that_the_strides_do_not_divide(bands):
    assert SEResNet(bands=bands).eval()(torch.randn(2, 1, bands, 9)).shape == (2, 10)


def test_only_the_second_convolution_is_grouped_and_only_the_first_block_unbridged():
    network = SEResNet()
    grouped = {path for path, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 4}
    assert grouped == {f"blocks.{i}.second.0" for i in range(6)}
    assert [block.shortcut is None for block in network.blocks] == [True, *[False] * 5]
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_squeeze_and_excitation_by_hand():
    se = SqueezeExcite(6, 2).eval()
    nn.init.uniform_(se.norm.running_mean, -1, 1)
    x = torch.randn(3, 6, 5, 7)
    squeezed = x.flatten(2).mean(2) @ se.reduce.weight[:, :, 0, 0].T + se.reduce.bias
    normed = (squeezed - se.norm.running_mean) / (se.norm.running_var + se.norm.eps).sqrt()
    factors = (normed.clamp_min(0) @ se.expand.weight[:, :, 0, 0].T + se.expand.bias).sigmoid()
    torch.testing.assert_close(se(x), x * factors[:, :, None, None])


def test_statistics_are_torchs_over_time():
    x = torch.randn(2, 3, 4, 50, dtype=torch.float64) * 3 + 1
    std, mean = torch.std_mean(x, 3, correction=0)
    pooled = StatisticsPooling()(x)
    torch.testing.assert_close(pooled[:, :3], mean)
    torch.testing.assert_close(pooled[:, 3:], std, rtol=1e-5, atol=0)


@pytest.mark.parametrize("frames", [1, 40])
def test_what_never_changes_has_a_finite_gradient(frames):
    x = torch.full((1, 2, 3, frames), 0.7, requires_grad=True)
    pooled = StatisticsPooling()(x)
    pooled.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert pooled[:, 2:].max() < 0.01


def test_a_block_adds_its_shortcut_to_what_the_branch_gives():
    block = drawn().blocks[3]
    x = torch.randn(1, 24, 9, 11)
    added = nn.functional.conv2d(x, block.shortcut.weight, block.shortcut.bias, stride=2)
    branch = block.se(block.second(block.first(x)))
    assert (branch >= 0).all()
    torch.testing.assert_close(block(x), branch + added)


@pytest.mark.parametrize("seconds", [3, 10])
def test_three_and_ten_seconds_both_run(seconds):
    classifier = create_classifier("se_resnet", tuple("abcdefghij"), seed=0).eval()
    waveform = 0.1 * torch.randn(1, seconds * 44_100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = classifier.features(waveform)
        logits = classifier(waveform)
    assert features.shape == (1, 1, 128, 100 * seconds + 1)
    assert logits.shape == (1, 10)
    assert torch.isfinite(logits).all()


def test_ten_decibels_more_leave_the_logits_unchanged():
    classifier = create_classifier("se_resnet", tuple("abcdefghij"), seed=0).eval()
    classifier.network.load_state_dict(drawn().state_dict())
    generator = torch.Generator().manual_seed(1)
    # Noise whose level moves over time, far above the floor in every band.
    level = torch.linspace(0.02, 0.2, 44_100)
    waveform = level * torch.randn(1, 44_100, generator=generator)
    other = waveform * (torch.arange(44_100) % 8_820 < 4_410).clamp_min(0.05)
    with torch.no_grad():
        quiet, loud, another = (classifier(w) for w in (waveform, waveform * 10**0.5, other))
    apart = (another - quiet).abs().max()
    assert apart > 0.05
    assert (loud - quiet).abs().max() < 0.01 * apart
