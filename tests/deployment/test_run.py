"""`tinyscene run` on recordings: what it says, in bounded memory, and after a stop."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from listeners import Ear, Said
from scene_files import CLIP_S, at

from tinyscene import audio, listening
from tinyscene.deployment import Artifact, export
from tinyscene.errors import InputError
from tinyscene.listening import recording
from tinyscene.listening.model import fingerprint
from tinyscene.listening.rows import Rows, resumed, row_of

RATE = 8000


@pytest.fixture(scope="module")
def ear_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, small enough to be run often."""
    return at("baseline2021", "float32").save(tmp_path_factory.mktemp("ear") / "model")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, sound: Callable[..., Path]) -> Path:
    """Five recordings of several kinds in folders, with a text beside them."""
    root = tmp_path_factory.mktemp("tree")
    for number, name in enumerate(("a.wav", 'deep/b, "c".flac', "deep/er/d.ogg", "e\nf.wav", "g.WAV")):
        sound(root / name, 1 + number / 7, rate=(8000, 11_025)[number % 2], channels=1 + number % 2)
    (root / "notes.txt").write_text("no sound")
    return root


def long(path: Path, seconds: float, rate: int = RATE, seed: int = 0) -> Path:
    """Noise whose level wanders, written block by block."""
    rng = np.random.default_rng(seed)
    with soundfile.SoundFile(str(path), "w", rate, 1) as file:
        for _ in range(int(seconds)):
            file.write(rng.uniform(-0.5, 0.5, rate) * rng.uniform(0.01, 1))
        file.write(rng.uniform(-0.5, 0.5, round(seconds % 1 * rate)))
    return path


# Blocks


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3"])
@pytest.mark.parametrize(("rate", "wanted"), [(16_000, 16_000), (44_100, 16_000), (16_000, 22_050)])
def test_blocks_joined_are_what_is_read_at_once(tmp_path: Path, name: str, rate: int, wanted: int) -> None:
    rng = np.random.default_rng(rate)
    soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, (9 * rate + 17, 2)), rate)
    for channel in ("mean", 1):
        blocks = list(audio.read_blocks(tmp_path / name, wanted, channel))
        assert len(blocks) > 1
        at_once = audio.read(tmp_path / name, wanted, channel)
        # The MP3 decoder rounds otherwise when it is asked for fewer frames at a time.
        np.testing.assert_allclose(np.concatenate(blocks), at_once, rtol=0, atol=5e-7 if name == "x.mp3" else 0)


@pytest.mark.parametrize("rates", [(44_100, 32_000), (48_000, 8000), (8000, 44_100), (47_999, 44_100)])
def test_the_length_after_resampling_is_known_before(rates: tuple[int, int]) -> None:
    for samples in np.random.default_rng(0).integers(4000, 90_000, 25).tolist():
        resampled = audio.resample(np.ones(samples, np.float32), *rates)
        assert audio.resampled_length(samples, *rates) == len(resampled)


# One recording


def test_a_file_says_the_same_of_what_is_longer_than_30_s(
    exported: Callable[[str, str], Artifact], tmp_path: Path
) -> None:
    file, artifact = long(tmp_path / "x.wav", 70.3), exported("baseline2021", "float32")
    heard, waveform = listening.predict(artifact, file), audio.read(file, RATE)
    parts = [artifact.probabilities(waveform[None, start : start + 30 * RATE])[0] for start in (0, 161_200, 322_400)]
    assert heard.clips == 3
    for found in (heard.prediction, artifact.predict(file)):
        assert list(found.probabilities.values()) == pytest.approx(np.mean(parts, 0).tolist(), abs=1e-6)


def test_a_file_that_grows_while_it_is_heard_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = iter((1.0, 1.5, 2.0))
    monkeypatch.setattr(audio, "read_blocks", lambda *_: iter([np.ones(round(next(lengths) * RATE), np.float32)]))
    with pytest.raises(InputError, match="another length on every reading; accepted: a file that is not being written"):
        listening.predict(Ear(), long(tmp_path / "x.wav", 0.75))


