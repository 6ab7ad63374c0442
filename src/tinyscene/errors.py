"""The one error for wrong input, and the checks of values."""

import sys
from dataclasses import dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Any


class InputError(ValueError):
    """Input that can't be used. The message states what it is, where (file and row), and what is accepted.

    The command line prints it as one sentence and exits with status 2.
    """


@dataclass(frozen=True)
class Numbers:
    """The finite numbers within bounds; `above` and `below` are exclusive.

    `items`: a tuple of that many numbers instead of one; 0 is one or more.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False
    items: int | None = None

    def __contains__(self, given: object) -> bool:
        if self.items is None:
            given = (given,)
        elif not isinstance(given, tuple | list) or len(given) != (self.items or max(1, len(given))):
            return False
        kind = Integral if self.whole else Real
        return all(isinstance(number, kind) and self._bounds(number) for number in given)

    def _bounds(self, number: Any) -> bool:
        return (
            abs(number) <= sys.float_info.max
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        text = " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)
        if self.least is not None and self.most is not None:
            text = f"{self.least:g} to {self.most:g}"
        elif self.most is None and self.below is None and not self.whole:
            text += ", and finite"
        text += ", in whole numbers" if self.whole else ""
        return text if self.items is None else f"a tuple of {self.items or 'one or more'} numbers, each {text}"


def check(value: object, **accepted: Any) -> None:
    """Raise InputError for the first field of the value that is not accepted.

    Args:
        accepted: by field, `Numbers`, a tuple of choices, or a type or several (`Fit | None`).
    """
    for name, of in accepted.items():
        given = getattr(value, name)
        if not (isinstance(given, of) if isinstance(of, type | UnionType) else given in of):
            raise InputError(f"{type(value).__name__}({name}={given!r}); accepted: {_listed(of)}")


def _listed(accepted: Any) -> str:
    if isinstance(accepted, UnionType):
        return " or ".join("None" if kind is type(None) else kind.__name__ for kind in accepted.__args__)
    if isinstance(accepted, tuple):
        return " or ".join(map(repr, accepted))
    return accepted.__name__ if isinstance(accepted, type) else str(accepted)
