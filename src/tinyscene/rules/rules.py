"""A challenge edition as data, and its judgement of a ledger."""

from dataclasses import dataclass
from typing import Literal

from tinyscene.accounting import (
    CONVENTIONS,
    COUNTERS,
    Convention,
    Ledger,
    Uncounted,
    get_convention,
    uncounted_text,
)
from tinyscene.accounting.conventions import BYTES_IN
from tinyscene.errors import check

Quantity = Literal["bytes", "parameters", "macs", "ram"]

UNITS: dict[Quantity, dict[str, int]] = {
    "bytes": BYTES_IN,
    "parameters": {"parameters": 1, "k parameters": 1000},
    "macs": {"MACs": 1, "MMACs": 1_000_000},
    "ram": BYTES_IN,
}


@dataclass(frozen=True)
class Limit:
    """The limit on one quantity.

    Attributes:
        quantity: bytes of what is stored, parameters, MACs, or the peak RAM of the activations.
        at_most: in bytes, parameters or MACs, whatever the unit; the limit itself is allowed.
        unit: the unit shown: B, kB, KB, parameters, k parameters, MACs or MMACs.
        convention: name of the counting convention, for bytes and parameters.
        counter: name of the MAC counter, for MACs.
        zeros: whether values that a mask removes also count.
    """

    quantity: Quantity
    at_most: int
    unit: str
    convention: str = ""
    counter: str = ""
    zeros: bool = True

    def __post_init__(self) -> None:
        check(self, quantity=tuple(UNITS))
        check(self, unit=tuple(UNITS[self.quantity]))
        if self.quantity == "macs":
            check(self, counter=tuple(COUNTERS))
        if self.quantity in ("bytes", "parameters"):
            check(self, convention=tuple(CONVENTIONS))

    @property
    def counted_by(self) -> str:
        """The convention or the counter, and whether zeros count."""
        if self.quantity == "macs":
            return self.counter
        if self.quantity == "ram":
            return "peak of the activations"
        return f"{self.convention}, {'with' if self.zeros else 'without'} zeros"

    def measure(self, ledger: Ledger) -> int:
        """The limited quantity, in bytes, parameters or MACs. Raises KeyError where the ledger lacks the counter."""
        if self.quantity == "macs":
            return ledger.macs[self.counter]
        if self.quantity == "ram":
            return ledger.peak_ram_bytes
        size = CONVENTIONS[self.convention](ledger.tensors)
        if self.quantity == "bytes":
            return size.bytes if self.zeros else size.kept_bytes
        return size.parameters if self.zeros else size.kept


@dataclass(frozen=True)
class Finding:
    """One limit and the value compared with it.

    `uncounted` is what the limit's MAC counter misses: a value within the limit then proves nothing.
    """

    limit: Limit
    value: int
    uncounted: tuple[Uncounted, ...] = ()

    @property
    def margin(self) -> int:
        """In bytes, parameters or MACs; negative if the limit is exceeded."""
        return self.limit.at_most - self.value

    @property
    def passed(self) -> bool:
        return self.margin >= 0 and not self.uncounted

    @property
    def text(self) -> str:
        """One sentence, such as 'fits: 53.06 of 128 KB, 74.94 KB to spare (bn4, without zeros)'."""
        divisor = UNITS[self.limit.quantity][self.limit.unit]
        digits = 0 if divisor == 1 else 2
        value = f"{self.value / divisor:,.{digits}f}"
        at_most = f"{self.limit.at_most / divisor:,.2f}".removesuffix(".00")
        margin = f"{abs(self.margin) / divisor:,.{digits}f} {self.limit.unit}"
        # An excess too small for two decimals would read "128.00 of 128 KB, 0.00 KB over".
        if self.margin and round(abs(self.margin) / divisor, digits) == 0:
            value = f"{self.value / divisor:,.6f}"
            margin = f"{abs(self.margin):,} {next(iter(UNITS[self.limit.quantity]))}"
        if self.uncounted and self.margin >= 0:
            found = f"{value} of {at_most} {self.limit.unit} by {self.limit.counter}"
            missed = uncounted_text(self.uncounted)
            return f"can't be judged: {found}, which misses {missed}; try layers that {self.limit.counter} counts"
        verdict, rest = ("fits", "to spare") if self.passed else ("does not fit", "over")
        return f"{verdict}: {value} of {at_most} {self.limit.unit}, {margin} {rest} ({self.limit.counted_by})"


@dataclass(frozen=True)
class Verdict:
    """An edition's verdict on a ledger, limit by limit."""

    rules: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def line(self) -> str:
        """All limits in one line."""
        return "; ".join(finding.text for finding in self.findings)

    @property
    def text(self) -> str:
        """One line a limit, after the edition's name and the verdict."""
        heading = f"{self.rules}: {'legal' if self.passed else 'not legal'}"
        return "\n".join([heading, *(f"  {finding.text}" for finding in self.findings)])


@dataclass(frozen=True)
class Rules:
    """One challenge edition.

    Attributes:
        clip_s: length of a clip, for which MACs are counted.
        ranked_by: the ranking criterion, in words.
        notes: what the edition leaves open, and how it is interpreted here.
        classes: the scenes, in alphabetical order.
    """

    name: str
    title: str
    clip_s: float
    limits: tuple[Limit, ...]
    ranked_by: str
    notes: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def convention(self) -> Convention:
        """Of the first limit that names one; bn2 where none does."""
        return get_convention(next((limit.convention for limit in self.limits if limit.convention), "bn2"))

    def judge(self, ledger: Ledger) -> Verdict:
        """Measure `ledger` against every limit; its example should be as long as a clip of this edition.

        A limit on MACs fails where its counter misses any.
        """
        return Verdict(
            self.name,
            tuple(Finding(limit, limit.measure(ledger), ledger.missed_by(limit.counter)) for limit in self.limits),
        )
