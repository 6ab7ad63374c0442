"""Decoded audio is kept: by content, whole or not at all."""

import errno
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tinyscene import audio
from tinyscene.data import Clip, Clips, cache, decode
from tinyscene.errors import InputError

RATE = 8000


@pytest.fixture
def clips(tmp_path, sound):
    names = [f"{number}.wav" for number in range(6)]
    for name in names:
        sound(tmp_path / "audio" / name)
    return Clips("x", tmp_path / "audio", ("a",), tuple(Clip(name, "a") for name in names))


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded since."""
    names = Counter()
    read = audio.read

    def count(path, *args):
        names[path.name] += 1
        return read(path, *args)

    monkeypatch.setattr(cache.audio, "read", count)
    return names


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_waveforms_are_the_files(clips, folder):
    waveforms = decode(clips, RATE, folder=folder)
    assert len(waveforms) == 6
    for waveform, clip in zip(waveforms, clips, strict=True):
        expected, _ = soundfile.read(clips.root / clip.path, dtype="float32")
        np.testing.assert_array_equal(waveform, expected)
        assert not waveform.flags.writeable
    assert waveforms.lengths == [1200] * 6


def test_the_second_start_decodes_nothing(clips, folder, decoded):
    first = decode(clips, RATE, folder=folder)
    assert decoded.total() == 6
    second = decode(clips, RATE, folder=folder)
    assert decoded.total() == 6
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first[3], second[3])


def test_rate_and_channel_are_part_of_the_key(clips, folder, decoded):
    decode(clips, RATE, folder=folder)
    assert decode(clips, 4000, folder=folder).lengths == [600] * 6
    decode(clips, RATE, 0, folder=folder)
    assert decoded.total() == 18


def test_a_changed_file_is_decoded_again(clips, folder, decoded, sound):
    first = decode(clips, RATE, folder=folder)
    sound(clips.root / "2.wav", seed=99)
    os.utime(clips.root / "2.wav", (1, 1))
    second = decode(clips, RATE, folder=folder)
    assert decoded == Counter({"2.wav": 2, "0.wav": 1, "1.wav": 1, "3.wav": 1, "4.wav": 1, "5.wav": 1})
    assert not np.array_equal(first[2], second[2])
    np.testing.assert_array_equal(second[2], soundfile.read(clips.root / "2.wav", dtype="float32")[0])
    assert first.fingerprint != second.fingerprint


def test_a_renamed_file_is_not(clips, folder, decoded):
    first = decode(clips, RATE, folder=folder)
    (clips.root / "2.wav").rename(clips.root / "renamed.wav")
    rows = tuple(c._replace(path="renamed.wav") if c.path == "2.wav" else c for c in clips)
    second = decode(Clips("y", clips.root, ("a",), rows), RATE, folder=folder)
    assert decoded.total() == 6
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first[2], second[2])


def test_stretches_of_one_file(clips, folder, decoded):
    rows = (Clip("0.wav", "a", start_s=0.05, duration_s=0.02), Clip("0.wav", "a", start_s=0.1))
    cut = decode(Clips("x", clips.root, ("a",), rows), RATE, folder=folder)
    whole, _ = soundfile.read(clips.root / "0.wav", dtype="float32")
    np.testing.assert_array_equal(cut[0], whole[400:560])
    np.testing.assert_array_equal(cut[1], whole[800:])
    assert decoded.total() == 1
    beyond = Clips("x", clips.root, ("a",), (Clip("0.wav", "a", start_s=0.1, duration_s=0.1, row="list.csv:9"),))
    with pytest.raises(InputError, match=r"asked for 0.1 s from 0.1 s, but the file has 0.150 s.*\[list.csv:9\]"):
        decode(beyond, RATE, folder=folder)


def test_waveforms_travel_to_a_worker(clips, folder):
    waveforms = decode(clips, RATE, folder=folder)
    first = np.array(waveforms[0])
    copy = pickle.loads(pickle.dumps(waveforms))
    assert len(pickle.dumps(waveforms)) < 10_000
    np.testing.assert_array_equal(copy[0], first)


def test_the_fingerprint_knows_labels_and_splits_and_not_the_place(clips, folder, tmp_path):
    before = decode(clips, RATE, folder=folder).fingerprint
    relabelled = Clips("x", clips.root, ("a", "b"), (clips.rows[0]._replace(scene="b"), *clips.rows[1:]))
    resplit = Clips("x", clips.root, ("a",), (clips.rows[0]._replace(split="test"), *clips.rows[1:]))
    clips.root.rename(tmp_path / "moved")
    moved = Clips("x", tmp_path / "moved", ("a",), clips.rows)
    assert decode(moved, RATE, folder=folder).fingerprint == before
    for other in (relabelled, resplit):
        there = Clips("x", tmp_path / "moved", other.classes, other.rows)
        assert decode(there, RATE, folder=folder).fingerprint != before


def test_the_fingerprint_knows_the_label_of_each_clip(clips, folder):
    """The classes of all and every clip's other facts are equal: two labels are exchanged."""
    rows = [clip._replace(scene="ab"[n % 2]) for n, clip in enumerate(clips)]
    exchanged = [rows[0]._replace(scene="b"), rows[1]._replace(scene="a"), *rows[2:]]
    prints = {
        decode(Clips("x", clips.root, ("a", "b"), tuple(r)), RATE, folder=folder).fingerprint for r in (rows, exchanged)
    }
    assert len(prints) == 2


