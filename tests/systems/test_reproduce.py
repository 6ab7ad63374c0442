"""A small recipe run end to end: what is written, what is done once, what an edit or a kill costs."""

import csv
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from bare_runs import bare_runs, no_pictures
from tinyscene import InputError, SceneClassifier, evaluate, load_system, override, reproduce
from tinyscene.data import Clips, decode, load
from tinyscene.evaluation import Row, Scores
from tinyscene.evaluation.scorecard import FLAT
from tinyscene.models import create_classifier
from tinyscene.rules import dcase2021, dcase2024
from tinyscene.systems import System, SystemFile
from tinyscene.systems.reproduce import _untrained
from tinyscene.systems.system import SYSTEMS
from tinyscene.systems.under_budget import Candidate
from tinyscene.training import Fit, Run, Stage
from tinyscene.training.checkpoint import Checkpoint, Progress
from tinyscene.training.keys import weights_fingerprint

SRC = Path(__file__).resolve().parents[2] / "src"
TRAIN, PRUNE, TUNE, HALF = "Fit", "FilterPruning L2 0.5 l1_norm", "Fit", "HalfPrecision"


class Done(NamedTuple):
    file: SystemFile
    clips: Clips
    folder: Path
    rows: list[Row]
    fits: list[int]


@pytest.fixture(scope="module")
def clips(tone_set: Path) -> Clips:
    return load(tone_set)


@contextmanager
def counted_fits() -> Iterator[list[int]]:
    """The epochs of every fit that is run, in order."""
    done: list[int] = []
    original = Fit.apply

    def counted(fit: Fit, *given: Any) -> SceneClassifier:
        done.append(fit.epochs)
        return original(fit, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "apply", counted)
        yield done


@pytest.fixture
def fits() -> Iterator[list[int]]:
    """`counted_fits`, without the pictures and files that `done` holds."""
    with bare_runs(), counted_fits() as done:
        yield done


