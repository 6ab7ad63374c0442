"""Standardization against NumPy."""

import numpy as np
import pytest
import torch

from tinyscene.errors import InputError
from tinyscene.features import Standardize


def test_mean_and_deviation_are_numpys_over_batches_of_any_length():
    rng = np.random.default_rng(0)
    levels, spread = np.linspace(-80, 20, 5)[:, None], np.linspace(0.1, 30, 5)[:, None]
    batches = [levels + spread * rng.standard_normal((n, 2, 5, frames)) for n, frames in ((3, 7), (1, 50), (2, 1))]
    standardize = Standardize(5, channels=2)
    standardize.fit(torch.from_numpy(batch).float() for batch in batches)
    frames = np.concatenate([batch.transpose(1, 2, 0, 3).reshape(2, 5, -1) for batch in batches], axis=2)
    np.testing.assert_allclose(standardize.mean.numpy(), frames.mean(2, keepdims=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(standardize.std.numpy(), frames.std(2, keepdims=True), rtol=1e-5)
    out = standardize(torch.from_numpy(batches[0]).float()).numpy()
    expected = (batches[0] - frames.mean(2, keepdims=True)) / frames.std(2, keepdims=True)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    assert standardize.fitted


def test_a_large_mean_does_not_eat_a_small_deviation():
    exact = 1e4 + np.random.default_rng(1).standard_normal((4, 1, 3, 1000))
    features = torch.from_numpy(exact).float()
    standardize = Standardize(3)
    standardize.fit([features])
    expected = features.double().numpy().transpose(1, 2, 0, 3).reshape(1, 3, -1).std(2)
    np.testing.assert_allclose(standardize.std[..., 0].numpy(), expected, rtol=1e-5)


def test_it_is_the_identity_before_fitting():
    features = torch.randn(2, 1, 4, 9)
    standardize = Standardize(4)
    assert not standardize.fitted
    assert torch.equal(standardize(features), features)


def test_a_band_that_never_changes_is_centred_and_stays_finite():
    features = torch.randn(3, 1, 4, 9)
    features[:, :, 2] = -23.025851
    standardize = Standardize(4)
    standardize.fit([features])
    out = standardize(features)
    assert torch.isfinite(out).all()
    # What 32 bits leave of the mean, over the smallest deviation.
    assert out[:, :, 2].abs().max() < 1e-2
    standardize.fit([features[:, :, :, :1][:1]])
    assert torch.isfinite(standardize(features)).all()


def test_fitted_values_travel_with_the_weights():
    standardize = Standardize(4)
    standardize.fit([torch.randn(3, 1, 4, 9) * 5 + 3])
    twin = Standardize(**standardize.arguments)
    twin.load_state_dict(standardize.state_dict())
    features = torch.randn(1, 1, 4, 9)
    assert twin.fitted
    assert torch.equal(twin(features), standardize(features))


def test_a_fitted_identity_stays_one_and_is_saved_as_such():
    identity = Standardize.identity(4, channels=2)
    twin = Standardize(**identity.arguments)
    twin.load_state_dict(identity.state_dict())
    features = torch.randn(2, 2, 4, 9)
    for standardize in (identity, twin):
        assert standardize.fitted
        assert torch.equal(standardize(features), features)


def test_selected_bands_come_out_as_before_times_their_factors():
    features = torch.randn(3, 2, 6, 9) * 5 + 3
    standardize = Standardize(6, channels=2)
    standardize.fit([features])
    before, kept, factors = standardize(features), [0, 2, 5], torch.tensor([0.5, -2.0, 3.0])
    standardize.select(kept)
    assert torch.equal(standardize(features[:, :, kept]), before[:, :, kept])
    standardize.select([1, 2], factors[1:])
    torch.testing.assert_close(standardize(features[:, :, [2, 5]]), before[:, :, [2, 5]] * factors[1:, None])
    twin = Standardize(**standardize.arguments)
    twin.load_state_dict(standardize.state_dict())
    assert twin.fitted
    assert torch.equal(twin.std, standardize.std)


@pytest.mark.parametrize(
    ("kept", "factors"), [([], None), ([4], None), ([1, 0], None), ([1], torch.ones(2)), ([0, 1], torch.zeros(2))]
)
def test_a_selection_that_makes_no_sense_is_refused_and_changes_nothing(kept, factors):
    standardize = Standardize(4)
    with pytest.raises(InputError, match="accepted"):
        standardize.select(kept, factors)
    assert standardize.mean.shape == (1, 4, 1)
    assert standardize.arguments["bands"] == 4