def test_twins_in_other_formats_are_told_by_their_samples(clips, folder):
    """FLAC and AIFF of a WAV's samples are the same sound, resampled or not; louder by a step of 16 bits, another."""
    samples, rate = soundfile.read(clips.root / "0.wav", dtype="int16")
    soundfile.write(clips.root / "twin.flac", samples, rate)
    soundfile.write(clips.root / "twin.aiff", samples, rate)
    samples[7] += 1
    soundfile.write(clips.root / "other.flac", samples, rate)
    names = (("0.wav", "train"), ("twin.flac", "validation"), ("twin.aiff", "test"), ("other.flac", "test"))
    some = Clips("x", clips.root, ("a",), tuple(Clip(name, "a", split) for name, split in names))
    assert some.leaks() == []
    for sample_rate in (RATE, 5000):
        waveforms = decode(some, sample_rate, folder=folder)
        (leak,) = some.leaks(waveforms.sounds)
        assert leak == "the same sound, 0.wav (train) = twin.flac (validation) = twin.aiff (test)"
        left = waveforms.drop_shared()
        assert [clip.path for clip in left.clips] == ["twin.aiff", "other.flac"]
        assert left.clips.leaks(left.sounds) == []
        np.testing.assert_array_equal(left[1], waveforms[3])


