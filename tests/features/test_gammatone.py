"""The gammatone front end against SciPy's filters, the formula of the ERB scale, and tones."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, Gammatone
from tinyscene.features.gammatone import erb_centres, gammatone_gain

RATE = 48_000
PHAM = {
    "sample_rate": RATE,
    "n_fft": 4096,
    "bands": 128,
    "win_length": 2048,
    "hop_length": 1024,
    "f_min_hz": 10.0,
    "frames_per_s": 42.8,
}
BINS = np.fft.rfftfreq(4096, 1 / RATE)
CENTRES = erb_centres(128, 10.0, RATE / 2)


def erb_number(hz):
    """How many ERBs lie below a frequency, by numerical integration of df / (24.7 + f / 9.26449)."""
    grid = np.linspace(0, hz, 20_001)
    return np.trapezoid(1 / (24.7 + grid / 9.26449), grid)


def tone(hz, seconds=0.2, phase=0.0):
    return torch.from_numpy(np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE + phase)).float()[None]


def test_centres_are_equally_spaced_on_the_erb_scale():
    numbers = np.array([erb_number(hz) for hz in [*CENTRES, RATE / 2]])
    np.testing.assert_allclose(np.diff(numbers), (numbers[-1] - numbers[0]) / 128, rtol=1e-4)
    assert CENTRES[0] == pytest.approx(10.0)
    # Glasberg and Moore's own constants, 24.7 (4.37 f / 1000 + 1), are the same bandwidth to a thousandth.
    np.testing.assert_allclose(24.7 + CENTRES / 9.26449, 24.7 * (4.37 * CENTRES / 1000 + 1), rtol=1e-3)


@pytest.mark.parametrize("band", range(50, 128, 11))
def test_gains_are_those_of_scipys_recursive_filter(band):
    """Where its expanded polynomial holds: lower down, eight poles next to one lose all digits."""
    numerator, denominator = scipy.signal.gammatone(CENTRES[band], "iir", fs=RATE)
    expected = np.abs(scipy.signal.freqz(numerator, denominator, BINS, fs=RATE)[1])
    np.testing.assert_allclose(gammatone_gain(BINS, CENTRES[band], RATE), expected, rtol=2e-5)


@pytest.mark.parametrize("band", range(0, 110, 4))
def test_gains_are_those_of_scipys_impulse_response(band):
    """The sampled gammatone itself: the digital filter is within a thousandth of its peak up to 12 kHz."""
    response, _ = scipy.signal.gammatone(CENTRES[band], "fir", order=4, numtaps=16_384, fs=RATE)
    expected = np.abs(scipy.signal.freqz(response, 1, BINS, fs=RATE)[1])
    ours = gammatone_gain(BINS, CENTRES[band], RATE)
    assert CENTRES[band] < 12_500
    if CENTRES[band] > 100:
        np.testing.assert_allclose(ours / ours.max(), expected / expected.max(), atol=2e-3)
    else:
        # Near 0 Hz the mirror image at -f overlaps, and the two handle it differently.
        near = np.abs(BINS - CENTRES[band]) < 25
        np.testing.assert_allclose(ours[near] / ours.max(), expected[near] / expected.max(), atol=0.1)


def test_a_band_is_the_weighted_sum_of_magnitudes():
    waveform = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) * 0.1
    ours = Gammatone(8000, 512, 20, win_length=256, hop_length=100, log=None)(waveform)
    window = np.pad(scipy.signal.get_window("hann", 256), 128)
    weights = np.stack([gammatone_gain(np.fft.rfftfreq(512, 1 / 8000), c, 8000) for c in erb_centres(20, 50.0, 4000)])
    for row, one in enumerate(np.pad(waveform.double().numpy(), ((0, 0), (256, 256)))):
        frames = np.stack([np.abs(np.fft.rfft(one[i * 100 : i * 100 + 512] * window)) for i in range(41)], 1)
        np.testing.assert_allclose(ours[row, 0].numpy(), weights @ frames / 512, rtol=1e-4)
    levels = Gammatone(8000, 512, 20, win_length=256, hop_length=100, floor=1e-5)(waveform)
    np.testing.assert_allclose(levels.numpy(), 20 * np.log10(ours.double().numpy() + 1e-5), atol=1e-3)


def test_a_tone_at_a_centre_peaks_in_its_band():
    """But for the two lowest bands, whose centres are 9 Hz apart: less than the 11.7 Hz between two bins."""
    frontend = Gammatone(**PHAM)
    for phase in (0.0, 1.2):
        tones = torch.cat([tone(centre, 0.1, phase) for centre in CENTRES])
        peaks = frontend(tones)[:, 0, :, 2].argmax(1)
        assert peaks[2:].tolist() == list(range(2, 128))
        assert max(peaks[:2]) <= 3


def test_ten_seconds_are_128_by_428_and_others_in_proportion():
    frontend = Gammatone(**PHAM)
    assert frontend(torch.zeros(1, 10 * RATE)).shape == (1, 1, 128, 428)
    assert [frontend.frames(s * RATE) for s in (1, 5, 20, 600)] == [43, 214, 856, 25_680]
    # The last frames are cut off: what is heard of a clip does not move.
    waveform = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    every = Gammatone(**PHAM | {"frames_per_s": None})(waveform)
    assert every.shape[-1] == 47
    assert torch.equal(frontend(waveform), every[..., :43])


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 900),
    n_fft=st.integers(8, 130),
    hop=st.integers(1, 140),
    rate=st.one_of(st.none(), st.floats(1.0, 9000.0)),
)
def test_frames_and_shortest_are_what_comes_out(samples, n_fft, hop, rate):
    frontend = Gammatone(8000, n_fft, 4, hop_length=hop, frames_per_s=rate)
    for length in {max(samples, frontend.shortest_samples), frontend.shortest_samples}:
        out = frontend(torch.randn(1, length))
        assert out.shape == (1, 1, 4, frontend.frames(length))
        assert out.shape[-1] >= 1


def test_silence_is_the_floor():
    silent = Gammatone(8000, 256, 20, hop_length=128, floor=1e-5)(torch.zeros(1, 1000))
    torch.testing.assert_close(silent, torch.full_like(silent, -100.0))


def test_it_is_on_the_menu_and_holds_no_weights():
    frontend = Gammatone(**PHAM, channel=1)
    twin = FRONTENDS["gammatone"](**frontend.arguments)
    assert twin.channel == 1
    waveform = torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(twin(waveform), frontend(waveform))
    assert not frontend.state_dict()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"bands": 0}, "bands=0.*accepted"),
        ({"sample_rate": 0}, "sample_rate=0.*accepted"),
        ({"n_fft": 0}, "n_fft=0.*accepted"),
        ({"hop_length": 0}, "hop_length=0.*accepted"),
        ({"win_length": 257}, "257.*n_fft=256"),
        ({"f_min_hz": 0.0}, "0.0.*above 0 Hz"),
        ({"f_min_hz": 4000.0}, "lower edge first"),
        ({"f_max_hz": 4001.0}, "4001.*at most 4000.0 Hz"),
        ({"log": "ln"}, "'ln'.*'db', None"),
        ({"floor": 0.0}, "Gammatone.floor=0.0.*above 0"),
        ({"frames_per_s": 0.0}, "frames_per_s=0.0.*above 0"),
        ({"frames_per_s": float("inf")}, "frames_per_s=inf.*above 0 and finite"),
        ({"channel": -1}, "channel=-1.*at least 0"),
    ],
)
def test_wrong_settings_are_refused_by_naming_the_right_ones(wrong, named):
    right = {"sample_rate": 8000, "n_fft": 256, "bands": 20, "hop_length": 128}
    Gammatone(**right)
    with pytest.raises(InputError, match=named):
        Gammatone(**right | wrong)


def test_the_shortest_clip_of_a_network_allows_for_frames_that_are_cut_off():
    """`SceneClassifier.shortest_samples` against a search from below."""
    from tinyscene.models import Baseline2021
    from tinyscene.models.classifier import SceneClassifier

    for rate in (None, 60.0, 7.0):
        frontend = Gammatone(8000, 256, 20, hop_length=100, frames_per_s=rate)
        classifier = SceneClassifier(frontend, Baseline2021(bands=20), ("a", "b"))
        need = classifier.network.shortest_frames
        assert classifier.shortest_samples == next(n for n in range(1, 9000) if frontend.frames(n) >= need)
