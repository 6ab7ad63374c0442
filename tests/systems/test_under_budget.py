"""A classifier under a budget: what it costs, what selects it, what a second call does, what can't be had."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bare_runs import no_pictures
from killing import killed_at, same_weights
from tinyscene import Budget, Fit, InputError, SceneClassifier, evaluate, fit_under, for_classes, from_pretrained
from tinyscene.accounting import count, total
from tinyscene.audio import Waveform
from tinyscene.cli import main
from tinyscene.compression import BudgetPruning, Quantize
from tinyscene.data import Clips, Waveforms, load
from tinyscene.deployment import Artifact
from tinyscene.evaluation.scorecard import StageFile
from tinyscene.rules import Finding, Limit
from tinyscene.rules.budget import BYTES_IN, COUNTS_IN, amount
from tinyscene.systems.fit_under import Found, deliver
from tinyscene.systems.under_budget import EPOCHS, Candidate, epochs_of, minutes_of, scale_for
from tinyscene.training import Run

# The function of that name hides its module.
fitting = sys.modules["tinyscene.systems.fit_under"]
BUDGET = Budget(bytes=6_000, macs=300_000, parameters=5_000)
NETWORKS, SCALE = ("baseline2020",), 0.005
CLIP_S = 0.2


class Done(NamedTuple):
    clips: Clips
    found: Found
    heard: list[str]
    """Files in the order in which their samples were read."""


@contextmanager
def heard_files() -> Iterator[list[str]]:
    """Every clip whose waveform is taken, by its path."""
    heard: list[str] = []
    original = Waveforms.__getitem__

    def listened(waveforms: Waveforms, index: int) -> Waveform:
        heard.append(waveforms.clips.rows[index].path)
        return original(waveforms, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Waveforms, "__getitem__", listened)
        yield heard


def run(clips: Clips, folder: Path, budget: Budget = BUDGET) -> Found:
    return fit_under(clips, budget, Run(folder=folder, quiet=True), networks=NETWORKS, epochs_scale=SCALE)


@pytest.fixture(scope="module")
def done(tone_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    clips = load(tone_set)
    with heard_files() as heard, no_pictures():
        found = run(clips, tmp_path_factory.mktemp("fit") / "run")
    return Done(clips, found, heard)


def test_what_is_delivered_keeps_the_budget_by_its_own_file(done: Done) -> None:
    ledger = Artifact.load(done.found.folder / "scene.onnx").certificate.ledger
    # Everything that the file stores, whatever its role.
    assert total(ledger.tensors).bytes <= 6_000
    assert ledger.macs["torchinfo"] <= 300_000
    assert sum(row.values for row in ledger.tensors if row.role in ("weight", "bias", "norm")) <= 5_000
    assert {row.dtype for row in ledger.tensors if row.role == "weight"} == {"int8"}
    assert max(total(ledger.tensors).bytes / 6_000, ledger.macs["torchinfo"] / 300_000) > 0.9, "it is used up"
    receipt = json.loads((done.found.folder / "receipt.json").read_text())
    assert receipt["settings"]["budget"] == "6 kB, 0.3 MMACs, 5,000 parameters"
    assert receipt["seeds"] == [0]


def test_one_sound_on_two_sides_is_refused_before_anything_is_trained(twins: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the same sound, bus-train-0.wav .* = bus-again.flac .*--drop-shared"):
        run(load(twins), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_model_is_the_one_that_was_scored(done: Done) -> None:
    model = SceneClassifier.load(done.found.folder / "model")
    scores = evaluate(model, done.clips.test, Run(quiet=True))
    assert done.found.row.scores is not None
    assert scores.log_loss == pytest.approx(done.found.row.scores.log_loss, abs=1e-6)
    assert scores.training_clips == 0
    with (done.found.folder / "scorecard.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["accuracy"]) == scores.accuracy
    assert last["legal"] == "True"


def test_the_network_before_rounding_lies_beside_it_to_be_trained_on(done: Done) -> None:
    before = from_pretrained(done.found.folder / "model", trainable=True)
    assert before.precision == "float32"
    assert before.provenance == SceneClassifier.load(done.found.folder / "model").provenance
    assert for_classes(before, ("a", "b")).classes == ("a", "b")


def test_no_test_clip_is_heard_before_one_candidate_is_left(done: Done) -> None:
    test = {clip.path for clip in done.clips.test}
    first = next(i for i, path in enumerate(done.heard) if path in test)
    validation = {clip.path for clip in done.clips.validation}
    assert validation <= set(done.heard[:first]), "the candidates were judged before"
    # What was heard before ends with the last training: behind it, test clips alone.
    assert set(done.heard[first:]) <= test | {clip.path for clip in done.clips.development}
    assert not test & {path for trial in done.found.tried for path in (c.path for c in trial.scores.clips)}
    model = SceneClassifier.load(done.found.folder / "model")
    assert set(model.provenance.recordings) == set(done.clips.development.recording_hashes)


def test_the_better_half_goes_on(done: Done) -> None:
    with (done.found.folder / "pareto.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rungs = [[row for row in rows if row["rung"] == rung] for rung in "123"]
    assert [len(rung) for rung in rungs] == [2, 1, 1]
    best = min(rungs[0], key=lambda row: float(row["validation_log_loss"]))
    assert {row["candidate"] for row in rungs[1]} == {best["candidate"]}
    assert [row["winner"] for row in rows] == ["False", "False", "False", "True"]
    assert all(int(row["bytes"]) <= 6_000 and int(row["macs"]) <= 300_000 for row in rows)
    assert (done.found.folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert not list(done.found.folder.rglob("*.partial"))


def test_killed_and_started_again_it_trains_what_is_missing(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinyscene.evaluation.pictures.draw_pareto", lambda *_: None)
    folder = Path(shutil.copytree(done.found.folder, tmp_path / "run"))
    shutil.rmtree(folder / "final")
    with killed_at(9), no_pictures():
        run(done.clips, folder)
    assert not (folder / "receipt.json").exists(), "nothing vouches for what lies there"
    trained: list[Clips] = []
    original = Fit.apply

    def counted(fit: Fit, classifier: SceneClassifier, clips: Clips, *rest: Any) -> SceneClassifier:
        trained.append(clips)
        return original(fit, classifier, clips, *rest)

    monkeypatch.setattr(Fit, "apply", counted)
    typed = ["tinyscene", "fit", "--data", str(done.clips.root / "tones.csv"), "--under", "6kB", "--macs", "300k"]
    typed += ["--parameters", "5k", "--network", *NETWORKS, "--epochs-scale", str(SCALE), "--out", str(folder)]
    monkeypatch.setattr("sys.argv", typed)
    with pytest.raises(SystemExit, match="0"), no_pictures():
        main()
    out = capsys.readouterr().out
    assert "fits: " in out
    assert f" run {folder}/model RECORDING" in out.replace("\n", "")
    assert not any(len(clips.validation) for clips in trained)
    assert {len(clips) for clips in trained} == {len(done.clips.development)}, "the search was kept"
    assert same_weights(SceneClassifier.load(folder / "model"), done.found.classifier)
    assert (folder / "pareto.csv").read_text() == (done.found.folder / "pareto.csv").read_text()
    assert json.loads((folder / "receipt.json").read_text())["command"].startswith(
        "tinyscene fit --data $TONES --under"
    )


def test_a_file_over_the_budget_is_not_delivered(done: Done, tmp_path: Path) -> None:
    row = done.found.row
    small = Budget(bytes=100).rules(CLIP_S, row.rules.classes)
    for changed, why in (
        ({"rules": small}, "the file exceeds the budget .*does not fit: .* kB.*; try a larger budget"),
        ({"file": StageFile(fault="the file differs")}, "the file differs"),
        ({"file": None}, "no file was written"),
    ):
        with pytest.raises(InputError, match=rf"nothing is delivered, {why}$"):
            deliver(replace(row, **changed), done.found.tried, tmp_path, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("budget", [Budget(bytes=100), Budget(macs=500), Budget(bytes=64_000, ram_bytes=1_000)])
def test_a_budget_out_of_reach_is_answered_by_what_can_be_had(done: Done, budget: Budget, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no network fits.*baseline2020_\w+: .* one channel a layer"):
        run(done.clips, tmp_path / "run", budget)
    assert not (tmp_path / "run").exists(), "said before anything is trained"


@pytest.mark.parametrize("budget", [Budget(bytes=4_000), Budget(macs=1_000_000), Budget(ram_bytes=30_000)])
def test_pruning_is_to_what_the_file_will_cost(budget: Budget) -> None:
    classes = ("bus", "park", "tram")
    arguments = {"filters": (8, 16), "dense": 50, "bands": 64}
    one = Candidate("baseline2020", arguments, budget.rules(1.0, classes), 1.0)
    int8 = Quantize().shape(one.pruning.shape(one.build(classes)))
    ledger = count(int8.network, int8.example(1.0))
    shares = [limit.measure(ledger) / limit.at_most for limit in one.rules.limits]
    # RAM goes in steps of a whole channel of the largest map.
    assert (0.5 if budget.ram_bytes else 0.9) < max(shares) <= 1


@given(st.integers(1, 10**9), st.sampled_from(["B", "kB", "KB"]), st.sampled_from(["", " "]))
def test_sizes_are_read_with_their_units(number: int, unit: str, space: str) -> None:
    assert amount(f"{number}{space}{unit}", BYTES_IN, "--under") == number * {"B": 1, "kB": 1000, "KB": 1024}[unit]


@given(st.integers(0, 10**6), st.integers(0, 999_999), st.sampled_from(["k", "M"]))
def test_counts_are_read_to_the_last_digit(whole: int, decimals: int, unit: str) -> None:
    exact = (whole * 10**6 + decimals) * {"k": 1000, "M": 10**6}[unit] // 10**6
    text = f"{whole}.{decimals:06d}{unit}"
    if exact < 1:
        with pytest.raises(InputError, match="at least 1"):
            amount(text, COUNTS_IN, "--macs")
    else:
        assert amount(text, COUNTS_IN, "--macs") == exact


@given(st.text("0123456789.,-e kKMB\n٣", max_size=6))
def test_what_is_no_amount_is_answered_by_what_is_accepted(text: str) -> None:
    for units in (BYTES_IN, COUNTS_IN):
        said = ""
        try:
            assert amount(text, units, "--under") >= 1
        except InputError as error:
            said = str(error)
        assert not said or (said.startswith(f"--under {text}") and "accepted: a number" in said)


@pytest.mark.parametrize("text", ["64", "64 kb", "64K", "64KiB", "64MB", "-1kB", "0kB", "0.1B", "1e3B", "", "٣kB"])
def test_other_units_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--under .*accepted: a number and B, kB \(1000 B\) or KB \(1024 B\)"):
        amount(text, BYTES_IN, "--under")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "one or more of --under 64kB"),
        (["--under", "64KiB"], "--under 64KiB; accepted: a number and B, kB (1000 B) or KB (1024 B)"),
        (["--macs", "10MB"], "--macs 10MB; accepted: a number, alone or with k (thousands) or M (millions)"),
        (["--ram", "3k"], "--ram 3k; accepted: a number and B"),
    ],
)
def test_the_command_line_answers_wrong_budgets(
    tone_set: Path, typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tinyscene", "fit", "--data", str(tone_set), *typed])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_budget_needs_a_limit() -> None:
    for budget in ({}, {"bytes": 0}, {"macs": 5, "parameters": -1}):
        with pytest.raises(InputError, match="accepted: one or more of bytes, macs"):
            Budget(**budget)
    with pytest.raises(InputError, match="--under 64kB"):
        Budget.typed(None, None, None, None)


def test_ram_is_judged_like_any_quantity(done: Done) -> None:
    ledger = done.found.row.ledger
    finding = Finding(Limit("ram", ledger.peak_ram_bytes - 1, "kB"), Limit("ram", 1, "B").measure(ledger))
    assert not finding.passed
    assert finding.text.startswith("does not fit")


def test_the_receipt_counts_all_that_was_trained(done: Done) -> None:
    stages = [*done.found.folder.glob("search/stages/*/history.json"), *done.found.folder.glob("final/stages/*/his*")]
    spent = sum(json.loads(path.read_text())["seconds"] for path in stages)
    assert len(stages) == 2 * 4 + 4 + 4 + 4, "fits that rungs share are counted once"
    receipt = json.loads((done.found.folder / "receipt.json").read_text())
    assert receipt["minutes"] == pytest.approx(spent / 60, abs=0.001)


SECONDS = [0.02, 0.01, 0.04]


@pytest.mark.parametrize("minutes", [3.1, 5, 9.5])
def test_minutes_choose_as_many_epochs_as_they_have_room_for(done: Done, minutes: float) -> None:
    clips = done.clips
    scale = scale_for(minutes, clips, SECONDS)
    epochs = round(scale * epochs_of(clips, 1.0) * EPOCHS)
    assert minutes_of(epochs, clips, SECONDS) <= minutes < minutes_of(epochs + 1, clips, SECONDS)
    one = Candidate("baseline2020", {}, BUDGET.rules(CLIP_S, clips.classes), epochs_of(clips, scale))
    assert one.epochs == epochs
    assert scale_for(10**6, clips, SECONDS) == pytest.approx(1.0, rel=1e-3), "no more than the recipe has"


def test_too_few_minutes_are_answered_by_what_is_enough(done: Done) -> None:
    with pytest.raises(InputError, match=r"--minutes 1: .*6 epochs in full of 3 .* accepted: --minutes \d+ or") as said:
        scale_for(1, done.clips, SECONDS)
    enough = int(re.findall(r"accepted: --minutes (\d+)", str(said.value))[0])
    scale_for(enough, done.clips, SECONDS)
    with pytest.raises(InputError, match="--minutes"):
        scale_for(enough - 1, done.clips, SECONDS)
    for wrong in (0, -3, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"--minutes \S+; accepted: a number above 0, such as 30"):
            scale_for(wrong, done.clips, SECONDS)


def test_minutes_are_kept_for_the_call_that_goes_on(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another day, the machine is busier: what was trained is to be of use still."""

    class PlannedError(Exception):
        pass

    def planned(left: list[Candidate], *_: object) -> None:
        raise PlannedError(left[0].epochs)

    monkeypatch.setattr(fitting, "_search", planned)
    monkeypatch.setattr(BudgetPruning, "plan", lambda *_: None)
    epochs = []
    for seconds, minutes in ((0.01, 5), (0.02, 5), (0.02, 6)):
        monkeypatch.setattr(fitting, "seconds_a_clip", lambda *_, seconds=seconds: seconds)
        with pytest.raises(PlannedError) as stop:
            fit_under(done.clips, BUDGET, Run(folder=tmp_path / "run"), networks=NETWORKS, minutes=minutes)
        epochs.append(stop.value.args[0])
    assert epochs[0] == epochs[1] > epochs[2] >= 6
    assert re.search(rf"{epochs[2]} epochs in full \(--epochs-scale 0.\d+\).* about 6 minutes", capsys.readouterr().err)
    with pytest.raises(InputError, match="--minutes 5 and --epochs-scale 0.5; accepted: one of them"):
        fit_under(done.clips, BUDGET, Run(folder=tmp_path), minutes=5, epochs_scale=0.5)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match=r"--epochs-scale \S+; accepted: above 0"):
            fit_under(done.clips, BUDGET, Run(folder=tmp_path), epochs_scale=wrong)


def test_a_network_out_of_reach_is_named_beside_those_that_are_tried(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(fitting, "_search", stop)
    with pytest.raises(InterruptedError):
        fit_under(
            done.clips, Budget(macs=20_000), Run(folder=tmp_path), networks=("pham_cnn", *NETWORKS), epochs_scale=SCALE
        )
    left_out = r"  baseline2020_\w+ is left out: .*macs=20,000\): with one channel a layer Baseline2020 has 36,4\d\d"
    assert re.search(left_out, capsys.readouterr().err)


def test_unknown_networks_are_named(done: Done, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no network 'alexnet' .*accepted: cp_mobile"):
        fit_under(done.clips, BUDGET, Run(folder=tmp_path, quiet=True), networks=("alexnet",))


def test_several_devices_are_refused(done: Done, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Run\(devices=2\); accepted: 1"):
        fit_under(done.clips, BUDGET, Run(folder=tmp_path, devices=2))
