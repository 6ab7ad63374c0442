"""Any labelled recordings: a folder with a folder per class, or a table of files."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack, cast

from tinyscene.audio import OTHER_SUFFIXES, SUFFIXES
from tinyscene.data.clips import SPLITS, Clip, Clips, Split, in_order, some
from tinyscene.data.tables import Row, Settling, folder, read_table, seconds, settle
from tinyscene.errors import InputError

LABEL_COLUMNS = ("label", "scene_label", "category")
_SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_FOLD = re.compile(r"fold[ _-]?(\d+)", re.IGNORECASE)
_NEARLY_ALL = 0.8


def load_folder(
    root: Path | str,
    *,
    test_fold: str | int | None = None,
    test_fraction: float = 0.2,
    **settling: Unpack[Settling],
) -> Clips:
    """Clips of a folder that holds a folder per class, the sound files at any depth inside it.

    `train`, `test` and perhaps `validation` folders, each with the class folders, are taken as the splits, under the
    usual other names too (Train, training, valid, testing); `fold1`, `fold2` ... as folds. Else a test split is cut,
    with the classes in proportion. Every file is its own recording. Hidden files are skipped; sound files in
    other formats are left out, with a note.

    Args:
        root: the folder.
        test_fold: the fold to test on; the highest where None.
        test_fraction: share of the clips of every class, where the folder names no test split.
        settling: see `Settling`.

    Raises:
        InputError: no folder, no class folders, an empty one, a lone split or fold folder, or a class with too
            few recordings.
    """
    top = folder(root)
    parts = _parts(top, test_fold)
    rows = [clip for base, split in parts.items() for clip in _class_folders(top, base, split)]
    notes = other_sounds(top)
    if top in parts and (inside := _alike(_subfolders(top))):  # such as cities or sessions
        names = some([path.name for path in _subfolders(top)])
        notes += (
            f"the folders {names} are taken as the classes, and all hold {some(inside)}; if those are the classes, "
            f"list the files in a table with filename, label and city (--data takes a .csv)",
        )
    clips = Clips("folder", top, tuple(sorted({clip.scene or "" for clip in rows})), tuple(rows), notes)
    return settle(clips, test_fraction=None if len(clips.test) else test_fraction, **settling)


def load_csv(
    file: Path | str,
    root: Path | str | None = None,
    *,
    test_fold: str | int | None = None,
    classes: Sequence[str] | None = None,
    test_fraction: float = 0.2,
    **settling: Unpack[Settling],
) -> Clips:
    """Clips listed in a table, with the columns filename and label (or scene_label, or category).

    Further columns are used where present: split (train, validation, test), else fold; device, city, recording (what
    no split may cut; the file where absent), start_s, duration_s (a stretch of the file). Without split and fold, a
    test split is cut by recording, with the classes in proportion.

    Args:
        file: the table, tab- or comma-separated.
        root: the folder that file names are relative to; the table's where None.
        test_fold: the fold to test on; the highest where None.
        classes: the labels to accept, in this order; those found, sorted, where None.
        test_fraction: share of the clips of every class, where the table names no test split.
        settling: see `Settling`.

    Raises:
        InputError: the table can't be read (see `read_table`), a label is unknown, or a class has too few recordings.
    """
    path = Path(file).expanduser()
    top = path.parent if root is None else folder(root)
    rows = read_table(path, ["filename"], unique=("filename", "start_s", "duration_s"))
    header = rows[0].cells
    label = next((column for column in LABEL_COLUMNS if column in header), None)
    if label is None:
        raise InputError(
            f"{path}:1: no column for the label; found: {', '.join(header)}; accepted: filename and one of "
            f"{', '.join(LABEL_COLUMNS)}"
        )
    accepted = tuple(classes) if classes is not None else tuple(sorted({row.cells[label] for row in rows}))
    splits = _splits(path, rows, test_fold)
    listed = tuple(_clip(row, label, accepted, split) for row, split in zip(rows, splits, strict=True))
    fraction = test_fraction if {"split", "fold"}.isdisjoint(header) else None
    return settle(Clips(path.stem, top, accepted, listed), test_fraction=fraction, **settling)


def sound_files(top: Path, *, deep: bool = True, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[Path]:
    """Sound files by name, at any depth or of this folder only; hidden files and folders are skipped."""
    for parent, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if deep and not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(suffixes):
                path = Path(parent, name)
                if os.fsencode(path) != str(path).encode(errors="replace"):
                    raise InputError(f"{os.fsencode(path)!r}: a name that is not UTF-8; rename the file")
                yield path


def other_sounds(top: Path) -> tuple[str, ...]:
    """A note of the sound files in formats that are left out, by suffix; none where there is none."""
    found = Counter(path.suffix.lower() for path in sound_files(top, suffixes=OTHER_SUFFIXES))
    if not found:
        return ()
    kinds = ", ".join(f"{number:,} {suffix}" for suffix, number in sorted(found.items()))
    return (f"sound files in other formats are left out: {kinds}; accepted: {', '.join(SUFFIXES)}",)


def fold_splits(path: Path, folds: Sequence[str], wanted: str | int | None) -> list[Split]:
    """For every fold, "test" for the one to test on (`wanted`, or the highest), otherwise "train".

    Raises InputError if there is no such fold.
    """
    ordered = in_order(set(folds))
    if wanted is None and len(ordered) < 2:
        raise InputError(f"{path}: only fold {', '.join(ordered)}; accepted: at least two, one to test on")
    tested = ordered[-1] if wanted is None else str(wanted)
    if tested not in ordered:
        raise InputError(f"{path}: test fold {wanted!r}; accepted: {', '.join(ordered)}")
    return ["test" if fold == tested else "train" for fold in folds]


def _subfolders(top: Path) -> list[Path]:
    return sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith("."))


def _parts(top: Path, test_fold: str | int | None) -> dict[Path, Split]:
    """The folders that hold the class folders, each with its split: those of splits or folds, otherwise `top`."""
    folders = _subfolders(top)
    splits = {path: _SPLIT_NAMES[path.name.lower()] for path in folders if path.name.lower() in _SPLIT_NAMES}
    folds = {path: found[1] for path in folders if (found := _FOLD.fullmatch(path.name))}
    if folds and len(folds) == len(folders):
        return dict(zip(folds, fold_splits(top, [*folds.values()], test_fold), strict=True))
    if test_fold is not None:
        raise InputError(f"{top}: test fold {test_fold!r} asked for; accepted: a folder of folders fold1, fold2, ...")
    if len(splits) == len(folders) and {"train", "test"} <= set(splits.values()):
        return dict(sorted(splits.items(), key=lambda item: SPLITS.index(item[1])))
    known = [*splits, *folds]
    # Folders named as splits or folds, and the others if they are fewer, that hold the same folders are no classes.
    doubtful = len(splits) == len(folders) and any(map(_subfolders, folders))
    if doubtful or _alike(known) or (2 * len(known) >= len(folders) and _alike(folders)):
        raise InputError(
            f"{top}: holds {'only ' * (len(folders) == 1)}{', '.join(path.name for path in folders)}; accepted: train "
            f"and test, perhaps validation; or fold1, fold2, ...; or class folders"
        )
    return {top: "train"}


def _alike(folders: list[Path]) -> list[str]:
    """The folders that (nearly) all of several hold, if at least two and without sound files beside them."""
    inside = [
        set() if any(sound_files(path, deep=False)) else {sub.name for sub in _subfolders(path)} for path in folders
    ]
    count = Counter(name for names in inside for name in names)
    common = {name for name, number in count.items() if 2 * number > len(folders)}
    similar = sum(len(names & common) >= 2 for names in inside)
    return sorted(common) if len(folders) > 1 and similar >= _NEARLY_ALL * len(folders) else []


def _class_folders(top: Path, base: Path, split: Split) -> Iterator[Clip]:
    folders = _subfolders(base)
    if not folders:
        loose = sum(1 for _ in sound_files(base))
        raise InputError(
            f"{base}: no class folders, {loose} sound files; accepted: a folder per class, with sound files "
            f"({', '.join(SUFFIXES)}) inside"
        )
    fold = _FOLD.fullmatch(base.name) if base != top else None
    for scene in folders:
        files = list(sound_files(scene))
        if not files:
            left = other_sounds(scene) or (f"accepted: {', '.join(SUFFIXES)} inside",)
            raise InputError(f"{scene}: class folder without a sound file; {left[0]}")
        for path in files:
            name = path.relative_to(top).as_posix()
            yield Clip(name, scene.name, split, recording=name, fold=fold[1] if fold else "")


def _splits(path: Path, rows: list[Row], test_fold: str | int | None) -> list[Split]:
    if "split" in rows[0].cells:
        for row in rows:
            if row.cells["split"] not in SPLITS:
                raise InputError(f"{row.where}: split {row.cells['split']!r}; accepted: {', '.join(SPLITS)}")
        return [cast(Split, row.cells["split"]) for row in rows]
    if "fold" in rows[0].cells:
        for row in rows:
            if not row.cells["fold"]:
                raise InputError(f"{row.where}: no fold; accepted: the number or name of a fold")
        return fold_splits(path, [row.cells["fold"] for row in rows], test_fold)
    if test_fold is not None:
        raise InputError(f"{path}:1: test fold {test_fold!r} asked for; accepted: a table with the column fold")
    return ["train"] * len(rows)


def _clip(row: Row, label: str, classes: tuple[str, ...], split: Split) -> Clip:
    cells = row.cells
    scene = cells[label]
    if not scene or scene not in classes:
        raise InputError(
            f"{row.where}: {label} {scene!r} of {cells['filename']}; accepted: {', '.join(filter(None, classes))}"
        )
    return Clip(
        cells["filename"],
        scene,
        split,
        seconds(row, "start_s") or 0.0,
        seconds(row, "duration_s"),
        cells.get("device", ""),
        cells.get("city", ""),
        cells.get("recording") or cells["filename"],
        row.where,
        "" if "split" in cells else cells.get("fold", ""),
    )
