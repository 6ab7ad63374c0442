"""The TAU sets: generated trees in their published layout, and the official lists."""

import csv
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tinyscene import data
from tinyscene.data import download, load_synthetic, load_tau2022_mobile, load_tau_evaluation, tau
from tinyscene.data.tables import read_table
from tinyscene.errors import InputError

EDITIONS = ("tau2019", "tau2020-mobile", "tau2020-3class", "tau2022-mobile")


@pytest.fixture(scope="module")
def trees(tmp_path_factory, tau_tree):
    return {edition: tau_tree(tmp_path_factory.mktemp(edition), edition) for edition in EDITIONS}


@pytest.fixture
def tree(trees, tmp_path):
    """A copy of the 2022 tree that may be spoilt."""
    return Path(shutil.copytree(trees["tau2022-mobile"], tmp_path / "tree"))


@pytest.mark.parametrize("edition", EDITIONS)
def test_development_sets(trees, edition):
    clips = data.load(trees[edition])
    names = [row[0] for row in csv.reader((trees[edition] / "evaluation_setup" / "fold1_test.csv").open())]
    assert clips.name == edition
    assert {clip.path for clip in clips.test} == set(names[1:])
    assert len(clips.development) == 4 * len(clips.test)
    # One of four locations a scene; three locations a context.
    assert len(clips.validation) == (6 if edition == "tau2020-3class" else len(clips.development) / 4)
    assert clips.leaks() == []
    assert {clip.city for clip in clips} == {"lisbon", "milan"}
    assert clips.notes == ()


def test_a_name_is_taken_apart(trees):
    clip = data.load(trees["tau2022-mobile"]).test.rows[-1]
    assert clip == data.Clip(
        path="audio/tram-milan-94-594-1-s4.wav",
        scene="tram",
        split="test",
        device="s4",
        city="milan",
        recording="milan-94",
        row="fold1_evaluate.csv:41",
    )


def test_three_classes_keep_the_context_as_label(trees):
    clips = data.load(trees["tau2020-3class"])
    assert clips.classes == ("indoor", "outdoor", "transportation")
    assert {clip.scene for clip in clips if "/metro_station-" in clip.path} == {"indoor"}


def test_subsets(tree):
    lines = (tree / "evaluation_setup" / "fold1_train.csv").read_text().splitlines(keepends=True)
    (tree / "evaluation_setup" / "split50.csv").write_text("".join(line for line in lines if "-b." not in line))
    (tree / "split25.csv").write_text("".join(line for line in lines if "-b." not in line and "-1-a" not in line))
    whole = load_tau2022_mobile(tree)
    assert len(load_tau2022_mobile(tree, 50).development) == len(whole.development) / 2
    assert len(load_tau2022_mobile(tree, subset=25).development) == len(whole.development) / 4
    assert load_tau2022_mobile(tree, 25).test.rows == whole.test.rows
    with pytest.raises(InputError, match=r"no list split5.csv; accepted for tau2022-mobile: evaluation_setup/split5"):
        load_tau2022_mobile(tree, 5)
    with pytest.raises(InputError, match="subset 20; accepted: 5, 10, 25, 50, 100"):
        load_tau2022_mobile(tree, 20)


