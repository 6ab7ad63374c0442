"""Submissions of each edition, spoilt in one way after the other: each is refused with a reason of its own."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tinyscene.errors import InputError
from tinyscene.submission import EDITIONS, check, get_edition
from tinyscene.submission.check import Report
from tinyscene.submission.output import check_output, write_output

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


WAYS: dict[str, tuple[Spoil, str]] = {
    "a byte order mark": (
        bytes_of_output(lambda text: b"\xef\xbb\xbf" + text),
        r"output\S*.csv, row 1: the columns '\\ufefffilename', .*; accepted: filename, .*, without a byte order mark",
    ),
    "another encoding": (
        bytes_of_output(lambda text: text.replace(b"airport", b"a\xe9roport")),
        r"output\S*.csv: 'utf-8' codec can't decode .*; accepted: cells separated by tabs, text in UTF-8",
    ),
    "an empty row": (rows(lambda t: [*t[:3], [""], *t[3:]]), r"row 4, 0 cells; accepted: 12, as in the header"),
    "a space before the scene": (
        rows(lambda t: [*t[:2], [t[2][0], f" {t[2][1]}", *t[2][2:]], *t[3:]]),
        r"row 3, scene_label: ' \w+'; accepted: one of airport, bus",
    ),
    "a row is missing": (
        rows(lambda t: t[:4] + t[5:]),
        r"output\S*.csv: 1 clips are missing: 3.wav; accepted: the 12 of the list",
    ),
    "a row stands twice": (
        rows(lambda t: [*t, t[3]]),
        r"row 14, filename: '2.wav' is a duplicate; accepted: every clip once",
    ),
    "another file": (
        rows(lambda t: [*t, ["audio/77.wav", *t[3][1:]]]),
        r"output\S*.csv: 1 clips are not in the evaluation list: 77.wav; accepted: the 12",
    ),
    "a column is missing": (rows(lambda t: [r[:-1] for r in t]), r"row 1: the columns .*'street_traffic'; accepted"),
    "a cell too few": (rows(lambda t: [*t[:5], t[5][:-1], *t[6:]]), r"row 6, 11 cells; accepted: 12, as in the header"),
    "an unknown scene": (cells(1, 1, "harbour"), r"row 2, scene_label: 'harbour'; accepted: one of airport, bus"),
    "above 1": (cells(3, 2, "1.5"), r"row 4, airport: 1.5; accepted: probabilities from 0 to 1"),
    "not a number": (cells(3, 2, "nan"), r"row 4, airport: nan; accepted: probabilities"),
    "sum": (cells(3, 2, *["0"] * 10), r"row 4, probabilities: a sum of 0; accepted: 1"),
    "another label": (
        cells(4, 1, "airport", "0", "1", *["0"] * 8),
        r"row 5, scene_label: 'airport'; accepted: bus, the most probable class$",
    ),
    "no output": (
        lambda built: output_of(built).unlink(),
        r"task1/\w+_1/\w+_1.output\S*csv: missing; accepted: task1/LABEL/LABEL.output",
    ),
    "no meta file": (
        lambda built: (built.place() / f"{built.place().name}.meta.yaml").unlink(),
        r"task1/\w+_1/\w+_1.meta.yaml: missing; accepted: task1/LABEL/LABEL.output",
    ),
    "another system": (
        renamed,
        r"VanHove_JKU_task1_5, label: accepted: Lastname_Institute_task1_N, with N from 1 to 4",
    ),
    "a stray file": (
        lambda built: (built.place() / "notes.txt").write_text("x"),
        r"task1/\w+_1/notes.txt: unexpected; accepted: task1/LABEL/LABEL.output",
    ),
    "misplaced": (
        lambda built: output_of(built).rename(built.place().parent / output_of(built).name),
        r"task1/\w+_1.output\S*.csv: unexpected; accepted: task1/LABEL/LABEL.output",
    ),
    "no YAML": (
        meta_text("label: ", "label: ["),
        r"^VanHove_JKU_task1_1.meta.yaml: .*line \d+.*; accepted: YAML in UTF-8",
    ),
    "a list for all": (
        lambda built: min(built.place().glob("*.yaml")).write_text("[1]"),
        r"meta.yaml: \[1\]; accepted: a valid dictionary",
    ),
    "a name that YAML takes for false": (
        field("submission.authors.0.lastname", False),
        r"submission.authors\[0\].lastname: False; accepted: a valid string",
    ),
    "no authors": (field("submission.authors", []), r"submission.authors: \[\]; accepted: at least 1 item$"),
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
        r"submission.label: 'Nobody_JKU_task1_1'; accepted: 'VanHove_JKU_task1_1'",
    ),
    "a long abbreviation": (
        field("submission.abbreviation", "mobilenetwork"),
        r"submission.abbreviation: 'mobilenetwork'; accepted: at most 10 characters",
    ),
    "a field is missing": (
        field("system.description.acoustic_features", ...),
        r"system.description.acoustic_features: missing; accepted: this field",
    ),
    "a block is missing": (field("system", ...), r"meta.yaml, system: missing; accepted: this field"),
    "no MACs": (field("system.complexity.macs", 0), r"system.complexity.macs: 0; accepted: greater than 0"),
    "a class without results": (
        field("results.development_dataset", lambda value: {b: v | {"class_wise": {}} for b, v in value.items()}),
        r"results.development_dataset.\w+.class_wise.tram: missing",
    ),
    "accuracy as a share too large": (
        field("results.development_dataset", lambda value: json.loads(json.dumps(value).replace("null", "4772", 1))),
        r"results.development_dataset.\w+.overall.accuracy: 4772; accepted: less than or equal to 100",
    ),
}


def checked(built) -> Report:
    return check(built.out, built.edition, clips=built.clips)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("year", YEARS)
def test_a_spoilt_submission_is_refused_with_its_reason(submitted, tmp_path, year, way):
    built = submitted(year).copied(tmp_path / "out")
    spoil, reason = WAYS[way]
    spoil(built)
    problems = checked(built).problems
    assert any(re.search(reason, problem) for problem in problems), problems
    # Nothing is reported of what was not touched.
    assert not any("task1_2" in problem for problem in problems), problems


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
    problems = checked(built).problems
    assert len(problems) == len(ways)
    for way in ways:
        assert any(re.search(WAYS[way][1], problem) for problem in problems), way


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize(("name", "limit"), [("total_model_size", 128_000), ("macs", 30_000_000)])
def test_what_is_stated_is_held_against_the_limits(submitted, tmp_path, year, name, limit):
    built = submitted(year).copied(tmp_path / "out")
    field(f"system.complexity.{name}", limit + 1)(built)
    (problem,) = checked(built).problems
    assert problem == (
        f"VanHove_JKU_task1_1.meta.yaml, system.complexity.{name}: {limit + 1}; accepted: less than or equal to {limit}"
    )
    field(f"system.complexity.{name}", limit)(built)
    assert checked(built).problems == []


def test_without_a_list_the_official_number_is_known(submitted):
    report = check(submitted(2024).out, get_edition(2024))
    assert len(report.problems) == 10
    assert all(
        problem.endswith(".csv: 12 clips; accepted: 135,730, as in the official evaluation set")
        for problem in report.problems
    )
    assert report.notes == ["file names were not compared with the evaluation list"]


def test_what_was_not_looked_at_is_reported(submitted, tmp_path):
    built = submitted(2025).copied(tmp_path / "out")
    (built.place().parent / "VanHove_JKU_task1.technical_report.pdf").unlink()
    report = check(built.out, built.edition)
    assert report.problems == []
    assert [note.split(" ")[0] for note in report.notes] == ["file", "the", "no"]


def test_of_many_rows_five_are_shown(submitted, tmp_path):
    built = submitted(2025).copied(tmp_path / "out")
    for row in range(1, 10):
        cells(row, 1, "harbour")(built)
    problems = checked(built).problems
    assert sum("'harbour'" in problem for problem in problems) == 5
    assert problems[-1].endswith("_1.output.csv: 4 more in other rows")


def test_what_is_no_package_at_all(tmp_path):
    edition = get_edition(2024)
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(
        InputError, match=r"a.zip: File is not a zip file; accepted: a submission's .zip, or its folder"
    ):
        check(tmp_path / "a.zip", edition)
    with pytest.raises(InputError, match=r"b.zip: .*No such file.*; accepted: a submission's .zip"):
        check(tmp_path / "b.zip", edition)
    (problem,) = check(tmp_path, edition).problems
    assert "no system in it" in problem


def test_somebody_elses_meta_file(submitted, tmp_path):
    """As the template of 2025 comes: lists in place of addresses, null where nothing applies, figures in words."""
    built = submitted(2025).copied(tmp_path / "out")
    field("system.external_datasets", {"name": "PaSST", "url": "x", "total_audio_length": None})(built)
    field("submission.authors.0.affiliation", [{"abbreviation": "JKU"}])(built)
    assert checked(built).problems == []
    for address in (["YOUR_GITHUB_URL"], None, ...):
        field("system.inference_code", address)(built)
        (problem,) = checked(built).problems
        assert "_1.meta.yaml, system.inference_code" in problem


def test_rows_of_the_official_list(shared_data, tmp_path):
    """1,999 rows of 2025's, with CRLF line ends."""
    listed = shared_data("challenge_meta") / "tau2025_eval" / "test_first_2000_rows.csv"
    edition = get_edition(2025)
    names = [line.split("\t")[0] for line in listed.read_text().split("\n")[1:] if line]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), len(names))
    write_output(tmp_path / "a.csv", edition, names, probabilities)
    found, problems = check_output(tmp_path / "a.csv", edition, names)
    assert problems == []
    assert len(found) == 1999
    assert np.allclose(list(found.values()), probabilities, atol=1e-8)
