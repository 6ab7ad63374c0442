"""Any labelled recordings: a folder with a folder per class, or a table of files."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

from tinyscene.audio import OTHER_SUFFIXES, SUFFIXES
from tinyscene.data.clips import SPLITS, Clip, Clips, Split, some
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
    seed: int = 0,
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
        seed: of the cuts.
        settling: see `Settling`.

    Raises:
        InputError: no folder, no class folders, an empty one, a lone split or fold folder, or a class with too
            few recordings.
    """
    top = folder(root)
    parts = _parts(top, test_fold)
    rows = [clip for base, split in parts.items() for clip in _class_folders(top, base, split)]
    notes = (*other_sounds(top), *(_noted(top) if top in parts else ()))
    clips = Clips("folder", top, tuple(sorted({clip.scene or "" for clip in rows})), tuple(rows), notes)
    if not len(clips.test):
        clips = _cut_test(clips, test_fraction, seed, settling.get("strict", True))
    return settle(clips, seed=seed, **settling)


def load_csv(
    file: Path | str,
    root: Path | str | None = None,
    *,
    test_fold: str | int | None = None,
    classes: Sequence[str] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
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
        seed: of the cuts.
        settling: see `Settling`.

    Raises:
        InputError: the table can't be read (see `read_table`), a label is unknown, or a class has too few recordings.
    """
    path = Path(file).expanduser()
    clips, split_named = _listed(path, path.parent if root is None else folder(root), test_fold, classes)
    strict = settling.get("strict", True)
    if strict:
        _no_lone_clips(clips)
    if not split_named:
        clips = _cut_test(clips, test_fraction, seed, strict)
    return settle(clips, seed=seed, **settling)


def _listed(path: Path, top: Path, test_fold: str | int | None, classes: Sequence[str] | None) -> tuple[Clips, bool]:
    """The clips of a table, and whether it names their splits."""
    rows = read_table(path, ["filename"], unique=("filename", "start_s", "duration_s"))
    label = _label_column(path, rows[0])
    accepted = tuple(classes) if classes is not None else tuple(sorted({row.cells[label] for row in rows}))
    splits = _splits(path, rows, test_fold)
    clips = (_clip(row, label, accepted, split) for row, split in zip(rows, splits, strict=True))
    return Clips(path.stem, top, accepted, tuple(clips)), not {"split", "fold"}.isdisjoint(rows[0].cells)


def sound_files(top: Path, *, deep: bool = True, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[Path]:
    """Sound files by name, at any depth or of this folder only; hidden files and folders are skipped."""
    for parent, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if deep and not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(suffixes):
                path = Path(parent, name)
                if not _is_text(str(path)):
                    raise InputError(f"{os.fsencode(path)!r}: a name that is not UTF-8; rename the file")
                yield path


def other_sounds(top: Path) -> tuple[str, ...]:
    """A note of the sound files in formats that are left out, by suffix; none where there is none."""
    found = Counter(path.suffix.lower() for path in sound_files(top, suffixes=OTHER_SUFFIXES))
    if not found:
        return ()
    kinds = ", ".join(f"{number:,} {suffix}" for suffix, number in sorted(found.items()))
    return (f"sound files in other formats are left out: {kinds}; accepted: {', '.join(SUFFIXES)}",)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def highest_fold(path: Path, folds: set[str], wanted: str | int | None) -> str:
    """The fold to test on: `wanted`, or the highest. Raises InputError if there is no such fold."""
    # Numbers by value, 9 before 10, and before names.
    ordered = sorted(folds, key=lambda fold: (not fold.isdecimal(), int(fold) if fold.isdecimal() else 0, fold))
    if wanted is None:
        if len(ordered) < 2:
            raise InputError(f"{path}: only fold {', '.join(ordered)}; accepted: at least two, one to test on")
        return ordered[-1]
    if str(wanted) not in folds:
        raise InputError(f"{path}: test fold {wanted!r}; accepted: {', '.join(ordered)}")
    return str(wanted)


def _subfolders(top: Path) -> list[Path]:
    return sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith("."))


def _parts(top: Path, test_fold: str | int | None) -> dict[Path, Split]:
    """The folders that hold the class folders, each with its split: those of splits or folds, otherwise `top`."""
    folders = _subfolders(top)
    splits = {path: _SPLIT_NAMES[path.name.lower()] for path in folders if path.name.lower() in _SPLIT_NAMES}
    folds = {path: found[1] for path in folders if (found := _FOLD.fullmatch(path.name))}
    if folds and len(folds) == len(folders):
        tested = highest_fold(top, set(folds.values()), test_fold)
        return {path: "test" if fold == tested else "train" for path, fold in folds.items()}
    if test_fold is not None:
        raise InputError(f"{top}: test fold {test_fold!r} asked for; accepted: a folder of folders fold1, fold2, ...")
    if len(splits) == len(folders) and {"train", "test"} <= set(splits.values()):
        return dict(sorted(splits.items(), key=lambda item: SPLITS.index(item[1])))
    known = [*splits, *folds]
    if (len(splits) == len(folders) and any(map(_subfolders, folders))) or _same_inside(known, folders):
        raise InputError(
            f"{top}: holds {'only ' * (len(folders) == 1)}{', '.join(path.name for path in folders)}; accepted: train "
            f"and test, perhaps validation; or fold1, fold2, ...; or class folders"
        )
    return {top: "train"}


def _same_inside(known: list[Path], folders: list[Path]) -> bool:
    """Whether folders named as splits or folds, and the others if they are fewer, hold the same folders."""
    return bool(_alike(known) or (2 * len(known) >= len(folders) and known and _alike(folders)))


def _alike(folders: list[Path]) -> list[str]:
    """The folders that (nearly) all of several hold, if at least two and without sound files beside them."""
    inside = [
        set() if any(sound_files(path, deep=False)) else {sub.name for sub in _subfolders(path)} for path in folders
    ]
    count = Counter(name for names in inside for name in names)
    common = {name for name, number in count.items() if 2 * number > len(folders)}
    similar = sum(len(names & common) >= 2 for names in inside)
    return sorted(common) if len(folders) > 1 and similar >= _NEARLY_ALL * len(folders) else []


def _noted(top: Path) -> Iterator[str]:
    """A note where the class folders hold the same folders, such as cities or sessions."""
    folders = _subfolders(top)
    if inside := _alike(folders):
        yield (
            f"the folders {some([path.name for path in folders])} are taken as the classes, and all hold "
            f"{some(inside)}; if those are the classes, list the files in a table with filename, label and city "
            f"(--data takes a .csv)"
        )


def _class_folders(top: Path, base: Path, split: Split) -> Iterator[Clip]:
    folders = _subfolders(base)
    if not folders:
        loose = sum(1 for _ in sound_files(base))
        raise InputError(
            f"{base}: no class folders, {loose} sound files; accepted: a folder per class, with sound files "
            f"({', '.join(SUFFIXES)}) inside"
        )
    for scene in folders:
        files = list(sound_files(scene))
        if not files:
            left = "".join(f"; {note.partition(';')[0]}" for note in other_sounds(scene))
            raise InputError(
                f"{scene}: class folder without a sound file{left}; accepted: {', '.join(SUFFIXES)} inside"
            )
        for path in files:
            name = path.relative_to(top).as_posix()
            yield Clip(name, scene.name, split, recording=name)


def _cut_test(clips: Clips, fraction: float, seed: int, strict: bool) -> Clips:
    try:
        return clips.with_test(fraction, seed)
    except InputError:
        if strict:
            raise
        return clips


def _label_column(path: Path, row: Row) -> str:
    for column in LABEL_COLUMNS:
        if column in row.cells:
            return column
    raise InputError(
        f"{path}:1: no column for the label; found: {', '.join(row.cells)}; accepted: filename and one of "
        f"{', '.join(LABEL_COLUMNS)}"
    )


def _splits(path: Path, rows: list[Row], test_fold: str | int | None) -> list[Split]:
    if "split" in rows[0].cells:
        return [_split(row) for row in rows]
    if "fold" in rows[0].cells:
        for row in rows:
            if not row.cells["fold"]:
                raise InputError(f"{row.where}: no fold; accepted: the number or name of a fold")
        tested = highest_fold(path, {row.cells["fold"] for row in rows}, test_fold)
        return ["test" if row.cells["fold"] == tested else "train" for row in rows]
    if test_fold is not None:
        raise InputError(f"{path}:1: test fold {test_fold!r} asked for; accepted: a table with the column fold")
    return ["train"] * len(rows)


def _split(row: Row) -> Split:
    for split in SPLITS:
        if row.cells["split"] == split:
            return split
    raise InputError(f"{row.where}: split {row.cells['split']!r}; accepted: {', '.join(SPLITS)}")


def _clip(row: Row, label: str, classes: tuple[str, ...], split: Split) -> Clip:
    cells = row.cells
    scene = cells[label]
    if not scene or scene not in classes:
        raise InputError(
            f"{row.where}: {label} {scene!r} of {cells['filename']}; accepted: {', '.join(filter(None, classes))}"
        )
    duration_s = seconds(row, "duration_s")
    if duration_s == 0:
        raise InputError(f"{row.where}: duration_s 0; accepted: above 0, or an empty cell for the rest of the file")
    return Clip(
        cells["filename"],
        scene,
        split,
        seconds(row, "start_s") or 0.0,
        duration_s,
        cells.get("device", ""),
        cells.get("city", ""),
        cells.get("recording") or cells["filename"],
        row.where,
    )


def _no_lone_clips(clips: Clips) -> None:
    count = Counter(clip.scene for clip in clips)
    lone = next((clip for clip in clips if count[clip.scene] == 1), None)
    if lone is not None:
        raise InputError(
            f"{lone.row}: class {lone.scene!r} has only the clip {lone.path}, which can't be split; "
            f"accepted: at least three a class, one each to train, validate and test on"
        )
