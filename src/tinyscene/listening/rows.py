"""What was heard as rows: CSV or JSON lines, written through one by one, and taken up again after a stop."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tinyscene.errors import InputError
from tinyscene.listening.decisions import Decision
from tinyscene.listening.recording import Heard

FORMS = ("csv", "jsonl")
Row = dict[str, Any]
# A table's columns have no depth: p_park stands for the "park" of "probabilities".
_PREFIXES = {"probabilities": "p_", "smoothed_probabilities": "s_"}


def row_of(file: str, heard: Heard, model: str) -> Row:
    """A recording's row; `model` says which model heard it, and how."""
    found = heard.prediction
    return {
        "file": file,
        "label": found.label,
        "probabilities": _rounded(found.probabilities),
        "seconds": round(heard.seconds, 6),
        "clips": heard.clips,
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
    """Of a table of recordings, or of decisions."""
    alone, smooth = (tuple(prefix + name for name in classes) for prefix in _PREFIXES.values())
    if streamed:
        return ("time_s", "label", "smoothed", *alone, *smooth)
    return ("file", "label", *alone, "seconds", "clips", "model")


class Rows:
    """Rows on their way to a stream; each is there when `write` returns, whatever happens then.

    Args:
        stream: where they go.
        form: csv, jsonl, text (a line for people) or live (a line in the place of the one before).
        columns: of the table, for the header of a CSV.
        begun: whether the header is there already.
    """

    def __init__(self, stream: TextIO, form: str, columns: Sequence[str], *, begun: bool = False) -> None:
        self._stream, self._form = stream, form
        self._header = _csv_line(columns) if form == "csv" and not begun else ""

    def write(self, row: Row) -> None:
        lines = {"csv": _csv_line_of, "jsonl": _json_line, "text": _text_line, "live": _live_line}
        # Where no row comes, the header would hide that nothing was heard.
        self._put(self._header + lines[self._form](row))
        self._header = ""

    def _put(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()


def form_of(path: Path) -> str:
    """Raises InputError, naming those there are, for another suffix."""
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise InputError(f"{path}: accepted: a name that ends in {' or '.join('.' + form for form in FORMS)}")
    return form


@contextmanager
def resumed(path: Path, columns: Sequence[str], model: str) -> Iterator[tuple[Rows, set[str]]]:
    """The rows of a file that may be there already, to be gone on with, and the recordings that they name.

    A last line that was cut off is removed.

    Raises:
        InputError: the file has other columns, or rows of another model; it is left as it is.
    """
    form = form_of(path)
    end, done = _kept(path, form, columns, model) if path.exists() else (0, set())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.truncate(end)
        yield Rows(file, form, columns, begun=end > 0), done


def _kept(path: Path, form: str, columns: Sequence[str], model: str) -> tuple[int, set[str]]:
    """Where the whole rows of a file end, in bytes, and which recordings they name."""
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
    # A header or row that was cut off may go; what somebody else wrote may not.
    ours = (header or b'{"file": ').startswith(rest) if not end else True
    _check(path, ours, f"content begins with {rest.decode(errors='replace')!r}")
    return end, done


def _file_of(path: Path, record: bytes, form: str, columns: Sequence[str], model: str) -> str:
    """The recording that a row names, if it is a row of ours."""
    try:
        row = _flat(json.loads(record)) if form == "jsonl" else dict(zip(columns, _cells(record), strict=True))
    except (ValueError, AttributeError):
        row = {}
    _check(path, list(row) == list(columns), f"rows have others than the columns {', '.join(columns)}")
    _check(path, row["model"] == model, f"rows are of model {row['model']}, not {model}")
    return str(row["file"])


def _check(path: Path, fits: bool, found: str) -> None:
    if not fits:
        raise InputError(
            f"{path}: can't be gone on with, its {found}; accepted: what the same model wrote with the same options, "
            f"or a name that is not there yet"
        )


def _records(file: Any, form: str) -> Iterator[bytes]:
    """Whole records: a line of JSON; of CSV, as many lines as close every quote."""
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
    """In the place of the one before."""
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
    """To the digits that float32 has."""
    return {name: float(f"{value:.8g}") for name, value in probabilities.items()}