def test_missing_files(tree):
    for name in ("bus-lisbon-10-510-0-a", "tram-milan-94-594-1-s4"):
        (tree / "audio" / f"{name}.wav").unlink()
    with pytest.raises(
        InputError, match=r"2 of 200 listed files are missing: audio/bus-.*\(fold1_train.csv:18\), audio/tram.*csv:41\)"
    ):
        load_tau2022_mobile(tree)
    clips = load_tau2022_mobile(tree, allow_missing=True)
    assert len(clips) == 198
    assert clips.notes[-1].startswith("2 of 200 listed files are missing and left out: audio/bus-lisbon-10-510-0-a")
    shutil.rmtree(tree / "audio")
    with pytest.raises(InputError, match="200 of 200 listed files are missing"):
        load_tau2022_mobile(tree, allow_missing=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("-0-500-0-a.wav", "-0-500-0-x9.wav", r"fold1_train.csv:2: filename .*-x9.wav'.*device a, b, c, s1"),
        ("-0-500-0-a.wav", "-0-500-a.wav", r"fold1_train.csv:2: .*scene-city-location-segment-second-device"),
        ("a.wav\tairport", "a.wav\tharbour", r"fold1_train.csv:2: scene_label 'harbour' .* accepted: airport"),
        ("a.wav\tairport", "a.wav\tbus", r"fold1_train.csv:2: scene_label 'bus' .* accepted: airport"),
        ("audio/airport-lisbon-0", "audio/harbour-lisbon-0", r"csv:2: .* a name that begins with one of airport, bus"),
        ("audio/airport-lisbon-0", "../airport-lisbon-0", r"fold1_train.csv:2: filename .* stays inside it"),
        ("scene_label", "label", r"fold1_train.csv:1: no column scene_label; found: filename, label"),
    ],
)
def test_broken_lists(tree, old, new, said):
    path = tree / "evaluation_setup" / "fold1_train.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        load_tau2022_mobile(tree)


def test_a_file_in_both_lists(tree):
    train, tested = (tree / "evaluation_setup" / f"fold1_{name}.csv" for name in ("train", "evaluate"))
    train.write_text(train.read_text() + tested.read_text().splitlines(keepends=True)[3])
    with pytest.raises(
        InputError,
        match=r"the same sound, audio/.* \(train, fold1_train.csv:162\) = audio/.* \(test, fold1_evaluate.csv:4\)",
    ):
        load_tau2022_mobile(tree)


def test_a_leaking_location(tree, sound):
    train = tree / "evaluation_setup" / "fold1_train.csv"
    sound(tree / "audio" / "tram-milan-94-777-0-a.wav")
    train.write_text(train.read_text() + "audio/tram-milan-94-777-0-a.wav\ttram\n")
    leak = "milan-94 (1 in train, 4 in test)"
    assert f"1 recording is in both development and test, as published: {leak}" in load_tau2022_mobile(tree).notes[-1]
    # What nobody published has no such excuse.
    with pytest.raises(InputError, match="1 recording is in more than one split, the first is milan-94 .*--drop-sh"):
        load_synthetic(tree)
    clips = load_synthetic(tree, drop_shared=True)
    assert "audio/tram-milan-94-777-0-a.wav" not in {clip.path for clip in clips}
    assert len(clips.test) == 40


def test_synthetic_trees(tmp_path, tau_tree):
    root = tau_tree(tmp_path, "synthetic")
    (root / "synthetic.json").write_text("{}")
    assert data.load(root).name == "synthetic"
    assert len(data.load(root)) == 200


def test_evaluation_lists(tmp_path, sound, trees):
    for number in range(3):
        sound(tmp_path / "audio" / f"{number}.wav")
    text = "filename\tdevice_id\r\naudio/0.wav\tunknown\r\naudio/1.wav\ts1\r\naudio/2.wav\ta\r\n"
    (tmp_path / "test.csv").write_bytes(text.encode())
    clips = load_tau_evaluation(tmp_path, "test.csv")
    assert [(c.path, c.scene, c.split, c.device) for c in clips] == [
        ("audio/0.wav", None, "test", "unknown"),
        ("audio/1.wav", None, "test", "s1"),
        ("audio/2.wav", None, "test", "a"),
    ]
    assert clips.classes == tuple(sorted(tau.SCENES))
    (tmp_path / "audio" / "1.wav").unlink()
    with pytest.raises(InputError, match=r"1 of 3 listed files are missing: audio/1.wav \(test.csv:3\)"):
        load_tau_evaluation(tmp_path, "test.csv")
    hidden = load_tau_evaluation(trees["tau2020-mobile"], "evaluation_setup/fold1_test.csv")
    assert {clip.scene for clip in hidden} == {None}
    assert {clip.device for clip in hidden} == {"a", "s4"}
    with pytest.raises(InputError, match="no such file"):
        load_tau_evaluation(tmp_path, "other.csv")


