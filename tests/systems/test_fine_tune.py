"""A trained model, fine-tuned to other classes in one command."""

import json
from pathlib import Path

import pytest
import torch

from bare_runs import no_pictures
from tinyscene import Budget, InputError, Run, SceneClassifier, create_classifier, evaluate, fine_tune, from_pretrained
from tinyscene.cli import main
from tinyscene.compression import Quantize
from tinyscene.data import load
from tinyscene.models.provenance import Provenance

OLD = ("dog", "rain", "rooster", "siren")
SCALE = 0.005


def started(seed: int = 0) -> SceneClassifier:
    """As if trained elsewhere."""
    classifier = create_classifier("plain_cnn", OLD, width=4, seed=seed).eval()
    classifier.standardize.fit([torch.randn(1, 1, 64, 20, generator=torch.Generator().manual_seed(0))])
    classifier.provenance = Provenance(("elsewhere",), ("x",), 1.0)
    return classifier


def test_it_is_trained_on_all_but_the_test_part_and_scored_there(tone_set: Path, tmp_path: Path) -> None:
    clips, start = load(tone_set), started()
    before = {name: tensor.clone() for name, tensor in start.state_dict().items() if isinstance(tensor, torch.Tensor)}
    with no_pictures():
        found = fine_tune(start, clips, Run(folder=tmp_path / "run", quiet=True), epochs_scale=SCALE)
    assert all(torch.equal(before[name], start.state_dict()[name]) for name in before), "the start stays as it was"
    model = SceneClassifier.load(tmp_path / "run" / "model")
    assert (model.classes, model.precision) == (clips.classes, "int8")
    assert set(model.provenance.recordings) == {"elsewhere", *clips.development.recording_hashes}
    assert torch.equal(model.standardize.mean, start.standardize.mean)
    scores = evaluate(model, clips.test, Run(quiet=True))
    assert found.row.scores is not None
    assert scores.log_loss == pytest.approx(found.row.scores.log_loss, abs=1e-6)
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert receipt["guard"]["test_recordings_learned_from"] == 0


def test_weights_start_from_those_given(tone_set: Path, tmp_path: Path) -> None:
    """A few steps at a small rate: all weights but the last layer's are nearly the start's."""
    clips, run = load(tone_set), Run(folder=tmp_path / "run", quiet=True)
    with no_pictures():
        fine_tune(started(0), clips, run, epochs_scale=1e-6)
    tuned = from_pretrained(tmp_path / "run" / "model", trainable=True)
    found, start, other = (
        torch.cat([one.flatten() for one in each.network.stages.parameters()])
        for each in (tuned, started(0), started(1))
    )
    assert (found - start).abs().max() < 0.02 < (found - other).abs().max()


def test_beyond_the_budget_nothing_is_delivered(tone_set: Path, tmp_path: Path) -> None:
    budget, run = Budget(bytes=100), Run(folder=tmp_path / "run", quiet=True)
    with no_pictures(), pytest.raises(InputError, match="nothing is delivered, the file exceeds the budget"):
        fine_tune(started(), load(tone_set), run, budget=budget, epochs_scale=1e-6)
    assert not (tmp_path / "run" / "model").exists()


def test_in_one_command(
    tone_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = started().save(tmp_path / "start")
    typed = ["tinyscene", "fit", "--data", str(tone_set), "--from", str(model), "--epochs-scale", str(SCALE)]
    monkeypatch.setattr("sys.argv", [*typed, "--out", str(tmp_path / "run")])
    with no_pictures(), pytest.raises(SystemExit, match="0"):
        main()
    assert f"run {tmp_path}/run/model RECORDING" in capsys.readouterr().out.replace("\n", "")
    assert (tmp_path / "run" / "model" / "model.json").is_file()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--network", "cp_mobile"], "--network with --from; accepted: --network without --from"),
        (["--minutes", "3"], "--minutes with --from; accepted: --minutes without --from"),
        (["--epochs-scale", "0"], "--epochs-scale 0; accepted: above 0"),
    ],
)
def test_what_only_a_search_has_is_refused(
    tone_set: Path,
    tmp_path: Path,
    typed: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = started().save(tmp_path / "start")
    monkeypatch.setattr("sys.argv", ["tinyscene", "fit", "--data", str(tone_set), "--from", str(model), *typed])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert said in " ".join(capsys.readouterr().err.split())


def test_rounded_weights_can_not_be_trained_on(tone_set: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was given int8 weights"):
        fine_tune(Quantize().shape(started()), load(tone_set), Run(folder=tmp_path, quiet=True))
