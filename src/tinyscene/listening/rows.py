"""Results as rows: CSV or JSON lines, flushed one by one, and resumed after a stop."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tinyscene.errors import InputError
from tinyscene.listening.decisions import Decision
from tinyscene.listening.recording import RecordingResult

FORMS = ("csv", "jsonl")
Row = dict[str, Any]
# Table columns are flat: p_park is the "park" of "probabilities".
_PREFIXES = {"probabilities": "p_", "smoothed_probabilities": "s_"}


def row_of(file: str, result: RecordingResult, model: str) -> Row:
    """A recording's row; `model` identifies the model and its settings."""
    found = result.prediction
    return {
        "file": file,
        "label": found.label,
        "probabilities": _rounded(found.probabilities),
        "seconds": round(result.seconds, 6),
        "clips": result.clips,
        "model": model,
    }


def row_of_decision(decision: Decision) -> Row:
    """A decision's row."""
    return {
        "time_s": round(decision.time_s, 6),
        "label": decision.label,
        "smoothed": decision.smoothed,
        "probabilities": _rounded(decision.probabilities),
        "smoothed_probabilities": _rounded(decision.smoothed_probabilities),
    }


def columns_of(classes: Sequence[str], *, streamed: bool) -> tuple[str, ...]:
    """The columns of a table of recordings or decisions."""
    alone, smooth = (tuple(prefix + name for name in classes) for prefix in _PREFIXES.values())
    if streamed:
        return ("time_s", "label", "smoothed", *alone, *smooth)
    return ("file", "label", *alone, "seconds", "clips", "model")


class Rows:
    """Rows to a stream, each of which is flushed when `write` returns.

    Args:
        stream: their destination.
        form: csv, jsonl, text (a readable line) or live (a line that replaces the last one).
        columns: of the table, for the header of a CSV.
        begun: whether the header is already written.
    """

    def __init__(self, stream: TextIO, form: str, columns: Sequence[str], *, begun: bool = False) -> None:
        self._stream, self._form = stream, form
        self._header = _csv_line(columns) if form == "csv" and not begun else ""

    def write(self, row: Row) -> None:
        lines = {"csv": _csv_line_of, "jsonl": _json_line, "text": _text_line, "live": _live_line}
        # Without rows, a header would hide that there was no input.
        self._put(self._header + lines[self._form](row))
        self._header = ""

    def _put(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()


def form_of(path: Path) -> str:
    """Raise InputError for an unknown suffix."""
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise InputError(f"{path}: accepted: a name that ends in {' or '.join('.' + form for form in FORMS)}")
    return form


@contextmanager
def resumed(path: Path, columns: Sequence[str], model: str) -> Iterator[tuple[Rows, set[str]]]:
    """The rows of a file, which is resumed if it exists, and the recordings that they name.

    A last line that was cut off is removed.

    Raises:
        InputError: the file has other columns, or rows of another model; it is left unchanged.
    """
    form = form_of(path)
    end, done = _kept(path, form, columns, model) if path.exists() else (0, set())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.truncate(end)
        yield Rows(file, form, columns, begun=end > 0), done


def _kept(path: Path, form: str, columns: Sequence[str], model: str) -> tuple[int, set[str]]:
    """The end of a file's complete rows, in bytes, and the recordings that they name."""
    header = _csv_line(columns).encode() if form == "csv" else b""
    end, done = 0, set()
    with path.open("rb") as file:
        for record in _records(file, form):
            if end or not header:
                done.add(_file_of(path, record, form, columns, model))
            else:
                _check(path, record == header, f"columns are {record.decode(errors='replace').strip()}")
            end += len(record)
        file.seek(end)
        rest = file.read(len(header) or 9)
    # A header or row that was cut off may be removed; anything else may not.
    ours = (header or b'{"file": ').startswith(rest) if not end else True
    _check(path, ours, f"content begins with {rest.decode(errors='replace')!r}")
    return end, done


def _file_of(path: Path, record: bytes, form: str, columns: Sequence[str], model: str) -> str:
    """The recording that a row names, if it is one of our rows."""
    try:
        row = _flat(json.loads(record)) if form == "jsonl" else dict(zip(columns, _cells(record), strict=True))
    except (ValueError, AttributeError):
        row = {}
    _check(path, list(row) == list(columns), f"rows do not have the columns {', '.join(columns)}")
    _check(path, row["model"] == model, f"rows are of model {row['model']}, not {model}")
    return str(row["file"])


def _check(path: Path, fits: bool, found: str) -> None:
    if not fits:
        raise InputError(
            f"{path}: cannot be resumed, its {found}; accepted: a table by the same model with the same options, "
            f"or a new name"
        )


def _records(file: Any, form: str) -> Iterator[bytes]:
    """Complete records: a line of JSON, or lines of CSV until every quote is closed."""
    record = b""
    for line in file:
        record += line
        if record.endswith(b"\n") and (form == "jsonl" or record.count(b'"') % 2 == 0):
            yield record
            record = b""


def _cells(record: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(record.decode(errors="replace"), newline="")), [])


def _csv_line(values: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _csv_line_of(row: Row) -> str:
    return _csv_line(_flat(row).values())


def _json_line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _text_line(row: Row) -> str:
    """The three most probable classes."""
    where = row["file"] if "file" in row else f"{row['time_s']:.1f} s"
    found: dict[str, float] = row.get("smoothed_probabilities") or row["probabilities"]
    ranked = sorted(found.items(), key=lambda pair: -pair[1])[:3]
    return f"{where}: {', '.join(f'{scene} {share:.2f}' for scene, share in ranked)}\n"


def _live_line(row: Row) -> str:
    """A line that replaces the last one."""
    return f"\r\x1b[K{_text_line(row).rstrip()}"


def _flat(row: Row) -> Row:
    flat: Row = {}
    for key, value in row.items():
        if key in _PREFIXES:
            flat |= {_PREFIXES[key] + name: number for name, number in value.items()}
        else:
            flat[key] = value
    return flat


def _rounded(probabilities: dict[str, float]) -> dict[str, float]:
    """Rounded to the digits of float32."""
    return {name: float(f"{value:.8g}") for name, value in probabilities.items()}
