"""ESC-50 and ESC-10, environmental sounds in five folds (Piczak, ACM Multimedia 2015), in all published layouts.

| layout | list | sound |
|---|---|---|
| ESC-50 | `meta/esc50.csv`: filename, fold, target, category, esc10, src_file, take | `audio/1-100032-A-0.wav` |
| ESC-10 as a table | `meta.csv`: filename, fold, category, src_file, take | `audio/1-100032-A.ogg` |
| ESC-10 before 2015 | none | `001 - Dog bark/1-100032-A.ogg` |

A recording is a source file of freesound.org. Two of ESC-50's (209698, 234879) are in both folds 4 and 5: the
folds are used as published, with a note of what they share.
"""

import re
from pathlib import Path
from typing import Unpack

from tinyscene.data.clips import Clip, Clips
from tinyscene.data.folder import fold_splits, other_sounds, sound_files
from tinyscene.data.tables import Row, Settling, columns, folder, read_table, settle
from tinyscene.errors import InputError

TABLE = "meta/esc50.csv"
TABLE_10 = "meta.csv"
COLUMNS = ("filename", "fold", "category", "src_file")
CATEGORY = re.compile(r"\d{3} - .+")
NAME = re.compile(r"(\d+)-(\d+)-[A-Z]+")


def load_esc10(
    root: Path | str,
    test_fold: int | None = None,
    **settling: Unpack[Settling],
) -> Clips:
    """ESC-10, from its own tree or out of ESC-50's.

    Args:
        root: the folder of the tree.
        test_fold: the fold to test on; the highest where None.
        settling: see `Settling`.

    Raises:
        InputError: the tree is not in one of the layouts above, or is incomplete.
    """
    return _load("esc10", 10, root, test_fold, settling)


def load_esc50(
    root: Path | str,
    test_fold: int | None = None,
    **settling: Unpack[Settling],
) -> Clips:
    """ESC-50. Arguments and errors as of `load_esc10`."""
    return _load("esc50", 50, root, test_fold, settling)


def is_esc(root: Path) -> str | None:
    """The set that a folder holds, by its layout: "esc50", "esc10" or None."""
    if (root / TABLE).is_file():
        return "esc50"
    if (root / TABLE_10).is_file():
        return "esc10" if {*COLUMNS} <= {*columns(root / TABLE_10)} else None
    found = _category_folders(root)
    return ("esc50" if len(found) > 10 else "esc10") if found else None


def _load(name: str, classes: int, root: Path | str, test_fold: int | None, settling: Settling) -> Clips:
    top = folder(root)
    source, rows = _listed(top)
    if name == "esc10" and "esc10" in rows[0].cells:
        rows = [row for row in rows if _in_esc10(row)]
    scenes = tuple(sorted({row.cells["category"] for row in rows}))
    if len(scenes) != classes:
        raise InputError(f"{source}: {len(scenes)} classes; accepted for {name}: its {classes}")
    splits = fold_splits(source, [row.cells["fold"] for row in rows], test_fold)
    clips = tuple(
        Clip(cells["filename"], cells["category"], split, recording=cells["src_file"], row=where, fold=cells["fold"])
        for (where, cells), split in zip(rows, splits, strict=True)
    )
    return settle(Clips(name, top, scenes, clips, other_sounds(top), published=True), **settling)


def _in_esc10(row: Row) -> bool:
    value = {"true": True, "1": True, "false": False, "0": False}.get(row.cells["esc10"].lower())
    if value is None:
        raise InputError(f"{row.where}: esc10 {row.cells['esc10']!r}; accepted: True or False, or 1 or 0")
    return value


def _listed(top: Path) -> tuple[Path, list[Row]]:
    for table in (top / TABLE, top / TABLE_10):
        if table.is_file():
            rows = read_table(table, COLUMNS)
            return table, [Row(row.where, row.cells | {"filename": f"audio/{row.cells['filename']}"}) for row in rows]
    rows = []
    for category in _category_folders(top):
        scene = category.name[6:].strip().lower().replace(" ", "_")
        for path in sound_files(category):
            named = NAME.fullmatch(path.stem)
            if named is None:
                raise InputError(f"{path}: accepted in ESC-10: names such as 1-100032-A.ogg (fold, source, take)")
            name = path.relative_to(top).as_posix()
            rows.append(Row("", {"filename": name, "fold": named[1], "category": scene, "src_file": named[2]}))
    if not rows:
        raise InputError(
            f"{top}: neither {TABLE} nor {TABLE_10} nor folders such as '001 - Dog bark' with sound files; "
            f"accepted: ESC-50 or ESC-10 as published"
        )
    return top, rows


def _category_folders(top: Path) -> list[Path]:
    return sorted(path for path in top.iterdir() if path.is_dir() and CATEGORY.fullmatch(path.name))
