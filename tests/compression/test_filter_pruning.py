"""Filter pruning: the small network computes what the big one does without those filters; which they are."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from reordering_networks import REFUSED, Between, classifier
from torch import nn

from tinyscene.compression import BudgetPruning, FilterPruning, geometric_median, l1_norm
from tinyscene.compression.filters import remove_filters
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021, CPMobile, SEResNet
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Run

CLASSES = ("bus", "park", "tram")
NO_CLIPS = Clips("none", Path("/"), CLASSES, ())


def lively(network):
    """A classifier whose every batch norm does something, as after training."""
    generator = torch.Generator().manual_seed(7)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor, generator=generator)
        nn.init.uniform_(norm.running_var, 0.5, 2.0, generator=generator)
    return SceneClassifier(LogMel(8000, 256, 40, hop_length=200), network, CLASSES).eval()


def baseline():
    torch.manual_seed(0)
    return lively(Baseline2021(filters=(6, 8, 10), dense=12, classes=3, bands=40))


def mobile():
    torch.manual_seed(0)
    return lively(CPMobile(classes=3, base_channels=16, blocks=(2, 1), strides=((1, 1), (1, 2))))


# What has to fall silent for a filter's effect to be gone: its batch norm, and those of what is computed channel by
# channel from it, or added to it.
CASES = {
    "baseline L1": (baseline, "L1", ["bn1"]),
    "baseline L2": (baseline, "L2", ["bn2"]),
    "baseline L3, read through the flattening": (baseline, "L3", ["bn3"]),
    "mobile, first of the stem": (mobile, "stem.0.0", ["stem.0.1"]),
    "mobile, expansion": (mobile, "stages.0.expand.0", ["stages.0.expand.1", "stages.0.depthwise.1"]),
    "mobile, depthwise": (mobile, "stages.2.depthwise.0", ["stages.2.expand.1", "stages.2.depthwise.1"]),
    "mobile, projection": (mobile, "stages.2.project.0", ["stages.2.project.1"]),
    "mobile, stream with shortcuts": (
        mobile,
        "stages.0.project.0",
        ["stem.1.1", "stages.0.project.1", "stages.1.project.1"],
    ),
    "mobile, stream begun in the stem": (
        mobile,
        "stem.1.0",
        ["stem.1.1", "stages.0.project.1", "stages.1.project.1"],
    ),
}


def silenced(classifier, norms, filters):
    silent = copy.deepcopy(classifier)
    for path in norms:
        norm = silent.network.get_submodule(path)
        with torch.no_grad():
            norm.weight[filters] = 0
            norm.bias[filters] = 0
    return silent


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_small_network_equals_the_masked_one(case, seed):
    build, path, norms = case
    rng = np.random.default_rng(seed)
    big = build()
    filters = len(big.network.get_submodule(path).weight)
    gone = sorted(rng.choice(filters, rng.integers(1, filters), replace=False).tolist())
    masked, small = silenced(big, norms, gone), copy.deepcopy(big)
    remove_filters(small, path, gone)
    assert small.network.get_submodule(path).weight.shape[0] == filters - len(gone)
    features = torch.from_numpy(rng.standard_normal((3, 1, 40, 33)).astype(np.float32))
    with torch.inference_mode():
        expected, got = masked.classify(features), small.classify(features)
        assert not torch.allclose(big.classify(features), expected, atol=1e-3)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max().clamp_min(1)))


def test_several_layers_in_one_shot_equal_all_of_them_masked():
    big = baseline()
    small = FilterPruning(("L1", "L2", "L3"), 0.5).shape(big)
    masked = big
    for path, norm in (("L1", "bn1"), ("L2", "bn2"), ("L3", "bn3")):
        # The criterion of a layer looks at what the layers before have left of it.
        kept = small.network.get_submodule(norm).running_mean
        gone = [i for i, mean in enumerate(big.network.get_submodule(norm).running_mean) if mean not in kept]
        assert len(gone) == len(big.network.get_submodule(path).weight) // 2
        masked = silenced(masked, [norm], gone)
    features = torch.randn(2, 1, 40, 20)
    with torch.inference_mode():
        torch.testing.assert_close(small.classify(features), masked.classify(features), rtol=1e-5, atol=1e-5)


def test_tensors_get_smaller_and_still_train():
    small = FilterPruning(("L1", "L2"), 0.5).shape(baseline()).train()
    shapes = {name: tuple(p.shape) for name, p in small.network.named_parameters() if p.ndim > 1}
    assert shapes == {
        "L1.weight": (3, 1, 7, 7),
        "L2.weight": (4, 3, 7, 7),
        "L3.weight": (10, 4, 7, 7),
        "dense.weight": (12, 20),
        "output.weight": (3, 12),
    }
    nn.functional.cross_entropy(small.classify(torch.randn(6, 1, 40, 20)), torch.arange(6) % 3).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.network.parameters())


@pytest.mark.parametrize("build", [baseline, mobile])
def test_the_argument_is_never_changed(build):
    classifier = build().train()
    before = copy.deepcopy(classifier.state_dict())
    path = "L2" if build is baseline else "stages.0.expand.0"
    pruned = FilterPruning(path, 0.5)(classifier, NO_CLIPS, Run())
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    assert classifier.network.training
    assert pruned.network.training
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in classifier.parameters())


def test_groups_of_a_convolution_stay_equal():
    network = SEResNet(channels=(8, 8), classes=3, bands=40)
    classifier = lively(network)
    with pytest.raises(InputError, match=r"blocks\.0\.first\.0: its filters go 4 at a time, to keep groups equal"):
        remove_filters(classifier, "blocks.0.first.0", [0, 1, 4, 5])
    remove_filters(classifier, "blocks.0.first.0", [1, 3, 5, 7])
    assert classifier.network.blocks[0].second[0].weight.shape == (8, 1, 3, 3)
    assert classifier.classify(torch.randn(2, 1, 40, 20)).isfinite().all()


@pytest.mark.parametrize("name", ["GroupNorm", "roll"])
def test_a_convolution_whose_filters_are_mixed_behind_it_is_refused(name):
    make, operation = REFUSED[name]
    with pytest.raises(InputError, match=rf"first: filters .* can't be cut, {re.escape(operation)} does not keep them"):
        FilterPruning("first", 0.5).shape(classifier(make()))


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_a_weight_that_is_computed_is_refused(norm):
    network = Between(nn.ReLU())
    norm(network.second)
    with pytest.raises(InputError, match="FilterPruning: the weight of 'second' is computed"):
        FilterPruning("first", 0.5).shape(classifier(network))
    with pytest.raises(InputError, match="BudgetPruning: the weight of 'second' is computed"):
        BudgetPruning(parameters=100).shape(classifier(network))


def test_an_unknown_layer_names_those_there_are():
    with pytest.raises(InputError, match="no convolution 'L4'; accepted: L1, L2, L3$"):
        FilterPruning("L4", 0.5).shape(baseline())
    with pytest.raises(InputError, match="no convolution 'dense'"):
        FilterPruning(("L1", "dense"), 0.5).shape(baseline())


@pytest.mark.parametrize(("ratio", "left"), [(0.125, 7), (0.19, 6), (0.5, 4), (0.8, 2), (0.9, 1)])
def test_the_share_is_rounded_to_the_nearest_number(ratio, left):
    assert len(FilterPruning("L2", ratio).shape(baseline()).network.L2.weight) == left


@pytest.mark.parametrize("ratio", [-0.5, 0.0, 0.01, 0.06, 0.95, 0.999, 1.0, 1.5, float("nan")])
def test_shares_that_leave_or_remove_nothing_are_refused(ratio):
    with pytest.raises(InputError, match=r"FilterPruning\(.*ratio=|L2: all 8 channels would be removed; keep"):
        FilterPruning("L2", ratio).shape(baseline())


def test_l1_is_numpys_sum_of_magnitudes_and_the_lowest_go():
    classifier = baseline()
    weight = classifier.network.L2.weight.detach()
    expected = np.abs(weight.numpy()).reshape(8, -1).sum(1)
    np.testing.assert_allclose(l1_norm(weight).numpy(), expected, rtol=1e-5)
    assert FilterPruning("L2", 0.375).choose(classifier, "L2") == sorted(np.argsort(expected)[:3].tolist())


def test_of_equal_scores_the_first_go():
    classifier = baseline()
    nn.init.ones_(classifier.network.L2.weight)
    for by in (l1_norm, geometric_median):
        assert FilterPruning("L2", 0.25, by).choose(classifier, "L2") == [0, 1]


def test_a_redundant_filter_of_high_norm_goes_by_the_median_and_stays_by_the_norm():
    classifier = baseline()
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 6 * 49))
    # Filter 5 repeats what the layer has in common, which is large; filter 2 is small and like no other.
    common = rng.standard_normal(6 * 49) * 4
    weight += common
    weight[5] = np.delete(weight, [2, 5], axis=0).mean(0)
    weight[2] = 0.1 * rng.standard_normal(6 * 49)
    with torch.no_grad():
        classifier.network.L2.weight.copy_(torch.from_numpy(weight.reshape(8, 6, 7, 7)))
    assert FilterPruning("L2", 0.125, geometric_median).choose(classifier, "L2") == [5]
    assert FilterPruning("L2", 0.125, l1_norm).choose(classifier, "L2") == [2]


def sum_of_distances(median, points):
    return np.linalg.norm(points - median, axis=1).sum()


def scipys_median(points):
    """By a general minimiser from several starts, or at a point where that is lower still."""
    starts = [points.mean(0), np.median(points, axis=0), *points]
    found = [
        scipy.optimize.minimize(
            sum_of_distances,
            start,
            (points,),
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 20_000, "maxfev": 20_000},
        ).x
        for start in starts[:3]
    ]
    return min([*found, *points], key=lambda place: sum_of_distances(place, points))


CLOUDS = {
    "even": np.random.default_rng(0).standard_normal((9, 3)),
    "two dimensions, with outliers": np.vstack([np.random.default_rng(1).uniform(-1, 1, (6, 2)), [[90, 2], [3, 70]]]),
    "on a point, at the mean": np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1.0]]),
    "on a point, away from the mean": np.array([[0, 0], [1, 0.1], [-1, 0.2], [0.1, 1], [0.2, -1], [30, 20.0]]),
    "on a point that three share": np.array([[2, 2], [2, 2], [2, 2], [9, 1], [-4, 3.0]]),
    "the mean is a point, the median is not": np.array([[0, 0], [3, 0], [-1, 2], [-1, 2.1], [-1, -4.1]]),
    "almost on a line": np.array([[0, 0], [1, 1e-3], [2, 0], [3, 0], [10, 0.0]]),
}


@pytest.mark.parametrize("points", CLOUDS.values(), ids=CLOUDS)
def test_geometric_median_is_where_scipy_finds_the_lowest_sum(points):
    expected = np.linalg.norm(points - scipys_median(points), axis=1)
    scores = geometric_median(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(scores, expected, atol=2e-5 * np.ptp(points))
    # No other place has a lower sum than the one that these distances belong to.
    assert scores.sum() <= expected.sum() * (1 + 1e-7)


def test_geometric_median_of_convolution_filters_keeps_shape_and_dtype():
    filters = torch.randn(8, 3, 7, 7)
    scores = geometric_median(filters)
    assert scores.shape == (8,)
    assert scores.dtype == torch.float32
    # Neither a shift nor a turn of all filters changes how far each is from their middle.
    turn = torch.linalg.qr(torch.randn(147, 147, dtype=torch.float64)).Q
    turned = (filters.flatten(1).double() @ turn + 5).view(8, 3, 7, 7)
    np.testing.assert_allclose(geometric_median(turned).numpy(), scores.numpy(), rtol=1e-4)
    assert geometric_median(torch.ones(4, 2)).tolist() == [0.0] * 4
    assert geometric_median(torch.ones(1, 2)).tolist() == [0.0]
