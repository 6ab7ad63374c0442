"""Tables, for the terminal and as Markdown: rows of text, every cell under its heading."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

Rows = Sequence[Mapping[str, str]]
# Instead of a row: a line between two parts.
APART: Mapping[str, str] = {}
# A number, its unit, and an interval behind it.
_NUMBER = re.compile(r"([+-]?\d[\d.,e%-]*( ± [\d.]+)?( [\w%]+)?( \([^)]*\))?( \*| )*)?|-")
# Letters of a word that stay together on any terminal.
_WORD = 6


def table(title: str, rows: Rows, *, caption: str = "", compact: bool = False) -> "Table":
    """Headings are the keys of the rows. Columns of numbers are aligned right and never fold; text folds."""
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    made = Table(title=escape(title), caption=escape(caption) or None, box=SIMPLE_HEAD if compact else HEAVY_HEAD)
    heads = dict.fromkeys(head for row in rows for head in row)
    for head in heads:
        cells = [row.get(head, "") for row in rows]
        numbers = all(_NUMBER.fullmatch(cell) for cell in cells)
        words = [*head.split(), *(word[:_WORD] for cell in cells for word in cell.split())]
        made.add_column(
            head,
            justify="right" if numbers else "left",
            no_wrap=numbers,
            overflow="fold",
            min_width=max(map(len, words), default=0),
        )
    for row in rows:
        if row:
            made.add_row(*(Text(row.get(head, "")) for head in heads))
        else:
            made.add_section()
    return made


def markdown(rows: Rows) -> list[str]:
    """The same as Markdown lines."""
    heads = dict.fromkeys(head for row in rows for head in row)
    cells = [[row.get(head, "") for head in heads] for row in rows if row]
    first, *others = (f"| {' | '.join(line)} |" for line in ([*heads], *cells))
    return [first, "|" + "---|" * len(heads), *others]
