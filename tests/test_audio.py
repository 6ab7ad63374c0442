"""Reading sound files, against the standard library and formulas."""

import io
import re
import struct
import wave

import numpy as np
import pytest
import soundfile

from tinyscene import audio, mpeg
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


OTHERS = {
    "wave": ("WAV", "PCM_16"),
    "aif": ("AIFF", "PCM_16"),
    "aifc": ("AIFF", "FLOAT"),
    "au": ("AU", "PCM_16"),
    "snd": ("AU", "PCM_16"),
    "caf": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "oga": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


@pytest.mark.parametrize("suffix", OTHERS)
def test_formats_of_other_suffixes(tmp_path, suffix):
    """What `soundfile` writes by each is read, and refused where half of it is gone."""
    form, subtype = OTHERS[suffix]
    path, signal = tmp_path / f"x.{suffix}", sine(440, RATE, 1.0)
    soundfile.write(path, signal, RATE, format=form, subtype=subtype)
    read = audio.read(path)
    assert len(read) == len(signal)
    assert np.sqrt(np.mean((read - signal) ** 2)) < (0.03 if form == "OGG" else 1e-4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"x.{suffix}: .*(truncated|malformed)"):
        audio.read(path)


def test_every_suffix_was_tried():
    tried = {f".{suffix}" for suffix in (*OTHERS, "wav", "flac", "aiff", "ogg", "mp3", "mp2")}
    assert tried == set(audio.SUFFIXES)
    assert tried.isdisjoint(audio.OTHER_SUFFIXES)


def test_frames_of_layer_2(tmp_path):
    """Written by hand, 128 kbit/s at 44.1 kHz in mono: 417 bytes a frame without sound, 1152 samples."""
    (tmp_path / "x.mp2").write_bytes((b"\xff\xfd\x80\xc4" + bytes(413)) * 50)
    assert audio.probe(tmp_path / "x.mp2").frames == 50 * 1152
    with pytest.raises(InputError, match=r"x.mp2: silent"):
        audio.read(tmp_path / "x.mp2")


def mp3(rate, channels, mode, seconds=12.0):
    """Seconds of silence, then noise: as variable bit rates differ most. And without the header that counts frames."""
    samples = 0.3 * np.random.default_rng(0).uniform(-1, 1, (round(seconds * rate), channels))
    samples[: len(samples) // 3] *= 1e-3
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3", bitrate_mode=mode)
    whole = file.getvalue()
    return samples, whole, whole[whole.index(whole[:2], 160) :]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (48_000, 2), (22_050, 1), (8_000, 2)])
def test_an_mp3_that_does_not_tell_its_length_is_read_to_its_end(tmp_path, rate, channels, mode):
    """It has every sample of the one that tells it, behind those of the encoder's delay."""
    samples, told, untold = mp3(rate, channels, mode)
    path = tmp_path / "x.mp3"
    path.write_bytes(told)
    expected = audio.read(path)
    assert len(expected) == len(samples)
    found = mpeg.frames_of(path)
    assert (found.whole, found.cut) == (found.claimed, False), "as the encoder counted"
    path.write_bytes(untold)
    read = audio.read(path)
    assert mpeg.frames_of(path)[:4] == (found.whole, found.samples, None, False)
    assert 0 <= len(read) - len(samples) <= 4 * 1152
    assert audio.probe(path).frames == len(read)
    np.testing.assert_array_equal(np.concatenate(list(audio.read_blocks(path, rate))), read)
    np.testing.assert_array_equal(read[576:][: len(expected)], expected)


def test_an_mp3_among_tags_and_in_pieces(tmp_path):
    """ID3 before, ID3v1 and APE behind, a picture within; and two files in one, of which the first tells its length."""
    samples, told, untold = mp3(22_050, 1, "VARIABLE", 3.0)
    path = tmp_path / "x.mp3"
    path.write_bytes(untold)
    expected = audio.read(path)
    id3 = b"ID3\x04\x00\x00\x00\x00\x07\x76" + b"\xff\xf3" * 507
    behind = b"TAG" + bytes(125)
    for data in (id3 + untold, untold + behind, id3 + untold + b"APETAGEX" + bytes(300) + behind):
        path.write_bytes(data)
        np.testing.assert_array_equal(audio.read(path), expected)
    path.write_bytes(told + told)
    assert len(audio.read(path)) >= 2 * len(samples)
    path.write_bytes(untold + id3 + untold)
    assert len(audio.read(path)) >= 2 * len(samples)


