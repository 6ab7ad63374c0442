"""Submissions of every edition, spoilt in one way after the other: each is refused with a reason of its own."""

import itertools
import json
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_submissions import CLIPS, classifier

from tinyscene.errors import InputError
from tinyscene.submission import EDITIONS, Problem, check, get_edition
from tinyscene.submission.meta import check_meta
from tinyscene.submission.output import check_output, write_output
from tinyscene.submission.problems import Report

YEARS = [int(year) for year in EDITIONS]
Spoil = Callable[[Any], None]


def output_of(built) -> Path:
    return min(built.place().glob("*.csv"))


def rows(edit: Callable[[list[list[str]]], list[list[str]]]) -> Spoil:
    """Edit the rows of the first system's first output; row 0 is the header."""

    def spoil(built):
        path = output_of(built)
        table = edit([line.split("\t") for line in path.read_text().splitlines()])
        path.write_text("".join("\t".join(row) + "\n" for row in table))

    return spoil


def cells(row: int, column: int, *values: str) -> Spoil:
    """Put values into a row, from a column on."""

    def edit(table):
        table[row][column : column + len(values)] = values
        return table

    return rows(edit)


def field(path: str, value: Any) -> Spoil:
    """Put a value into the first system's meta file; `...` removes the field."""

    def spoil(built):
        (file,) = built.place().glob("*.meta.yaml")
        meta = yaml.safe_load(file.read_text())
        block, keys = meta, [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in keys[:-1]:
            block = block[key]
        if value is ...:
            del block[keys[-1]]
        else:
            block[keys[-1]] = value(block[keys[-1]]) if callable(value) else value
        file.write_text(yaml.safe_dump(meta))

    return spoil


def not_the_most_probable(table):
    first, second = table[0][2:4]
    table[4][1:4] = [first, "0", "1"]
    table[4][4:] = ["0"] * len(table[4][4:])
    assert second != first
    return table


def renamed(built):
    """As a fifth system."""
    for path in built.place().iterdir():
        path.rename(path.with_name(path.name.replace("_1.", "_5.")))
    built.place().rename(built.place().with_name(built.place().name[:-1] + "5"))


def meta_text(old: str, new: str) -> Spoil:
    def spoil(built):
        (file,) = built.place().glob("*.meta.yaml")
        file.write_text(file.read_text().replace(old, new, 1))

    return spoil


def bytes_of_output(edit: Callable[[bytes], bytes]) -> Spoil:
    return lambda built: output_of(built).write_bytes(edit(output_of(built).read_bytes()))


def before_meta(text: str) -> Spoil:
    """Put a line of YAML before all others."""

    def spoil(built):
        (file,) = built.place().glob("*.meta.yaml")
        file.write_text(f"{text}\n{file.read_text()}")

    return spoil


def at_another_place(built):
    shutil.copytree(built.place(), built.out / "again" / built.place().name)


# Nine lines of ten references each: 10^9 values.
BOMB = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))])

