"""A folder per class, and tables of files."""

from collections import Counter

import numpy as np
import pytest
import soundfile

from tinyscene import data
from tinyscene.data import load_csv, load_folder
from tinyscene.errors import InputError


@pytest.fixture
def classes_of_files(tmp_path, sound):
    """Two classes of ten clips each, one file a level deeper, and what is to be passed over."""
    for scene in ("bus", "park"):
        for number in range(9):
            sound(tmp_path / scene / f"{number}.wav")
        sound(tmp_path / scene / "deeper" / "9.FLAC")
        (tmp_path / scene / ".hidden.wav").write_bytes(b"not audio")
        (tmp_path / scene / "notes.txt").write_text("not audio")
    sound(tmp_path / ".trash" / "x.wav")
    return tmp_path


def test_a_folder_is_cut_by_class_and_seed(classes_of_files):
    clips = load_folder(classes_of_files)
    assert clips.classes == ("bus", "park")
    assert len(clips) == 20
    assert all(clip.scene == clip.path.split("/")[0] and clip.recording == clip.path for clip in clips)
    assert Counter((clip.scene, clip.split) for clip in clips) == {
        (scene, split): count
        for scene in clips.classes
        for split, count in (("train", 7), ("validation", 1), ("test", 2))
    }
    assert load_folder(classes_of_files, seed=0) == clips
    assert load_folder(classes_of_files, seed=1) != clips
    assert len(load_folder(classes_of_files, test_fraction=0.5).test) == 10


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("training", "testing"), ("train", "validation", "test"), ("TRAIN", "valid", "test")]
)
def test_split_folders_are_kept(tmp_path, sound, names):
    for name in names:
        for scene in ("bus", "park"):
            for number in range(4):
                sound(tmp_path / name / scene / f"{number}.wav")
    clips = load_folder(tmp_path)
    assert clips.classes == ("bus", "park")
    assert clips.notes == ()
    assert {clip.path for clip in clips.test} == {f"{names[-1]}/{s}/{n}.wav" for s in ("bus", "park") for n in range(4)}
    assert {clip.path.split("/")[0] for clip in clips.train} == {names[0]}
    assert {clip.path.split("/")[0] for clip in clips.validation} == {names[-2]}


@pytest.mark.parametrize("form", ["fold{}", "Fold_{}", "fold-{}", "FOLD {}"])
@pytest.mark.parametrize(("test_fold", "tested"), [(None, 10), ("9", 9), (8, 8)])
def test_fold_folders(tmp_path, sound, form, test_fold, tested):
    for fold in (8, 9, 10):
        for scene in ("bus", "park"):
            for number in range(2):
                sound(tmp_path / form.format(fold) / scene / f"{number}.wav")
    clips = load_folder(tmp_path, test_fold=test_fold)
    assert clips.classes == ("bus", "park")
    assert {clip.path for clip in clips.test} == {
        f"{form.format(tested)}/{scene}/{n}.wav" for scene in ("bus", "park") for n in range(2)
    }


@pytest.mark.parametrize(
    "names",
    [
        ("train", "eval"),
        ("train", "test", "extra"),
        ("fold1", "fold2", "holdout"),
        ("train", "valid"),
        ("train",),
        ("fold1",),
    ],
)
def test_some_split_folders_are_no_classes(tmp_path, sound, names):
    for name in names:
        for scene in ("bus", "park"):
            sound(tmp_path / name / scene / "0.wav")
    with pytest.raises(
        InputError, match=f"holds (only )?{', '.join(sorted(names))}; accepted: train and test|only fold 1;"
    ):
        load_folder(tmp_path)


def test_fold_folders_are_needed_for_a_test_fold(classes_of_files):
    with pytest.raises(InputError, match=r"test fold 1 asked for; accepted: a folder of folders fold1, fold2"):
        load_folder(classes_of_files, test_fold=1)


def test_cities_above_classes_are_noted(tmp_path, sound):
    """One city lacks a class. What lies deeper in class folders, as `deeper` elsewhere, is no sign of it."""
    for city in ("london", "paris", "rome"):
        for scene in ("bus", "park", "tram")[: 2 if city == "rome" else 3]:
            for number in range(3):
                sound(tmp_path / city / scene / f"{number}.wav")
    clips = load_folder(tmp_path)
    assert clips.classes == ("london", "paris", "rome")
    (note,) = clips.notes
    assert "the folders london, paris, rome are taken as the classes, and all hold bus, park, tram" in note
    assert "list the files in a table with filename, label and city" in note


def test_no_note_on_folders_within_classes(classes_of_files, sound):
    sound(classes_of_files / "bus" / "another" / "0.wav")
    assert load_folder(classes_of_files).notes == ()


