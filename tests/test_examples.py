"""Every example runs as it stands, with small arguments."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tinyscene as ts
from bare_runs import bare_runs
from menus import menus
from tinyscene.rules import RULES

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, sound: Callable[..., Path]) -> Path:
    """A folder a class, 8 recordings each: what a newcomer has."""
    root = tmp_path_factory.mktemp("recordings")
    for scene in ("bus", "park"):
        for take in range(8):
            sound(root / scene / f"{scene}-{take}.wav", seconds=0.2, rate=16_000)
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """run(name, *arguments): what the example prints as a script, started from the repository's root.

    In this process, where everything is imported already; `test_count_a_network` starts one of its own.
    """
    monkeypatch.chdir(ROOT)

    def start(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"examples/{name}.py", *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(f"examples/{name}.py", run_name="__main__")
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return said.out

    return start


def test_all_examples_are_tested_and_short() -> None:
    tested = set(re.findall(r'run\("(\w+)"', Path(__file__).read_text()))
    assert {path.stem for path in EXAMPLES} == tested
    for path in EXAMPLES:
        lines = path.read_text().splitlines()
        assert len(lines) <= 60, path
        assert lines[0].startswith('"""'), path
        assert any(f"python examples/{path.name}" in line for line in lines), path


def test_train_and_prune(run: Callable[..., str], folders: Path, tmp_path: Path) -> None:
    *steps, heard = run("train_and_prune", folders, 1, tmp_path / "run").splitlines()
    assert [line.split("%")[0].split()[0] for line in steps] == ["trained", "pruned", "tuned", "16"]
    parameters = [int(re.findall(r"([\d,]+) parameters", line)[0].replace(",", "")) for line in steps]
    # 8 of 16 filters: their 49 x 16 weights, bias and four values of batch norm, and what L3 reads of them.
    assert parameters[0] - parameters[1] == 8 * (49 * 16 + 1 + 4) + 32 * 49 * 8
    assert parameters[1] == parameters[2] == parameters[3]
    sizes = [float(re.findall(r"([\d.]+) KB", line)[0]) for line in steps]
    assert sizes[3] == pytest.approx(sizes[2] / 2, abs=0.01)
    assert heard.split(" sounds like ")[1] in ("bus", "park")
    classifier = ts.SceneClassifier.load(tmp_path / "run" / "model")
    assert len(classifier.network.get_parameter("L2.weight")) == 8


def test_count_a_network(run: Callable[..., str]) -> None:
    process = subprocess.run(
        [sys.executable, "examples/count_a_network.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    small, large = process.stdout, run("count_a_network", 512)
    assert [line.split(":")[0] for line in small.splitlines() if not line.startswith(" ")] == list(RULES)
    assert small.count(": legal") == len(RULES)
    # 512 channels: 9 x 512 x 2 + 512 x 1024 + 10 x 1024 + 10 weights and biases are over 128 thousand.
    assert "dcase2022: not legal" in large
    assert "dcase2024: not legal" in large


def test_add_a_system(run: Callable[..., str], folders: Path, tmp_path: Path) -> None:
    with bare_runs():
        rows = [line.split() for line in run("add_a_system", folders, 0.01, tmp_path / "run").splitlines()]
    assert [row[:2] for row in rows] == [
        ["whole", "Fit"],
        ["whole", "HalfPrecision"],
        ["pruned", "Fit"],
        ["pruned", "FilterPruning"],
        ["pruned", "Fit"],
        ["pruned", "HalfPrecision"],
    ]
    assert (tmp_path / "run" / "system.py").read_text() == (ROOT / "examples" / "add_a_system.py").read_text()
    # What the example claims to be reported is what it counts with ten classes.
    last = [row for row in ts.count_system(ts.load_system(ROOT / "examples" / "add_a_system.py")) if row.reported]
    assert [row.reported["parameters_hit"] and row.reported["kb_hit"] for row in last] == [True, True]


def test_your_own_augmentation_or_criterion(run: Callable[..., str], folders: Path, tmp_path: Path) -> None:
    lines = run("your_own_augmentation_or_criterion", folders, 1, tmp_path / "run").splitlines()
    assert [line.split()[0] for line in lines] == ["Fit", "FilterPruning", "Fit"]
    assert all(0 <= float(line.split()[1]) <= 100 for line in lines)


def test_your_own_network(run: Callable[..., str], folders: Path, tmp_path: Path) -> None:
    with menus():
        *steps, parity = run("your_own_network", folders, 1, tmp_path / "run").splitlines()
        assert [line.split()[0] for line in steps] == ["Fit", "FilterPruning", "Fit", "Quantize"]
        assert parity
        loaded = ts.SceneClassifier.load(tmp_path / "run" / "model")
        (recording, *_) = sorted(folders.glob("*/*.wav"))
        expected = loaded.predict(recording).probabilities
        found = ts.Artifact.load(tmp_path / "run" / "small.onnx").predict(recording).probabilities
        assert found == pytest.approx(expected, abs=0.02)
        (*_, row) = ts.count_system(ts.load_system(ROOT / "examples" / "your_own_network.py"))
    # The filters count, since they are trained: 32 x 400. Of the network's channels, half are pruned in the body.
    weights = [tensor for tensor in row.ledger.tensors if tensor.role == "weight"]
    assert sum(tensor.values for tensor in weights) == 32 * 400 + 16 * 9 + 16 * 9 * 8 + 8 * 10
    with pytest.raises(ts.InputError, match="'small' is not on the menu"):
        ts.SceneClassifier.load(tmp_path / "run" / "model")


def test_what_contributing_names_is_there() -> None:
    """Files, folders and examples, and the names that a new thing touches in them."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    package = ROOT / "src" / "tinyscene"
    named = [name for name in re.findall(r"`([\w./]+)`", text) if "/" in name or name.endswith(".py")]
    assert len(named) > 10
    assert [name for name in named if not ((package / name).exists() or (ROOT / name).exists())] == []
    for name, path in re.findall(r"`([A-Z_]{3,})`(?: and `\w+`)? (?:in|of) `([\w./]+\.py)`", text):
        assert re.search(rf"^{name}\b", (package / path).read_text(), re.MULTILINE), (name, path)
