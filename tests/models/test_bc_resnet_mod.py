"""BC-ResNet-Mod against published counts, sums by hand, and its parts against NumPy and PyTorch."""

import numpy as np
import pytest
import torch
import torch_pruning
import torchinfo
from small_networks import noise, small
from torch import nn

from tinyscene import InputError, create_classifier
from tinyscene.accounting import count
from tinyscene.models import BCResNetMod
from tinyscene.models.bc_resnet_mod import BroadcastBlock, ResidualNorm, SubSpectralNorm
from tinyscene.models.folding import Affine, fold_batch_norm

# SYSTEMS.md at width 8: channels of the first convolution, of each block, and bands over those of the features.
STEM = 160
WIDTHS = (80, 80, 120, 120, 160, 160, 200, 200, 200)
HALVINGS = (1, 1, 2, 2, 3, 3, 3, 3, 3)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_width_8_has_315_410_parameters_and_mod_1_has_8_100_without_the_classifiers_bias():
    by_hand, before = 25 * STEM, STEM
    for width in WIDTHS:
        if width != before:
            by_hand += before * width + 2 * width
        # Along frequency, its bias, sub-spectral norm; along time, its norm, 1x1.
        by_hand += 3 * width + (width == before) * width + 2 * 4 * width + 3 * width + 2 * width + width * width
        before = width
    assert by_hand + 10 * before + 10 == parameters(BCResNetMod()) == 315_410
    assert parameters(BCResNetMod(width=1)) - 10 == 8_100


@pytest.mark.parametrize(("bands", "millions"), [(256, "51.53"), (192, "38.94")])
def test_macs_of_one_second_by_torchinfo_and_by_hand(bands, millions):
    network = BCResNetMod().eval()
    example = torch.zeros(1, 1, bands, 34)
    counted = count(network, example).macs
    assert torchinfo.summary(network, input_data=example, verbose=0).total_mult_adds == counted["torchinfo"]
    assert f"{counted['torchinfo'] / 1e6:.2f}" == millions
    frames = {1: 17, 2: 8, 3: 4}
    by_hand, before = 25 * STEM * bands // 2 * 17, STEM
    for width, halved in zip(WIDTHS, HALVINGS, strict=True):
        steps, rows = frames[halved], bands >> halved
        by_hand += (before * width * (width != before) + 3 * width) * rows * steps
        by_hand += (3 * width + width * width) * steps
        before = width
    assert counted["conv_only"] == by_hand + 10 * before * (bands >> 3) * 4


def test_one_second_has_34_frames_of_256_bands():
    classifier = create_classifier("bc_resnet_mod", ("bus", "park"), seed=0)
    assert classifier.features(torch.randn(2, 16_000)).shape == (2, 1, 256, 34)
    assert classifier.frontend.arguments["log"] == "log10"
    assert classifier.shortest_samples == 6 * 480


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sub_spectral_norm_is_a_batch_norm_a_sub_band(layout):
    torch.manual_seed(0)
    norm, x = SubSpectralNorm(3), torch.randn(4, 3, 8, 5) * 3 + 1
    nn.init.uniform_(norm.norm.weight)
    nn.init.normal_(norm.norm.bias)
    normed = norm.train()(x.to(memory_format=layout)).detach().numpy()
    exact = x.double().numpy()
    for band in range(4):
        part = exact[:, :, 2 * band : 2 * band + 2]
        mean, std = part.mean((0, 2, 3), keepdims=True), np.sqrt(part.var((0, 2, 3), keepdims=True) + 1e-5)
        scale, shift = (t.detach().numpy()[band::4].reshape(1, 3, 1, 1) for t in (norm.norm.weight, norm.norm.bias))
        wanted = (part - mean) / std * scale + shift
        np.testing.assert_allclose(normed[:, :, 2 * band : 2 * band + 2], wanted, atol=1e-5)
    assert normed.shape == x.shape


