"""What a check found."""

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

_SHOWN = 5
_LONGEST = 80


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: in which file, at which row or field, what was given, what would be accepted."""

    file: str
    where: str
    given: str
    accepted: str

    @property
    def text(self) -> str:
        place = f"{self.file}, {self.where}" if self.where else self.file
        return f"{place}: {self.given}; accepted: {self.accepted}"


def quoted(value: Any) -> str:
    """A value as it was given, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:
        # Python does not write whole numbers of more than 4,300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@dataclass(frozen=True)
class Report:
    """Every problem, and what could not be looked at."""

    systems: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def text(self) -> str:
        """One line a problem; of many rows with one and the same in a file the first five."""
        lines = []
        for _, group in groupby(self.problems, key=lambda one: (one.file, one.accepted, one.where.startswith("row "))):
            alike = list(group)
            if not alike[0].where.startswith("row "):
                lines += [problem.text for problem in alike]
                continue
            lines += [problem.text for problem in alike[:_SHOWN]]
            if len(alike) > _SHOWN:
                lines.append(f"{alike[0].file}: {len(alike) - _SHOWN:,} more like these")
        lines += [f"note: {note}" for note in self.notes]
        named = ", ".join(self.systems) or "no system"
        verdict = "nothing to mend" if self.ok else f"{len(self.problems):,} to mend"
        return "\n".join([*lines, f"{named}: {verdict}"])

    def to_json(self) -> dict[str, Any]:
        """All problems, as plain values."""
        return {
            "systems": list(self.systems),
            "ok": self.ok,
            "problems": [asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
        }
