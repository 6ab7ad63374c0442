"""Every verb of the command line, and what it says to wrong input: one sentence and status 2."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from bare_runs import bare_runs, no_pictures
from tinyscene import SceneClassifier, __version__
from tinyscene.cli import main
from tinyscene.data.synthetic import Synthetic
from tinyscene.models import NETWORKS
from tinyscene.rules import RULES
from tinyscene.systems import SYSTEMS
from tinyscene.training import Run

ROOT = Path(__file__).resolve().parents[1]
MINE = str(ROOT / "examples" / "add_a_system.py")
VERBS = ("list", "show", "count", "reproduce", "fit", "evaluate", "compare", "run", "demo")
ROW = {"variant", "stage", "parameters", "nonzero", "bytes", "kb", "macs", "convention", "verdict", "reported"}


class Said(NamedTuple):
    status: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Said:
    """What the console script does with these arguments."""
    monkeypatch.setattr(sys, "argv", ["tinyscene", *map(str, arguments)])
    capsys.readouterr()
    try:
        main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    return Said(status, *capsys.readouterr())


@pytest.fixture
def tinyscene(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    # --cache changes the variable; it is put back.
    monkeypatch.setenv("TINYSCENE_CACHE", os.environ["TINYSCENE_CACHE"])
    return lambda *arguments: call(capsys, monkeypatch, *arguments)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes with devices and cities in a table: 8 clips to train, 4 to watch, 8 to test."""
    root = tmp_path_factory.mktemp("table")
    lines = ["filename,label,split,device,city"]
    for number, scene in enumerate(("bus", "park")):
        for take in range(10):
            split = "train" if take < 4 else "validation" if take < 6 else "test"
            rng = np.random.default_rng([number, take])
            soundfile.write(root / f"{scene}-{take}.wav", rng.uniform(-0.5, 0.5, 3200), 16_000)
            lines.append(f"{scene}-{take}.wav,{scene},{split},{'ab'[take % 2]},{('lyon', 'milan')[number]}")
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root / "list.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run of both variants with two seeds, one epoch a fit."""
    from tinyscene import load_system, reproduce, scale_system
    from tinyscene.data import load

    folder = tmp_path_factory.mktemp("runs") / "mine"
    file = scale_system(load_system(MINE), 0.01)
    with bare_runs():
        reproduce(file, load(data), Run(folder=folder, quiet=True), seeds=(0, 1))
    return folder


def model(run: Path, variant: str = "pruned", seed: int = 0) -> Path:
    return run / variant / f"seed-{seed}"


# What teaches


@pytest.mark.parametrize(
    "verb",
    [
        (),
        *((verb,) for verb in VERBS),
        *(("data", *verb) for verb in ((), ("check",), ("make",))),
        *(("submission", *verb) for verb in ((), ("build",), ("check",))),
    ],
)
def test_every_verb_has_help(tinyscene: Callable[..., Said], verb: tuple[str, ...]) -> None:
    said = tinyscene(*verb, "--help")
    assert said.status == 0
    assert said.err == ""
    assert "Usage" in said.out
    wanted = {
        (): (*VERBS, "data", "export", "submission"),
        ("count",): ("--rules", "--half", "--layers", "--json", "dcase2024"),
        ("reproduce",): ("--data", "--set", "VARIANT.stages.N.field", "--seeds", "--epochs-scale", "--out"),
        ("fit",): ("--under", "--macs", "--parameters", "--ram", "64kB", "never", "pareto.png"),
        ("evaluate",): ("--split", "--test-fold", "--subset"),
        ("run",): ("--skip-bad", "model.json", "--out", "--stream", "--listen", "--smooth", "s16le"),
        ("data", "make"): ("synthetic", "--seed"),
        ("submission", "build"): ("RUN...", "--audio", "--authors", "split_5", "devices/ID"),
        ("submission", "check"): ("--evaluation", "--inference", "--python", "--json"),
    }.get(verb, ("--help",))
    for word in wanted:
        assert word in said.out


