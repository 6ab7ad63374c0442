"""The log-mel front end against librosa."""

import warnings
from unittest import mock

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tinyscene.errors import InputError
from tinyscene.features import LogMel, spectrogram
from tinyscene.features.logmel import mel_matrix

SINGH = {"sample_rate": 44_100, "n_fft": 2048, "n_mels": 40, "window_s": 0.040, "hop_s": 0.020, "window": "hamming"}
SCHMIDT = {"sample_rate": 16_000, "n_fft": 2048, "n_mels": 256, "hop_length": 480, "window": "hamming"}
BYTTEBIER = {"sample_rate": 44_100, "n_fft": 4096, "n_mels": 128, "window_s": 0.030, "hop_s": 0.010, "power": 1}
CASES = {
    "singh2021": SINGH,
    "schmidt2022": SCHMIDT,
    "byttebier2021": BYTTEBIER,
    "not centred": SINGH | {"center": False},
    "htk": SINGH | {"mel": "htk"},
    "htk, magnitudes, not centred": BYTTEBIER | {"mel": "htk", "center": False},
    "edges": SCHMIDT | {"n_mels": 64, "f_min_hz": 50.0, "f_max_hz": 7000.0},
    "last frame dropped": SINGH | {"drop_last_frame": True},
    "an odd transform": {"sample_rate": 16_000, "n_fft": 401, "n_mels": 20, "hop_length": 100},
}
# (the log's name, its floor, decibels a unit)
LOGS = {"ln": 10 / np.log(10), "log10": 10.0, "db": 1.0}


def reference(case, waveform):
    """librosa's mel spectrogram in double precision, (bands, frames)."""
    rate = case["sample_rate"]
    win = round(case["window_s"] * rate) if "window_s" in case else case["n_fft"]
    spectrogram = librosa.feature.melspectrogram(
        y=waveform.astype(np.float64),
        sr=rate,
        n_fft=case["n_fft"],
        win_length=win,
        hop_length=round(case["hop_s"] * rate) if "hop_s" in case else case["hop_length"],
        window=scipy.signal.get_window(case.get("window", "hann"), win, fftbins=True),
        center=case.get("center", True),
        pad_mode="constant",
        power=case.get("power", 2),
        n_mels=case["n_mels"],
        fmin=case.get("f_min_hz", 0.0),
        fmax=case.get("f_max_hz"),
        htk=case.get("mel") == "htk",
        norm=None if case.get("mel") == "htk" else "slaney",
    )
    return spectrogram[:, :-1] if case.get("drop_last_frame") else spectrogram


def noise(case, seconds=1.0):
    return np.random.default_rng(0).standard_normal(round(seconds * case["sample_rate"])).astype(np.float32) * 0.1


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_power_of_noise_agrees_with_librosa(case):
    waveforms = np.stack([noise(case), noise(case)[::-1]])
    ours = LogMel(**case, log=None)(torch.from_numpy(waveforms))
    expected = np.stack([reference(case, waveform) for waveform in waveforms])[:, None]
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("case", [SINGH, SCHMIDT, BYTTEBIER], ids=["singh2021", "schmidt2022", "byttebier2021"])
def test_levels_agree_with_librosa_to_a_thousandth_of_a_decibel(case, log):
    waveform = noise(case)
    ours = LogMel(**case, log=log, floor=1e-8)(torch.from_numpy(waveform)[None])[0, 0].numpy() * LOGS[log]
    np.testing.assert_allclose(ours, 10 * np.log10(reference(case, waveform) + 1e-8), atol=1e-3, rtol=0)


@pytest.mark.parametrize("case", [SINGH, SCHMIDT, BYTTEBIER], ids=["singh2021", "schmidt2022", "byttebier2021"])
def test_a_recording_agrees_with_librosa(case, shared_data):
    path = sorted((shared_data("esc10") / "audio").glob("*.ogg"))[7]
    waveform, rate = soundfile.read(path, dtype="float32", frames=2 * 44_100)
    waveform = librosa.resample(waveform, orig_sr=rate, target_sr=case["sample_rate"])
    expected = reference(case, waveform)
    # 32-bit transforms leave rounding noise about 130 dB below the loudest band: the floor hides it here.
    floor = expected.max() * (1e-8 if case.get("power", 2) == 2 else 1e-4)
    ours = LogMel(**case, log="db", floor=floor)(torch.from_numpy(waveform)[None])[0, 0].numpy()
    np.testing.assert_allclose(ours, 10 * np.log10(expected + floor), atol=1e-3, rtol=0)
    exact = LogMel(**case, log=None).double()(torch.from_numpy(waveform).double()[None])[0, 0].numpy()
    # The bands and the window are kept at 32 bits: what leaks into a silent band is 160 dB below the loudest.
    leak = expected.max() * (1e-16 if case.get("power", 2) == 2 else 1e-8)
    np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=leak)