def test_a_recording_gets_what_the_file_and_the_model_predict(
    exported: Callable[[str, str], Artifact], inside: Artifact, tmp_path: Path
) -> None:
    files = [long(tmp_path / f"{seconds}.wav", seconds, rate) for seconds, rate in ((0.6, 8000), (2.3, 11_025))]
    outside, classifier = exported("baseline2021", "float32"), at("baseline2021", "float32")
    for file in files:
        for model, expected in (
            (outside, outside.predict(file)),
            (inside, inside.predict(file)),
            (classifier, classifier.predict(file)),
        ):
            heard = listening.predict(model, file)
            assert heard.prediction.label == expected.label
            assert heard.prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
            assert heard.clips == (1 if model is not inside or file == files[0] else 4)
        assert heard.seconds == pytest.approx(len(audio.read(file, RATE)) / RATE)


def test_a_litert_file_too(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    file = long(tmp_path / "x.wav", 1.5)
    written = export(at("baseline2021", "float32"), tmp_path / "x.tflite", clip_s=CLIP_S)
    heard = listening.predict(listening.open_model(written.path), file)
    assert heard.clips == 3
    assert heard.prediction.probabilities == pytest.approx(written.predict(file).probabilities, abs=1e-6)


def test_a_long_recording_streams_to_the_result_of_one_piece(tmp_path: Path) -> None:
    file, classifier = long(tmp_path / "x.wav", 70.3), at("baseline2021", "float32")
    expected = classifier.predict(file)
    heard = listening.predict(classifier, file)
    assert heard.clips == 1
    assert heard.prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_what_cannot_stream_hears_clips_side_by_side(tmp_path: Path) -> None:
    file, ear = long(tmp_path / "x.wav", 70.3), Ear(clip_samples=None)
    heard, waveform = listening.predict(ear, file), audio.read(file, RATE)
    last, clip = len(waveform) - 30 * RATE, 30 * RATE
    expected = np.mean([ear.probabilities(waveform[None, s : s + clip])[0] for s in (0, round(last / 2), last)], 0)
    assert heard.clips == 3
    assert list(heard.prediction.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert listening.predict(ear, file, clip_s=1.5).clips == 47
    assert ear.asked[-1] == 1.5 * RATE


@pytest.mark.parametrize("off", [-3000, 5000])
@pytest.mark.parametrize("clip", [4000, None])
def test_a_header_that_is_wrong_about_the_length_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: int, clip: int | None
) -> None:
    file = long(tmp_path / "x.wav", 33.0 if clip is None else 3.0)
    model: Any = Ear(clip) if clip else at("baseline2021", "float32")
    expected, true = listening.predict(model, file), audio.probe(file)
    wrong = audio.AudioInfo(true.sample_rate, 1, true.frames + off)
    monkeypatch.setattr(recording.audio, "probe", lambda path: wrong)
    assert listening.predict(model, file) == expected


def test_memory_does_not_grow_with_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 minutes are 19 MB decoded; allowed are some blocks, and a batch of 8 s a thread and a few that wait."""
    tapes: list[recording.Tape] = []
    make = recording.Tape
    monkeypatch.setattr(recording, "Tape", lambda blocks: tapes.append(make(blocks)) or tapes[-1])
    peaks = []
    for seconds in (60, 600):
        file = long(tmp_path / f"{seconds}.wav", seconds)
        tracemalloc.start()
        listening.predict(Ear(), file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert tapes[-1].length == seconds * RATE
    assert tapes[1].most_held == tapes[0].most_held <= 8 * RATE + 2 * 65_536
    assert max(peaks) < 5e6
    classifier = at("baseline2021", "float32")
    for seconds in (100, 200):
        listening.predict(classifier, long(tmp_path / "x.wav", seconds))
    assert tapes[3].most_held <= tapes[2].most_held + 65_536 < 50 * RATE


# The table


def test_rows_of_files_and_folders_as_csv_and_json_lines(
    typed: Callable[..., Said], ear_file: Path, tree: Path, tmp_path: Path
) -> None:
    classifier = at("baseline2021", "float32")
    files = sorted((path for path in tree.rglob("*") if path.suffix not in ("", ".txt")), key=str)
    assert typed("run", ear_file, tree, files[0], "--out", tmp_path / "p.csv") == Said(0, "", "")
    with (tmp_path / "p.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert sorted(row["file"] for row in rows) == [str(file) for file in files], "each once"
    assert list(rows[0]) == ["file", "label", "p_bus", "p_park", "p_tram", "seconds", "clips", "model"]
    for row in rows:
        expected = classifier.predict(row["file"])
        assert row["label"] == expected.label
        for scene, probability in expected.probabilities.items():
            assert float(row[f"p_{scene}"]) == pytest.approx(probability, abs=1e-6)
        assert row["model"] == fingerprint(ear_file)
    said = typed("run", ear_file, tree, "--format", "jsonl")
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["file"] for line in lines] == [row["file"] for row in rows]
    assert lines[0]["probabilities"]["bus"] == float(rows[0]["p_bus"])
    text = typed("run", ear_file, files[0], "--format", "text").out
    assert text.startswith(f"{files[0]}: {classifier.predict(files[0]).label} 0.")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_killed_run_goes_on_to_the_same_table(
    typed: Callable[..., Said],
    ear_file: Path,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    whole, killed = tmp_path / f"whole{suffix}", tmp_path / f"killed{suffix}"
    typed("run", ear_file, tree, "--out", whole)
    heard: list[Path] = []
    written: list[Any] = []

    def hears(model: Any, path: Path, clip_s: float | None) -> Any:
        heard.append(path)
        return recording.predict(model, path, clip_s)

    def dies(rows: Rows, row: Any) -> None:
        written.append(row)
        if len(written) == 3:
            # What a kill leaves of a row that is being written.
            with killed.open("ab") as file:
                file.write(whole.read_bytes()[killed.stat().st_size :][:20])
            raise MemoryError
        write(rows, row)

    write = Rows.write
    monkeypatch.setattr(listening, "predict", hears)
    monkeypatch.setattr(Rows, "write", dies)
    with pytest.raises(MemoryError):
        typed("run", ear_file, tree, "--out", killed)
    first = len(heard)
    assert typed("run", ear_file, tree, "--out", killed).status == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert len(heard) - first == 5 - 2, "only what was missing is heard"
    assert typed("run", ear_file, tree, "--out", killed).status == 0
    assert len(heard) - first == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_table_cut_at_any_byte_is_mended(tmp_path: Path, suffix: str) -> None:
    table, ear = tmp_path / f"x{suffix}", Ear()
    names = ["a.wav", 'b "c", d.wav', "e\nf.wav", "g.wav"]
    heard = recording.RecordingResult(listening.recording.Prediction("bus", dict.fromkeys(ear.classes, 0.25)), 1.0, 1)

    def go_on() -> set[str]:
        with resumed(table, ear.classes, "m") as (rows, done):
            for name in names:
                if name not in done:
                    rows.write(row_of(name, heard, "m"))
        return done

    assert go_on() == set()
    whole = table.read_bytes()
    for end in range(len(whole)):
        table.write_bytes(whole[:end])
        go_on()
        assert table.read_bytes() == whole, end
    assert go_on() == set(names)


def test_a_table_of_something_else_is_left_alone(
    typed: Callable[..., Said], ear_file: Path, tree: Path, tmp_path: Path
) -> None:
    table = tmp_path / "p.csv"
    typed("run", ear_file, tree / "a.wav", "--out", table)
    own = table.read_bytes()
    other = at("cp_mobile", "float32").save(tmp_path / "other")
    for content, words, named in (
        (own, (other,), "rows are of model"),
        (own, (ear_file, "--clip-s", 0.5), "not " + fingerprint(ear_file) + " 0.5 s"),
        (b"name,age\nada,36\n", (ear_file,), "content begins with 'name,age"),
        (b"notes", (ear_file,), "notes"),
        (own + b"x,y\n", (ear_file,), "rows do not have the columns file, label"),
    ):
        table.write_bytes(content)
        said = typed("run", *words, tree / "a.wav", "--out", table)
        assert said.status == 2
        assert named in said.err
        assert "accepted" in said.err
        assert table.read_bytes() == content


def test_bad_recordings_are_set_aside_with_reasons(
    typed: Callable[..., Said], ear_file: Path, tree: Path, tmp_path: Path, sound: Callable[..., Path]
) -> None:
    good = sound(tmp_path / "good.wav", 1.0)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    sound(tmp_path / "short.wav", 0.01)
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:-100])
    (tmp_path / "text.wav").write_text("no sound")
    said = typed("run", ear_file, tmp_path, tmp_path / "gone.wav", "--skip-bad", "--format", "jsonl")
    assert said.status == 0
    assert [json.loads(line)["file"] for line in said.out.splitlines()] == [str(good)]
    assert "set aside 6:" in said.err
    for reason in (
        "silent.wav: silent",
        "nan.wav: sample 0 is nan",
        "short.wav: 0.01 s; accepted: at least 0.10 s",
        "cut.wav: truncated",
        "text.wav: not a readable",
        "gone.wav: no such file",
    ):
        assert reason in said.err
    assert typed("run", ear_file, tmp_path).status == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("MODEL",), "no input; accepted: sound files"),
        (("MODEL", "EMPTY"), "a folder without a sound file"),
        (("MODEL", "-"), "- without --stream"),
        (("EMPTY", "A"), "no model.json"),
        (("A", "A"), "no model; accepted: a folder with model.json"),
        (("gone.onnx", "A"), "gone.onnx: no such file"),
        (("MODEL", "A", "--out", "x.txt"), "x.txt: accepted: a name that ends in .csv or .jsonl"),
        (("MODEL", "A", "--out", "x.csv", "--format", "text"), "--format text; accepted: only .csv of x.csv"),
        (("MODEL", "A", "--format", "xml"), "accepted: csv, jsonl or text"),
        (("MODEL", "A", "--clip-s", "0.001"), "clips of 0.001 s; accepted: at least"),
        (("MODEL", "A", "--every", "2"), "--every 2.0; accepted: with --stream or --listen"),
        (("MODEL", "A", "--stream", "--rate", "8000"), "--rate 8000; accepted: with --stream -"),
        (("MODEL", "A", "--stream", "--listen"), "--stream with --listen"),
        (("MODEL", "A", "--listen"), "--listen with"),
        (("MODEL", "A", "A", "--stream"), "--stream with 2 recordings"),
        (("MODEL", "A", "--stream", "--skip-bad"), "--skip-bad True; accepted: with recordings"),
        (("MODEL", "A", "--stream"), "clips of any length, and its training length is unknown; accepted: --clip"),
        (("MODEL", "A", "--clip-s", "nan"), "clips of nan s; accepted: a length above 0 s"),
        (("MODEL", "A", "--clip-s", "inf", "--stream"), "clips of inf s; accepted: a length above 0 s"),
        (("MODEL", "A", "--clip-s", "0.001", "--skip-bad"), "clips of 0.001 s; accepted: at least"),
        (("MODEL", "A", "--stream", "--clip-s", "1", "--every", "0"), "a decision every 0.0 s"),
        (("MODEL", "A", "--stream", "--clip-s", "1", "--smooth", "-1"), "Smoothing(time_s=-1.0); accepted: at least 0"),
        (
            ("MODEL", "A", "--stream", "--clip-s", "1", "--mean-of", "median"),
            "'median'); accepted: 'log' or 'probability'",
        ),
        (("MODEL", "A", "--stream", "--clip-s", "3"), "a.wav: 1.00 s; accepted: at least 3.00 s, one clip"),
        (("MODEL", "A", "--stream", "--clip-s", "0.5", "--out", "THERE"), "already exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_input_is_one_sentence(
    typed: Callable[..., Said], ear_file: Path, tree: Path, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    (tmp_path / "there.csv").write_text("kept")
    (tmp_path / "empty").mkdir()
    places = {"MODEL": ear_file, "EMPTY": tmp_path / "empty", "A": tree / "a.wav", "THERE": tmp_path / "there.csv"}
    said = typed("run", *(places.get(word, word) for word in words))
    assert said.status == 2
    assert said.err.startswith("tinyscene: ")
    assert named in said.err
    assert (tmp_path / "there.csv").read_text() == "kept"


def test_an_interrupted_run_says_what_to_do_next(
    typed: Callable[..., Said], ear_file: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, hear = tmp_path / "x.csv", listening.predict

    def predict(model: Any, path: Path, clip_s: float | None) -> Any:
        if path.name == "g.WAV":
            raise KeyboardInterrupt
        return hear(model, path, clip_s)

    with monkeypatch.context() as patched:
        patched.setattr(listening, "predict", predict)
        said = typed("run", ear_file, tree, "--out", table)
    assert said.status == 130
    assert f"interrupted; the same command resumes after the last row of {table}" in said.err
    for rows in (2, 5):
        with table.open(newline="") as file:
            assert len(list(csv.DictReader(file))) == rows
        assert typed("run", ear_file, tree, "--out", table).status == 0


def test_a_file_for_one_length_says_so(tree: Path) -> None:
    with pytest.raises(InputError, match="clips of 1 s for a file made for 0.5 s"):
        listening.predict(Ear(), tree / "a.wav", clip_s=1.0)
