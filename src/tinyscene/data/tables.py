"""Lists of clips: tables, as published or saved by a spreadsheet; and the last step of every loader."""

import codecs
import csv
import math
import os
import posixpath
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TextIO, TypedDict

from tinyscene.data.clips import NAMED, Clip, Clips
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
    header, rows = _parse(path)
    lacking = [column for column in needed if column not in header]
    if lacking:
        raise InputError(
            f"{path}:1: no column {', '.join(lacking)}; found: {', '.join(header)}; "
            f"accepted: a header with {', '.join(needed)}, {_SEPARATED}"
        )
    if not rows:
        raise InputError(f"{path}: a header without rows; accepted: at least one row")
    if "filename" in header:
        for row in rows:
            row.cells["filename"] = inside(row.cells["filename"], row.where)
    _no_repeats(rows, [column for column in unique if column in header])
    return rows


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
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{row.where}: {column} {cell!r}; accepted: a finite number of seconds, not negative")
    return value


def flag(row: Row, column: str) -> bool:
    """A cell that holds true or false, in any spelling. Raises InputError for anything else."""
    value = {"true": True, "1": True, "false": False, "0": False}.get(row.cells[column].lower())
    if value is None:
        raise InputError(f"{row.where}: {column} {row.cells[column]!r}; accepted: True or False, or 1 or 0")
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

    allow_missing: bool
    """Leave out listed files that are not on disk, with a note instead of an error  [default: False]."""
    strict: bool
    """False keeps faulty clips, so that `check` can report them  [default: True]."""
    drop_shared: bool
    """Leave out of training what a later split also holds: `Clips.drop_shared`  [default: False]."""


def settle(
    clips: Clips, *, seed: int = 0, allow_missing: bool = False, strict: bool = True, drop_shared: bool = False
) -> Clips:
    """The last step of every loader: listed files must exist, a validation split is cut unless the source has one.

    Arguments as of `Settling`.

    Raises:
        InputError: if strict, a listed file is missing, a split lacks a class, or a recording spans two splits that
            are not published.
    """
    if strict and len(clips.classes) < 2:
        raise InputError(
            f"{clips.root} ({clips.name}): only {', '.join(clips.classes)}; accepted: at least two classes"
        )
    if allow_missing or strict:
        clips = without_missing(clips, allow_missing)
    clips = clips.drop_shared() if drop_shared else clips.note_shared()
    try:
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
    names = ", ".join(f"{clip.path} ({clip.row})" for clip in gone[:NAMED]) + (", ..." if len(gone) > NAMED else "")
    if len(gone) == len(clips) or not allow_missing:
        raise InputError(
            f"{clips.root} ({clips.name}): {len(gone):,} of {len(clips):,} listed files are missing: {names}; "
            f"accepted: all of them on disk, or allow_missing=True (--allow-missing) to leave out some"
        )
    absent = set(gone)
    rows = tuple(clip for clip in clips if clip not in absent)
    note = f"{len(gone):,} of {len(clips):,} listed files are missing and left out: {names}"
    return replace(clips, rows=rows, notes=(*clips.notes, note))


def _names(parent: Path) -> set[str]:
    try:
        with os.scandir(parent) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _parse(path: Path) -> tuple[list[str], list[Row]]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}; accepted: a table with a header, {_SEPARATED}")
    line = 0
    try:
        with path.open(encoding=_encoding(path), newline="") as file:
            reader = csv.reader(file, delimiter=_delimiter(file), strict=True)
            header = _header(reader)
            _check_header(path, header)
            rows = []
            for cells in _filled(reader):
                line = reader.line_num
                rows.append(Row(f"{path.name}:{line}", _row(path, line, header, cells)))
    except UnicodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error}); accepted: UTF-8, or UTF-16 with a BOM") from error
    except csv.Error as error:
        raise InputError(f"{path}:{line + 1}: {error}; accepted: cells {_SEPARATED}") from error
    return header, rows


def columns(path: Path) -> list[str]:
    """The columns of a table, in lower case; none where the file holds no table."""
    try:
        with path.open(encoding=_encoding(path), newline="") as file:
            return _header(csv.reader(file, delimiter=_delimiter(file), strict=True))
    except (UnicodeError, csv.Error):
        return []


def _delimiter(file: TextIO) -> str:
    """The separator that the header has: column names hold none."""
    first = file.readline()
    file.seek(0)
    return max(_SEPARATORS, key=first.count)


def _header(reader: Iterator[list[str]]) -> list[str]:
    header = [cell.strip().lower() for cell in next(reader, [])]
    while header and not header[-1]:  # columns that a spreadsheet saved without a name
        header.pop()
    return header


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _filled(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (cells for cells in reader if cells and (cells[0].strip() or any(map(str.strip, cells))))


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise InputError(f"{path}: empty; accepted: a header and at least one row, {_SEPARATED}")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise InputError(f"{path}:1: column {', '.join(twice)} is a duplicate; accepted: every column once")


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> dict[str, str]:
    if any(map(str.strip, cells[len(header) :])) or len(cells) < len(header):
        raise InputError(
            f"{path}:{line}: {len(cells)} cells; accepted: {len(header)}, as in the header ({', '.join(header)})"
        )
    return dict(zip(header, map(str.strip, cells), strict=False))


def _no_repeats(rows: list[Row], columns: list[str]) -> None:
    if not columns:
        return
    first: dict[tuple[str, ...], str] = {}
    for row in rows:
        key = tuple(row.cells[column] for column in columns)
        earlier = first.setdefault(key, row.where)
        if earlier is not row.where:
            raise InputError(
                f"{row.where}: {', '.join(key)} duplicates {earlier}; accepted: every {' with '.join(columns)} once"
            )
