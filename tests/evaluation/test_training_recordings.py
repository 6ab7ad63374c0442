"""A model remembers what it was trained on, and scores on it are marked."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import tinyscene as ts
from tinyscene.data import Clip, Clips

CLASSES = ("hum", "noise")


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    rng, rows = np.random.default_rng(0), []
    for i in range(12):
        scene, split = CLASSES[i % 2], ("train", "train", "validation", "test")[i // 3]
        wave = rng.normal(0, 0.1, 4000) if scene == "noise" else 0.3 * np.sin(0.1 * np.arange(4000) + i)
        soundfile.write(tmp_path / f"{i}.wav", wave, 8000)
        rows.append(Clip(f"{i}.wav", scene, split, recording=f"place {i}"))
    return Clips("tones", tmp_path, CLASSES, tuple(rows))


def test_clips_of_heard_recordings_are_counted(clips: Clips, tmp_path: Path) -> None:
    frontend = ts.LogMel(8000, 256, 20, hop_length=128)
    network = ts.create_model("baseline2021", filters=(2, 2, 2), dense=4, classes=2, bands=20, seed=0)
    run = ts.Run(folder=tmp_path / "run", accelerator="cpu", quiet=True)
    untrained = ts.SceneClassifier(frontend, network, CLASSES)
    assert ts.evaluate(untrained, clips, run).training_clips == 0
    trained = ts.Fit(epochs=1, batch_size=4)(untrained, clips.development, run)
    loaded = ts.SceneClassifier.load(ts.HalfPrecision()(trained, clips.development, run).save(tmp_path / "model"))
    for classifier in (trained, loaded):
        assert ts.evaluate(classifier, clips.test, run).training_clips == 0
        assert ts.evaluate(classifier, clips.validation, run).training_clips == 3
        scores = ts.evaluate(classifier, clips, run)
        assert scores.training_clips == 9
        assert scores.to_json()["training_clips"] == 9
        assert {name: part.training_clips for name, part in scores.by("scene").items()} == {"hum": 5, "noise": 4}
    assert untrained.provenance.recordings == ()
