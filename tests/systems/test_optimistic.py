"""A stage that was shown the test part: its row and all later ones say so, those of the fair variant don't."""

import csv
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from bare_runs import bare_runs
from tinyscene import Calibration, InputError, Optimistic, SceneClassifier, evaluate, load_system, override, reproduce
from tinyscene.compression import Quantize
from tinyscene.data import Clips, load
from tinyscene.evaluation import Row
from tinyscene.evaluation.tables import legend
from tinyscene.systems import SystemFile, count_system, scale_system
from tinyscene.systems.edit import scale_epochs
from tinyscene.systems.system import stage_label
from tinyscene.training import Fit, Run, Stage

VARIANTS = """
from tinyscene.compression import Calibration
from tinyscene.systems import Optimistic

short = Fit(epochs=2, batch_size=8)
fair = System(dcase2021, build, (short, Calibration(), HalfPrecision()))
report = System(dcase2021, build, (short, Optimistic(Calibration()), HalfPrecision()))
del large, small
"""
FAIR = ["Fit", "Calibration multinomial", "HalfPrecision"]
REPORT = ["Fit", "Calibration multinomial on test", "HalfPrecision"]
MARKED = ["Fit", "Calibration multinomial on test, *optimistic*", "HalfPrecision, *optimistic*"]


class Done(NamedTuple):
    file: SystemFile
    clips: Clips
    folder: Path
    rows: list[Row]


@pytest.fixture(scope="module", autouse=True)
def bare() -> Iterator[None]:
    with bare_runs():
        yield


