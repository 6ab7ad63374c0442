"""The report on a data set, against one whose faults are known."""

import io
import json

import numpy as np
import pytest
import soundfile
from rich.console import Console

from tinyscene import data
from tinyscene.data import Clip, Clips, check
from tinyscene.data.check import tables


@pytest.fixture
def faulty(tmp_path, tau_tree, sound):
    """A 2020 Mobile tree with one fault of every kind."""
    root = tau_tree(tmp_path / "tau", "tau2020-mobile")
    audio = root / "audio"
    (audio / "bus-lisbon-10-510-a.wav").unlink()
    soundfile.write(audio / "bus-lisbon-10-510-b.wav", np.zeros(1200), 8000)
    whole = (audio / "park-lisbon-40-540-a.wav").read_bytes()
    (audio / "park-lisbon-40-540-a.wav").write_bytes(whole[:1000])
    sound(audio / "metro-lisbon-20-520-a.wav", rate=16_000)
    sound(audio / "metro-lisbon-20-520-b.wav", channels=2)
    sound(audio / "metro-lisbon-21-521-a.wav", seconds=0.2)
    sound(audio / "[bold]x.wav")
    sound(audio / "tram-milan-94-777-a.wav")
    train = root / "evaluation_setup" / "fold1_train.csv"
    train.write_text(train.read_text() + "audio/tram-milan-94-777-a.wav\ttram\n")
    return root


def test_every_fault_is_found(faulty):
    report = check(data.load(faulty, strict=False), quiet=True)
    assert not report.ok
    assert report.missing == ("audio/bus-lisbon-10-510-a.wav [fold1_train.csv:10]",)
    silent, truncated = report.unreadable
    assert "bus-lisbon-10-510-b.wav: silent" in silent
    assert silent.endswith("[fold1_train.csv:11]")
    assert "park-lisbon-40-540-a.wav: truncated" in truncated
    assert report.leaking == ()
    shared = "1 recording is in both development and test, as published: milan-94 ({} in train, 2 in test)"
    assert any(note.startswith(shared.format(1)) for note in report.notes)
    assert report.usual == {"sample_rate": 8000, "channels": 1, "duration_s": 0.15}
    assert report.odd == (
        "audio/metro-lisbon-20-520-a.wav: sample_rate 16000 (usual 8000) [fold1_train.csv:18]",
        "audio/metro-lisbon-20-520-b.wav: channels 2 (usual 1) [fold1_train.csv:19]",
        "audio/metro-lisbon-21-521-a.wav: duration_s 0.2 (usual 0.15) [fold1_train.csv:20]",
    )
    # The unused part of the set, and the file that is not of it.
    assert len(report.unlisted) == 20 + 1
    assert "audio/[bold]x.wav" in report.unlisted


def test_shared_recordings_and_twins_are_found_and_dropped(tmp_path, sound):
    """A location on both sides, and one sound under two names: as WAV in training, as FLAC in the test part."""
    sound(tmp_path / "twin.wav", seed=1)
    samples, rate = soundfile.read(tmp_path / "twin.wav", dtype="int16")
    soundfile.write(tmp_path / "named.flac", samples, rate)
    lines = ["filename,label,split,recording", "twin.wav,a,train,1", "named.flac,a,test,2"]
    for number, split in enumerate(("train", "validation", "test", "train", "test")):
        for scene in "ab":
            sound(tmp_path / f"{scene}{number}.wav")
            lines.append(f"{scene}{number}.wav,{scene},{split},{'x' if scene + split == 'btest' else scene}{number}")
    lines.append(f"{sound(tmp_path / 'c.wav').name},b,train,x2")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    sound(tmp_path / "elsewhere" / "x.wav")
    beside = sound(tmp_path / "x.wav").name
    report = check(data.load(tmp_path / "list.csv", strict=False), quiet=True)
    assert report.leaking == (
        "x2 (1 in train, 1 in test)",
        "the same sound, twin.wav (train, list.csv:2) = named.flac (test, list.csv:3)",
    )
    assert not report.ok
    assert report.unlisted == (beside,)
    left = check(data.load(tmp_path / "list.csv", strict=False, drop_shared=True), drop_shared=True, quiet=True)
    assert left.ok
    assert left.clips == report.clips - 2
    assert [sum(by[split] for by in left.counts["class"].values()) for split in ("train", "test")] == [4, 5]
    assert [note.rpartition(": ")[2] for note in left.notes] == [
        "c.wav (train, recording x2)",
        "twin.wav (train, recording 1)",
    ]