WAYS: dict[str, tuple[Spoil, str]] = {
    "a byte order mark": (
        bytes_of_output(lambda text: b"\xef\xbb\xbf" + text),
        r"output\S*.csv, row 1: begins with a byte order mark; accepted: text in UTF-8 without",
    ),
    "carriage returns alone": (
        bytes_of_output(lambda text: text.replace(b"\n", b"\r")),
        r"output\S*.csv: can't be read \(new-line character.*; accepted: text in UTF-8",
    ),
    "a space in the header": (
        rows(lambda t: [[f"{t[0][0]} ", *t[0][1:]], *t[1:]]),
        r"row 1: no column filename, but 'filename '; accepted: the columns filename",
    ),
    "an empty row": (rows(lambda t: [*t[:3], [""], *t[3:]]), r"row 4: 0 cells; accepted: \d+, as in the header"),
    "a number as Python writes it": (cells(3, 2, "1_0e-1"), r"row 4, (airport|indoor): '1_0e-1'; accepted: a prob"),
    "a space before the scene": (
        rows(lambda t: [*t[:2], [t[2][0], f" {t[2][1]}", *t[2][2:]], *t[3:]]),
        r"row 3, scene_label: ' \w+'; accepted: one of ",
    ),
    "YAML that grows": (before_meta(BOMB), r"meta.yaml: comes to more than 100,000 values; accepted: YAML"),
    "YAML that holds itself": (before_meta("a: &a [*a]"), r"meta.yaml: is nested too deeply, or holds itself; acc"),
    "YAML nested deeply": (before_meta(f"a: {'[' * 999}{']' * 999}"), r"meta.yaml: is nested too deeply"),
    "YAML that calls": (
        before_meta("a: !!python/object/apply:os.mkdir [called]"),
        r"meta.yaml, row 1: could not determine a constructor .*os.mkdir'; accepted: YAML",
    ),
    "no day of the calendar": (before_meta("a: 2021-13-45"), r"meta.yaml, row 1: '2021-13-45': month must be in 1..12"),
    "a number beyond Python": (before_meta(f"a: {'9' * 5000}"), r"meta.yaml, row 1: '9{79}\.\.\.: Exceeds the limit"),
    "a number beyond floats": (
        field("system.complexity.total_parameters", 10**400),
        r"system.complexity.total_parameters: 10{79}\.\.\.; accepted: a whole number above 0",
    ),
    "a number beyond writing": (
        meta_text("total_parameters: ", f"total_parameters: 0x{'f' * 5000} #"),
        r"system.complexity.total_parameters: a number of thousands of digits; accepted: a whole number above 0",
    ),
    "half a parameter": (
        field("system.complexity.total_parameters", 1234.5),
        r"system.complexity.total_parameters: 1234.5; accepted: a whole number above 0",
    ),
    "a list for a block": (
        field("system.description", ["CNN"]),
        r"system.description: \['CNN'\]; accepted: a block with input_sampling_rate",
    ),
    "datasets in words": (
        field("system.external_datasets", "AudioSet"),
        r"system.external_datasets: 'AudioSet'; accepted: a list, each with name",
    ),
    "an affiliation in words": (
        field("submission.authors.0.affiliation", "JKU"),
        r"submission.authors\[0\].affiliation: 'JKU'; accepted: a block with abbreviation",
    ),
    "a name that YAML takes for false": (
        field("submission.authors.0.lastname", False),
        r"submission.authors\[0\].lastname: False; accepted: text, in quotes where YAML",
    ),
    "corresponding in words": (
        field("submission.authors.0.corresponding", "false"),
        r"submission.authors\[0\].corresponding: 'false'; accepted: true or false, without quotes",
    ),
    "a system that stands twice": (
        at_another_place,
        r"_1.meta.yaml: stands already as again/\S+.meta.yaml; accepted: every system once",
    ),
    "a row is missing": (rows(lambda t: t[:4] + t[5:]), r"1 of 12 clips are missing: audio/3.wav; accepted: a row for"),
    "a row stands twice": (
        rows(lambda t: [*t, t[3]]),
        r"row 14, filename: audio/2.wav stands already at row 4; accepted",
    ),
    "another file": (
        cells(2, 0, "audio/77.wav"),
        r"row 3, filename: '77.wav'; accepted: a file of the evaluation list",
    ),
    "a column is missing": (
        rows(lambda t: [r[:-1] for r in t]),
        r"row 1: no column t\w+; accepted: the columns filename",
    ),
    "commas": (
        rows(lambda t: [[",".join(r)] for r in t]),
        r"row 1: one cell, with no tab in it; accepted: the columns",
    ),
    "one more column": (
        rows(lambda t: [[*r, "x"] for r in t]),
        r"row 1: the column 'x' as well; accepted: the columns",
    ),
    "a cell too few": (
        rows(lambda t: [*t[:5], t[5][:-1], *t[6:]]),
        r"row 6: \d+ cells; accepted: \d+, as in the header",
    ),
    "an unknown scene": (cells(1, 1, "harbour"), r"row 2, scene_label: 'harbour'; accepted: one of "),
    "above 1": (cells(3, 2, "1.5"), r"row 4, (airport|indoor): '1.5'; accepted: a probability from 0 to 1"),
    "not a number": (cells(3, 2, "nan"), r"row 4, (airport|indoor): 'nan'; accepted: a probability"),
    "sum": (
        cells(3, 2, "0", "0", "0"),
        r"row 4: the probabilities add up to 0(\.\d+)?(e-\d+)?; accepted: .*add up to 1",
    ),
    "another label": (
        rows(not_the_most_probable),
        r"row 5, scene_label: '(airport|indoor)', while (bus|outdoor) is the",
    ),
    "no output": (lambda built: output_of(built).unlink(), r"task1[ab]?_1.output.*csv: missing; accepted: output"),
    "another system": (renamed, r"label: '\w+_5'; accepted: Lastname_Institute_task1[ab]?_N, with N from 1 to 4"),
    "a stray file": (
        lambda built: (built.place() / "notes.txt").write_text("x"),
        r"notes.txt: unexpected; accepted: LABEL.output",
    ),
    "misplaced": (
        lambda built: output_of(built).rename(built.place().parent / output_of(built).name),
        r"output\S*.csv: lies elsewhere; accepted: (submission/)?task1[ab]?/VanHove_JKU_\w+_1/VanHove_JKU",
    ),
    "no YAML": (meta_text("label: ", "label: ["), r"meta.yaml, row \d+: .*; accepted: YAML in UTF-8"),
    "no corresponding author": (
        field("submission.authors.1.corresponding", False),
        r"submission.authors: 0 corresponding authors; accepted: corresponding: true at one",
    ),
    "a placeholder": (
        field("submission.authors.0.email", "xxx@xxx.com"),
        r"submission.authors\[0\].email: 'xxx@xxx.com' is a placeholder; accepted: what is yours",
    ),
    "another label in the meta file": (
        field("submission.label", "Nobody_JKU_task1_1"),
        r"submission.label: 'Nobody_JKU_task1_1'; accepted: VanHove_JKU_\w+_1, as the folder",
    ),
    "a long abbreviation": (
        field("submission.abbreviation", "mobilenetwork"),
        r"submission.abbreviation: 'mobilenetwork' has 13 characters; accepted: 10 at most",
    ),
    "a number for a name": (field("submission.name", 7), r"submission.name: 7; accepted: text, in quotes"),
    "a field is missing": (
        field("system.description.acoustic_features", ...),
        r"system.description.acoustic_features: missing; accepted: this field",
    ),
    "a block is missing": (field("system", ...), r"system: missing; accepted: a block with external_datasets"),
    "misstated complexity": (
        field("system.complexity.total_parameters", lambda value: value - 1),
        r"system.complexity.total_parameters: [\d,]+ is stated; accepted: [\d,]+, as counted from /\S+run-0",
    ),
    "complexity in words": (
        field("system.complexity.total_parameters", "1.7k"),
        r"system.complexity.total_parameters: '1.7k'; accepted: a whole number above 0",
    ),
    "accuracy as a share too large": (
        field("results.development_dataset", lambda value: json.loads(json.dumps(value).replace("null", "4772", 1))),
        r"results.development_dataset.*overall.accuracy: 4772; accepted: percent, or null",
    ),
}