@pytest.mark.parametrize(
    "spoil",
    [
        *("shard cut", "shard empty", "shard gone", "shard short", "shard long", "shard flipped"),
        *("index cut", "index gone", "memo cut"),
    ],
)
def test_what_is_half_written_is_not_trusted(clips, folder, spoil):
    expected = [np.array(waveform) for waveform in decode(clips, RATE, folder=folder)]
    (shard,) = folder.rglob("*.npy")
    (memo,) = folder.glob("hashes-*.json")
    what, how = spoil.split()
    path = {"shard": shard, "index": shard.with_suffix(".json"), "memo": memo}[what]
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "short":
        np.save(path, np.load(path)[:-1])
    elif how == "long":
        np.save(path, np.append(np.load(path), np.float32(0)))
    elif how == "flipped":  # in its header
        path.write_bytes(whole.replace(b"<f4", b"<i4", 1))
    else:
        path.write_bytes(whole[: len(whole) // 2 if how == "cut" else 0])
    for waveform, right in zip(decode(clips, RATE, folder=folder), expected, strict=True):
        np.testing.assert_array_equal(waveform, right)
    assert path.read_bytes() == whole


FULL_DISK = """
import resource, sys
from pathlib import Path
from tinyscene.data import Clip, Clips, decode
from tinyscene.errors import InputError
root, folder, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
clips = Clips("x", root, ("a",), tuple(Clip(f"{n}.wav", "a") for n in range(6)))
try:
    decode(clips, 8000, folder=folder)
except InputError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize(
    ("limit", "said"), [(10_000, "0 MB of decoded audio can't be written"), (100, "can't be written")]
)
def test_a_full_disk_leaves_nothing_to_trust(clips, folder, decoded, limit, said):
    """The system itself refuses to write on: the shard's samples, or already the list of hashes."""
    command = [sys.executable, "-c", FULL_DISK, str(clips.root), str(folder), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert said in done.stdout
    assert "name a folder with room by --cache or $TINYSCENE_CACHE" in done.stdout
    assert [path for path in files(folder) if not path.name.startswith("hashes-")] == []
    for waveform, clip in zip(decode(clips, RATE, folder=folder), clips, strict=True):
        np.testing.assert_array_equal(waveform, soundfile.read(clips.root / clip.path, dtype="float32")[0])
    assert decoded.total() == 6


def test_a_disk_full_at_the_table_of_contents(clips, folder, monkeypatch):
    write_text = Path.write_text

    def refuse(path, text, *args, **options):
        if ".npy" not in path.name and not path.name.startswith(".hashes"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_text(path, text, *args, **options)

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(InputError, match="No space left on device"):
        decode(clips, RATE, folder=folder)
    assert [path for path in files(folder) if not path.name.startswith("hashes-")] == []


def test_a_folder_that_cannot_be(clips, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="can't be written"):
        decode(clips, RATE, folder=tmp_path / "file")


def test_bad_files_are_named_or_set_aside(clips, folder):
    rows = tuple(clip._replace(row=f"list.csv:{n + 2}") for n, clip in enumerate(clips))
    listed = Clips("x", clips.root, ("a",), rows)
    (clips.root / "1.wav").write_bytes(b"")
    (clips.root / "4.wav").unlink()
    with pytest.raises(InputError) as caught:
        decode(listed, RATE, folder=folder)
    assert "2 clips can't be used (--skip-bad sets such clips aside)" in str(caught.value)
    assert "1.wav: empty, 0 bytes" in str(caught.value)
    assert "[list.csv:3]" in str(caught.value)
    assert "4.wav: No such file or directory" in str(caught.value)
    assert "[list.csv:6]" in str(caught.value)
    waveforms = decode(listed, RATE, folder=folder, skip_bad=True)
    assert [clip.path for clip in waveforms.clips] == ["0.wav", "2.wav", "3.wav", "5.wav"]
    assert [clip.path for clip, _ in waveforms.skipped] == ["1.wav", "4.wav"]
    assert "empty" in waveforms.skipped[0][1]
    assert len(waveforms.slices) == 4


def test_more_than_one_shard(tmp_path, folder, sound, monkeypatch):
    monkeypatch.setattr(cache, "FILES_A_SHARD", 2)
    rows = tuple(Clip(f"{number}.wav", "a") for number in range(5))
    for clip in rows:
        sound(tmp_path / clip.path)
    waveforms = decode(Clips("x", tmp_path, ("a",), rows), RATE, folder=folder)
    assert len(list(folder.rglob("*.npy"))) == 3
    for waveform, clip in zip(waveforms, rows, strict=True):
        np.testing.assert_array_equal(waveform, soundfile.read(tmp_path / clip.path, dtype="float32")[0])


def test_copies_are_decoded_once(clips, folder, decoded):
    (clips.root / "copy.wav").write_bytes((clips.root / "0.wav").read_bytes())
    both = Clips("x", clips.root, ("a",), (Clip("0.wav", "a"), Clip("copy.wav", "a")))
    waveforms = decode(both, RATE, folder=folder)
    assert decoded.total() == 1
    np.testing.assert_array_equal(waveforms[0], waveforms[1])


def test_the_folder_is_named_by_the_environment(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYSCENE_CACHE", str(tmp_path / "named"))
    decode(clips, RATE)
    assert json.loads(next((tmp_path / "named").rglob("*.npy")).with_suffix(".json").read_text())


def test_pieces_are_stretches_of_their_clips(tmp_path, sound):
    """2.5 s and 0.9 s at 8 kHz in pieces of a second: two, and none; side by side they are the first two seconds."""
    sound(tmp_path / "long.wav", seconds=2.5)
    sound(tmp_path / "short.wav", seconds=0.9)
    rows = (Clip("long.wav", "a", "test", start_s=0.25), Clip("short.wav", "b"))
    whole = decode(Clips("two", tmp_path, ("a", "b"), rows), 8000, quiet=True)
    clips = whole.in_pieces(1.0)
    assert [(c.path, c.split, c.start_s, c.duration_s, c.recording) for c in clips] == [
        ("long.wav", "test", 0.25, 1.0, "long.wav"),
        ("long.wav", "test", 1.25, 1.0, "long.wav"),
    ]
    assert clips.name == "two-1s"
    pieces = decode(clips, 8000, quiet=True)
    np.testing.assert_array_equal(np.concatenate([pieces[0], pieces[1]]), whole[0][:16_000])


def test_pieces_of_no_whole_number_of_samples_stay_in_their_file(tmp_path, sound):
    """0.10004 s at 8 kHz are 800.32 samples, taken as 800: ten of them fill a second."""
    sound(tmp_path / "one.wav", seconds=1.0)
    whole = decode(Clips("one", tmp_path, ("a",), (Clip("one.wav", "a"),)), 8000, quiet=True)
    pieces = decode(whole.in_pieces(0.10004), 8000, quiet=True)
    assert pieces.lengths == [800] * 10
    np.testing.assert_array_equal(np.concatenate(list(pieces)), whole[0])


@pytest.mark.parametrize("length_s", [0.0, -1.0, 3.0, float("nan"), float("inf")])
def test_pieces_that_no_clip_holds_are_refused(tmp_path, sound, length_s):
    sound(tmp_path / "one.wav", seconds=0.5)
    whole = decode(Clips("one", tmp_path, ("a",), (Clip("one.wav", "a"),)), 8000, quiet=True)
    with pytest.raises(InputError, match="up to the 0.5 s of the longest clip"):
        whole.in_pieces(length_s)
