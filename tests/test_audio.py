"""Reading sound files, against the standard library and formulas."""

import wave

import numpy as np
import pytest
import soundfile

from tinyscene import audio
from tinyscene.errors import InputError

RATE = 16_000


def sine(frequency_hz, rate, seconds=0.5, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integer_wav_as_the_standard_library_wrote_it(tmp_path, width):
    signal = sine(440, RATE)
    scale = 2 ** (8 * width - 1)
    # 8-bit WAV is unsigned with its zero at 128.
    numbers = np.round(signal * (scale - 1)).astype(int)
    data = b"".join(int(n + 128 * (width == 1)).to_bytes(width, "little", signed=width > 1) for n in numbers)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(RATE)
        file.writeframes(data)
    read = audio.read(tmp_path / "x.wav")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, numbers / scale, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("x.wav", "FLOAT", 1e-7),
        ("x.wav", "DOUBLE", 1e-7),
        ("x.flac", "PCM_24", 1e-6),
        ("x.aiff", "PCM_16", 1e-4),
        ("x.ogg", "VORBIS", 0.02),
        ("x.mp3", "MPEG_LAYER_III", 0.02),
    ],
)
def test_formats(tmp_path, name, subtype, tolerance):
    time_s = np.arange(RATE) / RATE
    signal = 0.5 * np.sin(2 * np.pi * (200 + 400 * time_s) * time_s)
    soundfile.write(tmp_path / name, signal, RATE, subtype=subtype)
    read = audio.read(tmp_path / name)
    if name == "x.mp3":  # the encoder's delay stays in
        delay = np.argmax(np.correlate(read, signal[4000:12000], "valid")) - 4000
        assert abs(delay) <= 1152 + 529
        read, signal = read[delay + 4000 : delay + 12000], signal[4000:12000]
    assert np.sqrt(np.mean((read - signal) ** 2)) < tolerance


def test_channels(tmp_path):
    left, right = sine(440, RATE), sine(1000, RATE)
    soundfile.write(tmp_path / "x.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "x.wav"), (left + right) / 2, atol=1e-6)
    np.testing.assert_allclose(audio.read(tmp_path / "x.wav", channel=1), right, atol=1e-6)
    with pytest.raises(InputError, match=r"channel 2 asked for, but the file has 2"):
        audio.read(tmp_path / "x.wav", channel=2)
    with pytest.raises(InputError, match=r"channel 'left'; accepted: \"mean\""):
        audio.read(tmp_path / "x.wav", channel="left")


@pytest.mark.parametrize(("rate_in", "rate_out"), [(44_100, 32_000), (48_000, 44_100), (8_000, 32_000)])
def test_a_resampled_sine_is_the_sine(tmp_path, rate_in, rate_out):
    soundfile.write(tmp_path / "x.wav", sine(1000, rate_in), rate_in, subtype="FLOAT")
    read = audio.read(tmp_path / "x.wav", rate_out)
    expected = sine(1000, rate_out)
    assert abs(len(read) - len(expected)) <= 1
    middle = slice(len(expected) // 4, -len(expected) // 4)
    np.testing.assert_allclose(read[middle], expected[: len(read)][middle], atol=2e-4)


def test_what_lies_above_half_the_rate_is_gone(tmp_path):
    soundfile.write(tmp_path / "x.wav", sine(7000, 32_000), 32_000, subtype="FLOAT")
    read = audio.read(tmp_path / "x.wav", 8_000)
    assert np.abs(read[1000:-1000]).max() < 1e-3


def test_probe(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros((4000, 3)), 8000)
    info = audio.probe(tmp_path / "x.wav")
    assert (info.sample_rate, info.channels, info.frames, info.duration_s) == (8000, 3, 4000, 0.5)


def test_a_rate_that_no_sound_has_is_refused(tmp_path):
    """A header of 1 Hz makes 44,100 samples of each, 1.4 thousand million of a block."""
    for rate in (1, 999, 1000):
        soundfile.write(tmp_path / "x.wav", np.full(2000, 0.1), rate)
        for heard in (audio.probe, audio.read, lambda path: list(audio.read_blocks(path, 1000))):
            if rate == 1000:
                heard(tmp_path / "x.wav")
                continue
            with pytest.raises(InputError, match=f"x.wav: {rate} Hz; accepted: at least 1000 Hz"):
                heard(tmp_path / "x.wav")


@pytest.mark.parametrize(
    ("waveform", "said"),
    [
        (np.zeros(800, np.float32), "silent"),
        (np.ones(799, np.float32), "799 samples at 8000 Hz; accepted: at least 0.1 s"),
        (np.ones((2, 800), np.float32), r"shape \(2, 800\)"),
        (np.array([1.0] * 900 + [np.nan], np.float32), "sample 900 is nan"),
        (np.array([1.0] * 900 + [np.inf], np.float32), "sample 900 is inf"),
    ],
)
def test_check_waveform(waveform, said):
    with pytest.raises(InputError, match=f"here: .*{said}"):
        audio.check_waveform(waveform, 8000, "here")