@pytest.mark.parametrize("missing", [1, 3, 50, 5000])
@pytest.mark.parametrize("tagged", [False, True])
def test_an_mp3_that_lacks_its_end_is_refused(tmp_path, missing, tagged):
    _, told, untold = mp3(22_050, 1, "VARIABLE", 3.0)
    (tmp_path / "x.mp3").write_bytes((told if tagged else untold)[:-missing])
    with pytest.raises(InputError, match=r"x.mp3: truncated, its last frame is cut, the file holds \d+ whole"):
        audio.read(tmp_path / "x.mp3")


def test_an_mp3_that_lacks_whole_frames_is_refused(tmp_path):
    """The last three, by the places where the frames of this file begin."""
    _, told, _ = mp3(32_000, 1, "VARIABLE", 3.0)
    begins = [
        at
        for at in range(len(told))
        if (head := mpeg.header_of(told[at : at + 4])) and told[at + head.length :][:2] == told[:2]
    ]
    (tmp_path / "x.mp3").write_bytes(told[: begins[-2]])
    with pytest.raises(InputError, match=r"claims (\d+) codec frames, the file holds \d+ whole") as caught:
        audio.read(tmp_path / "x.mp3")
    claimed, held = re.search(r"claims (\d+) codec frames, the file holds (\d+)", str(caught.value)).groups()
    assert int(claimed) - int(held) == 3


def test_a_long_mp3_of_constant_bit_rate_is_not_called_truncated(tmp_path):
    """112 kbit/s at 44.1 kHz, frames of 365 or 366 bytes: the decoder's estimate is off by more than two of 2,300."""
    _, _, untold = mp3(44_100, 1, "CONSTANT", 0.2)
    header = int.from_bytes(untold[:4], "big") & ~0xF200 | 8 << 12 | 1 << 16
    # No sound but in the first frame, whose scale is that of the encoder's: what counts here is how many there are.
    place, data = 0.0, []
    for _ in range(2300):
        before, place = place, place + 144 * 112_000 / 44_100
        length = int(place) - int(before)
        data.append((header | (length - 365) << 9).to_bytes(4, "big") + bytes(length - 4))
    (tmp_path / "x.mp3").write_bytes(b"".join(data))
    with pytest.raises(InputError, match=r"x.mp3: silent"):
        audio.read(tmp_path / "x.mp3")
    assert sum(map(len, audio.read_blocks(tmp_path / "x.mp3", 44_100))) >= 2298 * 1152


def test_a_wav_whose_outer_size_is_that_of_the_file(tmp_path):
    """Eight bytes too many, as some writers have it; of AIFF, too."""
    for name, order in (("x.wav", "<I"), ("x.aiff", ">I")):
        soundfile.write(tmp_path / name, sine(440, RATE), RATE)
        data = bytearray((tmp_path / name).read_bytes())
        struct.pack_into(order, data, 4, len(data))
        (tmp_path / name).write_bytes(data)
        assert len(audio.read(tmp_path / name)) == RATE // 2


@pytest.mark.parametrize(("outer", "inner"), [(0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)])
def test_a_wav_from_a_pipe(tmp_path, outer, inner):
    """ffmpeg and sox can't go back and write its length."""
    soundfile.write(tmp_path / "x.wav", sine(440, RATE), RATE)
    data = bytearray((tmp_path / "x.wav").read_bytes())
    struct.pack_into("<I", data, 4, outer)
    struct.pack_into("<I", data, 40, inner)
    (tmp_path / "x.wav").write_bytes(data)
    assert len(audio.read(tmp_path / "x.wav")) == RATE // 2


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


def test_two_channels_of_samples_are_refused():
    with pytest.raises(InputError, match=r"here: shape \(2, 800\); accepted: one channel"):
        audio.check_waveform(np.ones((2, 800), np.float32), 8000, "here")