def test_download_uses_a_whole_copy_and_names_the_extra(trees, tmp_path, monkeypatch):
    root = trees["tau2022-mobile"]
    assert download("tau2022-mobile", root) == root
    inner = tmp_path / "TAU-urban-acoustic-scenes-2022-mobile-development"
    inner.symlink_to(root)
    assert download("tau2022-mobile", tmp_path) == inner
    monkeypatch.setitem(sys.modules, "soundata", None)
    with pytest.raises(InputError, match=r"pip install tinyscene\[download\]"):
        download("tau2019", tmp_path)
    with pytest.raises(InputError, match="'esc50' can't be downloaded; accepted: tau2019, tau2020-mobile"):
        download("esc50", tmp_path)


def test_download_asks_soundata_for_the_development_part(tmp_path, monkeypatch):
    asked = {}

    class Dataset:
        remotes = dict.fromkeys(("development.audio.1", "development.meta", "evaluation.meta", "index"))

        def download(self, partial_download):
            asked["parts"] = partial_download

    class Soundata:
        @staticmethod
        def initialize(name, data_home):
            asked.update(name=name, home=data_home)
            return Dataset()

    monkeypatch.setitem(sys.modules, "soundata", Soundata)
    root = download("tau2019", tmp_path)
    assert root == tmp_path / "TAU-urban-acoustic-scenes-2019-development"
    assert asked == {
        "name": "tau2019uas",
        "home": str(tmp_path),
        "parts": ["development.audio.1", "development.meta"],
    }


OFFICIAL = {
    "tau2020_3class/evaluation_setup/fold1_test.csv": 4_185,
    "tau2022_mobile/split25.csv": 34_900,
    "tau2022_mobile/split10.csv": 13_960,
    "tau2025_eval/test_first_2000_rows.csv": 1_999,
}


@pytest.mark.parametrize(("name", "rows"), OFFICIAL.items())
def test_official_counts(shared_data, name, rows):
    assert len(read_table(shared_data("challenge_meta") / name, ["filename"])) == rows


def official(folder, names, tree):
    """The official lists, in a tree without sound files."""
    (tree / "evaluation_setup").mkdir()
    for source, target in names.items():
        shutil.copy(folder / source, tree / "evaluation_setup" / target)
    return tree


@pytest.mark.parametrize(
    ("edition", "lists", "options", "sizes"),
    [
        (
            "tau2020-mobile",
            {f"tau2020_mobile/fold1_{part}.csv": f"fold1_{part}.csv" for part in ("train", "evaluate")},
            {},
            (13_965, 2_970),
        ),
        (
            "tau2020-3class",
            {f"tau2020_3class/evaluation_setup/fold1_{p}.csv": f"fold1_{p}.csv" for p in ("train", "evaluate")},
            {},
            (9_185, 4_185),
        ),
        (
            "tau2022-mobile",
            {f"tau2022_mobile/{name}.csv": f"{name}.csv" for name in ("split5", "fold1_evaluate")},
            {"subset": 5},
            (6_980, 29_680),
        ),
    ],
)
def test_official_splits_do_not_leak(shared_data, tmp_path, edition, lists, options, sizes):
    """By city and location, which no two scenes share. The 2020 reports print 13,962 files to train on, not 13,965."""
    root = official(shared_data("challenge_meta"), lists, tmp_path)
    clips = data.load(root, edition, strict=False, **options)
    assert (len(clips.development), len(clips.test)) == sizes
    assert clips.require("train", "validation", "test").leaks() == []
    assert 0.12 < len(clips.validation) / len(clips.development) < 0.18
    scenes = defaultdict(set)
    for clip in clips:
        scenes[clip.recording].add(Path(clip.path).name.split("-")[0])
    assert max(map(len, scenes.values())) == 1
    assert tau.is_tau(root) == edition


def test_official_evaluation_list(shared_data, tmp_path):
    path = shared_data("challenge_meta") / "tau2025_eval" / "test_first_2000_rows.csv"
    with pytest.raises(InputError, match=r"1,999 of 1,999 listed files are missing: audio/0.wav"):
        load_tau_evaluation(tmp_path, path)
