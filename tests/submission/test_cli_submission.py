"""The verbs as they are typed, from another folder and with relative paths."""

import json
import os
import sys
from pathlib import Path

import pytest

from tinyscene.cli import main


@pytest.fixture
def typed(capsys, monkeypatch):
    """What the console script does with these words: status, stdout, stderr."""
    monkeypatch.setenv("TINYSCENE_CACHE", os.environ["TINYSCENE_CACHE"])

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinyscene", "submission", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


def test_build_and_check(submitted, typed, monkeypatch, tmp_path):
    built = submitted(2025)
    monkeypatch.chdir(built.audio.parent)
    given = "--edition", 2025, "--audio", built.audio.name, "--authors", built.authors.name
    out = Path(os.path.relpath(tmp_path / "mine"))
    status, said, _ = typed("build", "run-0", "run-1", *given, "--out", out)
    assert status == 0, said
    assert f"The submission is in {out}" in said.replace("\n", "")
    assert "VanHove_JKU_task1_1, VanHove_JKU_task1_2: no problems found" in said
    assert said.count("note: ") == 1, "the package was run"
    assert "note: no technical report" in said
    archive = out / "VanHove_JKU_task1.zip"
    listed = Path(os.path.relpath(built.list))
    status, said, _ = typed("check", archive, "--edition", 2025, "--evaluation", listed, "--json", "-")
    assert status == 0
    assert json.loads(said)["problems"] == []
    assert "the inference package was not run" in json.loads(said)["notes"]
    listed.with_name("other.csv").write_text("filename\naudio/0.wav\naudio/1.wav\n")
    status, said, _ = typed("check", out, "--edition", 2025, "--evaluation", listed.with_name("other.csv"))
    assert status == 1
    assert "10 clips are not in the evaluation list: 10.wav, 11.wav, 2.wav, 3.wav, 4.wav, ..." in said.replace("\n", "")
    assert "VanHove_JKU_task1_1, VanHove_JKU_task1_2: 2 problems" in said


def test_the_package_that_is_named_is_run(submitted, typed, tmp_path):
    built = submitted(2025).copied(tmp_path / "out", systems=1)
    (built.inference / "setup.py").unlink()
    words = "check", built.out, "--edition", 2025, "--audio", built.audio
    assert typed(*words)[0] == 0
    status, said, _ = typed(*words, "--inference", built.inference)
    assert (status, "setup.py: missing" in said.replace("\n", "")) == (1, True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("check", "nothing.zip", "--edition", 2024), "nothing.zip'; accepted: a submission's .zip, or its folder"),
        (("check", ".", "--edition", 2023), "edition 2023; accepted: 2024, 2025"),
        (
            ("build", "run", "--edition", 2024, "--audio", "d", "--authors", "a.yaml", "--out", "o"),
            "d: no such folder; accepted: the folder of a data set",
        ),
    ],
)
def test_wrong_words_are_one_sentence(typed, monkeypatch, tmp_path, words, reason):
    monkeypatch.chdir(tmp_path)
    status, _, said = typed(*words)
    assert status == 2
    assert reason in said
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_is_missing(submitted, typed, tmp_path):
    built = submitted(2024)
    given = "--edition", 2024, "--audio", built.audio, "--authors", built.authors, "--out", tmp_path / "out"
    status, _, said = typed("build", *built.runs, *given, "--report", tmp_path / "report.pdf")
    assert (status, "report.pdf: no such file; accepted: the technical report" in said) == (2, True)