@pytest.mark.parametrize("mel", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "low", "high"),
    [
        (44_100, 2048, 40, 0, 22_050),
        (16_000, 2048, 256, 0, 8000),
        (44_100, 4096, 128, 20, 16_000),
        (8000, 256, 1, 0, 4000),
    ],
)
def test_bands_are_librosas(rate, n_fft, n_mels, low, high, mel):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa remarks on bands narrower than a bin
        expected = librosa.filters.mel(
            sr=rate,
            n_fft=n_fft,
            n_mels=n_mels,
            fmin=low,
            fmax=high,
            htk=mel == "htk",
            norm="slaney" if mel == "slaney" else None,
            dtype=np.float64,
        )
    np.testing.assert_allclose(mel_matrix(rate, n_fft, n_mels, low, high, mel), expected, rtol=1e-9, atol=1e-15)


@settings(max_examples=150, deadline=None)
@given(
    samples=st.integers(1, 700),
    n_fft=st.integers(8, 130),
    hop=st.integers(1, 140),
    center=st.booleans(),
    drop=st.booleans(),
)
def test_frames_and_shortest_are_what_comes_out(samples, n_fft, hop, center, drop):
    frontend = LogMel(8000, n_fft, 4, hop_length=hop, center=center, drop_last_frame=drop)
    shortest = frontend.shortest_samples
    for length in {max(samples, shortest), shortest}:
        out = frontend(torch.randn(1, length))
        assert out.shape == (1, 1, 4, frontend.frames(length))
        assert out.shape[-1] >= 1
    # One sample less gives none, or there is no sample less.
    assert shortest == 1 or frontend.frames(shortest - 1) < 1


def test_ten_seconds_give_the_reports_number_of_frames():
    assert LogMel(**SINGH).frames(441_000) == 501
    assert LogMel(**SINGH, drop_last_frame=True).frames(441_000) == 500


def test_many_clips_at_once_are_each_alone():
    frontend = LogMel(8000, 256, 20, hop_length=128)
    waveforms = torch.randn(19, 1000)
    alone = torch.cat([frontend(waveform[None]) for waveform in waveforms])
    torch.testing.assert_close(frontend(waveforms), alone, rtol=1e-5, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    clips=st.integers(1, 5),
    samples=st.integers(1, 900),
    n_fft=st.integers(8, 130),
    shorter=st.integers(0, 7),
    hop=st.integers(1, 140),
    center=st.booleans(),
    power=st.sampled_from([1, 2]),
    bands=st.sampled_from([2, 20]),
    points=st.sampled_from([1, 500, 5 << 16]),
    threads=st.integers(1, 3),
)
def test_steps_on_several_threads_are_the_transform_in_one(
    clips, samples, n_fft, shorter, hop, center, power, bands, points, threads
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bands without a bin
        settings_ = {"hop_length": hop, "win_length": n_fft - shorter, "center": center, "power": power}
        frontend = LogMel(8000, n_fft, bands, **settings_, log=None)
    waveforms = torch.randn(clips, max(samples, frontend.shortest_samples))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with mock.patch.object(spectrogram, "_POINTS_A_STEP", points), torch.inference_mode():
            in_steps = frontend(waveforms)
    finally:
        torch.set_num_threads(before)
    whole = frontend(waveforms.requires_grad_())  # with a gradient: torch.stft and a dense product
    assert whole.requires_grad
    torch.testing.assert_close(in_steps, whole.detach(), rtol=1e-4, atol=1e-4)


def test_silence_is_the_floor():
    silent = LogMel(8000, 256, 20, hop_length=128, log="db", floor=1e-8)(torch.zeros(1, 1000))
    torch.testing.assert_close(silent, torch.full_like(silent, -80.0))


def test_nothing_of_the_front_end_stands_in_the_weights():
    assert not LogMel(**SINGH).state_dict()


@pytest.mark.parametrize("given_", [{"hop_length": 0}, {"hop_s": 0.0}, {}, {"hop_length": 100, "hop_s": 0.01}])
def test_a_hop_that_is_none_is_refused(given_):
    with pytest.raises(InputError, match="hop"):
        LogMel(8000, 256, 20, **given_)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"window": "blackman"}, "'hann', 'hamming'"),
        ({"mel": "bark"}, "slaney"),
        ({"power": 3}, "1, 2"),
        ({"log": "log2"}, "'db', 'log10', 'ln', None"),
        ({"win_length": 257}, "n_fft=256"),
        ({"win_length": 100, "window_s": 0.01}, "one of the two"),
        ({"win_length": 0}, "at least one sample"),
        ({"f_min_hz": -1.0}, "0 ... 4000.0 Hz"),
        ({"f_max_hz": 4001.0}, "0 ... 4000.0 Hz"),
        ({"f_max_hz": 0.0}, "0 ... 4000.0 Hz"),
        ({"f_min_hz": 3000.0, "f_max_hz": 2000.0}, "the lower edge first"),
        ({"f_min_hz": float("nan")}, "0 ... 4000.0 Hz"),
        ({"n_mels": 0}, "n_mels=0"),
        ({"n_fft": 0}, "n_fft=0"),
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"floor": -1e-8}, "floor=-1e-08"),
        ({"floor": 0.0}, "floor=0.0"),
        ({"kept": ()}, "of 20; accepted: at least one of 0 to 19"),
        ({"kept": (3, 20)}, "0 to 19"),
        ({"kept": (-1, 3)}, "0 to 19"),
        ({"kept": (4, 3)}, "rising"),
        ({"kept": (3, 3)}, "each once"),
    ],
)
def test_wrong_settings_are_refused_by_naming_the_right_ones(wrong, named):
    right = {"sample_rate": 8000, "n_fft": 256, "n_mels": 20, "hop_length": 128}
    LogMel(**right)
    with pytest.raises(InputError, match=named):
        LogMel(**right | wrong)


