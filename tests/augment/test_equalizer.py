"""Random frequency responses, seen by SciPy and by the log-mel bands."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyscene.augment import Equalizer
from tinyscene.features import LogMel

RATE = 16000


def noise(seed, seconds=1.0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(RATE * seconds)).astype(np.float32)


def level(waveform):
    return np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))


@given(seed=st.integers(0, 2**32 - 1), ripple=st.floats(0, 24), slope=st.floats(0, 90), knots=st.integers(0, 9))
def test_length_type_and_level_of_the_clip_stay(seed, ripple, slope, knots):
    waveform = noise(seed, 0.2)
    heard = Equalizer(ripple, knots, slope_db=slope, p=1)(waveform, RATE, np.random.default_rng(seed))
    assert heard.shape == waveform.shape
    assert heard.dtype == np.float32
    assert level(heard) == pytest.approx(level(waveform), rel=1e-4)


@given(seed=st.integers(0, 2**32 - 1))
def test_levels_stay_within_the_ripple_between_the_corners_and_fall_outside(seed):
    frequencies = np.geomspace(20, 8000, 500)
    one = Equalizer(ripple_db=6, low_hz=200, high_hz=4000, slope_db=40)
    response = one.response_db(frequencies, np.random.default_rng(seed))
    middle = (frequencies > 200) & (frequencies < 4000)
    assert np.abs(response[middle]).max() <= 6 + 1e-9
    assert response.max() <= 6 + 1e-9
    assert response.min() >= -66 - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_a_click_gets_the_spectrum_that_was_drawn(seed):
    one, click = Equalizer(ripple_db=10, p=1), np.zeros(2 * RATE, np.float32)
    click[RATE] = 1
    heard = one(click, RATE, np.random.default_rng(seed))
    points = np.geomspace(20, RATE / 2, 256)
    wanted = one.response_db(points, np.random.default_rng(seed))
    clear = wanted > -40
    _, found = scipy.signal.freqz(heard, worN=points, fs=RATE)
    moved = (20 * np.log10(np.abs(found)) - wanted)[clear]
    # All by the same: the level is the click's.
    assert np.ptp(moved) < 0.3
    # Phases are kept: it is as long before the click as after it.
    np.testing.assert_allclose(heard[RATE : RATE + 500], heard[RATE - 499 : RATE + 1][::-1], atol=1e-5)


def test_a_microphone_moves_every_frame_of_a_band_alike():
    frontend = LogMel(RATE, 1024, 32, hop_length=512, log="db")
    waveform = noise(0, 2) * np.repeat([0.1, 1.0, 0.3, 0.8], RATE // 2).astype(np.float32)
    heard = Equalizer(p=1)(waveform, RATE, np.random.default_rng(3))
    before, after = (frontend(torch.from_numpy(one)[None])[0, 0] for one in (waveform, heard))
    moved = (after - before)[:, 3:-3]
    assert moved.mean(1).std() > 2
    assert moved.std(1).max() < 2


def test_p_decides_how_often_and_a_flat_response_changes_nothing():
    waveform = noise(0, 0.1)
    same = [np.array_equal(Equalizer(p=0.4)(waveform, RATE, np.random.default_rng(s)), waveform) for s in range(200)]
    assert 0.5 < np.mean(same) < 0.7
    flat = Equalizer(ripple_db=0, slope_db=0, p=1)(waveform, RATE, np.random.default_rng(0))
    np.testing.assert_allclose(flat, waveform, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_a_few_samples_and_silence_stay_finite(samples):
    for waveform in (np.zeros(samples, np.float32), np.ones(samples, np.float32)):
        assert np.isfinite(Equalizer(p=1)(waveform, RATE, np.random.default_rng(0))).all()
