"""A submission's zip as a folder: somebody's file, which may be broken or made to do harm."""

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyscene.errors import InputError

# Four systems of 2024 are some 400 MB in twenty outputs.
_LARGEST = 2 * 10**9
_MOST = 10_000
_BROKEN = (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError, OSError, ValueError)


@contextmanager
def opened(package: Path) -> Iterator[tuple[Path, bool]]:
    """The package's folder, and whether it came out of a zip, which is unpacked into a folder that goes again.

    Raises:
        InputError: there is none, or the zip is broken, too large, or names a file twice or outside itself.
    """
    if package.is_dir():
        yield package, False
        return
    if not package.is_file():
        raise InputError(f"{package}: no such file or folder; accepted: a submission's .zip, or its folder")
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(package) as archive:
                _refuse(package, archive.infolist())
                archive.extractall(place)
        except InputError:
            raise
        except _BROKEN as error:
            said = f"can't be opened ({error}); accepted: a whole .zip without password"
            raise InputError(f"{package}: {said}") from error
        yield Path(place), True


def _refuse(package: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raise InputError before anything is unpacked. No entry gives more than its directory says that it holds."""
    size = sum(entry.file_size for entry in entries)
    if size > _LARGEST or len(entries) > _MOST:
        held = f"{len(entries):,} files of {size / 10**9:,.1f} GB"
        raise InputError(f"{package}: holds {held}; accepted: {_MOST:,} files of {_LARGEST / 10**9:g} GB at most")
    names: set[str] = set()
    for entry in entries:
        # As it stands in the zip: zipfile would drop what leads outside without a word.
        name = entry.orig_filename
        if re.match(r"/|[A-Za-z]:", name) or "\\" in name or ".." in name.split("/") or "\0" in name:
            raise InputError(
                f"{package}: {name!r} leads elsewhere; accepted: names inside the zip, such as task1/A/A.b"
            )
        if name in names:
            raise InputError(f"{package}: {name!r} stands twice; accepted: every file once")
        names.add(name)
