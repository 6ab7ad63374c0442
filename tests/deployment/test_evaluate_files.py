"""Exported files, scored on labelled clips."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_files import CLASSES, CLIP_S, at

from tinyscene import audio, evaluate
from tinyscene.compression import HalfPrecision
from tinyscene.data import Clip, Clips
from tinyscene.deployment import Artifact, export
from tinyscene.deployment.probes import CLIPS
from tinyscene.errors import InputError
from tinyscene.training import Run

QUIET = Run(quiet=True)
SECONDS = (CLIP_S, 1.0, 1.3, 2.0, 0.9, 1.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sound: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    for number, seconds in enumerate(SECONDS):
        sound(root / CLASSES[number % 3] / f"{number}.wav", seconds)
    return root


@pytest.fixture
def clips(folder: Path) -> Clips:
    files = sorted(folder.glob("*/*.wav"))
    rows = [Clip(file.relative_to(folder).as_posix(), file.parent.name, "test", recording=file.stem) for file in files]
    return Clips("folder", folder, CLASSES, tuple(rows))


def by_hand(clips: Clips) -> list[list[float]]:
    """What the classifier says of clips side by side, cut here."""
    classifier, samples, found = at("baseline2021", "float32"), round(CLIP_S * 8000), []
    for clip in clips:
        waveform = audio.read(clips.root / clip.path, 8000)
        starts = np.linspace(0, len(waveform) - samples, -(-len(waveform) // samples)).round().astype(int)
        parts = [classifier.predict(waveform[start : start + samples], 8000) for start in starts]
        found.append(np.mean([list(part.probabilities.values()) for part in parts], 0).tolist())
    return found


def test_a_file_for_one_length_hears_clips_side_by_side(inside: Artifact, clips: Clips) -> None:
    scores, expected = evaluate(inside, clips, QUIET), by_hand(clips)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the clips must differ for the order to matter"
    np.testing.assert_allclose(scores.probabilities, expected, atol=2e-6)
    assert scores.accuracy == np.mean(np.argmax(expected, 1) == clips.labels)


def test_a_file_for_any_length_hears_them_whole(exported: Callable[[str, str], Artifact], clips: Clips) -> None:
    artifact = exported("baseline2021", "int8")
    scores, expected = evaluate(artifact, clips, QUIET), evaluate(at("baseline2021", "int8"), clips, QUIET)
    np.testing.assert_allclose(scores.probabilities, expected.probabilities, atol=1e-6)


def test_samples_that_cannot_be_written_are_heard_without_a_warning(exported: Callable[[str, str], Artifact]) -> None:
    """Those of the cache can't."""
    waveform = np.ones(8000, np.float32)
    waveform.flags.writeable = False
    torch.set_warn_always(True)  # torch says it once a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exported("baseline2021", "float32").classify_recording(waveform)
    finally:
        torch.set_warn_always(False)


def test_a_clip_that_is_shorter_is_repeated(
    exported: Callable[[str, str], Artifact],
    inside: Artifact,
    folder: Path,
    sound: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in training; a file for any length hears it as it is, or refuses it."""
    waveform = audio.read(sound(tmp_path / "bus" / "short.wav", 0.5), 8000)
    clips = Clips("drawn", tmp_path, CLASSES, (Clip("bus/short.wav", "bus", "test"),))
    expected = at("baseline2021", "float32").predict(np.concatenate([waveform, waveform[:800]]), 8000)
    found = evaluate(inside, clips, QUIET).probabilities[0]
    assert found.tolist() == pytest.approx(list(expected.probabilities.values()), abs=2e-6)
    compared = export(at("baseline2021", "float32"), tmp_path / "x.onnx", front_end="inside", clip_s=0.6, clips=clips)
    assert CLIPS in compared.parity.by_kind
    sound(tmp_path / "bus" / "short.wav", 0.11)
    artifact = exported("baseline2021", "float32")
    # As of a network that needs more frames, whose file takes long to write.
    monkeypatch.setitem(artifact.facts, "shortest_samples", 1200)
    with pytest.raises(InputError, match=r"short.wav .*0.110 s; accepted: at least 0.150 s"):
        evaluate(artifact, clips, QUIET)


def test_the_command_takes_files_and_models_alike(
    tinyscene: Callable[..., tuple[int, str]], inside: Artifact, folder: Path, clips: Clips, tmp_path: Path
) -> None:
    """Two recordings a class are too few to be split, and enough to be heard."""
    model = at("baseline2021", "float32").save(tmp_path / "model")
    typed = (inside.path, model, "--data", folder, "--split", "all", "--cache", tmp_path / "cache")
    status, said = tinyscene("evaluate", *typed, "--json", "-")
    assert status == 0, said
    file, whole = json.loads(said)
    assert file["accuracy"] == evaluate(inside, clips, QUIET).accuracy
    assert file["log_loss"] == pytest.approx(evaluate(inside, clips, QUIET).log_loss, abs=1e-6)
    assert (file["training_clips"], whole["training_clips"]) == (None, 0)
    status, said = tinyscene("evaluate", *typed)
    assert status == 0
    said = " ".join(said.split())
    assert said.count("A file does not store its training recordings") == 1
    assert "Made for clips of 0.6 s: a longer one was split into several" in said
    status, said = tinyscene("evaluate", *typed[:4])
    assert status == 2
    assert "at least 3 recordings of every class" in said


def test_a_files_classifier_goes_through_no_stage(exported: Callable[[str, str], Artifact]) -> None:
    with pytest.raises(InputError, match="a file's network can only be run"):
        HalfPrecision().shape(exported("baseline2021", "int8").classifier)
