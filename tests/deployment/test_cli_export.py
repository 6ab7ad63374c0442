"""`tinyscene export`, and `tinyscene count` of what it wrote."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scene_files import CLIP_S, at

from tinyscene.accounting import CONVENTIONS
from tinyscene.cli import main
from tinyscene.deployment import Artifact


@pytest.fixture
def tinyscene(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Status and all that was printed."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tinyscene", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out + said.err

    return call


def test_a_model_is_exported_and_its_file_counted(tinyscene: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    model, file = at("cp_mobile", "int8").save(tmp_path / "model"), tmp_path / "scene.onnx"
    status, said = tinyscene("export", model, file, "--clip-s", CLIP_S)
    assert status == 0
    assert "output steps" in said
    assert "differs from the model's" not in said
    assert "sweep" in said
    status, said = tinyscene("count", file, "--rules", "dcase2024", "--json", "-")
    assert status == 0
    (row,) = json.loads(said)["rows"]
    assert row["bytes"] == CONVENTIONS["bn2"](Artifact.load(file).ledger(1.0).tensors).bytes
    assert row["rules"] == "dcase2024"
    status, said = tinyscene("count", file, "--rules", "dcase2021")
    assert status == 0
    assert "dcase2021: legal" in said


def test_what_it_says_to_wrong_input(tinyscene: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    model, file = at("baseline2021", "float32").save(tmp_path / "model"), tmp_path / "scene.onnx"
    assert tinyscene("export", model, tmp_path / "scene.wav")[0] == 2
    status, said = tinyscene("export", model, file, "--clip-s", CLIP_S, "--json", tmp_path / "facts.json")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert status == 0, said
    assert facts["certificate"]["bytes_on_disk"] == file.stat().st_size
    assert facts["certificate"]["parity"]["agreement"] == 1
    for wrong in (("--half",), ("--precision", "int8")):
        status, said = tinyscene("count", file, *wrong)
        assert status == 2
        assert "accepted" in said
    status, said = tinyscene("count", tmp_path / "missing.onnx")
    assert status == 2
    assert "no such file" in said
