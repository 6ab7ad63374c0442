"""The benchmarks still run: one network, one round."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def test_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import int8
    import turns

    monkeypatch.setattr(int8, "RUNS", 1)
    monkeypatch.setattr(turns, "ROUNDS", 1)
    row = int8.speed("moments_linear", tmp_path)
    assert row["layers_on_integers"] == "5 of 5"
    assert float(row["unsigned"]) > 0


def test_frontends_agree_with_what_they_are_timed_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    import frontends
    import turns

    monkeypatch.setattr(turns, "ROUNDS", 1)
    for setting in frontends.SETTINGS:
        row = frontends.row(setting, 2, 1.0, 1)
        assert float(row["largest_difference"]) < 1e-4
        assert float(row["librosa_over_ours"]) > 0


@pytest.mark.parametrize("name", ["cp_mobile", "pham_cnn", "aemnet"])
def test_training(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import training

    monkeypatch.setattr(training, "BATCH", 10)
    monkeypatch.setitem(training.NETWORKS, name, (20, 1))
    clips = training.written(tmp_path / "clips", 20)
    training.OtherLoop(name, clips)()
    for rolled, precision in (("waveforms", "32-true"), ("features", "bf16-mixed")):
        ours = training.Ours(name, clips, tmp_path / rolled, rolled, precision)
        ours()
        assert ours.classifier.provenance.clip_s == 1


def test_listening(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import listening

    monkeypatch.setattr(listening, "HOUR_S", 3)
    hour, commands = listening.written(tmp_path), listening.ways("cp_mobile", tmp_path)
    seconds, peak_mb = listening.measured(commands["model, --stream"], hour, tmp_path / "table.csv")
    assert seconds > 0
    assert peak_mb > 100
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("what", ["list", "decode", "open", "clip, s", "bands", "batch"])
def test_growth(what: str, tmp_path: Path) -> None:
    import growth

    folder = growth.written(tmp_path / "clips", 16)
    row = growth.measured(what, 32, folder, 1)
    assert float(row["s"]) > 0
    assert growth.with_exponent([{"s": "1"}, {"s": "8"}], [1, 2])[0]["exponent"] == "3.00"


def test_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    import allocator

    monkeypatch.setattr(allocator, "STEPS", 3)
    monkeypatch.setitem(allocator.BATCHES, "baseline2021", (2, 1.0))
    for way in allocator.WAYS:
        seconds, peak_mb = allocator.measure("baseline2021", way)
        assert seconds > 0
        assert peak_mb > 100


def test_the_ways_of_a_step_learn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import steps

    monkeypatch.setattr(steps, "BATCH", 8)
    found, _ = steps.ways(compiled=False)
    losses = {name: [call() for _ in range(3)] for name, call in found.items()}
    assert losses[steps.OURS][0] != losses[steps.OURS][-1]
    for some in losses.values():
        np.testing.assert_allclose(some, losses[steps.OURS], rtol=0.05)
