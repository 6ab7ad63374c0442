"""Figures against scikit-learn and brute force."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyscene import metrics


def scores(clips=200, classes=4, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((clips, classes))
    labels = rng.integers(0, classes, clips)
    logits[np.arange(clips), labels] += 1
    exp = np.exp(logits)
    return labels, exp / exp.sum(1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(1, 60), classes=st.integers(2, 10), seed=st.integers(0, 999))
def test_figures_are_scikit_learns(clips, classes, seed):
    labels, probabilities = scores(clips, classes, seed)
    every = list(range(classes))
    assert metrics.log_loss(labels, probabilities) == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities, labels=every), rel=1e-9
    )
    predicted = probabilities.argmax(1)
    assert metrics.accuracy(labels, probabilities) == sklearn.metrics.accuracy_score(labels, predicted)
    confusion = metrics.confusion(labels, probabilities)
    np.testing.assert_array_equal(confusion, sklearn.metrics.confusion_matrix(labels, predicted, labels=every))
    assert confusion.dtype == np.int64


def test_a_loss_is_one_number_a_clip_and_finite_at_probability_zero():
    labels, probabilities = np.array([0, 1]), np.array([[0.0, 1.0], [0.75, 0.25]])
    np.testing.assert_allclose(metrics.losses(labels, probabilities), [15 * np.log(10), np.log(4)])
    assert metrics.log_loss(np.array([0]), np.array([[1.0, 0.0]])) == 0.0


def brute_calibration(labels, probabilities, bins):
    total = 0.0
    for index in range(bins):
        inside = [
            (row.max(), row.argmax() == label)
            for label, row in zip(labels, probabilities, strict=True)
            if index / bins < row.max() <= (index + 1) / bins
        ]
        if inside:
            confidence, right = (np.mean(column) for column in zip(*inside, strict=True))
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 8.0])
def test_calibration_error_is_the_definition(bins, sharpness):
    labels, probabilities = scores(500, 5, seed=bins, sharpness=sharpness)
    expected = brute_calibration(labels, probabilities, bins)
    assert metrics.calibration_error(labels, probabilities, bins) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_the_perfectly_sure():
    labels = np.array([0, 1, 0, 1])
    assert metrics.calibration_error(labels, np.eye(2)[labels]) == 0.0
    assert metrics.calibration_error(labels, np.eye(2)[1 - labels]) == 1.0
    assert metrics.calibration_error(labels, np.full((4, 2), 0.5)) == 0.0


def test_the_interval_is_that_of_drawing_whole_groups():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 12, 25)
    groups = np.repeat([f"recording {i}" for i in range(25)], sizes)
    values = np.repeat(rng.standard_normal(25), sizes) + 0.3 * rng.standard_normal(sizes.sum())
    shuffled = rng.permutation(len(values))
    low, high = metrics.bootstrap_interval(values[shuffled], groups[shuffled], draws=20_000, level=0.9)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    means = []
    for _ in range(20_000):
        drawn = np.concatenate([members[i] for i in rng.integers(0, 25, 25)])
        means.append(values[drawn].mean())
    spread = np.std(means)
    np.testing.assert_allclose([low, high], np.quantile(means, [0.05, 0.95]), atol=0.05 * spread)
    # Clips drawn one by one would claim a narrower interval.
    alone = metrics.bootstrap_interval(values, np.arange(len(values)), draws=20_000, level=0.9)
    assert high - low > 1.5 * (alone[1] - alone[0])


def test_the_interval_depends_on_its_seed_alone_and_widens_with_the_level():
    values, groups = np.random.default_rng(0).uniform(size=60), np.arange(60) // 3
    assert metrics.bootstrap_interval(values, groups) == metrics.bootstrap_interval(values, groups)
    assert metrics.bootstrap_interval(values, groups) != metrics.bootstrap_interval(values, groups, seed=1)
    narrow, wide = (metrics.bootstrap_interval(values, groups, level=level) for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]


def test_one_group_tells_nothing_of_the_spread():
    assert np.isnan(metrics.bootstrap_interval(np.array([0.0, 1.0, 1.0]), np.zeros(3))).all()