def test_list_names_all_there_is(tinyscene: Callable[..., Said]) -> None:
    everything = tinyscene("list").out
    for what, names in (
        ("systems", [*SYSTEMS, "singh_53kb"]),
        ("networks", NETWORKS),
        ("rules", RULES),
        ("datasets", ["tau2022-mobile", "esc10", "csv", "folder"]),
    ):
        said = tinyscene("list", what)
        assert said.status == 0
        for name in names:
            assert name in said.out
            assert name in everything


def test_show_prints_recipe_and_reported_figures(tinyscene: Callable[..., Said]) -> None:
    said = tinyscene("show", "singh2021")
    assert said.status == 0
    for text in ("FilterPruning", "geometric_median", "27,166", "53.06", "48.48"):
        assert text in said.out
    assert "def build(" in tinyscene("show", MINE).out


# count


def test_a_reports_own_bookkeeping_is_counted_item_by_item(tinyscene: Callable[..., Said]) -> None:
    """SYSTEMS.md, byttebier2021: the table's own items, once for the variants that share them."""
    said = tinyscene("count", "byttebier2021")
    assert said.status == 0
    assert said.out.count("item by item") == 1
    rows = [[cell.strip() for cell in line.split("│")] for line in said.out.splitlines()]
    for figures in (["109,320", "1", "109,320"], ["658", "8", "5,264"], ["658", "4", "2,632"], ["32", "8", "256"]):
        assert any(row[-4:-1] == figures for row in rows), figures
    assert any(row[1:4] == ["sum", "127.64 KB", "113,976"] and row[5] == "130,704" for row in rows)


def test_count_a_private_system_by_another_edition(tinyscene: Callable[..., Said], tmp_path: Path) -> None:
    said = tinyscene("count", MINE, "--rules", "dcase2024", "--json", tmp_path / "count.json")
    assert (said.status, said.out, said.err) == (0, "", "")
    rows = json.loads((tmp_path / "count.json").read_text())["rows"]
    assert {row["rules"] for row in rows} == {"dcase2024"}
    assert [row["stage"] for row in rows if row["variant"] == "whole"] == ["Fit", "HalfPrecision"]
    table = tinyscene("count", MINE)
    assert table.status == 0
    assert "whole" in table.out
    assert "pruned" in table.out
    assert "bn4: every saved value" in table.out


def test_count_a_network(tinyscene: Callable[..., Said]) -> None:
    said = tinyscene("count", "cp_mobile", "--rules", "dcase2024", "--half")
    assert said.status == 0
    for text in ("61,148", "122,296", "29,419,156", "dcase2024: legal"):
        assert text in said.out
    assert "not legal" in tinyscene("count", "cp_mobile", "--rules", "dcase2024").out
    (row,) = json.loads(tinyscene("count", "cp_mobile", "--half", "--json", "-").out)["rows"]
    assert (row["parameters"], row["bytes"], row["macs"]) == (61_148, 122_296, 29_419_156)
    assert set(row) >= {*ROW, "ledger"}


def test_count_layer_by_layer(tinyscene: Callable[..., Said]) -> None:
    said = tinyscene("count", MINE, "--layers")
    assert said.status == 0
    assert said.out.count("Conv2d") >= 6
    assert "MACs, torchinfo" in said.out


def test_count_a_saved_model(tinyscene: Callable[..., Said], run: Path) -> None:
    (row,) = json.loads(tinyscene("count", model(run), "--rules", "dcase2021", "--json", "-").out)["rows"]
    tensors = SceneClassifier.load(model(run)).network.state_dict()
    assert row["parameters"] == sum(t.numel() for t in tensors.values() if t.ndim)
    assert row["bytes"] == 2 * row["parameters"]


# reproduce, evaluate, compare


