"""ESC-10 and ESC-50 in their published layouts."""

import csv
import shutil

import pytest

from tinyscene import data
from tinyscene.data import load_esc10, load_esc50
from tinyscene.errors import InputError


@pytest.fixture(scope="module")
def trees(tmp_path_factory, esc_tree):
    return {layout: esc_tree(tmp_path_factory.mktemp(layout), layout) for layout in ("esc50", "esc10", "esc10-folders")}


def test_one_set_in_three_layouts(trees):
    views = [
        {(clip.scene, clip.recording, clip.split == "test") for clip in load_esc10(root)} for root in trees.values()
    ]
    assert views[0] == views[1] == views[2]
    assert len(views[0]) == 30
    assert ("dog_bark", "1000", False) in views[0]
    assert ("fire_crackling", "3009", True) in views[0]


def test_esc50(trees):
    clips = load_esc50(trees["esc50"])
    assert (len(clips), len(clips.classes), len(clips.test)) == (200, 50, 50)
    assert clips.rows[0][:2] == ("audio/1-1000-A-0.wav", "dog_bark")
    assert clips.rows[0].row == "esc50.csv:2"
    assert clips.leaks() == []


@pytest.mark.parametrize("layout", ["esc50", "esc10", "esc10-folders"])
def test_recognised(trees, layout):
    assert data.load(trees[layout]).name == layout.split("-")[0]


@pytest.mark.parametrize("layout", ["esc10", "esc10-folders"])
def test_test_fold(trees, layout):
    clips = load_esc10(trees[layout], test_fold=2)
    assert {clip.recording[0] for clip in clips.test} == {"2"}
    with pytest.raises(InputError, match="test fold 5; accepted: 1, 2, 3"):
        load_esc10(trees[layout], test_fold=5)


def shared_in_two_folds(esc_tree, root, numbers=(3, 4)):
    """ESC-50 with sources of these classes in folds 1 and 3."""
    table = esc_tree(root, "esc50") / "meta" / "esc50.csv"
    text = table.read_text()
    for number in numbers:
        text = text.replace(f",{1000 + number},B", f",{3000 + number},B")
    table.write_text(text)
    return root


def test_folds_that_share_sources_are_taken_as_published(tmp_path, esc_tree):
    """As 209698 and 234879 of the real table, which stand in folds 4 and 5."""
    root = shared_in_two_folds(esc_tree, tmp_path)
    clips = data.load(root)
    assert (len(clips), len(clips.test)) == (200, 50)
    (note,) = clips.notes
    assert "2 recordings are in both development and test, as published: 3003 (1 in " in note
    assert "3004 (1 in train, 1 in test)" in note
    assert clips.development.leaks() == []
    assert not {c.recording for c in clips.train} & {c.recording for c in clips.validation}


def test_what_folds_share_can_be_dropped_from_training(tmp_path, esc_tree):
    root = shared_in_two_folds(esc_tree, tmp_path)
    clips, published = data.load(root, drop_shared=True), data.load(root)
    assert set(clips.test) == set(published.test)
    assert {c.path for c in published} - {c.path for c in clips} == {"audio/1-1003-B-3.wav", "audio/1-1004-B-4.wav"}
    assert not {c.recording for c in clips.development} & {c.recording for c in clips.test}
    assert "2 clips are left out of training" in clips.notes[-1]
    assert "audio/1-1003-B-3.wav" in clips.notes[-1]


@pytest.mark.parametrize(
    ("true", "encoding", "separator"),
    [("True", "utf-8", ";"), ("TRUE", "utf-8-sig", ","), ("true", "utf-16", "\t"), ("1", "utf-16", ";")],
)
def test_a_table_that_a_spreadsheet_saved(tmp_path, trees, true, encoding, separator):
    (tmp_path / "audio").symlink_to(trees["esc50"] / "audio")
    (tmp_path / "meta").mkdir()
    header, *lines = (trees["esc50"] / "meta" / "esc50.csv").read_text().splitlines()
    false = {"1": "0"}.get(true, true.lower().replace("true", "false"))
    lines = [line.replace("True", true).replace("False", false) for line in lines]
    text = "\r\n".join([header.title(), *lines, ""]).replace(",", separator)
    (tmp_path / "meta" / "esc50.csv").write_bytes(text.encode(encoding))
    assert load_esc10(tmp_path).rows == load_esc10(trees["esc50"]).rows


@pytest.mark.parametrize("separator", [",", ";"])
def test_esc10_is_recognised_as_a_spreadsheet_saves_it(tmp_path, trees, separator):
    shutil.copytree(trees["esc10"], tmp_path / "esc")
    table = tmp_path / "esc" / "meta.csv"
    table.write_bytes(table.read_text().replace(",", separator).replace("filename", "Filename").encode("utf-16"))
    assert data.load(tmp_path / "esc").name == "esc10"
    assert len(data.load(tmp_path / "esc")) == 40


def test_a_flag_that_is_none(tmp_path, trees):
    shutil.copytree(trees["esc50"] / "meta", tmp_path / "meta")
    table = tmp_path / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("True", "WAHR", 1))
    with pytest.raises(InputError, match=r"esc50.csv:2: esc10 'WAHR'; accepted: True or False"):
        load_esc10(tmp_path)


def test_what_is_not_esc(tmp_path, trees):
    with pytest.raises(InputError, match=r"10 classes; accepted for esc50: its 50"):
        load_esc50(trees["esc10"])
    with pytest.raises(InputError, match=r"neither meta/esc50.csv nor meta.csv"):
        load_esc10(tmp_path)
    shutil.copytree(trees["esc10-folders"] / "002 - Rain", tmp_path / "002 - Rain")
    (tmp_path / "002 - Rain" / "1-1001-A.ogg").rename(tmp_path / "002 - Rain" / "rain.ogg")
    with pytest.raises(InputError, match=r"rain.ogg: accepted in ESC-10: names such as 1-100032-A.ogg"):
        load_esc10(tmp_path)


def test_real_esc10(shared_data):
    root = shared_data("esc10")
    clips = data.load(root)
    with (root / "meta.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert clips.name == "esc10"
    assert {clip.path for clip in clips.test} == {f"audio/{row['filename']}" for row in listed if row["fold"] == "4"}
    assert (len(clips), len(clips.test), len(clips.classes)) == (320, 80, 10)
    assert clips.leaks() == []
    assert all(sum(clip.scene == scene for clip in clips.validation) in (3, 4, 5, 6) for scene in clips.classes)
