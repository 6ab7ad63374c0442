"""Lists of clips: tables, as published or saved by a spreadsheet; and the last step of every loader."""

import codecs
import csv
import math
import os
import posixpath
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypedDict

from tinyscene.data.clips import Clip, Clips, some
from tinyscene.errors import InputError

_SEPARATORS = "\t;,"
_SEPARATED = "separated by tabs, semicolons or commas"


class Row(NamedTuple):
    """One row of a table: its place ("meta.csv:17") and its cells by column."""

    where: str
    cells: dict[str, str]


def read_table(path: Path, needed: Collection[str], unique: Sequence[str] = ("filename",)) -> list[Row]:
    """Read a table with a header, separated by tabs, semicolons or commas, with any line ends, in UTF-8 or, where it
    begins with its BOM, UTF-16.

    Args:
        path: the table.
        needed: columns it must have, in lower case, as all columns are returned; others are allowed.
        unique: columns in which no two rows may hold the same values; those that the table lacks are ignored.

    A `filename` is checked to stay inside its folder, and given forward slashes.

    Raises:
        InputError: the file is missing, empty or not text; a column is missing; a row is ragged, repeats another, or
            names a path outside the folder.
    """
    lines = _lines(path)
    header = _header(path, lines)
    lacking = [column for column in needed if column not in header]
    if lacking:
        raise InputError(
            f"{path}:1: no column {', '.join(lacking)}; found: {', '.join(header)}; "
            f"accepted: a header with {', '.join(needed)}, {_SEPARATED}"
        )
    key = [column for column in unique if column in header]
    first: dict[tuple[str, ...], str] = {}
    rows = []
    for line, cells in lines:
        where = f"{path.name}:{line}"
        if any(cells[len(header) :]) or len(cells) < len(header):
            raise InputError(
                f"{path}:{line}: {len(cells)} cells; accepted: {len(header)}, as in the header ({', '.join(header)})"
            )
        row = dict(zip(header, cells, strict=False))
        if "filename" in row:
            row["filename"] = inside(row["filename"], where)
        values = tuple(row[column] for column in key)
        if key and first.setdefault(values, where) is not where:
            raise InputError(
                f"{where}: {', '.join(values)} duplicates {first[values]}; accepted: every {' with '.join(key)} once"
            )
        rows.append(Row(where, row))
    if not rows:
        raise InputError(f"{path}: a header without rows; accepted: at least one row")
    return rows


def columns(path: Path) -> list[str]:
    """The columns of a table, in lower case; none where the file holds no table."""
    try:
        return _header(path, _lines(path))
    except InputError:
        return []


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and cells of every line that is not blank."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}; accepted: a table with a header, {_SEPARATED}")
    with path.open("rb") as start:
        wide = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    line = 0
    try:
        with path.open(encoding="utf-16" if wide else "utf-8-sig", newline="") as file:
            # The separator that the header has: column names hold none.
            separator = max(_SEPARATORS, key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, strict=True)
            for cells in reader:
                line = reader.line_num
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield line, stripped
    except UnicodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error}); accepted: UTF-8, or UTF-16 with a BOM") from error
    except csv.Error as error:
        raise InputError(f"{path}:{line + 1}: {error}; accepted: cells {_SEPARATED}") from error


