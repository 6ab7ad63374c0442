"""Progress: a bar on a terminal, a line every few seconds elsewhere; and silence."""

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TypeVar

T = TypeVar("T")
Advance = Callable[[str], None]

LINE_EVERY_S = 5.0


@contextmanager
def bar(description: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Advance]:
    """Yield a function that counts one step of `total` and shows a note beside the count."""
    if quiet:
        yield lambda note: None
    elif sys.stderr.isatty():
        yield from _on_terminal(description, total, done)
    else:
        yield _lines(description, total, done)


def track(items: Iterable[T], description: str, total: int, *, quiet: bool = False) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done."""
    with bar(description, total, quiet=quiet) as advance:
        for item in items:
            yield item
            advance("")


def say(text: str, *, quiet: bool = False) -> None:
    """Print a line on its own, apart from results."""
    if not quiet:
        print(text, file=sys.stderr)


@contextmanager
def silence(*, native: bool = False) -> Iterator[None]:
    """Suppress what other libraries print, warn of and log; errors are still raised.

    Args:
        native: also suppress what compiled code writes to the process's error stream.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            _no_error_stream() if native else nullcontext(),
            warnings.catch_warnings(),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_muting = threading.RLock()


@contextmanager
def _no_error_stream() -> Iterator[None]:
    """One thread at a time, so that the original stream is restored last."""
    with _muting, open(os.devnull, "wb") as nowhere, ExitStack() as undo:
        kept = os.dup(2)
        undo.callback(os.close, kept)
        undo.callback(os.dup2, kept, 2)
        os.dup2(nowhere.fileno(), 2)
        yield


def _on_terminal(description: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    notes = TextColumn("{task.fields[note]}")
    with Progress(*columns, notes, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total, completed=done, note="")
        yield lambda note: progress.update(task, advance=1, note=note)


def _lines(description: str, total: int, done: int) -> Advance:
    started = shown = time.monotonic()

    def advance(note: str) -> None:
        nonlocal done, shown
        done, now = done + 1, time.monotonic()
        if now - shown >= LINE_EVERY_S:
            shown = now
            print(f"{description}: {done}/{total}, {now - started:.0f} s  {note}".rstrip(), file=sys.stderr, flush=True)

    return advance
