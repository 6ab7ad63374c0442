"""`tinyscene run --stream`: decisions second by second."""

import csv
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from listeners import Ear, Said, noise
from scene_files import CLIP_S, at
from scipy.signal import lfilter
from torch import nn

from tinyscene import audio
from tinyscene.deployment import Artifact
from tinyscene.errors import InputError
from tinyscene.listening import Pcm, Smoothing, Tape, decisions, open_model, predict
from tinyscene.listening.model import clip_of, probabilities

RATE = 8000
ROOT = Path(__file__).resolve().parents[2]


# Decisions


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("kind", ["any length", "front end inside", "saved"])
def test_a_decision_is_what_predict_says_of_the_clip_cut_out(
    exported: Callable[[str, str], Artifact], inside: Artifact, tmp_path: Path, kind: str, live: bool
) -> None:
    """Of a file at another rate, too: the clip is cut at the model's rate."""
    soundfile.write(tmp_path / "x.wav", noise(4 * 11_025 + 99), 11_025)
    whole = audio.read(tmp_path / "x.wav", RATE)
    model: Any = {
        "any length": lambda: exported("baseline2021", "float32"),
        "front end inside": lambda: inside,
        "saved": lambda: at("baseline2021", "float32"),
    }[kind]()
    blocks = audio.read_blocks(tmp_path / "x.wav", RATE)
    found = list(decisions(model, blocks, clip_s=CLIP_S, every_s=0.7, live=live))
    clip = round(CLIP_S * RATE)
    assert [one.time_s for one in found] == pytest.approx([CLIP_S + 0.7 * step for step in range(5)])
    for step, one in enumerate(found):
        start = round(0.7 * step * RATE)
        cut = whole[start : start + clip]
        expected = model.predict(cut, RATE)
        assert one.label == expected.label
        assert one.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=6),
    clip=st.integers(400, 3000),
    every_s=st.floats(0.01, 0.6),
    live=st.booleans(),
)
def test_blocks_of_any_size_give_the_same_decisions(sizes: list[int], clip: int, every_s: float, live: bool) -> None:
    waveform, ear = noise(9000), Ear(clip)
    ends = list(itertools.accumulate(sizes))
    found = list(decisions(ear, np.split(waveform, ends), every_s=every_s, live=live))
    starts = [round(step * every_s * RATE) for step in range(10_000)]
    cuts = [waveform[start : start + clip] for start in itertools.takewhile(lambda s: s + clip <= 9000, starts)]
    expected = ear.probabilities(np.stack(cuts))
    np.testing.assert_allclose([list(one.probabilities.values()) for one in found], expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    rates=st.tuples(*[st.sampled_from((8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000))] * 2),
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=8),
)
def test_resampling_block_by_block_is_resampling_at_once(rates: tuple[int, int], sizes: list[int]) -> None:
    """Bit for bit: the filter's state is carried over, and there are no borders but the recording's own."""
    waveform = noise(30_000)
    joined = np.concatenate(list(audio.resample_blocks(np.split(waveform, list(itertools.accumulate(sizes))), *rates)))
    np.testing.assert_array_equal(joined, audio.resample(waveform, *rates))


def test_a_clip_cut_before_resampling_differs_at_its_borders_alone() -> None:
    """Why the clip is cut at the model's rate: what lies beyond a border is heard through the filter."""
    waveform = noise(5 * 44_100)
    streamed = np.concatenate(list(audio.resample_blocks([waveform], 44_100, 8000)))[8000:16_000]
    alone = audio.resample(waveform[44_100:88_200], 44_100, 8000)
    apart = np.abs(streamed - alone)
    assert apart.max() > 1e-3
    assert apart[200:-200].max() < 1e-4 * np.abs(streamed).max()


# Smoothing


@pytest.mark.parametrize(("of", "time_s", "every_s"), [("probability", 3.0, 1.0), ("log", 3.0, 1.0), ("log", 0.7, 0.2)])
def test_smoothing_is_the_recursive_filter(of: Any, time_s: float, every_s: float) -> None:
    found = np.random.default_rng(0).dirichlet(np.ones(4) * 0.3, 50)
    found[7] = [1, 0, 0, 0]
    smooth = Smoothing(time_s, of).every(every_s)
    smoothed = np.array([smooth(one) for one in found])
    weight = 1 - np.exp(-every_s / time_s)
    values = np.log(np.maximum(found, 1e-6)) if of == "log" else found
    # The first value counts as if it had gone on for ever.
    expected, _ = lfilter([weight], [1, weight - 1], values, axis=0, zi=(1 - weight) * values[:1])
    if of == "log":
        expected = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-9)
    np.testing.assert_allclose(smoothed.sum(1), 1)


