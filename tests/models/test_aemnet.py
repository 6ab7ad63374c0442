"""The waveform network against the report's figures and sums by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import SIZES, noise, small, spread
from torch import nn

from tinyscene import InputError, SceneClassifier, Standardize, create_classifier
from tinyscene.accounting import count
from tinyscene.features import Raw
from tinyscene.models import AemNet

# SYSTEMS.md: outputs of the blocks at width 0.5, which of them a pooling follows.
BLOCKS = (16, 32, 32, 64, 64, 128, 128, 256, 256)


@pytest.fixture(scope="module")
def network() -> AemNet:
    return AemNet().eval()


def test_it_has_the_reports_319_093_parameters_by_hand_and_by_count(network):
    low = 9 * 64 + 2 * 64 + 5 * 64 * 128 + 2 * 128
    high = sum(9 * a + 2 * a + a * b + 2 * b for a, b in zip((1, *BLOCKS), BLOCKS, strict=False))
    embedding, dense = 256 * 512 + 512, 512 * 10 + 10
    assert low + high + embedding + dense == 319_093
    assert sum(parameter.numel() for parameter in network.parameters()) == 319_093
    ledger = count(network, torch.zeros(1, 1, 1, 16_000))
    assert sum(row.values for row in ledger.tensors if row.role in ("weight", "bias", "norm")) == 319_093


def test_one_second_takes_about_192_million_macs_by_hand(network):
    frames, bands, macs = 8000, 128, 9 * 64 * 8000
    frames //= 2
    macs += 5 * 64 * 128 * frames
    frames //= 40
    for i, (a, b) in enumerate(zip((1, *BLOCKS), BLOCKS, strict=False)):
        macs += (9 * a + a * b) * bands * frames
        if i % 2 == 0:
            bands, frames = bands // 2, frames // 2
    macs += 256 * 512 * bands * frames + 512 * 10
    assert count(network, torch.zeros(1, 1, 1, 16_000)).macs["conv_only"] == macs
    assert round(macs / 1e6) == 192


def test_frames_of_ten_milliseconds_make_an_image_of_128_bands(network):
    shapes = {}
    for name in ("low", "high", "embed"):
        network.body.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    network(torch.zeros(2, 1, 1, 16_000))
    assert shapes == {"low": (2, 128, 100), "high": (2, 256, 4, 3), "embed": (2, 512, 4, 3)}


def test_the_first_layers_are_a_convolution_of_the_waveform_itself(network):
    waveform = torch.randn(1, 1, 1, 5120)
    weight = network.body.low[0].weight.detach().double().numpy()
    padded = np.pad(waveform.double().numpy().ravel(), 4)
    expected = np.stack([[padded[2 * t : 2 * t + 9] @ row for t in range(2560)] for row in weight[:3, 0]])
    with torch.no_grad():
        got = network.body.low[0](waveform.squeeze(2))[0, :3].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def by_hand(network: AemNet, waveforms: torch.Tensor) -> torch.Tensor:
    """The same from functions alone: conv - batch norm - ReLU everywhere, each pooling a maximum but for the last."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
    layers = iter([layer for layer in network.modules() if isinstance(layer, kinds)])

    def unit(convolve, x: torch.Tensor, **how) -> torch.Tensor:
        conv, bn = next(layers), next(layers)
        return F.batch_norm(
            convolve(x, conv.weight, **how), bn.running_mean, bn.running_var, bn.weight, bn.bias
        ).clamp_min(0)

    x = unit(F.conv1d, waveforms.squeeze(2), stride=2, padding=4)
    x = unit(F.conv1d, x, stride=2, padding=2)
    pooling = network.arguments["pooling"]
    x = x[:, None, :, : x.shape[2] // pooling * pooling].unflatten(3, (-1, pooling)).amax(4)
    for block in range(1, 10):
        x = unit(F.conv2d, x, padding=1, groups=x.shape[1])
        x = unit(F.conv2d, x)
        if block in (1, 3, 5, 7, 9):
            bands, frames = x.shape[2] // 2, x.shape[3] // 2
            x = x[..., : 2 * frames].unflatten(3, (frames, 2)).unflatten(2, (bands, 2)).amax((3, 5))
    embed = next(layers)
    x = F.conv2d(x, embed.weight, embed.bias).clamp_min(0)
    return x.mean((2, 3)) @ network.dense.weight.T + network.dense.bias


def test_a_forward_by_hand():
    network = spread(AemNet(**SIZES["aemnet"] | {"pooling": 3}))
    waveforms = noise(network, 8, 3)[..., :-7]
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        # Statistics of these waveforms: by drawn ones, hardly anything of the input would be left at the end.
        network.train()(waveforms)
        network.eval()
        torch.testing.assert_close(network(waveforms), by_hand(network, waveforms), rtol=1e-4, atol=1e-5)


def test_the_shortest_input_is_5_120_samples_and_shorter_clips_get_an_answer(network):
    assert network.shortest_frames == 2 * 2 * 40 * 2**5 == 5120
    classifier = create_classifier("aemnet", tuple("abcdefghij"), seed=0)
    assert classifier.shortest_samples == 5120
    assert network(torch.zeros(1, 1, 1, 5120)).shape == (1, 10)
    assert len(classifier.predict(np.ones(5120, np.float32), 16_000).probabilities) == 10
    with pytest.raises(InputError, match=r"0\.31 s; accepted: at least 0\.32 s"):
        classifier.predict(np.ones(5000, np.float32), 16_000)


def test_no_waveform_is_standardized():
    classifier = create_classifier("aemnet", ("a", "b"), seed=0)
    waveforms = torch.randn(2, 6000)
    assert torch.equal(classifier.features(waveforms), waveforms[:, None, None])
    assert bool(classifier.standardize.fitted)
    assert (classifier.sample_rate, classifier.frontend.frames(6000)) == (16_000, 6000)


def test_width_and_pooling_are_arguments():
    wide = sum(p.numel() for p in AemNet(width=1.0).parameters())
    assert wide > 2.5 * 319_093
    assert sum(p.numel() for p in AemNet(pooling=20).parameters()) == 319_093
    assert AemNet(pooling=20).shortest_frames == 2560


def test_raw_refuses_a_rate_of_none():
    with pytest.raises(InputError, match=r"Raw\(sample_rate=0\); accepted"):
        Raw(0)


def test_it_is_saved_and_loaded_with_its_front_end(tmp_path):
    classifier = SceneClassifier(Raw(8000), small("aemnet", classes=3), ("a", "b", "c"), Standardize.identity(1)).eval()
    loaded = SceneClassifier.load(classifier.save(tmp_path / "model"))
    assert isinstance(loaded.frontend, Raw)
    waveforms = 0.1 * torch.randn(2, 4000)
    with torch.inference_mode():
        assert torch.equal(loaded(waveforms), classifier(waveforms))


def test_a_gradient_reaches_every_parameter():
    network = small("aemnet").train()
    nn.functional.cross_entropy(network(noise(network, 4, 6)), torch.arange(4)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