def checked(built, models=()) -> Report:
    return check(built.out, built.edition, evaluation=built.list, models=models, run=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("year", YEARS)
def test_a_spoilt_submission_is_refused_with_its_reason(submitted, tmp_path, year, way):
    built = submitted(year).copied(tmp_path / "out")
    spoil, reason = WAYS[way]
    spoil(built)
    report = checked(built, built.runs if "misstated" in way else ())
    assert not report.ok
    assert any(re.search(reason, problem.text) for problem in report.problems), report.text
    # Nothing is said of what was not touched.
    assert not any(re.search(r"task1[ab]?_2", problem.text) for problem in report.problems), report.text


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in paths_in(one, (*path, key)))][not path :]


@pytest.mark.parametrize("year", YEARS)
def test_whatever_stands_in_a_field_is_answered(submitted, year):
    built = submitted(year)
    (file,) = built.place().glob("*.meta.yaml")
    text = file.read_text()
    odd = [None, True, -1, 10**400, float("nan"), "", "x", [], [None], {}, {"a": None}, [[1]], {1: [2]}]
    every = [*itertools.product(paths_in(yaml.safe_load(text)), odd)]
    for path, value in random.Random(year).sample(every, 300):
        meta = yaml.load(text, yaml.CSafeLoader)
        block = meta
        for key in path[:-1]:
            block = block[key]
        block[path[-1]] = value
        stated, problems = check_meta(meta, "a", built.place().name, built.edition)
        assert all(problem.text for problem in problems)
        assert set(stated) <= set(built.edition.complexity)