def _header(path: Path, lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    header = [cell.lower() for cell in next(lines, (1, []))[1]]
    while header and not header[-1]:  # columns that a spreadsheet saved without a name
        header.pop()
    if not header:
        raise InputError(f"{path}: empty; accepted: a header and at least one row, {_SEPARATED}")
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise InputError(f"{path}:1: column {', '.join(twice)} is a duplicate; accepted: every column once")
    return header


def inside(name: str, where: str) -> str:
    """`name` as a path relative to its folder, with forward slashes. Raises InputError if it is empty or leaves it."""
    name = name.replace("\\", "/")
    if not name or name[0] == "/" or name[1:2] == ":" or ".." in name.split("/"):
        raise InputError(
            f"{where}: filename {name!r}; accepted: a path relative to the data set's folder that stays inside it"
        )
    return posixpath.normpath(name) if "./" in name or "//" in name else name


def seconds(row: Row, column: str) -> float | None:
    """A cell that holds seconds, or None where it is absent or empty. Raises InputError unless finite and >= 0."""
    cell = row.cells.get(column, "")
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{row.where}: {column} {cell!r}; accepted: a finite number of seconds, not negative")
    return value


def folder(root: Path | str) -> Path:
    """`root` as a path, `~` resolved. Raises InputError if it is not a folder."""
    path = Path(root).expanduser()
    if not path.is_dir():
        found = "a file" if path.exists() else "no such folder"
        raise InputError(f"{path}: {found}; accepted: the folder of a data set")
    return path


class Settling(TypedDict, total=False):
    """Settings of every loader, applied by `settle`."""

    seed: int
    """Of the cuts into training, validation and test  [default: 0]."""
    allow_missing: bool
    """Leave out listed files that are not on disk, with a note instead of an error  [default: False]."""
    strict: bool
    """False keeps faulty clips, so that `check` can report them  [default: True]."""
    drop_shared: bool
    """Leave out of training what a later split also holds: `Clips.drop_shared`  [default: False]."""


def settle(
    clips: Clips,
    *,
    seed: int = 0,
    test_fraction: float | None = None,
    allow_missing: bool = False,
    strict: bool = True,
    drop_shared: bool = False,
) -> Clips:
    """The last step of every loader: listed files must exist; splits that the source lacks are cut.

    Args:
        clips: as listed.
        test_fraction: share of the clips to cut a test split of; None keeps the source's.
        seed, allow_missing, strict, drop_shared: see `Settling`.

    Raises:
        InputError: if strict, a listed file is missing, a class has too few recordings to cut, a split lacks a class,
            or a recording spans two splits that are not published.
    """
    if strict and len(clips.classes) < 2:
        raise InputError(
            f"{clips.root} ({clips.name}): only {', '.join(clips.classes)}; accepted: at least two classes"
        )
    if allow_missing or strict:
        clips = without_missing(clips, allow_missing)
    try:
        if test_fraction is not None:
            clips = clips.with_test(test_fraction, seed)
        clips = clips.drop_shared() if drop_shared else clips.note_shared()
        if not len(clips.validation):
            clips = clips.with_validation(seed=seed)
        return clips.require("train", "validation", "test")
    except InputError:
        if strict:
            raise
        return clips


def missing(clips: Clips) -> list[Clip]:
    """Clips whose file is not on disk."""
    # One listing of each folder: asking for each of 230,000 files is slow on network disks.
    places = [posixpath.split(clip.path) for clip in clips]
    present = {parent: _names(clips.root / parent) for parent in {parent for parent, _ in places}}
    return [clip for clip, (parent, name) in zip(clips, places, strict=True) if name not in present[parent]]


def without_missing(clips: Clips, allow_missing: bool) -> Clips:
    """Raise InputError for listed files that are not on disk, or (`allow_missing`) leave them out, with a note."""
    gone = missing(clips)
    if not gone:
        return clips
    what = f"{len(gone):,} of {len(clips):,} listed files are missing"
    names = some([f"{clip.path} ({clip.row})" for clip in gone])
    if len(gone) == len(clips) or not allow_missing:
        raise InputError(
            f"{clips.root} ({clips.name}): {what}: {names}; "
            f"accepted: all of them on disk, or allow_missing=True (--allow-missing) to leave out some"
        )
    absent = set(gone)
    rows = tuple(clip for clip in clips if clip not in absent)
    return replace(clips, rows=rows, notes=(*clips.notes, f"{what} and left out: {names}"))


def _names(parent: Path) -> set[str]:
    try:
        with os.scandir(parent) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()
