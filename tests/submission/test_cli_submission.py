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
    assert "VanHove_JKU_task1_1, VanHove_JKU_task1_2: nothing to mend" in said
    assert "note: no technical report" in said
    archive = out / "VanHove_JKU_task1.zip"
    listed = Path(os.path.relpath(built.list))
    status, said, _ = typed("check", archive, "--edition", 2025, "--evaluation", listed, "--no-run", "--json", "-")
    assert status == 0
    assert json.loads(said)["problems"] == []
    listed.with_name("other.csv").write_text("filename\naudio/0.wav\naudio/1.wav\n")
    status, said, _ = typed("check", out, "--edition", 2025, "--evaluation", listed.with_name("other.csv"), "--no-run")
    assert status == 1
    assert "row 4, filename: '2.wav'; accepted: a file of the evaluation list" in said.replace("\n", "")
    assert "5 more like these" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ("check", "nothing.zip", "--edition", 2024),
            "nothing.zip: no such file or folder; accepted: a submission's .zip",
        ),
        (("check", ".", "--edition", 2019), "edition 2019; accepted: 2020, 2021, 2022, 2023, 2024, 2025"),
        (
            ("build", "run", "--edition", 2022, "--audio", "d", "--authors", "a.yaml", "--out", "o"),
            "run: no such folder; accepted: the folder of a model",
        ),
    ],
)
def test_wrong_words_are_one_sentence(typed, monkeypatch, tmp_path, words, reason):
    monkeypatch.chdir(tmp_path)
    status, _, said = typed(*words)
    assert status == 2
    assert reason in said
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_is_no_pdf(submitted, typed, tmp_path):
    built = submitted(2022)
    (report := tmp_path / "report.docx").write_text("x")
    given = "--edition", 2022, "--audio", built.audio, "--authors", built.authors, "--out", tmp_path / "out"
    status, _, said = typed("build", *built.runs, *given, "--report", report)
    assert (status, "report.docx: not a PDF; accepted: a .pdf" in said) == (2, True)