def test_reproduce(tinyscene: Callable[..., Said], data: Path, tmp_path: Path) -> None:
    typed = (
        "reproduce",
        MINE,
        "--data",
        data,
        "--epochs-scale",
        "0.01",
        "--out",
        tmp_path / "run",
        "--variant",
        "pruned",
    )
    with bare_runs():
        said = tinyscene(*typed, "--set", "pruned.stages.0.epochs=2", "--json", "-")
    assert said.status == 0
    found = json.loads(said.out)
    assert found["system"] == "add_a_system"
    assert [row["stage"].split()[0] for row in found["rows"]] == ["Fit", "FilterPruning", "Fit", "HalfPrecision"]
    for row in found["rows"]:
        assert set(row) >= {*ROW, "accuracy", "log_loss", "ece", "by_device", "by_city", "seed"}
    slip = json.loads((tmp_path / "run" / "receipt.json").read_text())
    settings = {"epochs_scale": 0.01, "set": ["pruned.stages.0.epochs=2"], "train_on_all": False}
    assert slip["settings"] == settings
    guard = slip["guard"]
    assert guard["test_recordings"] > guard["test_recordings_learned_from"] == 0
    assert str(data.parent) not in slip["command"]
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert [stage.get("epochs") for stage in recipe["variants"]["pruned"]] == [2, None, 1, None]
    with no_pictures():
        again = tinyscene(*typed, "--set", "pruned.stages.0.epochs=2")
    assert again.status == 0
    assert again.err.count("reused") == 4, "nothing is done twice"
    assert f"tinyscene run {tmp_path}" in again.out.replace("\n", "")


def test_seeds_are_numbers_one_after_the_other(
    tinyscene: Callable[..., Said], data: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    typed = ("reproduce", MINE, "--data", data, "--epochs-scale", 0.01, "--out", tmp_path / "run", "--seeds", 0, 1)
    with no_pictures():
        said = tinyscene(*typed, "--json", "-")
    assert [row["seed"] for row in json.loads(said.out)["rows"]] == [0] * 6 + [1] * 6


def test_evaluate_one_model_and_several(tinyscene: Callable[..., Said], data: Path, run: Path) -> None:
    models = [model(run, seed=seed) for seed in (0, 1)]
    (one,) = json.loads(tinyscene("evaluate", models[0], "--data", data, "--json", "-").out)
    with (run / "scorecard.csv").open(newline="") as file:
        last = [row for row in csv.DictReader(file) if (row["variant"], row["seed"]) == ("pruned", "0")][-1]
    assert one["clips"] == 8
    assert one["accuracy"] == pytest.approx(float(last["accuracy"]))
    assert one["log_loss"] == pytest.approx(float(last["log_loss"]), abs=1e-6)
    assert set(one) >= {
        "model",
        "ece",
        "macro_accuracy",
        "by_class",
        "by_device",
        "by_device_group",
        "by_city",
        "confusion",
    }
    both = json.loads(tinyscene("evaluate", *models, "--data", data, "--json", "-").out)
    assert [entry["model"] for entry in both] == [str(path) for path in models]
    said = tinyscene("evaluate", *models, "--data", data)
    assert said.status == 0
    accuracies = [100 * entry["accuracy"] for entry in both]
    assert f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f} %" in said.out
    for part in ("class bus", "device a", "city lyon", "devices real"):
        assert part in said.out
    other = json.loads(tinyscene("evaluate", models[0], "--data", data, "--split", "validation", "--json", "-").out)
    assert other[0]["clips"] == 4


def test_compare_models_and_runs(tinyscene: Callable[..., Said], run: Path) -> None:
    whole, pruned = model(run, "whole"), model(run)
    ((_, found),) = json.loads(tinyscene("compare", whole, pruned, "--json", "-").out).items()
    assert set(found) == {"accuracy", "log_loss"}
    assert list(found["accuracy"]) == ["all", "a", "b"]
    scores: list[dict[str, Any]] = []
    for folder in (whole, pruned):
        with (folder / "predictions.csv").open(newline="") as file:
            scores.append({row["filename"]: float(row[f"p_{row['scene']}"]) for row in csv.DictReader(file)})
    expected = np.mean([np.log(scores[0][name]) - np.log(scores[1][name]) for name in scores[0]])
    assert found["log_loss"]["all"]["difference"] == pytest.approx(expected)
    low, high = found["log_loss"]["all"]["interval"]
    assert low <= expected <= high
    runs = json.loads(tinyscene("compare", run, run, "--json", "-").out)
    assert list(runs) == ["pruned/seed-0", "pruned/seed-1", "whole/seed-0", "whole/seed-1"]
    assert {part["difference"] for both in runs.values() for parts in both.values() for part in parts.values()} == {0}
    assert "95 % paired bootstrap" in tinyscene("compare", whole, pruned).out


