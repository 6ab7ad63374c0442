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
    return {
        "file": file,
        "label": result.prediction.label,
        "probabilities": _rounded(result.prediction.probabilities),
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


def _rounded(probabilities: dict[str, float]) -> dict[str, float]:
    """Rounded to the digits of float32."""
    return {name: float(f"{value:.8g}") for name, value in probabilities.items()}


class Rows:
    """Rows to a stream, each of which is flushed when `write` returns.

    Args:
        stream: their destination.
        form: csv, jsonl, text (a readable line) or live (a line that replaces the last one).
        begun: whether the header of a CSV is already written.
    """

    def __init__(self, stream: TextIO, form: str, *, begun: bool = False) -> None:
        self._stream, self._form, self._begun = stream, form, begun

    def write(self, row: Row) -> None:
        if self._form == "csv":
            # Without rows, a header would hide that there was no input.
            header = "" if self._begun else _line(_flat(row))
            self._stream.write(header + _line(_flat(row).values()))
            self._begun = True
        elif self._form == "jsonl":
            self._stream.write(json.dumps(row) + "\n")
        else:
            self._stream.write(f"\r\x1b[K{_text(row)}" if self._form == "live" else f"{_text(row)}\n")
        self._stream.flush()


def form_of(path: Path) -> str:
    """Raise InputError for an unknown suffix."""
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise InputError(f"{path}: accepted: a name that ends in {' or '.join('.' + form for form in FORMS)}")
    return form


@contextmanager
def resumed(path: Path, classes: Sequence[str], model: str) -> Iterator[tuple[Rows, set[str]]]:
    """The rows of a file, which is resumed if it exists, and the recordings that they name.

    A last line that was cut off is removed.

    Raises:
        InputError: the file has other columns, or rows of another model; it is left unchanged.
    """
    form = form_of(path)
    columns = ["file", "label", *(f"p_{name}" for name in classes), "seconds", "clips", "model"]
    content = path.read_bytes() if path.exists() else b""
    begin, found = _line(columns).encode() if form == "csv" else b'{"file": ', ""
    ours = content[: len(begin)] == begin[: len(content)]
    kept, rows = _complete(content, form) if ours else (b"", [])
    if not ours:
        found = f"content begins with {content[:50].decode(errors='replace')!r}"
    elif any(list(row) != columns for row in rows):
        found = f"rows do not have the columns {', '.join(columns)}"
    elif others := {str(row["model"]) for row in rows} - {model}:
        found = f"rows are of model {', '.join(others)}, not {model}"
    if found:
        raise InputError(
            f"{path}: cannot be resumed, its {found}; accepted: a table by the same model with the same options, "
            f"or a new name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.truncate(len(kept))
        yield Rows(file, form, begun=bool(kept)), {row["file"] for row in rows}


def _complete(content: bytes, form: str) -> tuple[bytes, list[Row]]:
    """What a file holds up to its last complete row, as bytes and as flat rows; what is no row has no columns."""
    lines = content.splitlines(keepends=True)
    # A name in quotes may hold line ends.
    while lines and (not lines[-1].endswith(b"\n") or (form == "csv" and b"".join(lines).count(b'"') % 2)):
        lines.pop()
    kept = b"".join(lines)
    if form == "csv":
        columns, *rows = [*csv.reader(io.StringIO(kept.decode(errors="replace"), newline=""))] or [[]]
        return kept, [dict(zip(columns, row, strict=True)) if len(row) == len(columns) else {} for row in rows]
    try:
        return kept, [_flat(json.loads(line)) for line in lines]
    except (ValueError, AttributeError):
        return kept, [{}]


def _line(values: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _flat(row: Row) -> Row:
    flat: Row = {}
    for key, value in row.items():
        flat |= {_PREFIXES[key] + name: one for name, one in value.items()} if key in _PREFIXES else {key: value}
    return flat


def _text(row: Row) -> str:
    """The three most probable classes."""
    where = row["file"] if "file" in row else f"{row['time_s']:.1f} s"
    found: dict[str, float] = row.get("smoothed_probabilities") or row["probabilities"]
    ranked = sorted(found.items(), key=lambda pair: -pair[1])[:3]
    return f"{where}: {', '.join(f'{scene} {share:.2f}' for scene, share in ranked)}"