def test_a_good_set(tmp_path, tau_tree):
    clips = data.load(tau_tree(tmp_path, "tau2020-mobile"))
    report = check(clips, quiet=True)
    assert report.ok
    assert (report.clips, report.files) == (100, 100)
    assert (report.missing, report.unreadable, report.leaking, report.absent, report.odd) == ((),) * 5
    assert report.counts["device"] == {
        "a": {"train": 30, "validation": 10, "test": 10},
        "b": {"train": 30, "validation": 10, "test": 0},
        "s4": {"train": 0, "validation": 0, "test": 10},
    }
    assert sum(by_split["test"] for by_split in report.counts["city"].values()) == 20
    assert report.counts["class"]["tram"] == {"train": 6, "validation": 2, "test": 2}


def test_json_and_tables_say_the_same(faulty):
    report = check(data.load(faulty, strict=False), quiet=True)
    said = json.loads(report.to_json())
    assert said["ok"] is False
    assert said["missing"] == list(report.missing)
    assert said["counts"] == report.counts
    screen = Console(file=io.StringIO(), width=160)
    screen.print(tables(report))
    text = screen.file.getvalue()
    assert "tau2020-mobile: 101 clips in 101 files" in text
    assert "missing: 1" in text
    assert "... and 11 more" in text
    assert text.rstrip().endswith("not ok")


def test_brackets_in_names_are_shown(tmp_path, sound):
    sound(tmp_path / "[bold]x.wav")
    clips = Clips("x", tmp_path, ("[red]a",), (Clip("y.wav", "[red]a", row="list.csv:2"),))
    screen = Console(file=io.StringIO(), width=120)
    screen.print(tables(check(clips, quiet=True)))
    assert "[bold]x.wav" in screen.file.getvalue()
    assert "[red]a" in screen.file.getvalue()


def test_absent_classes_and_stretches_beyond_the_end(tmp_path, sound):
    sound(tmp_path / "x.wav", seconds=1)
    rows = (
        Clip("x.wav", "a", start_s=0.5, duration_s=0.5, recording="1"),
        Clip("x.wav", "a", start_s=0.8, duration_s=0.5, recording="1", row="list.csv:3"),
    )
    report = check(Clips("x", tmp_path, ("a", "b"), rows), quiet=True)
    assert report.unreadable == ("x.wav: asks for 1.3 s, has 1 s [list.csv:3]",)
    assert report.absent[0] == "the train split has no clip of b"
    assert report.absent[2] == "the test split has no clip of a, b"
    assert (report.clips, report.files) == (2, 1)


def test_a_set_too_poor_to_split(tmp_path, sound):
    for name in ("bus/1", "bus/2", "park/1"):
        sound(tmp_path / f"{name}.wav")
    report = check(data.load(tmp_path, strict=False), quiet=True)
    assert not report.ok
    assert "the test split has no clip of bus, park" in report.absent


def test_an_evaluation_set_lacks_no_class(tmp_path, sound):
    sound(tmp_path / "audio" / "0.wav")
    (tmp_path / "list.csv").write_text("filename\tdevice_id\naudio/0.wav\tunknown\n")
    report = check(data.load_tau_evaluation(tmp_path, "list.csv"), quiet=True)
    assert report.ok
    assert report.counts["class"] == {"unknown": {"train": 0, "validation": 0, "test": 1}}