def test_no_smoothing_changes_nothing() -> None:
    assert Smoothing(0).every(1.0)(np.array([1.0, 0.0])).tolist() == [1, 0]


# Memory


def test_memory_does_not_grow_with_the_stream() -> None:
    """10 minutes against one, block by block: the largest of numpy's allocations."""

    def heard(seconds: int) -> tuple[int, int]:
        blocks = (noise(RATE // 10, seed) for seed in range(10 * seconds))
        tracemalloc.start()
        count = sum(1 for _ in decisions(Ear(), blocks))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return count, peak

    (_, short), (count, long) = heard(60), heard(600)
    assert count == 600
    assert long < 1.05 * short < 2e6


def test_a_tape_keeps_a_stretch_and_a_block() -> None:
    tape = Tape(np.full(300, index, np.float32) for index in range(1000))
    for start in range(0, 280_000, 7000):
        np.testing.assert_array_equal(tape.cut(start, start + 1000), np.arange(start, start + 1000) // 300)
    assert tape.most_held <= 1000 + 2 * 300
    assert tape.run_out() == 300_000
    assert tape.most_held <= 1000 + 2 * 300
    with pytest.raises(ValueError, match="were dropped"):
        tape.cut(0, 10)


# Standard input


class Trickle(io.BytesIO):
    """Hands over pieces of its own sizes, as a pipe does."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        super().__init__(content)
        self._sizes = itertools.cycle(sizes)

    def read1(self, size: int | None = -1, /) -> bytes:
        return self.read(min(size or 1, next(self._sizes)))


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5),
    encoding=st.sampled_from(("s16le", "f32le")),
    channels=st.integers(1, 3),
    extra=st.integers(0, 3),
)
def test_bytes_in_any_pieces_are_the_samples(sizes: list[int], encoding: str, channels: int, extra: int) -> None:
    frames = np.random.default_rng(0).integers(-32_768, 32_768, (900, channels))
    content = (
        frames.astype("<i2").tobytes() if encoding == "s16le" else (frames / 32_768).astype("<f4").tobytes()
    ) + b"\x01" * min(extra, 1)
    pcm = Pcm(Trickle(content, sizes), RATE, channels, encoding)
    joined = np.concatenate(list(pcm.blocks(RATE, "mean")))
    np.testing.assert_allclose(joined, frames.mean(1) / 32_768, atol=1e-7)
    assert pcm.left_over == min(extra, 1)


def test_raw_samples_are_those_of_the_file(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(-32_768, 32_768, 3000).astype("<i2")
    soundfile.write(tmp_path / "x.wav", numbers, RATE)
    pcm = Pcm(io.BytesIO(numbers.tobytes()), RATE)
    np.testing.assert_array_equal(np.concatenate(list(pcm.blocks(RATE, "mean"))), audio.read(tmp_path / "x.wav"))


@pytest.mark.parametrize(
    ("content", "settings_", "said"),
    [
        (b"RIFF" + bytes(99), {}, "begins as a file (WAV); accepted: raw PCM"),
        (np.full(99, np.nan, "<f4").tobytes(), {"encoding": "f32le"}, "standard input: sample 0 is nan"),
        (b"", {"channels": 0}, "Pcm(channels=0); accepted: at least 1, in whole numbers"),
        (bytes(99), {"rate": 999}, "Pcm(rate=999); accepted: at least 1000, in whole numbers"),
        (b"", {"encoding": "u8"}, "Pcm(encoding='u8'); accepted: 's16le' or 'f32le'"),
    ],
)
def test_what_is_no_raw_sound(content: bytes, settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as found:
        list(Pcm(io.BytesIO(content), **{"rate": RATE, **settings_}).blocks(RATE, "mean"))
    assert said in str(found.value)


def test_the_channel_must_be_in_the_stream() -> None:
    with pytest.raises(InputError, match="1 channels, the model takes number 1"):
        Pcm(io.BytesIO(), RATE).blocks(RATE, 1)


@pytest.mark.parametrize("content", [b"", b"x", bytes(2 * 100)])
def test_too_little_is_said(content: bytes) -> None:
    with pytest.raises(InputError, match="standard input: 0.0[01] s; accepted: at least 0.50 s"):
        list(decisions(Ear(), Pcm(io.BytesIO(content), RATE).blocks(RATE, "mean"), where="standard input"))


def test_a_pipe_is_answered_while_it_is_open(inside: Artifact, tmp_path: Path) -> None:
    """In a process of its own: what has come is decided before the rest is there; the end may fall into a sample."""
    numbers = (noise(3 * RATE) * 32_768).astype("<i2")
    command = [sys.executable, "-m", "tinyscene.cli", "run", str(inside.path), "--stream", "-", "--every", "0.5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--format", "jsonl"], env=environment, **pipes) as process:
        process.stdin.write(numbers[: 2 * RATE].tobytes())
        process.stdin.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert process.poll() is None
        rest, errors = process.communicate(numbers[2 * RATE :].tobytes() + b"\x00", timeout=60)
    rows = [*first, *map(json.loads, rest.splitlines())]
    assert process.returncode == 0, errors
    assert [row["time_s"] for row in rows] == pytest.approx([0.6, 1.1, 1.6, 2.1, 2.6])
    expected = decisions(inside, [numbers / np.float32(32_768)], every_s=0.5)
    for row, one in zip(rows, expected, strict=True):
        assert row["probabilities"] == pytest.approx(one.probabilities, abs=1e-6)
        assert row["smoothed_probabilities"] == pytest.approx(one.smoothed_probabilities, abs=1e-6)
    assert b"1 bytes at the end are not a complete frame" in errors
    assert b"2.6 s processed, 5 decisions" in errors


# The command, in this process


def test_a_stream_as_a_table(run: Callable[..., Said], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", noise(5 * RATE), RATE)
    table = tmp_path / "made" / "x.csv"
    status, out, err = run(tmp_path / "x.wav", "--stream", "--out", table, "--smooth", 1, "--mean-of", "probability")
    assert (status, out) == (0, "")
    assert "4.5 s processed, 5 decisions: " in err
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = list(
        decisions(Ear(), audio.read_blocks(tmp_path / "x.wav", RATE), smoothing=Smoothing(1.0, "probability"))
    )
    assert list(rows[0])[:4] == ["time_s", "label", "smoothed", "p_bus"]
    for row, one in zip(rows, expected, strict=True):
        assert (float(row["time_s"]), row["label"], row["smoothed"]) == (one.time_s, one.label, one.smoothed)
        assert float(row["p_a, b"]) == pytest.approx(one.probabilities["a, b"], abs=1e-7)
        assert float(row["s_bus"]) == pytest.approx(one.smoothed_probabilities["bus"], abs=1e-7)


def test_a_model_that_says_on_what_it_was_trained_needs_no_length() -> None:
    """One for clips of any length hears those; one for a single length, that."""
    ear, sound = Ear(clip_samples=None), noise(3 * RATE)
    with pytest.raises(InputError, match="--clip-s SECONDS"):
        decisions(ear, [sound])
    ear.trained_clip_s = 1.5
    assert [one.time_s for one in decisions(ear, [sound])] == [1.5, 2.5]
    assert [one.time_s for one in decisions(ear, [sound], clip_s=2.0)] == [2.0, 3.0]
    fixed = Ear(clip_samples=4000)
    fixed.trained_clip_s = 1.5
    assert [one.time_s for one in decisions(fixed, [sound])] == [0.5, 1.5, 2.5]


def test_a_reader_that_goes_away_ends_it_quietly(
    run: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "x.wav", noise(5 * RATE), RATE)

    def gone(self: Any, row: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("tinyscene.listening.rows.Rows.write", gone)
    status, _, err = run(tmp_path / "x.wav", "--stream")
    assert status == 1
    assert "Traceback" not in err


def test_on_real_recordings_the_bounded_way_is_the_whole_one(shared_data: Callable[[str], Path]) -> None:
    """5 s at 44.1 kHz; clips of a second differ from the whole, as docs/running.md says."""
    files = sorted((shared_data("esc10") / "audio").glob("*.ogg"))[:3]
    classifier = at("baseline2021", "float32")
    apart = []
    for file in files:
        whole, mean = predict(classifier, file), predict(classifier, file, clip_s=1.0)
        assert whole.prediction.probabilities == pytest.approx(classifier.predict(file).probabilities, abs=1e-6)
        assert whole.clips == 1
        assert mean.clips == np.ceil(mean.seconds)
        apart += [abs(whole.prediction.probabilities[c] - mean.prediction.probabilities[c]) for c in classifier.classes]
    assert 1e-6 < max(apart) < 1


def test_a_folder_and_a_file_open_alike(inside: Artifact, tmp_path: Path) -> None:
    folder = at("baseline2021", "float32").save(tmp_path / "model")
    saved, file = open_model(folder), open_model(inside.path)
    assert (saved.classes, saved.sample_rate, saved.channel) == (file.classes, file.sample_rate, file.channel)
    assert (clip_of(saved, None), clip_of(file, None)) == (None, round(CLIP_S * RATE))
    waveform = noise(round(CLIP_S * RATE))[None]
    np.testing.assert_allclose(probabilities(saved, waveform), file.probabilities(waveform), atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in saved.network.modules()), "folded, which is faster"