@pytest.fixture(scope="module")
def done(system_file: Path, tone_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    root, clips = tmp_path_factory.mktemp("both"), load(tone_set)
    (root / "both2024.py").write_text(system_file.read_text() + VARIANTS)
    file = load_system(root / "both2024.py")
    return Done(file, clips, root / "run", reproduce(file, clips, Run(folder=root / "run", quiet=True)))


def test_the_receipt_counts_the_test_recordings_that_were_shown(done: Done) -> None:
    guard = json.loads((done.folder / "receipt.json").read_text())["guard"]
    assert guard["test_recordings_learned_from"] == guard["test_recordings"] == len(done.clips.test)


def by_variant(rows: list[Row], variant: str) -> list[Row]:
    return [row for row in rows if row.variant == variant]


def test_rows_after_the_test_part_was_shown_are_marked(done: Done) -> None:
    fair, report = by_variant(done.rows, "fair"), by_variant(done.rows, "report")
    assert [row.marked_stage for row in fair] == [row.stage for row in fair] == FAIR
    assert [row.stage for row in report] == REPORT
    assert [row.marked_stage for row in report] == MARKED
    assert [row.optimistic for row in report] == [False, True, True]
    assert [row.scores.training_clips for row in report if row.scores] == [0, 12, 12]
    # The saved model remembers it, whoever evaluates it.
    for row in done.rows:
        scores = evaluate(SceneClassifier.load(done.folder / row.model), done.clips.test, Run(quiet=True))
        assert bool(scores.training_clips) == row.optimistic


def test_every_table_says_so(done: Done) -> None:
    with (done.folder / "scorecard.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["optimistic"] for line in table] == ["False"] * 4 + ["True"] * 2
    plain = json.loads((done.folder / "scorecard.json").read_text())["rows"]
    assert [facts["optimistic"] for facts in plain] == [row.optimistic for row in done.rows]
    card = (done.folder / "scorecard.md").read_text()
    assert [line.split(" | ")[1] for line in card.splitlines() if line.startswith("| ")] == ["stage", *FAIR, *MARKED]
    assert "optimistic: scored on recordings" in card
    assert "optimistic" not in legend(by_variant(done.rows, "fair"))


def test_published_tables_say_so(done: Done, tmp_path: Path) -> None:
    path = Path(__file__).resolve().parents[2] / "results" / "collect.py"
    spec = importlib.util.spec_from_file_location("collect", path)
    assert spec is not None
    assert spec.loader is not None
    collect = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(collect)
    with (done.folder / "scorecard.csv").open(newline="") as file:
        rows = [{**row, **dict.fromkeys(collect.PROVENANCE, "")} for row in csv.DictReader(file)]

    def published(some: list[dict[str, str]]) -> list[str]:
        with (tmp_path / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(some[0]))
            writer.writeheader()
            writer.writerows(some)
        return list(collect.table(tmp_path / "table.csv"))

    lines = published(rows)
    assert [line.split(" | ")[1] for line in lines if line.startswith("| report")] == MARKED
    assert [line.split(" | ")[1] for line in lines if line.startswith("| fair")] == FAIR
    assert any(line.startswith("*optimistic*: scored on") for line in lines)
    # Tables from before the mark have no such column.
    older = [{name: value for name, value in row.items() if name != "optimistic"} for row in rows]
    assert "optimistic" not in "".join(published(older))


def test_what_it_was_fitted_on_is_the_test_part(done: Done) -> None:
    fair, report = by_variant(done.rows, "fair")[1], by_variant(done.rows, "report")[1]
    assert fair.scores is not None
    assert report.scores is not None
    assert report.metrics["fitted_clips"] == 12
    assert fair.metrics["fitted_clips"] == 6
    assert report.metrics["fitted_log_loss_after"] == pytest.approx(report.scores.log_loss, abs=1e-6)
    assert fair.metrics["fitted_log_loss_after"] != pytest.approx(fair.scores.log_loss, abs=1e-6)
    trained = by_variant(done.rows, "fair")[0]
    assert trained.scores is not None
    assert report.metrics["fitted_log_loss_before"] == pytest.approx(trained.scores.log_loss, abs=1e-6)
    assert trained.metrics == {}
    assert report.to_json()["metrics"] == report.metrics


def test_a_kept_result_keeps_mark_and_figures(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fit, "apply", None)
    monkeypatch.setattr(Calibration, "apply", None)
    again = reproduce(done.file, done.clips, Run(folder=done.folder, quiet=True))
    assert [row.to_json() for row in again] == [row.to_json() for row in done.rows]


def test_other_test_clips_are_another_result(done: Done, tmp_path: Path) -> None:
    fewer = done.clips.where(lambda clip: clip.split != "test" or clip.device in "ab")
    rows = reproduce(done.file.only("report"), fewer, Run(folder=tmp_path / "run", quiet=True))
    assert rows[1].metrics["fitted_clips"] == 6
    assert rows[1].model != by_variant(done.rows, "report")[1].model


@dataclass(frozen=True)
class Spy(Stage):
    """Tells which splits a stage is handed."""

    seen: list[str]

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        self.seen.extend(clip.split for clip in clips)
        return classifier


def test_the_test_part_stands_in_for_the_validation_part(done: Done) -> None:
    seen = list[str]()
    untrained = done.file.variants["fair"].build(done.clips.classes)
    after = Optimistic(Spy(seen))(untrained, done.clips, Run())
    assert {split: seen.count(split) for split in set(seen)} == {"train": 18, "validation": 12}
    # It is marked with what it was handed, and only with that, though it returns its argument.
    shown = {*done.clips.train.recording_hashes, *done.clips.test.recording_hashes}
    assert set(after.provenance.recordings) == shown
    assert untrained.provenance.recordings == ()


def test_it_is_counted_edited_and_scaled_like_any_stage(done: Done) -> None:
    counted = [row.stage for row in count_system(done.file.only("report"), quiet=True)]
    assert counted == REPORT
    changed = override(done.file, ["report.stages.1.stage.C=0.1", "report.stages.1.stage.by=one-vs-rest"])
    assert changed.variants["report"].stages[1] == Optimistic(Calibration("one-vs-rest", 0.1))
    assert stage_label(changed.variants["report"].stages[1]) == "Calibration one-vs-rest on test"
    with pytest.raises(InputError, match=r"'platt' is str; accepted: \['multinomial', 'one-vs-rest', 'temperature']"):
        override(done.file, ["fair.stages.1.by=platt"])
    with pytest.raises(InputError, match=r"Optimistic has no field 'fit'; accepted: stage"):
        override(done.file, ["report.stages.1.fit.epochs=2"])
    assert scale_system(done.file, 0.5).variants["report"].stages[1:] == done.file.variants["report"].stages[1:]


def test_fits_within_stages_are_scaled() -> None:
    assert scale_epochs(Optimistic(Fit(epochs=40)), 0.1) == Optimistic(Fit(epochs=4))
    assert scale_epochs((Optimistic(Quantize(fit=Fit(epochs=40))),), 0.1) == (Optimistic(Quantize(fit=Fit(epochs=4))),)


def test_a_fit_within_a_stage_is_set_from_the_shell(done: Done, tmp_path: Path) -> None:
    text = (
        done.file.path.read_text()
        + """
from tinyscene.compression import Quantize

watched = System(dcase2021, build, (Optimistic(short), Quantize(fit=short)))
"""
    )
    (tmp_path / "nested.py").write_text(text)
    settings = ["watched.stages.0.stage.epochs=7", "watched.stages.1.fit.epochs=3"]
    changed = override(load_system(tmp_path / "nested.py"), settings).variants["watched"].stages
    assert changed == (Optimistic(Fit(epochs=7, batch_size=8)), Quantize(fit=Fit(epochs=3, batch_size=8)))


def test_unusable_arguments_are_refused(done: Done) -> None:
    with pytest.raises(InputError, match=r"Optimistic\(stage=3\); accepted: Stage"):
        Optimistic(3)  # type: ignore[arg-type]
    untrained = done.file.variants["fair"].build(done.clips.classes)
    with pytest.raises(InputError, match="no test clip; accepted: all clips"):
        Optimistic(Calibration())(untrained, done.clips.development, Run())
