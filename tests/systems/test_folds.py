"""Cross-validation beside its folds, each by itself."""

import csv
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import soundfile
from rich.console import Console
from sklearn.metrics import accuracy_score, log_loss
from typer.testing import CliRunner

from bare_runs import bare_runs
from tinyscene import InputError, SceneClassifier, Scores, compare_runs, load_system
from tinyscene.cli.main import app
from tinyscene.data import Clips, load
from tinyscene.evaluation.tables import fold_table
from tinyscene.systems import CrossValidation, cross_validate
from tinyscene.training import Fit, Run

RATE, SCENES, FOLDS = 8000, ("bus", "park", "tram"), ("1", "2", "10")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of every scene in each of three folds, in a table."""
    folder, rng = tmp_path_factory.mktemp("folds"), np.random.default_rng(0)
    lines = ["filename,label,fold"]
    for fold in FOLDS:
        for number, scene in enumerate(SCENES):
            for take in range(6):
                tone = np.sin(2 * np.pi * (500 + 900 * number) * np.arange(1600) / RATE)
                name = f"{scene}-{fold}-{take}.wav"
                soundfile.write(folder / name, 0.1 * tone + 0.3 * rng.normal(size=1600), RATE)
                lines.append(f"{name},{scene},{fold}")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


@pytest.fixture(scope="module")
def folds(root: Path) -> dict[str, Clips]:
    return {fold: load(root, test_fold=fold) for fold in FOLDS}


@pytest.fixture(scope="module")
def done(
    system_file: Path, folds: dict[str, Clips], tmp_path_factory: pytest.TempPathFactory
) -> tuple[CrossValidation, Path]:
    folder, file = tmp_path_factory.mktemp("cross"), load_system(system_file).only("large")
    with bare_runs():
        found = cross_validate(file, folds, Run(folder=folder, quiet=True), seeds=(0, 1))
    return found, folder


def test_the_folds_of_a_table_and_of_folders(root: Path, folds: dict[str, Clips], tmp_path: Path) -> None:
    assert folds["1"].folds == FOLDS
    for fold, clips in folds.items():
        assert {clip.fold for clip in clips.test} == {fold}
        assert fold not in {clip.fold for clip in clips.development}
    for clip in folds["1"]:
        place = tmp_path / f"fold{clip.fold}" / str(clip.scene)
        place.mkdir(parents=True, exist_ok=True)
        (place / clip.path).write_bytes((root.parent / clip.path).read_bytes())
    assert load(tmp_path).folds == FOLDS


def test_every_clip_is_tested_once(done: tuple[CrossValidation, Path], folds: dict[str, Clips]) -> None:
    found, _ = done
    for line in found.lines:
        for scores in line.scores.values():
            assert sorted(clip.path for clip in scores.clips) == sorted(clip.path for clip in folds["1"])
            assert not scores.optimistic


def test_figures_are_those_of_the_folds_own_predictions(done: tuple[CrossValidation, Path]) -> None:
    _, folder = done
    with (folder / "folds.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    by_seed, by_fold = [], {}
    for seed in (0, 1):
        tables = {fold: Scores.load(folder / f"fold-{fold}/large/seed-{seed}/predictions.csv") for fold in FOLDS}
        labels = np.concatenate([one.labels for one in tables.values()])
        shares = np.concatenate([one.probabilities for one in tables.values()])
        by_seed.append((accuracy_score(labels, shares.argmax(1)), log_loss(labels, shares)))
        for fold, one in tables.items():
            by_fold.setdefault(fold, []).append(accuracy_score(one.labels, one.probabilities.argmax(1)))
    accuracy, loss = np.mean(by_seed, 0)
    assert float(row["accuracy"]) == pytest.approx(accuracy)
    assert float(row["log_loss"]) == pytest.approx(loss, rel=1e-6)
    assert float(row["deviation"]) == pytest.approx(stdev([one for some in by_fold.values() for one in some]))
    for fold, some in by_fold.items():
        assert float(row[f"fold_{fold}"]) == pytest.approx(np.mean(some))


def test_two_are_compared_over_all_folds(done: tuple[CrossValidation, Path]) -> None:
    _, folder = done
    found = compare_runs(folder, folder)
    assert list(found) == ["large/seed-0", "large/seed-1"]
    assert found["large/seed-0"]["accuracy"]["all"].clips == 54


def test_what_a_fold_heard_of_its_test_clips_is_marked(done: tuple[CrossValidation, Path], tmp_path: Path) -> None:
    found, folder = done
    leaking = dict(found.rows)
    row = leaking["2"][0]
    heard = frozenset(row.scores.clips.recording_hashes[:1])
    leaking["2"] = [replace(row, scores=replace(row.scores, training_recordings=heard)), *leaking["2"][1:]]
    marked = CrossValidation(leaking)
    assert [line.facts["optimistic"] for line in marked.lines] == [True, False]
    with (console := Console(width=180)).capture() as text:
        console.print(fold_table([line.facts for line in marked.lines], "folds"))
    assert text.get().count("optimistic") == 1
    last = replace(leaking["2"][-1], scores=replace(leaking["2"][-1].scores, training_recordings=heard))
    CrossValidation(leaking | {"2": [*leaking["2"][:-1], last]}).save(tmp_path)
    differences = compare_runs(folder, tmp_path)
    assert differences["large/seed-1"]["accuracy"]["all"].optimistic


def test_other_classes_in_a_fold_are_refused(system_file: Path, folds: dict[str, Clips], tmp_path: Path) -> None:
    turned = {"1": folds["1"], "2": replace(folds["2"], classes=folds["2"].classes[::-1])}
    with pytest.raises(InputError, match="tram, park, bus"):
        cross_validate(load_system(system_file), turned, Run(folder=tmp_path, quiet=True))


def test_it_resumes(
    done: tuple[CrossValidation, Path],
    system_file: Path,
    folds: dict[str, Clips],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, folder = done
    monkeypatch.setattr(Fit, "apply", None)
    with bare_runs():
        again = cross_validate(
            load_system(system_file).only("large"), folds, Run(folder=folder, quiet=True), seeds=(0, 1)
        )
    assert [line.facts for line in again.lines] == [line.facts for line in found.lines]


def test_a_clip_tested_twice_is_refused(system_file: Path, folds: dict[str, Clips], tmp_path: Path) -> None:
    twice = {"1": folds["1"], "2": replace(folds["1"], name="again")}
    with pytest.raises(InputError, match=r"bus-1-\d.wav .* is a test clip of the folds 1 and 2"):
        cross_validate(load_system(system_file), twice, Run(folder=tmp_path, quiet=True))


def test_the_command(system_file: Path, root: Path, tmp_path: Path) -> None:
    command = ["reproduce", str(system_file), "--variant", "large", "--data", str(root), "--out", str(tmp_path)]
    with bare_runs():
        done = CliRunner().invoke(app, [*command, "--folds", "2 10"])
    assert done.exit_code == 0, done.output
    assert "fold 2" in done.stdout
    assert "fold 10" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"fold-2", "fold-10", "large", "folds.csv"}
    both = CliRunner().invoke(app, [*command, "--folds", "all", "--test-fold", "1"])
    assert "accepted: one of them" in str(both.exception)
    refused = CliRunner().invoke(app, [*command, "--folds", "3"])
    assert isinstance(refused.exception, InputError)
    assert "accepted: all, or of 1, 2, 10" in str(refused.exception)


@pytest.mark.parametrize("folds", [["--folds", "1"], ["--test-fold", "1"]])
def test_the_validation_part_trains_too_where_asked(
    system_file: Path, root: Path, folds: list[str], tmp_path: Path
) -> None:
    command = ["reproduce", str(system_file), "--variant", "large", "--data", str(root), "--out", str(tmp_path)]
    free = ("--set", "large.stages.0.early_stopping=None")
    with bare_runs():
        refused = CliRunner().invoke(app, [*command, *folds, "--train-on-all"])
        wanted = "large.stages.0, Fit, needs validation clips, .* or --set large.stages.0.early_stopping=None"
        assert re.search(wanted, str(refused.exception))
        assert CliRunner().invoke(app, [*command, *folds, *free, "--train-on-all"]).exit_code == 0
    place = tmp_path / "fold-1" if folds[0] == "--folds" else tmp_path
    history = json.loads(next(place.glob("stages/0-*/history.json")).read_text())["epochs"]
    assert "train_loss" in history[0]
    assert "validation_log_loss" not in history[0]
    guard = json.loads((place / "receipt.json").read_text())["guard"]
    assert guard == {
        "development_clips": 36,
        "test_clips": 18,
        "test_recordings": 18,
        "test_recordings_learned_from": 0,
    }


def test_microphones_are_heard_by_the_fold_that_did_not_train_on_the_clip(
    done: tuple[CrossValidation, Path],
    root: Path,
    folds: dict[str, Clips],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """results/devices.py beside every clip, filtered by NumPy and predicted by itself."""
    found, folder = done
    (tmp_path / "microphones").mkdir()
    hum, delta = np.cos(2 * np.pi * 200 * np.arange(1000) / RATE), 0.5 * (np.arange(1000) == 0)
    for name, response in {"a": delta, "b": 0 * hum, "c": hum}.items():
        soundfile.write(tmp_path / "microphones" / f"{name}.flac", response, RATE)
    script = runpy.run_path(str(Path(__file__).parents[2] / "results" / "devices.py"))
    script["main"].__globals__.update(TABLE=tmp_path / "devices.csv", EVERY=2)
    typed = ["devices.py", "--data", str(root), "--microphones", str(tmp_path / "microphones"), str(folder)]
    monkeypatch.setattr("sys.argv", typed)
    script["main"]()
    with (tmp_path / "devices.csv").open(newline="") as file:
        rows = {int(row["seed"]): row for row in csv.DictReader(file)}
    assert list(rows) == [0, 1]
    heard = soundfile.read(tmp_path / "microphones" / "c.flac")[0]
    for seed, clean in found.lines[-1].scores.items():
        right = []
        for fold, clips in folds.items():
            model = SceneClassifier.load(folder / f"fold-{fold}" / "large" / f"seed-{seed}")
            for clip in clips.test:
                sound = soundfile.read(clips.root / clip.path)[0]
                filtered = np.convolve(sound, heard)[np.abs(heard).argmax() :][: len(sound)]
                level = np.sqrt(np.mean(sound**2) / np.mean(filtered**2))
                right.append(model.predict((level * filtered).astype(np.float32), RATE).label == clip.scene)
        row, accuracy = rows[seed], {"a": clean.accuracy, "c": np.mean(right)}
        assert float(row["accuracy"]) == pytest.approx(clean.accuracy)
        assert float(row["log_loss"]) == pytest.approx(clean.log_loss, rel=1e-4)
        assert (row["microphones"], row["clips"]) == ("2", "54")
        assert float(row["worst"]) == pytest.approx(min(accuracy.values()))
        assert float(row["accuracy_devices"]) == pytest.approx(np.mean([*accuracy.values()]))
        assert float(row["difference"]) == pytest.approx(np.mean([*accuracy.values()]) - clean.accuracy)
        assert float(row["difference_low"]) <= float(row["difference"]) <= float(row["difference_high"])
