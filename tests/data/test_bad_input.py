"""Every way a sound file can be bad: refused with a reason, by reading it, decoding it and checking it alike."""

import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from tinyscene import audio
from tinyscene.data import Clip, Clips, check, decode
from tinyscene.errors import InputError

RATE = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)


def write(path, waveform, **options):
    soundfile.write(path, waveform, RATE, **options)
    return path


def cut(path, share=0.5):
    data = write(path, NOISE).read_bytes()
    path.write_bytes(data[: round(len(data) * share)])
    return path


def spoilt(path, index, value):
    waveform = NOISE.copy()
    waveform[index] = value
    return write(path, waveform, subtype="FLOAT")


def claiming_gigabytes(path, riff):
    """A WAV header of 3 GB over 32,000 bytes: in the data chunk, and in the RIFF size too or not."""
    data = bytearray(write(path, NOISE).read_bytes())
    struct.pack_into("<I", data, 40, 3_000_000_000)
    if riff:
        struct.pack_into("<I", data, 4, 3_000_000_036)
    path.write_bytes(data)
    return path


def flac_claiming_gigabytes(path):
    """The 36 bits of STREAMINFO that count samples (RFC 9639, section 8.2) say 2^32."""
    data = bytearray(write(path, NOISE).read_bytes())
    data[21] |= 0x01
    data[22:26] = b"\x00\x00\x00\x00"
    path.write_bytes(data)
    return path


def bytes_of(path, data):
    path.write_bytes(data)
    return path


BAD = {
    "empty": (lambda d: bytes_of(d / "x.wav", b""), "empty, 0 bytes"),
    "text": (lambda d: bytes_of(d / "x.wav", b"This is no sound.\n" * 50), "not a readable sound file"),
    "random": (lambda d: bytes_of(d / "x.flac", np.random.default_rng(1).bytes(5000)), "not a readable sound file"),
    "header alone": (
        lambda d: bytes_of(d / "x.wav", write(d / "x.wav", NOISE).read_bytes()[:30]),
        "truncated|readable",
    ),
    "WAV cut": (lambda d: cut(d / "x.wav"), "truncated"),
    "WAV without its end": (lambda d: cut(d / "x.wav", 0.999), "truncated"),
    "FLAC cut": (lambda d: cut(d / "x.flac"), "truncated|broken"),
    "Ogg cut": (lambda d: cut(d / "x.ogg"), "truncated"),
    "MP3 cut": (lambda d: cut(d / "x.mp3"), "truncated|broken"),
    "AIFF cut": (lambda d: cut(d / "x.aiff"), "truncated"),
    "zero length": (lambda d: write(d / "x.wav", NOISE[:0]), "0 samples"),
    "one sample": (lambda d: write(d / "x.wav", NOISE[:1]), "1 samples at 16000 Hz; accepted: at least 0.1 s"),
    "NaN": (lambda d: spoilt(d / "x.wav", 7, np.nan), "sample 7 is nan; accepted: finite samples"),
    "infinite": (lambda d: spoilt(d / "x.wav", 9, -np.inf), "sample 9 is -inf"),
    "silent": (lambda d: write(d / "x.wav", 0 * NOISE), "silent, every sample is zero"),
    "gigabytes": (lambda d: claiming_gigabytes(d / "x.wav", riff=True), "truncated, the header claims 3,000,000,000"),
    "gigabytes of data": (lambda d: claiming_gigabytes(d / "x.wav", riff=False), "truncated"),
    "gigabytes of FLAC": (lambda d: flac_claiming_gigabytes(d / "x.flac"), "truncated|broken"),
}


@pytest.mark.parametrize("kind", BAD)
def test_refused_with_a_reason_by_all_who_read(tmp_path, kind):
    make, reason = BAD[kind]
    path = make(tmp_path)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"{path.name}: .*({reason})"):
        audio.read(path)
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()
    clips = Clips("x", tmp_path, ("a",), (Clip(path.name, "a", row="list.csv:2"),))
    with pytest.raises(InputError, match=rf"1 clip can't be used(.|\n)*({reason})(.|\n)*\[list.csv:2\]"):
        decode(clips, RATE)
    report = check(clips, quiet=True)
    assert not report.ok
    assert len(report.unreadable) == 1
    assert report.unreadable[0].endswith("[list.csv:2]")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match=r"x.wav: no such file; accepted: a sound file \(WAV"):
        audio.read(tmp_path / "x.wav")
    with pytest.raises(InputError, match="a folder; accepted: a sound file"):
        audio.read(tmp_path)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3", "x.aiff"])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.7])
def test_whole_files_are_not_called_truncated(tmp_path, name, seconds):
    """What refuses the cut ones does not refuse these; codecs pad to whole frames."""
    samples = np.random.default_rng(2).uniform(-0.5, 0.5, round(seconds * RATE))
    read = audio.read(write(tmp_path / name, samples))
    assert len(samples) <= len(read) <= len(samples) + (4 * 1152 if name == "x.mp3" else 0)


def test_chunks_of_odd_length_are_padded(tmp_path):
    """A WAV with a comment of three bytes before its samples: read when whole, refused when the samples are cut."""
    whole = write(tmp_path / "x.wav", NOISE).read_bytes()
    data = bytearray(whole[:36] + b"LIST\x03\x00\x00\x00abc\x00" + whole[36:])
    struct.pack_into("<I", data, 4, len(data) - 8)
    assert len(audio.read(bytes_of(tmp_path / "y.wav", data))) == len(NOISE)
    struct.pack_into("<I", data, 4, len(data) - 1008)
    with pytest.raises(InputError, match="truncated, the header claims"):
        audio.read(bytes_of(tmp_path / "z.wav", data[:-1000]))


@pytest.mark.parametrize("tags", [1, 100])
def test_a_wav_behind_tags(tmp_path, tags):
    """A hundred of 50 bytes fill libsndfile's log before the samples."""
    whole = write(tmp_path / "x.wav", NOISE).read_bytes()
    info = b"LIST" + struct.pack("<I", 58 * tags + 4) + b"INFO" + (b"ICMT" + struct.pack("<I", 50) + b"x" * 50) * tags
    data = bytearray(whole[:36] + info + whole[36:])
    struct.pack_into("<I", data, 4, len(data) - 8)
    assert len(audio.read(bytes_of(tmp_path / "y.wav", data))) == len(NOISE)
    with pytest.raises(InputError, match="truncated, the header claims"):
        audio.read(bytes_of(tmp_path / "z.wav", data[:-1000]))


def test_a_sound_file_by_another_name(tmp_path):
    """The content counts, not the suffix."""
    path = write(tmp_path / "x.flac", NOISE).rename(tmp_path / "x.wav")
    np.testing.assert_allclose(audio.read(path), NOISE, atol=1e-4)
