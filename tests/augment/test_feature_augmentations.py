"""Augmentations of a batch: SpecAugment, Freq-MixStyle, mixup, a roll."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from tinyscene.augment import BetweenClass, Excerpt, FreqMixStyle, Mixup, SpecAugment, TimeRoll

TARGETS = torch.eye(3)[[0, 1, 2, 2, 1, 0, 1, 2]]


@pytest.mark.parametrize(
    "augmentation", [SpecAugment(4, 6), FreqMixStyle(p=1.0), Mixup(), TimeRoll()], ids=lambda a: type(a).__name__
)
def test_the_draw_decides_and_the_argument_stays(augmentation):
    features = torch.randn(8, 1, 12, 20)
    before, targets_before = features.clone(), TARGETS.clone()
    one, one_targets = augmentation(features, TARGETS, np.random.default_rng(5))
    two, two_targets = augmentation(features, TARGETS, np.random.default_rng(5))
    other, _ = augmentation(features, TARGETS, np.random.default_rng(6))
    assert torch.equal(one, two)
    assert torch.equal(one_targets, two_targets)
    assert not torch.equal(one, other)
    assert torch.equal(features, before)
    assert torch.equal(TARGETS, targets_before)


@settings(max_examples=60, deadline=None)
@given(bands=st.integers(0, 14), frames=st.integers(0, 25), seed=st.integers(0, 999))
def test_specaugment_masks_one_stretch_an_axis_and_no_more_than_asked(bands, frames, seed):
    # In dB, as no front end standardizes them: rising from -80 to -10, another level in every channel of every clip.
    features = torch.linspace(-80, -10, 170).view(10, 17) - torch.arange(10).view(5, 2, 1, 1)
    masked, targets = SpecAugment(bands, frames)(features, TARGETS[:5], np.random.default_rng(seed))
    assert torch.equal(targets, TARGETS[:5])
    mean = features.double().mean((2, 3), keepdim=True)
    silent = masked != features
    torch.testing.assert_close(masked[silent], mean.expand(masked.shape)[silent].float())
    for clip in (~silent).numpy():
        np.testing.assert_array_equal(clip[0], clip[1])
        if not clip.any():
            assert bands >= 10 or frames >= 17
            continue
        gone_bands = np.flatnonzero(~clip[0].any(axis=1))
        gone_frames = np.flatnonzero(~clip[0].any(axis=0))
        for gone, most in ((gone_bands, bands), (gone_frames, frames)):
            assert len(gone) <= most
            assert len(gone) == 0 or gone[-1] - gone[0] + 1 == len(gone)
        kept = np.ones((10, 17), bool)
        kept[gone_bands] = False
        kept[:, gone_frames] = False
        np.testing.assert_array_equal(clip[0], kept)


def test_specaugment_draws_every_width_and_place_for_each_clip_apart():
    features = torch.randn(400, 1, 6, 2)
    masked, _ = SpecAugment(3, 0)(features, torch.zeros(400, 3), np.random.default_rng(0))
    gone = (masked != features)[:, 0, :, 0].numpy()
    assert set(gone.sum(1)) == {0, 1, 2, 3}
    assert gone.any(axis=0).all()


def test_freqmixstyle_gives_every_band_the_mixed_statistics():
    rng = np.random.default_rng(0)
    scale, level = rng.uniform(0.5, 3, (8, 1, 6, 1)), rng.uniform(-4, 4, (8, 1, 6, 1))
    features = torch.from_numpy(rng.standard_normal((8, 2, 6, 50)) * scale + level)
    draw = np.random.default_rng(11)
    mixed, targets = FreqMixStyle(p=1.0, alpha=0.3)(features, TARGETS, draw)
    twin = np.random.default_rng(11)
    weight, order = twin.beta(0.3, 0.3, 8)[:, None], twin.permutation(8)
    mean, std = features.numpy().mean((1, 3)), features.numpy().std((1, 3), ddof=1)
    np.testing.assert_allclose(mixed.numpy().mean((1, 3)), weight * mean + (1 - weight) * mean[order], atol=1e-9)
    np.testing.assert_allclose(mixed.numpy().std((1, 3), ddof=1), weight * std + (1 - weight) * std[order], rtol=1e-5)
    # The shape of every band stays: only its level and its spread change.
    flat, before = (t.transpose(1, 2).reshape(8, 6, -1).numpy() for t in (mixed, features))
    for clip in range(8):
        for band in range(6):
            assert np.corrcoef(flat[clip, band], before[clip, band])[0, 1] > 1 - 1e-9
    assert torch.equal(targets, TARGETS)


def test_freqmixstyle_fires_as_often_as_asked():
    features = torch.randn(4, 1, 3, 8)
    changed = [
        not torch.equal(FreqMixStyle(p=0.4)(features, TARGETS[:4], np.random.default_rng(seed))[0], features)
        for seed in range(500)
    ]
    # Two standard deviations are 0.044; a batch that is mixed with itself alone counts as unchanged, 1 in 24.
    assert 0.33 < np.mean(changed) < 0.45
    assert torch.equal(FreqMixStyle(p=0.0)(features, TARGETS[:4], np.random.default_rng(0))[0], features)


@settings(max_examples=40, deadline=None)
@given(alpha=st.sampled_from([0.1, 0.2, 1.0, 8.0]), seed=st.integers(0, 999), shape=st.sampled_from([(7,), (1, 4, 5)]))
def test_mixup_is_a_convex_mixture_of_two_clips_and_of_their_targets(alpha, seed, shape):
    # One axis of its own for every clip: what comes out tells which clips went in, and how much of each.
    batch = torch.eye(8).view(8, 8, *[1] * len(shape)).expand(8, 8, *shape)
    mixed, targets = Mixup(alpha)(batch, TARGETS, np.random.default_rng(seed))
    assert mixed.shape == batch.shape
    shares = mixed.flatten(2)[:, :, 0]
    assert ((shares >= 0) & (shares <= 1)).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    assert ((shares > 0).sum(1) <= 2).all()
    torch.testing.assert_close(targets, shares @ TARGETS)
    torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_mixup_weights_follow_the_beta_distribution():
    batch = torch.eye(4000)
    alpha = 0.4
    mixed, _ = Mixup(alpha)(batch, torch.eye(3)[torch.arange(4000) % 3], np.random.default_rng(0))
    own = mixed.diagonal().double().numpy()
    # Mean and variance of Beta(alpha, alpha).
    assert abs(own.mean() - 0.5) < 0.02
    assert abs(own.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 200), fraction=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=st.integers(0, 99))
def test_a_roll_is_a_circular_shift_of_the_last_axis_no_farther_than_asked(length, fraction, seed):
    batch = torch.arange(length) + 1000 * torch.arange(24).view(4, 2, 3, 1)
    rolled, targets = TimeRoll(fraction)(batch, TARGETS[:4], np.random.default_rng(seed))
    assert torch.equal(targets, TARGETS[:4])
    for before, after in zip(batch, rolled, strict=True):
        shift = int(np.flatnonzero(after[0, 0] == before[0, 0, 0])[0])
        np.testing.assert_array_equal(after, np.roll(before, shift, -1))
        assert min(shift, length - shift) <= fraction * length


def test_a_roll_goes_either_way_as_often_and_as_far_for_each_clip_apart():
    """The place of the first sample, of 40, after a shift by at most 10."""
    rolled, _ = TimeRoll(0.25)(torch.arange(40).tile(400, 1), torch.zeros(400, 3), np.random.default_rng(0))
    shifts = [(int(np.flatnonzero(one == 0)[0]) + 20) % 40 - 20 for one in rolled]
    assert set(shifts) == set(range(-10, 11))
    assert 160 < sum(shift > 0 for shift in shifts) < 220


def test_an_excerpt_is_a_stretch_of_its_clip() -> None:
    batch = torch.arange(40.0).expand(300, 2, 5, 40) + 100 * torch.arange(2.0)[:, None, None]
    taken, targets = Excerpt(0.25)(batch, TARGETS[:1].expand(300, -1), np.random.default_rng(0))
    assert taken.shape == (300, 2, 5, 10)
    assert targets.shape == (300, TARGETS.shape[1])
    starts = taken[:, 0, 0, 0]
    np.testing.assert_array_equal(taken, starts[:, None, None, None] + batch[:, :, :, :10])
    assert set(starts.tolist()) == set(range(31)), "every place, and none beyond"


def test_an_excerpt_is_played_and_moved_as_scipy_interpolates() -> None:
    batch, rng = torch.rand(6, 1, 12, 50), np.random.default_rng(3)
    taken, _ = Excerpt(0.4, speed=0.3, shift=0.2)(batch, TARGETS[:6], np.random.default_rng(3))
    step = np.exp(rng.uniform(-1, 1, 6) * np.log(1.3))
    start = rng.uniform(0, 1, 6) * (49 - step * 19)
    move = rng.uniform(-1, 1, 6) * 0.2 * 12
    assert (step > 1.1).any()
    assert (step < 0.9).any()
    for one, (clip, place, speed, up) in enumerate(zip(batch.numpy(), start, step, move, strict=True)):
        bands, frames = np.meshgrid(np.arange(12) + up, place + speed * np.arange(20), indexing="ij")
        expected = map_coordinates(clip[0], [bands, frames], order=1, mode="nearest")
        np.testing.assert_allclose(taken[one, 0].numpy(), expected, atol=1e-4)


def test_a_whole_excerpt_is_the_clip() -> None:
    batch = torch.rand(3, 1, 4, 9)
    for excerpt in (Excerpt(1.0), Excerpt(1.0, speed=0.5)):
        taken, _ = excerpt(batch, TARGETS[:3], np.random.default_rng(0))
        assert taken.shape == batch.shape
    torch.testing.assert_close(Excerpt(1.0)(batch, TARGETS[:3], np.random.default_rng(0))[0], batch)
    assert Excerpt(0.01)(batch, TARGETS[:3], np.random.default_rng(0))[0].shape == (3, 1, 4, 1)


def test_two_sounds_are_heard_in_the_ratio_of_their_targets() -> None:
    """At levels 40 dB apart: each tone's level in the mixture is its share of the target times the other's."""
    time = torch.arange(8000) / 8000
    loud, soft = torch.sin(2 * np.pi * 440 * time), 0.01 * torch.sin(2 * np.pi * 1000 * time)
    batch, labels = torch.stack([loud, soft] * 10), torch.eye(2).repeat(10, 1)
    mixed, targets = BetweenClass()(batch, labels, np.random.default_rng(0))
    spectra = torch.fft.rfft(mixed).abs()
    heard = torch.stack([spectra[:, 440], spectra[:, 1000]], 1)
    two = (targets > 1e-3).all(1)
    assert two.sum() >= 5
    torch.testing.assert_close((heard / heard.sum(1, keepdim=True))[two], targets[two], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(targets.sum(1), torch.ones(20))


def test_silence_is_mixed_into_something_finite() -> None:
    mixed, _ = BetweenClass(0.1)(torch.zeros(8, 100), TARGETS, np.random.default_rng(0))
    assert torch.equal(mixed, torch.zeros(8, 100))