def test_weights_that_are_not_zero_are_not_more_than_all(submitted, tmp_path):
    built = submitted(2022).copied(tmp_path / "out")
    field("system.complexity.total_parameters_non_zero", 99_999)(built)
    (problem,) = checked(built).problems
    assert re.search(r"non_zero: 99,999; accepted: at most total_parameters, [\d,]+$", problem.text)


@pytest.mark.parametrize("year", YEARS)
def test_all_problems_are_listed_at_once(submitted, tmp_path, year):
    built = submitted(year).copied(tmp_path / "out")
    ways = (
        "a row is missing",
        "an unknown scene",
        "above 1",
        "a placeholder",
        "a long abbreviation",
        "a field is missing",
    )
    for way in ways:
        WAYS[way][0](built)
    report = checked(built)
    assert len(report.problems) == len(ways)
    assert len({problem.accepted for problem in report.problems}) == len(ways)
    assert report.to_json()["ok"] is False
    assert len(report.to_json()["problems"]) == len(ways)


@pytest.mark.parametrize(
    ("year", "name", "value", "limit"),
    [
        (2020, "model_size", 500.01, r"at most 500 KB of 1024 B \(bn0, without zeros\)"),
        (2021, "model_size", 128.01, r"at most 128 KB of 1024 B \(bn4, without zeros\)"),
        (2022, "total_parameters", 128_001, r"at most 128,000 parameters \(int8_folded, with zeros\)"),
        (2022, "macs", 30_000_001, r"at most 30,000,000 MACs \(nessi\)"),
        (2023, "total_model_size", 128_001, r"at most 128,000 B \(bn2, with zeros\)"),
        (2023, "macs", 30_000_001, r"at most 30,000,000 MACs \(torchinfo\)"),
        (2024, "total_model_size", 128_001, r"at most 128,000 B \(bn2, with zeros\)"),
        (2024, "macs", 30_000_001, r"at most 30,000,000 MACs \(torchinfo\)"),
        (2025, "macs", 30_000_001, r"at most 30,000,000 MACs \(torchinfo\)"),
    ],
)
def test_what_is_stated_is_held_against_the_limits(submitted, tmp_path, year, name, value, limit):
    built = submitted(year).copied(tmp_path / "out")
    field(f"system.complexity.{name}", value)(built)
    (problem,) = check(built.out, built.edition, evaluation=built.list, run=False).problems
    assert problem.where == f"system.complexity.{name}"
    assert problem.given.startswith(f"{value:,} is over the limit of dcase{year}")
    assert re.fullmatch(limit, problem.accepted)
    field(f"system.complexity.{name}", int(value))(built)
    within = check(built.out, built.edition, evaluation=built.list, run=False)
    assert within.ok == (value != int(value))


def test_a_model_over_the_limit_is_named(submitted, tmp_path):
    built = submitted(2024).copied(tmp_path / "out")
    run = Path(shutil.copytree(built.runs[0], tmp_path / "run"))
    classifier(built.edition, filters=(64, 64, 64)).save(run / "split_25")
    report = check(built.out, built.edition, evaluation=built.list, models=[run, built.runs[1]])
    said = [problem.text for problem in report.problems]
    assert any("split_25 in" in text and "does not fit" in text and "of 128,000 B" in text for text in said), said
    assert not any("split_5 in" in text for text in said)


