"""The linear model on moments, and the tandem of it and a network."""

import copy

import numpy as np
import pytest
import scipy.stats
import torch
from small_networks import small
from torch import nn

from tinyscene import InputError, LogMel, SceneClassifier, create_classifier
from tinyscene.compression import HalfPrecision
from tinyscene.features import Moments
from tinyscene.models import MomentsLinear, Tandem, create_model, masks

CLASSES = ("bus", "park", "tram")
RATE = 8000
WAVEFORMS = 0.1 * torch.randn(3, RATE // 2, generator=torch.Generator().manual_seed(0))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def tandem(bands: int = 64) -> SceneClassifier:
    """One whose branches both say something."""
    network = small("tandem", classes=3, bands=bands)
    classifier = SceneClassifier(LogMel(RATE, 512, bands, hop_length=100), network, CLASSES)
    classifier.standardize.fit([classifier.frontend(WAVEFORMS)])
    return classifier.eval()


def select(classifier: SceneClassifier, kept: list[int], factors: torch.Tensor | None = None) -> SceneClassifier:
    frontend = LogMel(**classifier.frontend.arguments | {"kept": kept})
    classifier.standardize.select(kept, factors)
    selected = SceneClassifier(frontend, classifier.network, CLASSES, classifier.standardize)
    selected.network.select_bands(kept)
    return selected


def test_the_counts_are_the_reports():
    assert parameters(MomentsLinear()) == 256 * 5 * 10 + 10 == 12_810
    assert parameters(Tandem()) == 12_810 + 315_410
    assert [layer.bias is not None for layer in MomentsLinear().layers] == [True, False, False, False, False]


def test_the_linear_model_is_linear_in_scipys_moments():
    network, features = create_model("moments_linear", classes=3, bands=8, seed=0), torch.randn(4, 1, 8, 34)
    exact = features.double().numpy()[:, 0]
    variance = exact.var(-1)
    moments = [
        exact.mean(-1),
        variance,
        scipy.stats.skew(exact, -1),
        scipy.stats.kurtosis(exact, -1, fisher=False),
        scipy.stats.moment(exact, 5, -1) / variance**2.5,
    ]
    wanted = network.layers[0].bias.detach().numpy() + sum(
        moment @ layer.weight.detach().double().numpy().T for layer, moment in zip(network.layers, moments, strict=True)
    )
    np.testing.assert_allclose(network(features).detach().numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_the_first_logits_of_a_tandem_are_those_of_its_linear_branch():
    network, features = create_model("tandem", bands=64, width=1, seed=0), 3 * torch.randn(4, 1, 64, 34)
    for mode in (True, False):
        network.train(mode)
        assert torch.equal(network(features), network.linear(features))
        assert not network.cnn(features).any()
    # And training changes that.
    nn.functional.cross_entropy(network.train()(features), torch.arange(4)).backward()
    assert network.cnn.classify.weight.grad.any()
    assert network.cnn.classify.bias.grad.any()


def test_a_tandem_is_the_sum_of_its_branches():
    classifier = tandem()
    features = classifier.features(WAVEFORMS)
    branches = [branch(features) for branch in (classifier.network.linear, classifier.network.cnn)]
    torch.testing.assert_close(classifier(WAVEFORMS), branches[0] + branches[1])
    assert all(branch.std() > 0.1 for branch in branches)


def test_selected_bands_are_all_that_both_branches_hear(tmp_path):
    classifier = tandem()
    full, linear = (
        copy.deepcopy(classifier),
        [layer.weight.detach().clone() for layer in classifier.network.linear.layers],
    )
    kept = sorted(np.random.default_rng(1).choice(64, 32, replace=False).tolist())
    gone = [band for band in range(64) if band not in kept]
    selected = select(classifier, kept)
    features = full.features(WAVEFORMS)[:, :, kept]
    # A removed band is computed no more, so that nothing in it can be heard.
    assert selected.features(WAVEFORMS).shape == (3, 1, 32, 41)
    torch.testing.assert_close(selected.features(WAVEFORMS), features)
    moments = Moments()(full.features(WAVEFORMS))
    moments[..., gone] = 0
    by_moment = sum(moments[:, i] @ weight.T for i, weight in enumerate(linear))
    wanted = by_moment + full.network.linear.layers[0].bias + full.network.cnn(features)
    torch.testing.assert_close(selected(WAVEFORMS), wanted, rtol=1e-4, atol=1e-4)
    assert parameters(selected.network.linear) == 32 * 5 * 3 + 3
    loaded = SceneClassifier.load(selected.save(tmp_path))
    with torch.inference_mode():
        assert torch.equal(loaded(WAVEFORMS), selected(WAVEFORMS))
    assert loaded.frontend.arguments == selected.frontend.arguments


def test_factors_multiply_what_both_branches_hear():
    kept, factors = list(range(0, 64, 2)), torch.linspace(0.5, 2, 32)
    full, selected = tandem(), select(tandem(), kept, factors)
    heard = full.features(WAVEFORMS)[:, :, kept] * factors[:, None]
    torch.testing.assert_close(selected.features(WAVEFORMS), heard, rtol=1e-5, atol=1e-5)


def test_masks_are_selected_with_their_weights():
    network = create_model("moments_linear", bands=8, seed=0)
    kept = torch.rand(10, 8) < 0.5
    masks.attach(network, "layers.3.weight", kept)
    network.select_bands([1, 4, 7])
    assert torch.equal(masks.masks_of(network)["layers.3.weight"], kept[:, [1, 4, 7]])
    assert torch.equal(network.layers[3].weight != 0, kept[:, [1, 4, 7]])


def test_a_second_selection_counts_from_the_first():
    network = create_model("tandem", bands=128, width=1, seed=0)
    weight = network.linear.layers[2].weight.detach().clone()
    network.select_bands(list(range(64, 128)))
    network.select_bands(list(range(0, 64, 2)))
    assert torch.equal(network.linear.layers[2].weight, weight[:, 64:128:2])
    assert network.arguments["bands"] == network.linear.arguments["bands"] == 32


@pytest.mark.parametrize(
    ("kept", "named"),
    [
        (list(range(31)), "31 bands; accepted: a multiple of 32"),
        ([], "0 bands"),
        (list(range(33, 65)), "0 to 63"),
        ([1, 0, *range(2, 32)], "rising"),
    ],
)
def test_bands_that_make_no_selection_are_refused_and_change_nothing(kept, named):
    network = create_model("tandem", bands=64, width=1, seed=0).eval()
    with pytest.raises(InputError, match=named):
        network.select_bands(kept)
    assert network.arguments["bands"] == 64
    assert network(torch.randn(1, 1, 64, 9)).shape == (1, 10)


def test_impossible_bands_are_refused():
    with pytest.raises(InputError, match="40 bands; accepted: a multiple of 32"):
        Tandem(bands=40)


def test_half_precision_computes_nearly_the_same():
    classifier = tandem()
    half = HalfPrecision().shape(classifier)
    assert half.precision == "float16"
    with torch.inference_mode():
        wanted = classifier(WAVEFORMS)
        torch.testing.assert_close(half(WAVEFORMS), wanted, rtol=0, atol=0.01 * float(wanted.abs().max()))


def test_a_long_recording_is_heard_in_one_piece():
    classifier = create_classifier("tandem", CLASSES, width=1, seed=0)
    waveform = 0.1 * np.random.default_rng(0).standard_normal(31 * 16_000).astype(np.float32)
    with torch.inference_mode():
        wanted = classifier.eval()(torch.from_numpy(waveform)[None]).softmax(-1)[0].tolist()
    assert list(classifier.predict(waveform, 16_000).probabilities.values()) == pytest.approx(wanted, abs=1e-6)


def test_silence_gives_finite_logits_and_gradients():
    network, features = create_model("tandem", bands=32, width=1, seed=0).train(), torch.zeros(2, 1, 32, 34)
    nn.init.normal_(network.cnn.classify.weight)
    nn.functional.cross_entropy(network(features), torch.arange(2)).backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
