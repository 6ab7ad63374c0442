"""Moments against SciPy, and where they have no meaning."""

import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinyscene.features import Moments
from tinyscene.features.moments import MOMENTS


def reference(features: np.ndarray) -> np.ndarray:
    """SciPy's moments over the last axis: (batch, channels, bands, frames) -> (batch, 5, channels x bands)"""
    exact = features.astype(np.float64)
    mean, variance = exact.mean(-1), scipy.stats.moment(exact, 2, axis=-1)
    skewness, kurtosis = scipy.stats.skew(exact, axis=-1), scipy.stats.kurtosis(exact, axis=-1, fisher=False)
    hyperskewness = scipy.stats.moment(exact, 5, axis=-1) / variance**2.5
    stacked = np.stack([mean, variance, skewness, kurtosis, hyperskewness], 1)
    return stacked.reshape(len(features), 5, -1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(3, 60)),
    level=st.floats(-10, 10),
    spread=st.floats(0.1, 1e3),
    tail=st.sampled_from(["normal", "exponential", "lognormal"]),
)
def test_they_are_scipys(seed, shape, level, spread, tail):
    rng = np.random.default_rng(seed)
    features = (spread * (level + getattr(rng, tail)(size=shape))).astype(np.float32)
    found = Moments()(torch.from_numpy(features)).numpy()
    expected = reference(features)
    assume(expected[:, 1].min() > 1e-6)  # below, a band counts as still
    unit = np.array([spread, spread**2, 1, 1, 1])[:, None]
    assert (np.abs(found - expected) <= 1e-4 * (np.abs(expected) + unit)).all()


def test_the_order_is_by_moment_and_then_by_band():
    assert MOMENTS == ("mean", "variance", "skewness", "kurtosis", "hyperskewness")
    features = torch.zeros(1, 1, 2, 4)
    features[0, 0, 0], features[0, 0, 1] = torch.tensor([0.0, 0, 0, 4]), torch.tensor([1.0, 3, 1, 3])
    # By hand: 0, 0, 0, 4 has mean 1, variance 3 and the central moments 6, 21 and 60.
    wanted = [[1, 2], [3, 1], [6 / 3**1.5, 0], [21 / 9, 1], [60 / 3**2.5, 0]]
    torch.testing.assert_close(Moments()(features)[0], torch.tensor(wanted))


@pytest.mark.parametrize("value", [0.0, 1.0, -8.0, 0.1, -23.025851, 1e-12, 1e6])
@pytest.mark.parametrize("frames", [1, 2, 34, 1001])
def test_what_never_changes_has_a_mean_and_no_shape(value, frames):
    features = torch.full((2, 1, 3, frames), value, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moments = Moments()(features)
        moments.sum().backward()
    torch.testing.assert_close(moments[:, 0], torch.full((2, 3), value))
    assert moments[:, 1].abs().max() <= 1e-12 * max(1.0, value**2)
    assert not moments[:, 2:].any()
    assert features.grad.isfinite().all()


def test_a_band_that_never_changes_leaves_the_others_as_they_are():
    features = torch.randn(1, 1, 3, 20, requires_grad=True)
    alone = Moments()(features)
    with torch.no_grad():
        mixed = torch.cat([features[:, :, :1], torch.full((1, 1, 1, 20), -8.0), features[:, :, 2:]], 2)
    mixed.requires_grad_()
    moments = Moments()(mixed)
    torch.testing.assert_close(moments[..., [0, 2]], alone[..., [0, 2]])
    moments.square().sum().backward()
    assert mixed.grad.isfinite().all()
    assert mixed.grad[0, 0, 0].any()


def test_the_gradient_is_the_numerical_one():
    features = torch.randn(2, 1, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Moments(), features)


def test_gain_and_level_change_mean_and_variance_alone():
    features = torch.randn(2, 1, 5, 34)
    louder = Moments()(3 * features + 2)
    before = Moments()(features)
    torch.testing.assert_close(louder[:, 2:], before[:, 2:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(louder[:, 1], 9 * before[:, 1])


@pytest.mark.parametrize("scale", [1e-3, 1e-6, 1e-12, 1e-20, 0.0])
def test_the_gradient_by_the_scale_of_a_fading_band_stays_small(scale):
    """Standardized moments don't change with it, so that all there could be is rounding, blown up."""
    torch.manual_seed(0)
    weight = torch.full((3, 1), scale, requires_grad=True)
    Moments()(weight * torch.randn(4, 1, 3, 34))[:, 2:].sum().backward()
    assert weight.grad.abs().max() < 0.1