@pytest.mark.parametrize("log", ["ln", None])
def test_the_mean_over_frames_is_subtracted_per_band_and_clip(log):
    waveforms = torch.from_numpy(np.random.default_rng(5).uniform(-0.3, 0.3, (3, 8000)).astype(np.float32))
    settings = {"sample_rate": 8000, "n_fft": 256, "n_mels": 20, "hop_length": 80, "power": 1, "log": log}
    plain = LogMel(**settings)(waveforms).double().numpy()
    centred = LogMel(**settings, subtract_mean=True)(waveforms).numpy()
    np.testing.assert_allclose(centred, plain - plain.mean(3, keepdims=True), atol=1e-4)
    assert np.abs(plain.mean(3)).min() > 1e-3


@pytest.mark.parametrize("log", ["log10", None])
def test_kept_bands_are_those_of_all_and_the_others_are_not_computed(log):
    waveforms = torch.from_numpy(np.stack([noise(SCHMIDT, 0.3), -noise(SCHMIDT, 0.3)[::-1]]))
    kept = sorted(np.random.default_rng(0).choice(256, 192, replace=False).tolist())
    selected = LogMel(**SCHMIDT, log=log, kept=kept)
    torch.testing.assert_close(selected(waveforms), LogMel(**SCHMIDT, log=log)(waveforms)[:, :, kept])
    assert selected.bands == 192
    assert selected.weights.shape == (192, 1025)
    assert LogMel(**selected.arguments).arguments == selected.arguments
    assert selected.arguments["kept"] == kept


@pytest.mark.parametrize(("rate", "n_fft", "n_mels"), [(44_100, 512, 128), (16_000, 256, 64), (8000, 1024, 40)])
def test_bands_without_a_bin_are_named_where_librosa_warns(rate, n_fft, n_mels):
    with warnings.catch_warnings(record=True) as theirs:
        warnings.simplefilter("always")
        weights = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels)
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        LogMel(rate, n_fft, n_mels, hop_length=256)
    assert len(ours) == len(theirs)
    empty = [str(band) for band in range(n_mels) if not weights[band].any()]
    assert all(f"bands {', '.join(empty)}, which are constant; try a larger n_fft" in str(w.message) for w in ours)


def test_changed_weights_are_used():
    frontend, waveforms = LogMel(8000, 256, 20, hop_length=128), torch.randn(2, 4000)
    before = frontend(waveforms)
    frontend.weigh(4 * frontend.weights.double().numpy())
    torch.testing.assert_close(frontend(waveforms), before + np.log(4), rtol=1e-4, atol=1e-4)
    frontend.weights.mul_(4)
    torch.testing.assert_close(frontend(waveforms), before + np.log(16), rtol=1e-4, atol=1e-4)


class Learned(LogMel):
    """Its weights are computed from a gain that learns."""

    def __init__(self):
        super().__init__(8000, 256, 20, hop_length=128)
        self.gain = nn.Parameter(torch.ones(20, 1))

    @property
    def weights(self):
        return self.fixed * self.gain

    def weigh(self, weights):
        self.register_buffer("fixed", torch.from_numpy(weights).float(), persistent=False)


def test_weights_computed_from_what_learns_are_not_kept():
    frontend, waveforms = Learned(), torch.randn(1, 4000)
    with torch.no_grad():
        before = frontend(waveforms)
        frontend.gain.mul_(4)
        torch.testing.assert_close(frontend(waveforms), before + np.log(4), rtol=1e-4, atol=1e-4)


def test_a_window_that_learns_has_a_gradient():
    frontend = LogMel(8000, 256, 20, hop_length=128)
    window = nn.Parameter(frontend.window.clone())
    del frontend.window
    frontend.window = window
    frontend(torch.randn(1, 4000)).sum().backward()
    assert window.grad is not None
    assert window.grad.abs().sum() > 0


def test_a_trace_follows_the_input():
    frontend = LogMel(8000, 256, 20, hop_length=128)
    traced = torch.jit.trace(frontend, torch.randn(1, 4000))
    other = torch.randn(1, 4000)
    torch.testing.assert_close(traced(other), frontend(other), rtol=1e-4, atol=1e-4)
    captured = torch.export.export(frontend, (torch.randn(1, 4000),)).module()
    torch.testing.assert_close(captured(other), frontend(other), rtol=1e-4, atol=1e-4)
