"""Augmentations of a waveform: what is measured on the output is what was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyscene.augment import Crop, Gain, Noise, Speed

RATE = 8000


def sine(hz, seconds=1.0):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def peak_hz(waveform):
    windowed = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 16 * len(waveform)))
    return windowed.argmax() * RATE / (16 * len(waveform))


@pytest.mark.parametrize(
    "augmentation",
    [Crop(0.5), Gain(), Noise(), Speed((0.85, 0.9, 1.1, 1.15))],
    ids=lambda a: type(a).__name__,
)
def test_the_draw_decides_and_nothing_else(augmentation):
    waveform = np.random.default_rng(0).uniform(-1, 1, RATE).astype(np.float32)
    untouched = waveform.copy()
    waveform.flags.writeable = False  # as slices of the cache are
    outcomes = [augmentation(waveform, RATE, np.random.default_rng(seed)) for seed in range(12)]
    again = [augmentation(waveform, RATE, np.random.default_rng(seed)) for seed in range(12)]
    assert all(np.array_equal(one, two) for one, two in zip(outcomes, again, strict=True))
    assert len({outcome.tobytes() for outcome in outcomes}) > 2
    assert all(outcome.dtype == np.float32 for outcome in outcomes)
    np.testing.assert_array_equal(waveform, untouched)


@settings(max_examples=60, deadline=None)
@given(samples=st.integers(1, 300), wanted=st.integers(1, 300), seed=st.integers(0, 99))
def test_a_crop_is_a_stretch_of_the_clip_or_the_clip_again_and_again(samples, wanted, seed):
    waveform = np.arange(1, samples + 1, dtype=np.float32)
    cut = Crop(wanted / RATE)(waveform, RATE, np.random.default_rng(seed))
    assert len(cut) == wanted
    if wanted <= samples:
        np.testing.assert_array_equal(cut, np.arange(cut[0], cut[0] + wanted))
        assert cut[0] >= 1
        assert cut[-1] <= samples
    else:
        np.testing.assert_array_equal(cut, [waveform[i % samples] for i in range(wanted)])


def test_a_crop_reaches_both_ends():
    waveform = np.arange(10, dtype=np.float32)
    starts = {Crop(7 / RATE)(waveform, RATE, np.random.default_rng(seed))[0] for seed in range(60)}
    assert starts == {0, 1, 2, 3}


def test_gain_stays_between_its_levels_and_fills_them():
    waveform = sine(440)
    measured = []
    for seed in range(200):
        louder = Gain(-9.0, 3.0)(waveform, RATE, np.random.default_rng(seed))
        measured.append(20 * np.log10(np.std(louder) / np.std(waveform)))
        np.testing.assert_allclose(louder, waveform * (louder[100] / waveform[100]), atol=1e-5)
    assert -9.001 < min(measured) < -8.5
    assert 2.5 < max(measured) < 3.001
    assert abs(np.mean(measured) + 3.0) < 0.8


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 40.0])
def test_noise_has_the_asked_ratio_and_is_white(snr_db):
    waveform = sine(440, 4.0) * 0.3
    added = Noise(snr_db, snr_db)(waveform, RATE, np.random.default_rng(3)).astype(np.float64) - waveform
    measured = 10 * np.log10(np.mean(waveform.astype(np.float64) ** 2) / np.mean(added**2))
    assert abs(measured - snr_db) < 0.15
    quarters = [part.mean() for part in np.split(np.abs(np.fft.rfft(added))[1:] ** 2, 4)]
    assert max(quarters) / min(quarters) < 1.2


def test_noise_ratios_lie_between_their_limits():
    waveform = sine(440)
    ratios = []
    for seed in range(100):
        added = Noise(10, 30)(waveform, RATE, np.random.default_rng(seed)) - waveform
        ratios.append(20 * np.log10(np.std(waveform) / np.std(added)))
    assert 9.5 < min(ratios) < 12
    assert 28 < max(ratios) < 30.5


@pytest.mark.parametrize("rate", [0.85, 1.0, 1.15, 1.3])
def test_speed_scales_length_and_pitch(rate):
    faster = Speed((rate,))(sine(1000.0), RATE, np.random.default_rng(0))
    assert abs(len(faster) - RATE / rate) <= 1
    assert abs(peak_hz(faster) - 1000.0 * rate) < 1.0
    middle = faster[len(faster) // 4 : -len(faster) // 4]
    assert abs(np.std(middle) - np.sqrt(0.5)) < 0.01


def test_speed_uses_every_rate():
    lengths = {len(Speed()(sine(500.0, 0.1), RATE, np.random.default_rng(seed))) for seed in range(30)}
    assert lengths == {round(800 / 0.85), 800, round(800 / 1.15)}
