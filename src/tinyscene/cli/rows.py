"""The output of `tinyscene run`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tinyscene.errors import InputError

if TYPE_CHECKING:
    from tinyscene.listening import Model
    from tinyscene.listening.rows import Rows

STDIN = "-"


@contextmanager
def open_rows(
    model: "Model", out: Path | None, form: str | None, key: str = "", *, streamed: bool = False
) -> "Iterator[tuple[Rows, set[str]]]":
    """The destination of rows, and the recordings that it already has."""
    from tinyscene.listening.rows import FORMS, Rows, form_of, resumed

    if form not in (None, "text", *FORMS) or (out and form not in (None, form_of(out))):
        accepted = f"only .{form_of(out)} of {out}" if out else f"{', '.join(FORMS)} or text"
        raise InputError(f"--format {form}; accepted: {accepted}")
    if out is None:
        yield Rows(sys.stdout, form or ("text" if sys.stdout.isatty() else "csv")), set()
    elif not streamed:
        with resumed(out, model.classes, key) as (rows, done):
            yield rows, done
    else:
        if out.exists() and out.stat().st_size:
            raise InputError(f"{out}: already exists, and a stream cannot be resumed; try another name")
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8", newline="") as file:
            yield Rows(file, form_of(out)), set()


def shown(out: Path | None) -> bool:
    """Whether rows appear on a terminal, where they also show progress."""
    return out is None and sys.stdout.isatty()
