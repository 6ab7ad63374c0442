"""Scoring a classifier on clips of any length gives what it says of each clip alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tinyscene import InputError, LogMel, SceneClassifier, create_model, evaluate
from tinyscene.data import Clip, Clips
from tinyscene.models.provenance import Provenance
from tinyscene.training import Run

RATE, SCENES = 8000, ("bus", "park", "tram")
SECONDS = (0.45, 0.2, 0.3, 0.2, 0.45, 0.3, 0.3, 0.5)
QUIET = Run(quiet=True)


@pytest.fixture
def classifier() -> SceneClassifier:
    torch.manual_seed(0)
    network = create_model("baseline2021", filters=(4, 4, 4), dense=8, classes=3, bands=20, seed=0)
    # At their first values, batch norm and a centred input give nearly the same answer for any clip.
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data *= 5
    frontend = LogMel(RATE, n_fft=512, hop_length=400, n_mels=20)
    return SceneClassifier(frontend, network, SCENES).eval()


@pytest.fixture
def clips(tmp_path: Path, sound: Callable[..., Path]) -> Clips:
    rows = []
    for i, seconds in enumerate(SECONDS):
        sound(tmp_path / f"{i}.wav", seconds=seconds)
        rows.append(Clip(f"{i}.wav", SCENES[i % 3], "test", recording=f"{i}", row=f"list.csv:{i + 2}"))
    return Clips("drawn", tmp_path, SCENES, tuple(rows))


def one_by_one(classifier: SceneClassifier, clips: Clips) -> np.ndarray:
    return np.array([list(classifier.predict(clips.root / clip.path).probabilities.values()) for clip in clips])


def test_several_lengths_give_what_predict_gives(classifier: SceneClassifier, clips: Clips) -> None:
    scores = evaluate(classifier, clips, QUIET)
    expected = one_by_one(classifier, clips)
    assert np.ptp(expected, axis=0).max() > 1e-3, "the clips must differ for the order to matter"
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-6)
    assert list(scores.clips) == list(clips)
    np.testing.assert_array_equal(scores.labels, [i % 3 for i in range(len(SECONDS))])


def test_the_number_of_clips_in_memory_changes_nothing(
    classifier: SceneClassifier, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyscene.training.batches._CLIPS_AT_A_TIME", 3)
    scores = evaluate(classifier, clips, QUIET)
    np.testing.assert_allclose(scores.probabilities, one_by_one(classifier, clips), atol=1e-6)


def test_a_stretch_of_a_file_is_heard_alone(classifier: SceneClassifier, clips: Clips) -> None:
    stretch = replace(clips, rows=(Clip("7.wav", "bus", "test", start_s=0.1, duration_s=0.3, row="list.csv:2"),))
    samples = soundfile.read(clips.root / "7.wav", dtype="float32")[0][800:3200]
    expected = classifier.predict(samples, RATE).probabilities
    np.testing.assert_allclose(
        evaluate(classifier, stretch, QUIET).probabilities[0], list(expected.values()), atol=1e-6
    )


def test_a_classifier_in_training_mode_is_heard_as_it_predicts(classifier: SceneClassifier, clips: Clips) -> None:
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    expected = one_by_one(classifier, clips)
    scores = evaluate(classifier.train(), clips, QUIET)
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-6)
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())


def test_devices_heard_in_training_travel_along(classifier: SceneClassifier, clips: Clips) -> None:
    classifier.provenance = Provenance(devices=("s1",))
    rows = tuple(clip._replace(device="s1" if i % 2 else "s2") for i, clip in enumerate(clips))
    groups = evaluate(classifier, replace(clips, rows=rows), QUIET).by_device_group()
    assert {name: {clip.device for clip in part.clips} for name, part in groups.items()} == {
        "seen": {"s1"},
        "unseen": {"s2"},
    }


def test_no_clips_are_refused(classifier: SceneClassifier, clips: Clips) -> None:
    with pytest.raises(InputError, match="no clips to evaluate; accepted"):
        evaluate(classifier, clips.train, QUIET)


@pytest.mark.parametrize("scenes", [("bus", "park"), ("tram", "park", "bus"), ("bus", "park", "zoo")])
def test_other_classes_are_refused(classifier: SceneClassifier, clips: Clips, scenes: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"{', '.join(scenes)}.*bus, park, tram; accepted: the same"):
        evaluate(classifier, replace(clips, classes=scenes), QUIET)


def test_an_unknown_label_is_refused_with_its_row(classifier: SceneClassifier, clips: Clips) -> None:
    rows = (*clips.rows[:2], clips.rows[2]._replace(scene=None))
    with pytest.raises(InputError, match=r"2\.wav \(list\.csv:4\).*accepted: bus, park, tram"):
        evaluate(classifier, replace(clips, rows=rows), QUIET)


def test_a_clip_that_is_too_short_is_named_with_its_row(
    classifier: SceneClassifier, clips: Clips, sound: Callable[..., Path]
) -> None:
    # Five frames of 50 ms need 0.2 s; the sound file itself is long enough to be read.
    assert classifier.shortest_samples == 1600
    sound(clips.root / "4.wav", seconds=0.15)
    with pytest.raises(InputError, match=r"4\.wav \(list\.csv:6\): 0\.150 s; accepted: at least 0\.200 s"):
        evaluate(classifier, clips, QUIET)