@pytest.fixture(scope="module")
def done(system_file: Path, clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Both variants, run once and left as they are."""
    folder, file = tmp_path_factory.mktemp("runs") / "run", load_system(system_file)
    typed = ["/opt/bin/tinyscene", "reproduce", str(system_file), "--data", str(clips.root), f"--cache={folder}/cache"]
    with pytest.MonkeyPatch.context() as patch, counted_fits() as fits:
        patch.setattr(sys, "argv", [*typed, "--out", str(folder), "--seeds", "0"])
        rows = reproduce(file, clips, Run(folder=folder, quiet=True))
    return Done(file, clips, folder, rows, fits)


@pytest.fixture
def copy(done: Done, tmp_path: Path) -> Path:
    """The folder of the run once more, to go on from."""
    return Path(shutil.copytree(done.folder, tmp_path / "run"))


def figures(run: Path) -> list[dict[str, str]]:
    """The scorecard, every digit of it."""
    with (run / "scorecard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_holds_every_stage_and_what_is_needed_to_run_it_again(done: Done) -> None:
    wanted = [("large", TRAIN), ("large", HALF), *(("small", stage) for stage in (TRAIN, PRUNE, TUNE, HALF))]
    assert [(row.variant, row.stage) for row in done.rows] == wanted
    assert done.fits == [3, 4], "the first fit is shared"
    stages = sorted(path.name.rsplit("-", 1)[0] for path in (done.folder / "stages").iterdir())
    assert stages == ["0-fit", "1-filterpruning-l2-0.5-l1-norm", "1-halfprecision", "2-fit", "3-halfprecision"]
    files = {path.name for path in done.folder.iterdir() if path.is_file()}
    assert {"scorecard.csv", "scorecard.md", "scorecard.json", "receipt.json", "recipe.json", "system.py"} <= files
    assert (done.folder / "system.py").read_text() == done.file.path.read_text()
    assert "torch==" in (done.folder / "versions.txt").read_text()
    for variant in ("large", "small"):
        pictures = {path.name for path in (done.folder / variant / "seed-0").glob("*.png")}
        assert pictures == {"curves.png", "confusion.png", "devices.png"}
    _no_pickle(done.folder)


def _no_pickle(folder: Path) -> None:
    names = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in names if path.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".pickle", ".npy")]
    # A pickle of protocol 2 or later begins with 0x80 and its number; torch's own container is a zip.
    assert not [path for path in names if path.read_bytes()[:2] in (*(bytes((128, n)) for n in range(2, 6)), b"PK")]
    assert not list(folder.rglob("*.partial"))


def test_rows_say_what_the_saved_models_do(done: Done) -> None:
    for row in done.rows:
        classifier = SceneClassifier.load(done.folder / row.model)
        scores = evaluate(classifier, done.clips.test, Run(quiet=True))
        assert row.scores is not None
        assert row.scores.log_loss == pytest.approx(scores.log_loss, abs=1e-6)
        facts = row.to_json()
        assert facts["parameters"] == sum(t.numel() for n, t in classifier.network.state_dict().items() if t.ndim)
        assert facts["seed"] == 0
        assert {"accuracy", "log_loss", "ece", "by_device", "by_city", "by_class", "verdict"} <= set(facts)
        assert list(facts["by_device"]) == ["a", "b", "s1", "s4"]
        assert list(facts["by_device_group"]) == ["real", "seen", "unseen"]
        assert facts["by_device_group"]["seen"] == facts["by_device"]["s1"]
        assert list(facts["by_city"]) == ["lyon", "milan"]
    final = Scores.load(done.folder / "small" / "seed-0" / "predictions.csv")
    assert final.accuracy == done.rows[-1].scores.accuracy  # type: ignore[union-attr]


def test_scorecards_agree(done: Done) -> None:
    table = figures(done.folder)
    assert list(table[0]) == FLAT
    plain = json.loads((done.folder / "scorecard.json").read_text())
    assert plain["system"] == "pocket2024"
    for line, facts, row in zip(table, plain["rows"], done.rows, strict=True):
        assert row.scores is not None
        assert (line["variant"], line["stage"]) == (facts["variant"], facts["stage"]) == (row.variant, row.stage)
        assert float(line["accuracy"]) == facts["accuracy"] == row.scores.accuracy
        assert float(line["accuracy_low"]) <= float(line["accuracy"]) <= float(line["accuracy_high"])
        assert int(line["bytes"]) == facts["bytes"]
        assert float(line["accuracy_unseen"]) == facts["by_device"]["s4"]["accuracy"]
    lines = [line for line in (done.folder / "scorecard.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(done.rows)
    assert len({line.count("|") for line in lines}) == 1


def test_the_recipe_names_every_value(done: Done) -> None:
    recipe = json.loads((done.folder / "recipe.json").read_text())["variants"]
    assert [stage["type"] for stage in recipe["small"]] == ["Fit", "FilterPruning", "Fit", "HalfPrecision"]
    adam = {"type": "Adam", "lr": 0.01, "weight_decay": 0.0, "betas": [0.9, 0.999], "rates": []}
    assert recipe["small"][0]["optimizer"] == adam
    assert recipe["small"][1]["by"] == "tinyscene.compression.filters.l1_norm"


def test_the_receipt_says_where_the_numbers_come_from(done: Done, copy: Path, fits: list[int]) -> None:
    slip = json.loads((done.folder / "receipt.json").read_text())
    assert slip["command"] == "tinyscene reproduce pocket2024.py --data $TONES --cache=cache --out run --seeds 0"
    assert slip["seeds"] == [0]
    assert slip["dataset"] == "tones"
    assert slip["versions"]["torch"] == importlib.metadata.version("torch")
    assert "Linux" in slip["machine"]
    assert 0 < slip["minutes"] < 10
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=SRC, capture_output=True, text=True).stdout
    assert slip["commit"].removesuffix("+changes") == head[:12]
    # Another label is other data.
    relabelled = replace(done.clips, rows=(done.clips.rows[0]._replace(scene="tram"), *done.clips.rows[1:]))
    (copy / "recipe.json").unlink()
    reproduce(done.file.only("large"), relabelled, Run(folder=copy, quiet=True))
    other = json.loads((copy / "receipt.json").read_text())
    assert fits == [3], "and what was learnt from it can't be kept"
    assert other["data_fingerprint"] != slip["data_fingerprint"]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["--data=/home/me/tau"], "--data=$TONES"),
        (["--data", "../tau"], "--data $TONES"),
        (["--set", "all.stages.0.optimizer.betas=(0.8, 0.9)"], "--set 'all.stages.0.optimizer.betas=(0.8, 0.9)'"),
        (["--out", "runs/a b"], "--out 'runs/a b'"),
    ],
)
def test_the_command_can_be_typed_on_another_machine(
    clips: Clips, monkeypatch: pytest.MonkeyPatch, typed: list[str], shown: str
) -> None:
    from tinyscene.systems.receipt import command

    monkeypatch.setattr(sys, "argv", ["/venv/lib/tinyscene/cli/__main__.py", "reproduce", "singh2021", *typed])
    assert command(clips) == f"tinyscene reproduce singh2021 {shown}"
    assert "/home" not in command(clips)
    assert len(shlex.split(command(clips))) == 3 + len(typed)


def test_a_second_start_trains_nothing(done: Done, copy: Path, fits: list[int]) -> None:
    before, card = stamps(copy / "stages"), figures(copy)
    again = reproduce(done.file, done.clips, Run(folder=copy, quiet=True))
    assert fits == []
    assert stamps(copy / "stages") == before
    assert figures(copy) == card
    assert [row.to_json() for row in again] == [row.to_json() for row in done.rows]


def test_a_changed_recipe_trains_from_the_change_on(done: Done, copy: Path, fits: list[int]) -> None:
    small, before = done.file.only("small"), stamps(copy / "stages")

    def again(*changes: str, seeds: tuple[int, ...] = (0,)) -> list[int]:
        fits.clear()
        reproduce(override(small, list(changes)), done.clips, Run(folder=copy, quiet=True), seeds=seeds)
        return list(fits)

    assert again("small.stages.2.epochs=1") == [1]
    assert again("small.stages.1.ratio=0.25") == [4]
    assert again("all.stages.0.epochs=2") == [2, 4]
    assert again(seeds=(0, 1)) == [3, 4]
    assert {name: stamp for name, stamp in stamps(copy / "stages").items() if name in before} == before
    assert {row["seed"] for row in figures(copy)} == {"0", "1"}


def test_an_unfinished_run_has_no_receipt(
    done: Done, copy: Path, monkeypatch: pytest.MonkeyPatch, fits: list[int]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    assert (copy / "receipt.json").is_file()
    edited = override(done.file, ["small.stages.2.epochs=1"])
    with monkeypatch.context() as patched:
        # The package's name `reproduce` is the function; the module is found by its path.
        patched.setattr(sys.modules["tinyscene.systems.reproduce"], "_run_variant", stop)
        with pytest.raises(KeyboardInterrupt):
            reproduce(edited, done.clips, Run(folder=copy, quiet=True))
    assert not (copy / "receipt.json").exists()
    reproduce(done.file, done.clips, Run(folder=copy, quiet=True))
    assert (copy / "receipt.json").is_file()


def test_a_run_is_not_written_over_by_another(done: Done, copy: Path, fits: list[int]) -> None:
    before = stamps(copy)
    fewer = done.clips.where(lambda clip: clip.path != "bus-train-0.wav")
    for file, clips in ((done.file, fewer), (replace(done.file, name="other"), done.clips)):
        with pytest.raises(InputError, match=r"holds a run of pocket2024.*accepted: another folder"):
            reproduce(file, clips, Run(folder=copy, quiet=True))
    assert fits == []
    assert stamps(copy) == before
    # A further seed adds to what is there.
    rows = reproduce(done.file, done.clips, Run(folder=copy, quiet=True), seeds=(0, 1))
    assert fits == [3, 4]
    assert [row.to_json() for row in rows[:6]] == [row.to_json() for row in done.rows]


def test_an_edited_criterion_of_ones_own_is_seen(
    system_file: Path, clips: Clips, tmp_path: Path, fits: list[int]
) -> None:
    """Its name is the same, its code isn't: a stored result must not stand in for it."""
    own = "by=lambda filters: filters.flatten(1).{}().sum(1)"

    def run(function: str) -> list[int]:
        text = system_file.read_text().replace("by=l1_norm", own.format(function))
        (tmp_path / "own2024.py").write_text(text)
        fits.clear()
        reproduce(load_system(tmp_path / "own2024.py").only("small"), clips, Run(folder=tmp_path / "run", quiet=True))
        return list(fits)

    assert run("abs") == [3, 4]
    assert run("square") == [4]
    assert run("abs") == []


def test_keys_are_the_same_in_another_process(tmp_path: Path) -> None:
    text = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
from dataclasses import dataclass, field
from functools import partial
from tinyscene import Fit, FilterPruning
from tinyscene.training.keys import key_of

def power(filters, exponent, names=frozenset()):
    return filters.flatten(1).abs().pow(exponent).sum(1) if exponent in {{1, 2, "x", "y"}} else None

def make(exponent):
    return lambda filters: power(filters, exponent)

@dataclass(frozen=True)
class Mine:
    times: int = 1
    held: list[str] = field(default_factory=list)

    def __call__(self, batch):
        return batch if self.times in {{"a", "b", "c"}} else None

print(*[key_of(value) for value in (Fit(), FilterPruning("L1", 0.5, power), FilterPruning("L1", 0.5, make(1)),
    FilterPruning("L1", 0.5, make(2)), FilterPruning("L1", 0.5, partial(power, exponent=1)),
    FilterPruning("L1", 0.5, partial(power, exponent=2)), Mine(), Mine(2))])
"""
    (tmp_path / "keys.py").write_text(text)
    found = []
    for seed in "01":
        process = subprocess.run(
            [sys.executable, str(tmp_path / "keys.py")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        found.append(process.stdout.split())
    assert found[0] == found[1]
    assert len(set(found[0])) == 8


@dataclass(frozen=True)
class Spy(Stage):
    """Tells which splits a stage is handed."""

    seen: list[str]

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        self.seen.extend(clip.split for clip in clips)
        return classifier


def test_no_stage_sees_a_test_clip(system_file: Path, clips: Clips, tmp_path: Path, fits: list[int]) -> None:
    file, seen = load_system(system_file), list[str]()
    large = file.variants["large"]
    spied = System(large.rules, large.build, (Spy(seen), *large.stages, Spy(seen)), large.reported)
    reproduce(replace(file, variants={"spied": spied}), clips, Run(folder=tmp_path / "run", quiet=True))
    assert len(clips.test) == 12
    assert {split: seen.count(split) for split in set(seen)} == {"train": 2 * 18, "validation": 2 * 6}


def test_test_clips_do_not_reach_training(system_file: Path, clips: Clips, tmp_path: Path, fits: list[int]) -> None:
    """Other test clips, the same trained network."""
    file = load_system(system_file).only("large")
    odd = clips.where(lambda clip: clip.split != "test" or clip.device in "ab")
    for name, some in (("all", clips), ("some", odd)):
        reproduce(file, some, Run(folder=tmp_path / name, quiet=True))
    weights = [(tmp_path / name / "large" / "seed-0" / "weights.safetensors").read_bytes() for name in ("all", "some")]
    assert weights[0] == weights[1]
    assert figures(tmp_path / "all")[0]["accuracy_unseen"] != figures(tmp_path / "some")[0]["accuracy_unseen"] == ""


def test_what_leaks_or_lacks_a_class_is_refused(
    system_file: Path, clips: Clips, tmp_path: Path, fits: list[int]
) -> None:
    file = load_system(system_file)
    first = next(i for i, clip in enumerate(clips) if clip.split == "test")
    leaking = list(clips.rows)
    leaking[first] = leaking[first]._replace(recording=clips.rows[0].recording)
    refused: list[tuple[Clips, str]] = [
        (replace(clips, rows=tuple(leaking)), "more than one split.*bus-train-0"),
        (clips.where(lambda clip: clip.split != "test" or clip.scene != "park"), "test split has no clip of park"),
        (clips.where(lambda clip: clip.split != "train" or clip.scene != "bus"), "train split has no clip of bus"),
        (clips.development, "test split has no clip of bus, park, tram"),
    ]
    for some, message in refused:
        with pytest.raises(InputError, match=message):
            reproduce(file, some, Run(folder=tmp_path / "run", quiet=True))
    assert fits == []


def test_one_sound_under_two_names_is_refused_or_dropped(
    system_file: Path, twins: Path, tmp_path: Path, fits: list[int]
) -> None:
    file, clips = load_system(system_file).only("large"), load(twins)
    twins_named = r"bus-train-0.wav \(train, tones.csv:2\) = bus-again.flac \(test, tones.csv:38\)"
    both = rf"the same sound, {twins_named}; .*--drop-shared"
    with pytest.raises(InputError, match=both):
        reproduce(file, clips, Run(folder=tmp_path / "run", quiet=True))
    with pytest.raises(InputError, match=both):
        reproduce(file, replace(clips, published=True), Run(folder=tmp_path / "run", quiet=True))
    assert fits == []
    reproduce(file, decode(clips, 8000, quiet=True).drop_shared().clips, Run(folder=tmp_path / "run", quiet=True))
    (note,) = json.loads((tmp_path / "run" / "receipt.json").read_text())["notes"]
    assert note.endswith(": bus-train-0.wav (train, recording bus-train-0)")


def test_what_published_splits_share_stands_in_the_receipt(
    system_file: Path, clips: Clips, tmp_path: Path, fits: list[int]
) -> None:
    rows = [c._replace(recording=c.recording.replace("park-test-1", "park-train-0")) for c in clips]
    published = replace(clips, rows=tuple(rows), published=True).note_shared()
    (row, _) = reproduce(load_system(system_file).only("large"), published, Run(folder=tmp_path / "run", quiet=True))
    (note,) = json.loads((tmp_path / "run" / "receipt.json").read_text())["notes"]
    assert "1 recording is in both development and test, as published: park-train-0 (1 in train, 1 in test)" in note
    assert row.scores is not None
    assert row.scores.training_clips == 1


KILLED = """
import os, signal, sys, threading
from pathlib import Path

sys.path.insert(0, {src!r})
import torch
from tinyscene import Run, load_system, reproduce
from tinyscene.data import load
from tinyscene.training.checkpoint import Checkpoint

torch.set_num_threads(1)  # as the tests' own process, which goes on
saves, save = [], Checkpoint.save

def killing(self, network, optimizer, averaged, progress):
    save(self, network, optimizer, averaged, progress)
    saves.append(progress.epoch)
    # Three epochs of the first fit, then the second epoch of the second.
    if len(saves) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = killing
reproduce(load_system({system!r}).only("small"), load({data!r}), Run(folder={run!r}, quiet=True))
"""


def test_a_killed_run_ends_as_if_it_had_not_been(
    done: Done, system_file: Path, tone_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process is killed; what goes on here ends with the figures and files of `done`, to the bit."""
    folder, saves, save = tmp_path / "killed", [], Checkpoint.save
    text = KILLED.format(src=str(SRC), system=str(system_file), data=str(tone_set), run=str(folder))
    killed = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (folder / "scorecard.csv").exists()

    def counted(
        self: Checkpoint, network: nn.Module, optimizer: Optimizer, averaged: nn.Module | None, progress: Progress
    ) -> None:
        save(self, network, optimizer, averaged, progress)
        saves.append(progress.epoch)

    monkeypatch.setattr(Checkpoint, "save", counted)
    with no_pictures():
        reproduce(done.file.only("small"), done.clips, Run(folder=folder, quiet=True))
    assert saves == [3, 4], "the second fit goes on after its second epoch"
    assert figures(folder) == [row for row in figures(done.folder) if row["variant"] == "small"]
    models = [run / "small" / "seed-0" for run in (folder, done.folder)]
    for name in ("weights.safetensors", "model.json", "predictions.csv"):
        assert (models[0] / name).read_bytes() == (models[1] / name).read_bytes()
    assert not list(folder.rglob("*.partial"))
    assert not list((folder / "stages").glob("checkpoints/*"))


EXAMPLE = Path(__file__).parents[2] / "examples" / "add_a_system.py"


@pytest.mark.parametrize("name", [*SYSTEMS, EXAMPLE, "fit"], ids=lambda name: Path(name).stem)
def test_every_seed_begins_from_weights_of_its_own(name: str | Path, clips: Clips) -> None:
    """Those of any system, of one's own as the example writes it, and of the networks that `fit` tries."""
    if name == "fit":
        systems = [Candidate("cp_mobile", {"base_channels": 8}, dcase2024, 1.0).system()]
    else:
        systems = [*load_system(name).variants.values()]
    for system in {system.build: system for system in systems}.values():
        first, second, again = (
            weights_fingerprint(_untrained(system, clips, Run(seed, quiet=True))) for seed in (0, 1, 0)
        )
        assert first == again
        assert first != second


def begun_alike(classes: tuple[str, ...]) -> SceneClassifier:
    torch.manual_seed(1)
    return create_classifier("baseline2021", classes, filters=(4, 4, 4), dense=8)


def test_a_seed_is_part_of_what_made_a_result(clips: Clips, tmp_path: Path) -> None:
    """Also of a system that begins with the same weights at every seed: training draws from it too."""
    system = System(dcase2021, begun_alike, (Fit(epochs=1, batch_size=4),))
    file = SystemFile("alike", Path(__file__), "", {"only": system})
    with bare_runs():
        rows = reproduce(file, clips, Run(folder=tmp_path / "run", accelerator="cpu", quiet=True), seeds=(0, 1))
    first, second = (weights_fingerprint(SceneClassifier.load(tmp_path / "run" / row.model).network) for row in rows)
    assert first != second