def test_residual_norm_takes_every_band_of_a_clip_for_itself():
    x = torch.randn(3, 4, 6, 7) * torch.logspace(-2, 2, 6).view(6, 1) + 5
    exact = x.double().numpy()
    centred = exact - exact.mean((1, 3), keepdims=True)
    wanted = 0.1 * exact + centred / np.sqrt(exact.var((1, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(ResidualNorm()(x).numpy(), wanted, rtol=1e-4, atol=1e-4)
    assert not list(ResidualNorm().parameters())
    silent = torch.zeros(1, 4, 6, 7, requires_grad=True)
    ResidualNorm()(silent).square().sum().backward()
    assert silent.grad.isfinite().all()


@pytest.mark.parametrize("transition", [True, False])
def test_a_block_adds_what_it_hears_along_time_to_every_band(transition):
    torch.manual_seed(0)
    block = BroadcastBlock(4, 6 if transition else 4, transition).eval()
    block.residual_norm = nn.Identity()
    x = torch.randn(2, 4, 8, 5)
    along = block.along_frequency(block.transition(x) if transition else x)
    heard = block.along_time(along.mean(2, keepdim=True)).expand_as(along)
    wanted = along + heard + (0 if transition else x)
    torch.testing.assert_close(block(x), wanted.relu())
    nn.init.zeros_(block.along_time[3].weight)
    torch.testing.assert_close(block(x), (along + (0 if transition else x)).relu())


def test_residual_normalization_stands_after_the_stem_and_every_block():
    network = small("bc_resnet_mod")
    seen = []
    for module in network.modules():
        if isinstance(module, ResidualNorm):
            module.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    network(noise(network, 2, 30))
    assert len(seen) == 1 + len(WIDTHS)
    for given, out in seen:
        np.testing.assert_allclose((out - 0.1 * given).mean((1, 3)).detach().numpy(), 0, atol=1e-5)


def test_a_sub_spectral_norm_folds_into_nothing():
    network = small("bc_resnet_mod")
    folded = fold_batch_norm(network, noise(network, 1, 20))
    kept = [path for path, module in folded.named_modules() if isinstance(module, Affine)]
    assert len(kept) == len(WIDTHS)
    assert all(path.endswith("along_frequency.1.norm") for path in kept)


def test_torch_pruning_removes_a_channel_with_all_four_of_its_sub_bands():
    network = small("bc_resnet_mod", classes=3)
    inner = network.stages[2][0].transition[0]
    graph = torch_pruning.DependencyGraph().build_dependency(network, noise(network, 1, 20))
    widths = {path: getattr(m, "num_features", 0) for path, m in network.named_modules()}
    scales = network.stages[2][1].along_frequency[1].norm.weight.detach().clone()
    graph.get_pruning_group(inner, torch_pruning.prune_conv_out_channels, [1, 7]).prune()
    for block in network.stages[2]:
        norm = block.along_frequency[1].norm
        assert norm.num_features == 4 * 18
    left = [i for i in range(80) if i // 4 not in (1, 7)]
    assert torch.equal(network.stages[2][1].along_frequency[1].norm.weight, scales[left])
    assert network.stages[2][1].along_time[0].groups == 18
    untouched = network.stages[1][0].along_frequency[1].norm.num_features
    assert untouched == widths["stages.1.0.along_frequency.1.norm"]
    assert network(noise(network, 2, 41)).shape == (2, 3)


def test_any_length_from_seven_frames_on_and_only_multiples_of_32_bands():
    network = small("bc_resnet_mod")
    for bands, frames in ((32, 7), (64, 8), (96, 101)):
        assert network(torch.randn(1, 1, bands, frames)).shape == (1, 10)
    with pytest.raises(RuntimeError):
        network(torch.randn(1, 1, 32, 6))
    with pytest.raises(InputError, match="40 bands; accepted: a multiple of 32"):
        network(torch.randn(1, 1, 40, 20))
    network.select_bands(list(range(64)))
    with pytest.raises(InputError, match="63 bands"):
        network.select_bands(list(range(63)))


def test_it_is_built_on_the_meta_device():
    with torch.device("meta"):
        network = BCResNetMod()
    assert parameters(network) == 315_410
    assert all(tensor.is_meta for tensor in network.state_dict().values())


def test_a_gradient_reaches_every_parameter():
    network = small("bc_resnet_mod").train()
    nn.functional.cross_entropy(network(noise(network, 4, 34)), torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