def test_sound_files_of_other_formats_are_counted_and_named(classes_of_files):
    for number in range(3):
        (classes_of_files / "bus" / f"{number}.m4a").write_bytes(b"not read")
    (classes_of_files / "park" / "deeper" / "x.WMA").write_bytes(b"not read")
    clips = load_folder(classes_of_files)
    assert len(clips) == 20
    assert clips.notes[0].startswith("sound files in other formats are left out: 3 .m4a, 1 .wma; accepted: .wav, .flac")
    report = data.check(clips, quiet=True)
    assert clips.notes[0] in report.notes
    assert report.unlisted == ("bus/0.m4a", "bus/1.m4a", "bus/2.m4a", "park/deeper/x.WMA")
    (classes_of_files / "tram").mkdir()
    (classes_of_files / "tram" / "0.m4a").write_bytes(b"not read")
    with pytest.raises(InputError, match=r"tram: class folder without a sound file; .* are left out: 1 .m4a; accepted"):
        load_folder(classes_of_files)


def test_sound_files_of_all_suffixes_are_taken(tmp_path):
    forms = {".opus": "OGG", ".oga": "OGG", ".aifc": "AIFF", ".au": "AU", ".caf": "CAF", ".w64": "W64", ".WAVE": "WAV"}
    for scene in ("bus", "park"):
        for suffix, form in forms.items():
            path = tmp_path / scene / f"0{suffix}"
            path.parent.mkdir(exist_ok=True)
            noise = np.random.default_rng(list(str(path).encode())).uniform(-0.5, 0.5, 4800)
            soundfile.write(path, noise, 16_000, format=form)
    assert len(load_folder(tmp_path)) == 2 * len(forms)
    assert data.check(load_folder(tmp_path), quiet=True).ok


def test_train_is_also_a_scene(tmp_path, sound):
    """DCASE 2016 has a scene called train."""
    for scene in ("bus", "train"):
        for number in range(3):
            sound(tmp_path / scene / f"{number}.wav")
    assert load_folder(tmp_path).classes == ("bus", "train")


def test_split_without_a_class(tmp_path, sound):
    for name in ("train/bus/1", "train/bus/2", "train/park/1", "train/park/2", "test/bus/1"):
        sound(tmp_path / f"{name}.wav")
    with pytest.raises(InputError, match="the test split has no clip of park"):
        load_folder(tmp_path)


def test_bad_folders(tmp_path, sound):
    with pytest.raises(InputError, match="no such folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a file"):
        load_folder(sound(tmp_path / "x.wav"))
    with pytest.raises(InputError, match="no class folders, 1 sound files"):
        load_folder(tmp_path)
    for number in range(3):
        sound(tmp_path / "bus" / f"{number}.wav")
    with pytest.raises(InputError, match="only bus; accepted: at least two classes"):
        load_folder(tmp_path)
    (tmp_path / "park").mkdir()
    with pytest.raises(InputError, match=r"park: class folder without a sound file"):
        load_folder(tmp_path)
    sound(tmp_path / "park" / "1.wav")
    with pytest.raises(InputError, match=r"class 'park' has 1 recording to .*park/1.wav.*at least 3"):
        load_folder(tmp_path)


@pytest.fixture
def listed(tmp_path, sound):
    """listed(header, rows): a table beside its sound files."""

    def write(header, rows, exists=True):
        for row in rows:
            if exists:
                sound(tmp_path / row.split(",")[0])
        (tmp_path / "list.csv").write_text("\n".join([header, *rows]) + "\n")
        return tmp_path / "list.csv"

    return write


ROWS = [f"{scene}{n}.wav,{scene}" for scene in ("bus", "park") for n in range(6)]


@pytest.mark.parametrize("label", ["label", "scene_label", "category"])
def test_a_table_is_cut_by_class(listed, label):
    clips = load_csv(listed(f"filename,{label}", ROWS))
    assert Counter((clip.scene, clip.split) for clip in clips.test) == {("bus", "test"): 1, ("park", "test"): 1}
    assert [clip.row for clip in clips] == [f"list.csv:{n}" for n in range(2, 14)]


def test_recordings_are_not_cut(listed):
    rows = [f"{scene}{n}.wav,{scene},{scene}-{n // 3}" for scene in ("bus", "park") for n in range(12)]
    clips = load_csv(listed("filename,label,recording", rows))
    assert clips.leaks() == []
    assert {clip.recording for clip in clips} == {f"{s}-{n}" for s in ("bus", "park") for n in range(4)}


def test_split_wins_over_fold(listed):
    splits = ["train", "train", "train", "validation", "test", "test"] * 2
    rows = [f"{row},{n % 6},{split}" for n, (row, split) in enumerate(zip(ROWS, splits, strict=True))]
    clips = load_csv(listed("filename,label,fold,split", rows))
    assert [clip.split for clip in clips] == splits