def test_without_a_list_the_official_number_is_known(submitted):
    built = submitted(2022)
    report = check(built.out, built.edition, models=built.runs)
    assert [(problem.given, problem.accepted) for problem in report.problems] == 2 * [
        (f"{CLIPS} clips", "118,800, as the official evaluation set has")
    ]
    assert [problem.where for problem in report.problems] == ["", ""], "they are named as the official ones"
    assert "file names were not compared with the evaluation list" in report.notes[0]


def test_without_a_list_the_official_names_are_known(submitted, tmp_path):
    built = submitted(2020).copied(tmp_path / "out")
    for row, name in enumerate(("audio/8640.wav", "audio/03.wav", "audio/4.mp3", "airport-1.wav"), 1):
        cells(row, 0, name)(built)
    named = [problem for problem in check(built.out, built.edition).problems if problem.where]
    assert [problem.where for problem in named] == [f"row {row}, filename" for row in (2, 3, 4, 5)]
    assert {problem.accepted for problem in named} == {"0.wav to 8639.wav, as the official files are named"}


def test_what_was_not_looked_at_is_said(submitted, tmp_path):
    built = submitted(2025).copied(tmp_path / "out")
    (built.place().parent / "VanHove_JKU_task1.technical_report.pdf").unlink()
    report = check(built.out, built.edition, run=False)
    assert report.ok
    assert [note.split(" ")[0] for note in report.notes] == ["file", "the", "complexity", "no"]
    assert "not compared with any" in report.notes[0]


def test_many_problems_of_a_kind_are_shown_as_five():
    problems = tuple(Problem("a.csv", f"row {n}", "x", "y") for n in range(2, 40))
    text = Report(("a",), problems).text
    assert text.count("accepted: y") == 5
    assert "a.csv: 33 more like these" in text
    assert text.endswith("a: 38 to mend")
    fields = tuple(Problem("a.yaml", f"system.{n}", "xxx", "y") for n in range(20))
    assert Report(("a",), fields).text.count("accepted: y") == 20


@pytest.mark.parametrize("year", [2021, 2024])
def test_a_zip_with_files_at_another_depth(submitted, tmp_path, year):
    built = submitted(year)
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        for path in built.place().iterdir():
            archive.write(path, f"{path.parent.name}/{path.name}")
    report = check(tmp_path / "flat.zip", built.edition, evaluation=built.list)
    assert all("lies elsewhere; accepted: " in problem.text for problem in report.problems)
    assert len(report.problems) == len(list(built.place().iterdir()))


def zipped(path: Path, names: list[str], text: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, text)
    return path


def with_bytes(path: Path, old: bytes, new: bytes) -> Path:
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def of_stated_size(path: Path) -> Path:
    """A hundred bytes that its directory says to be 3.9 GB."""
    held = zipped(path, ["a.csv"], "x" * 100)
    return with_bytes(held, struct.pack("<I", 100), struct.pack("<I", 3_900_000_000))


def with_broken_data(path: Path) -> Path:
    held = bytearray(zipped(path, ["task1/a.csv"], "text" * 100).read_bytes())
    held[45:49] = b"\xff\xff\xff\xff"
    path.write_bytes(held)
    return path


ZIPS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "out of it": (lambda path: zipped(path, ["../a.csv"]), r"'../a.csv' leads elsewhere; accepted: names inside"),
    "deep out of it": (lambda path: zipped(path, ["task1/../../a.csv"]), "leads elsewhere"),
    "from the root": (lambda path: zipped(path, ["/tmp/a.csv"]), r"'/tmp/a.csv' leads elsewhere"),
    "of another system": (lambda path: zipped(path, ["task1\\a.csv"]), "leads elsewhere"),
    "on a drive": (lambda path: zipped(path, ["C:/a.csv"]), "leads elsewhere"),
    "twice": (
        lambda path: with_bytes(zipped(path, ["task1/a", "task1/b"]), b"task1/b", b"task1/a"),
        r"'task1/a' stands twice; accepted: every file once",
    ),
    "too large": (of_stated_size, r"holds 1 files of 3.9 GB; accepted: 10,000 files of 2 GB at most"),
    "too many": (lambda path: zipped(path, [f"{n}" for n in range(10_001)]), r"holds 10,001 files of 0.0 GB"),
    "a file and a folder": (lambda path: zipped(path, ["a", "a/b"]), r"can't be opened .*; accepted: a whole .zip"),
    "broken": (with_broken_data, r"can't be opened .*; accepted: a whole .zip without password"),
    "of another kind": (
        lambda path: with_bytes(
            zipped(path, ["a"]), b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63"
        ),
        r"can't be opened .*; accepted: a whole .zip",
    ),
}