# data


def test_data_check(tinyscene: Callable[..., Said], tau_tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tau_tree(tmp_path / "tau", "tau2020-mobile")
    said = tinyscene("data", "check", "tau2020-mobile", root)
    assert (said.status, said.out.splitlines()[-1]) == (0, "ok")
    assert json.loads(tinyscene("data", "check", "tau2020-mobile", root, "--json", "-").out)["ok"]
    next((root / "audio").glob("*-40-540-a.wav")).unlink(missing_ok=True)
    victim = sorted((root / "audio").glob("*.wav"))[0]
    victim.write_bytes(b"no sound")
    broken = tinyscene("data", "check", "tau2020-mobile", root)
    assert broken.status == 1
    assert victim.name in broken.out
    assert broken.out.splitlines()[-1] == "not ok"
    assert tinyscene("data", "check", "tau2020-mobile", root, "--json", "-").status == 1


def test_shared_recordings_and_sounds_are_dropped_where_asked(
    tinyscene: Callable[..., Said], data: Path, run: Path, tmp_path: Path
) -> None:
    """One recording on two sides, and one sound under two names: whoever loads refuses them, or leaves them out."""
    root = shutil.copytree(data.parent, tmp_path / "table")
    shutil.copy(root / "bus-0.wav", root / "bus-0b.wav")
    lines = [f"{line},{line.partition('.')[0]}" for line in data.read_text().splitlines()[1:]]
    lines[9] = lines[9].replace(",bus-9", ",bus-1")
    lines.append("bus-0b.wav,bus,test,a,lyon,bus-0b")
    (root / "list.csv").write_text("\n".join(["filename,label,split,device,city,recording", *lines]))
    reached = {
        ("evaluate", model(run)): "",
        ("reproduce", MINE, "--seeds", "x"): '--seeds "x"',
        ("fit", "--under", "64kB", "--minutes", 1, "--epochs-scale", 1): "--minutes 1 and --epochs-scale 1",
    }
    for verb, beyond in reached.items():
        typed = (*verb, "--data", root / "list.csv")
        assert (
            "the first is bus-1 (1 in train, 1 in test); accepted: every recording in one split, or --drop-shared"
            in (wrong(tinyscene(*typed)))
        )
        said = tinyscene(*typed, "--drop-shared")
        assert beyond in said.err
        assert said.status == (2 if beyond else 0)
        assert "note: 1 clip is left out of training" in said.err
        assert "bus-1.wav (train, recording bus-1)" in said.err
        assert "bus-0.wav (train, recording bus-0)" in said.err
    said = tinyscene("data", "check", "csv", root / "list.csv")
    assert said.status == 1
    assert "leaking: 2" in said.out
    assert "the same sound, bus-0.wav (train, list.csv:2) = bus-0b.wav (test, list.csv:22)" in said.out
    said = tinyscene("data", "check", "csv", root / "list.csv", "--drop-shared")
    assert said.status == 0
    assert "leaking" not in said.out


def test_data_make(tinyscene: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = {"sample_rate": 16_000, "cities": ("lyon", "milan"), "test_cities": (), "locations": 1, "segments": 1}
    monkeypatch.setattr(
        "tinyscene.data.synthetic.Synthetic", lambda seed: Synthetic(seed=seed, clips_per_segment=1, **small)
    )
    said = tinyscene("data", "make", "synthetic", tmp_path / "set", "--seed", 3)
    assert said.status == 0
    assert f"tinyscene data check synthetic {tmp_path}/set" in said.out.replace("\n", "")
    assert json.loads((tmp_path / "set" / "synthetic.json").read_text())["seed"] == 3
    assert tinyscene("data", "make", "synthetic", tmp_path / "set", "--seed", 4).status == 2


# Wrong input


def wrong(said: Said) -> str:
    """One sentence on stderr, status 2, nothing on stdout."""
    assert said.status == 2, said
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.startswith("tinyscene: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (("list", "recipes"), ["systems, networks, models, rules, datasets"]),
        (("show", "singh2020"), ["'singh2020'", "singh2021"]),
        (("count", "singh2020"), ["'singh2020'", "singh2021", "cp_mobile", "model"]),
        (("count", "gone.py"), ["'gone.py'", "singh2021"]),
        (("count", "."), ["model.json"]),
        (("count", "singh2021", "--rules", "dcase1999"), ["'dcase1999'", "dcase2024"]),
        (("count", "singh2021", "--half"), ["--half", "singh2021"]),
        (("count", "cp_mobile", "--json", "/dev/null/x.json"), ["/dev/null/x.json", "accepted: a place that can be"]),
        (("reproduce", "singh2020", "--data", "."), ["'singh2020'"]),
        (("reproduce", MINE, "--data", "no-such"), ["no-such: no such file or folder"]),
        (("reproduce", MINE, "--data", "EMPTY"), ["holds nothing"]),
        (("reproduce", MINE, "--data", "DATA", "--dataset", "tau"), ["'tau'", "tau2022-mobile"]),
        (("reproduce", MINE, "--data", "DATA", "--subset", "5"), ["subset", "accepted"]),
        (("reproduce", MINE, "--data", "DATA", "--variant", "half"), ["'half'", "whole, pruned"]),
        (("reproduce", MINE, "--data", "DATA", "--set", "whole.stages.0.epoch=2"), ["'epoch'", "epochs, batch_size"]),
        (("reproduce", MINE, "--data", "DATA", "--set", "whole.stages.0.epochs=x"), ["'x' is str", "int"]),
        (("reproduce", MINE, "--data", "DATA", "--set", "epochs=2"), ["VARIANT.stages.N.field=value"]),
        (("reproduce", MINE, "--data", "DATA", "--seeds", "one"), ["one", "0 1 2"]),
        (("reproduce", MINE, "--data", "DATA", "--seeds", "0,-1"), ["0,-1", "0 1 2"]),
        (("reproduce", MINE, "--data", "DATA", "--epochs-scale", "0"), ["--epochs-scale 0"]),
        (("reproduce", MINE, "--data", "DATA", "--epochs-scale", "nan"), ["--epochs-scale nan"]),
        (("reproduce", MINE, "--data", "DATA", "--accelerator", "abacus", "--out", "OUT"), ["'abacus'", "cpu or gpu"]),
        (("reproduce", MINE, "--data", "DATA", "--out", "/dev/null/run"), ["/dev/null"]),
        (("reproduce", MINE, "--data", "DATA", "--cache", "/dev/null/c", "--out", "OUT"), ["/dev/null/c"]),
        (("evaluate", "MODEL", "--data", "no-such"), ["no-such: no such"]),
        (("evaluate", "EMPTY", "--data", "DATA"), ["no model.json"]),
        (("evaluate", "MODEL", "--data", "DATA", "--split", "dev"), ["train, validation, test"]),
        (("compare", "MODEL", "EMPTY"), ["no predictions.csv"]),
        (("compare", "no-such", "MODEL"), ["no-such"]),
        (("run", "EMPTY", "DATA"), ["no model.json"]),
        (("run", "MODEL", "no-such.wav"), ["no-such.wav"]),
        (("run", "MODEL", "SILENT"), ["silent.wav", "silent"]),
        (("run", "MODEL", "DATA"), ["list.csv", "not a readable sound file"]),
        (("run", "MODEL", "EMPTY"), ["accepted"]),
        (("data", "check", "tau", "."), ["'tau'", "tau2022-mobile"]),
        (("data", "check", "folder", "no-such"), ["no-such"]),
        (("data", "check", "folder", "EMPTY"), ["no class folders"]),
        (("data", "make", "esc51", "OUT"), ["esc51", "accepted"]),
        (("data", "make", "synthetic", "OUT", "--seed", "-1"), ["seed=-1"]),
        (("data", "make", "synthetic", "/dev/null/set"), ["/dev/null"]),
    ],
    ids=lambda value: " ".join(value).replace(MINE, "mine") if isinstance(value, tuple) else "",
)
def test_wrong_input_is_one_sentence(
    tinyscene: Callable[..., Said], data: Path, run: Path, tmp_path: Path, typed: tuple[str, ...], named: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16_000)
    places = {
        "DATA": data,
        "MODEL": model(run),
        "EMPTY": tmp_path / "empty",
        "OUT": tmp_path / "out",
        "SILENT": tmp_path / "silent.wav",
    }
    message = wrong(tinyscene(*(places.get(word, word) for word in typed)))
    for text in named:
        assert text in message


@pytest.mark.parametrize(
    "typed",
    [
        ("train",),
        ("count",),
        ("count", "cp_mobile", "--fast"),
        ("reproduce", "singh2021"),
        ("reproduce", "singh2021", "--data", ".", "--epochs-scale", "much"),
        ("reproduce", "singh2021", "--data", ".", "--devices", "0"),
        ("reproduce", "singh2021", "--data", ".", "--workers", "-1"),
        ("run",),
        ("data", "mend"),
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_named(tinyscene: Callable[..., Said], typed: tuple[str, ...]) -> None:
    said = tinyscene(*typed)
    assert said.status == 2
    assert "Usage: tinyscene" in said.err
    assert "Traceback" not in said.err


def test_a_model_of_other_classes_is_refused(
    tinyscene: Callable[..., Said], run: Path, sound: Callable[..., Path], tmp_path: Path
) -> None:
    for scene in ("beach", "park"):
        for take in range(4):
            sound(tmp_path / "set" / scene / f"{take}.wav", rate=16_000, seconds=0.2, seed=take)
    message = wrong(tinyscene("evaluate", model(run), "--data", tmp_path / "set"))
    assert "beach, park" in message
    assert "bus, park" in message


def test_runs_over_other_clips_are_refused(tinyscene: Callable[..., Said], run: Path, tmp_path: Path) -> None:
    shutil.copytree(model(run), tmp_path / "fewer")
    table = tmp_path / "fewer" / "predictions.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    assert "different clips (8 and 7" in wrong(tinyscene("compare", model(run), tmp_path / "fewer"))


def test_a_spoilt_model_is_refused(tinyscene: Callable[..., Said], run: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(model(run), tmp_path / "spoilt")
    weights = tmp_path / "spoilt" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "weights.safetensors" in wrong(tinyscene("run", tmp_path / "spoilt", data.parent / "bus-0.wav"))


def test_the_version_is_the_packages(tinyscene: Callable[..., Said]) -> None:
    assert tinyscene("--version") == Said(0, f"tinyscene {__version__}\n", "")
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("arguments", [["reproduce", "--help"], ["--version"]])
def test_help_and_version_need_no_torch(arguments: list[str]) -> None:
    """In a process of its own: imports of the others would hide one."""
    text = (
        f"import sys; sys.argv = ['tinyscene', *{arguments}]\n"
        "from tinyscene.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(sorted({'torch', 'matplotlib', 'lightning', 'sklearn'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "[]"


def test_the_module_runs_as_the_command_does(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.run(
        [sys.executable, "-m", "tinyscene.cli", "data", "check", "folder", str(tmp_path / "gone")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr.startswith(f"tinyscene: {tmp_path}/gone")
    assert process.stderr.count("\n") == 1


def test_demo(
    tinyscene: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tau_tree: Callable[..., Path], tmp_path: Path
) -> None:
    monkeypatch.setattr("tinyscene.data.synthetic.render", lambda folder: tau_tree(folder, "tau2022-mobile"))
    with bare_runs():
        said = tinyscene("demo", "--out", tmp_path / "demo", "--epochs-scale", 0.001)
    assert said.status == 0
    assert "27,166 bn0" in said.out
    assert "Next:  tinyscene run" in said.out
    assert (tmp_path / "demo" / "run" / "singh_53kb" / "seed-0" / "model.json").is_file()