@pytest.mark.parametrize(("test_fold", "tested"), [(None, "10"), (9, "9"), ("8", "8")])
def test_folds(listed, test_fold, tested):
    folds = ["8", "9", "10"] * 4
    clips = load_csv(
        listed("filename,label,fold", [f"{r},{f}" for r, f in zip(ROWS, folds, strict=True)]), test_fold=test_fold
    )
    assert [clip.split == "test" for clip in clips] == [fold == tested for fold in folds]


def test_further_columns(listed, tmp_path, sound):
    rows = [f"long.wav,{scene},{n},1.5,s1,lyon" for n, scene in enumerate(["bus", "park"] * 3)]
    recordings = [f"{row},r{n}" for n, row in enumerate(rows)]
    path = listed("filename,label,start_s,duration_s,device,city,recording", recordings)
    clip = load_csv(path).rows[3]
    assert clip[:2] == ("long.wav", "park")
    assert clip[3:] == (3.0, 1.5, "s1", "lyon", "r3", "list.csv:5", "")


def test_classes_give_the_order(listed):
    path = listed("filename,label", ROWS)
    assert load_csv(path, classes=["park", "bus"]).classes == ("park", "bus")
    with pytest.raises(InputError, match=r"list.csv:8: label 'park' of park0.wav; accepted: bus, tram"):
        load_csv(path, classes=["bus", "tram"])


def test_another_root(listed, tmp_path):
    path = listed("filename,label", ROWS)
    moved = path.rename(tmp_path.parent / f"{tmp_path.name}.csv")
    assert load_csv(moved, tmp_path).root == tmp_path
    with pytest.raises(InputError, match="12 of 12 listed files are missing"):
        load_csv(moved)


@pytest.mark.parametrize(
    ("header", "rows", "options", "said"),
    [
        ("filename,sort", ROWS, {}, "no column for the label; found: filename, sort"),
        ("filename,label", [*ROWS, "lone.wav,tram"], {}, r"class 'tram' has 1 recording to .*lone.wav"),
        ("filename,label", [*ROWS, "x.wav,"], {}, r"list.csv:14: label '' of x.wav; accepted: bus, park"),
        ("filename,label,split", [f"{r},dev" for r in ROWS], {}, r"list.csv:2: split 'dev'; accepted: train, val"),
        ("filename,label,split", [f"{r},train" for r in ROWS], {}, "the test split has no clip of bus, park"),
        ("filename,label,fold", [f"{r},1" for r in ROWS], {}, "only fold 1;"),
        ("filename,label,fold", [f"{r},{n % 2}" for n, r in enumerate(ROWS)], {"test_fold": 7}, "accepted: 0, 1"),
        ("filename,label,fold", [f"{r},{n % 2 or ''}" for n, r in enumerate(ROWS)], {}, "list.csv:2: no fold"),
        ("filename,label", ROWS, {"test_fold": 1}, "a table with the column fold"),
        ("filename,label", [*ROWS, "bus0.wav,bus"], {}, r"list.csv:14: bus0.wav duplicates list.csv:2"),
    ],
)
def test_bad_tables(listed, header, rows, options, said):
    path = listed(header, rows)
    with pytest.raises(InputError, match=said):
        load_csv(path, **options)


def test_leaking_table(listed):
    rows = [f"{row},same,{'test' if n % 2 else 'train'}" for n, row in enumerate(ROWS)]
    rows += [f"{row.replace('.wav', 'v.wav')},v{n},validation" for n, row in enumerate(ROWS)]
    with pytest.raises(InputError, match="more than one split, the first is same"):
        load_csv(listed("filename,label,recording,split", rows))


def test_layouts_are_recognised(classes_of_files, listed):
    assert data.load(classes_of_files).name == "folder"
    rows = [f"bus/{n}.wav,bus" for n in range(6)] + [f"park/{n}.wav,park" for n in range(6)]
    assert data.load(listed("filename,label", rows, exists=False)).name == "list"


def test_unknown_layouts_names_and_options(classes_of_files, tmp_path, sound):
    with pytest.raises(InputError, match="no such file or folder"):
        data.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a file; accepted: a .csv"):
        data.load(sound(tmp_path / "x.wav"))
    with pytest.raises(InputError, match="'tau2023'; accepted: folder, csv, esc10"):
        data.load(classes_of_files, "tau2023")
    with pytest.raises(InputError, match="folder: no option subset; accepted: test_fold, test_fraction"):
        data.load(classes_of_files, subset=5)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds nothing; accepted: a folder per class"):
        data.load(empty)