@pytest.mark.parametrize("way", ZIPS)
def test_a_zip_that_is_not_to_be_unpacked(tmp_path, monkeypatch, way):
    (place := tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    make, reason = ZIPS[way]
    package = make(tmp_path / "theirs.zip")
    with pytest.raises(InputError, match=rf"theirs.zip: .*{reason}"):
        check(package, get_edition(2022))
    assert sorted(tmp_path.rglob("*")) == [package, place], "nothing is left, inside or outside"


def test_a_fault_of_ours_is_not_the_zips(submitted, tmp_path, monkeypatch):
    """A crash while the zip is open is not taken for one of the zip."""

    def crash(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(sys.modules[check.__module__], "check_meta", crash)
    (archive,) = submitted(2023).out.glob("*.zip")
    with pytest.raises(RuntimeError, match="ours"):
        check(archive, get_edition(2023))


def test_a_zip_in_a_zip_is_unexpected(submitted, tmp_path):
    archive = zipped(tmp_path / "outer.zip", ["task1/inner.zip"], "x")
    (first, *_) = check(archive, get_edition(2023)).problems
    assert (first.file, first.given) == ("task1/inner.zip", "unexpected")


def test_a_name_that_cannot_be_printed(submitted, tmp_path):
    built = submitted(2022).copied(tmp_path / "out")
    (built.place() / os.fsdecode(b"\xff.txt")).write_text("x")
    (problem,) = checked(built).problems
    assert problem.text.encode().startswith(b"task1/")


def test_what_is_no_package_at_all(submitted, tmp_path):
    edition = get_edition(2023)
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(InputError, match=r"a.zip: can't be opened .*; accepted: a whole .zip without password"):
        check(tmp_path / "a.zip", edition)
    with pytest.raises(InputError, match=r"b.zip: no such file or folder"):
        check(tmp_path / "b.zip", edition)
    (tmp_path / "empty").mkdir()
    (problem,) = check(tmp_path / "empty", edition).problems
    assert problem.given == "holds no system"
    with pytest.raises(InputError, match="1 models for 2 systems"):
        check(submitted(2023).out, edition, models=submitted(2023).runs[:1])


def test_somebody_elses_meta_file(submitted, tmp_path):
    """As the template of 2025 comes: lists in place of addresses, null where nothing applies, figures in words."""
    built = submitted(2025).copied(tmp_path / "out")
    field("system.inference_code", ["YOUR_GITHUB_URL"])(built)
    field("system.external_datasets", {"name": "PaSST", "url": "x", "total_audio_length": None})(built)
    (problem,) = checked(built).problems
    assert problem.where == "system.inference_code[0]"


def test_rows_of_the_official_list(shared_data, tmp_path):
    """1,999 rows of 2025's, with CRLF line ends."""
    listed = shared_data("challenge_meta") / "tau2025_eval" / "test_first_2000_rows.csv"
    edition = get_edition(2025)
    names = [line.split("\t")[0] for line in listed.read_text().split("\n")[1:] if line]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), len(names))
    write_output(tmp_path / "a.csv", edition, names, probabilities)
    output, problems = check_output(tmp_path / "a.csv", "a.csv", edition, names)
    assert problems == []
    assert len(output.probabilities) == 1999
    assert np.allclose(np.stack(list(output.probabilities.values())), probabilities, atol=1e-8)
    report = check(tmp_path, edition, evaluation=listed, run=False)
    assert not any("row" in problem.where or "clips" in problem.given for problem in report.problems), report.text
