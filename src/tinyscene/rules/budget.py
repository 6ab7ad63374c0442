"""Your own budget: a device's limits, as rules that judge like those of a challenge."""

import re
from dataclasses import astuple, dataclass, replace
from decimal import Decimal

from tinyscene.accounting.conventions import BYTES_IN
from tinyscene.errors import InputError, Numbers
from tinyscene.rules.rules import Limit, Rules

COUNTS_IN: dict[str, int] = {"": 1, "k": 1000, "M": 1_000_000}
_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
# In the order of the fields of `Budget`.
_LIMITS = (
    Limit("bytes", 0, "kB", convention="bn4"),
    Limit("macs", 0, "MMACs", counter="torchinfo"),
    Limit("parameters", 0, "parameters", convention="bn2"),
    Limit("ram", 0, "kB"),
)


def amount(text: str, units: dict[str, int], what: str) -> int:
    """A size or count as typed: "64kB" by `BYTES_IN`, "10M" by `COUNTS_IN`; fractions are cut off.

    Raises:
        InputError: no number, another unit, less than one, or 10^15 and more; `what` names the option.
    """
    found = _AMOUNT.fullmatch(text)
    value = int(Decimal(found[1]) * units[found[2]]) if found and found[2] in units else 0
    if not 1 <= value < 10**15:
        form = ", alone or with k (thousands) or M (millions), such as 10M"
        if units is BYTES_IN:
            form = " and B, kB (1000 B) or KB (1024 B), such as 64kB"
        raise InputError(f"{what} {text}; accepted: a number{form}, at least 1 and less than 10^15")
    return value


@dataclass(frozen=True)
class Budget:
    """The most that an exported classifier may cost; None is no limit.

    Args:
        bytes: everything that an int8 file stores of the network: weights, biases, scales, zero points, constants; not
            graph and metadata.
        macs: multiply-accumulates of one clip, by torchinfo's count of the file's layers.
        parameters: weights, biases and the scales and shifts that batch norm leaves.
        ram_bytes: peak of the activations of one clip, its input included, in a runtime that fuses what belongs to
            one int8 layer.

    Raises:
        InputError: no limit at all, or one below 1.
    """

    bytes: int | None = None
    macs: int | None = None
    parameters: int | None = None
    ram_bytes: int | None = None

    def __post_init__(self) -> None:
        given = [limit for limit in astuple(self) if limit is not None]
        if not given or not all(limit in Numbers(least=1) for limit in given):
            raise InputError(f"{self}; accepted: one or more of bytes, macs, parameters, ram_bytes, each at least 1")

    @classmethod
    def typed(cls, under: str | None, macs: str | None, parameters: str | None, ram: str | None) -> "Budget":
        """From the options of `tinyscene fit`. Raises InputError as `amount`, or where none is given."""
        given = {"--under": under, "--macs": macs, "--parameters": parameters, "--ram": ram}
        units = {"--under": BYTES_IN, "--macs": COUNTS_IN, "--parameters": COUNTS_IN, "--ram": BYTES_IN}
        if all(text is None for text in given.values()):
            raise InputError(
                "no budget; accepted: one or more of --under 64kB, --macs 10M, --parameters 30k, --ram 99kB"
            )
        return cls(*(None if text is None else amount(text, units[what], what) for what, text in given.items()))

    def rules(self, clip_s: float, classes: tuple[str, ...]) -> Rules:
        """The budget as an edition, for clips of `clip_s` seconds."""
        given = zip(_LIMITS, astuple(self), strict=True)
        return Rules(
            name="budget",
            title="your own budget",
            clip_s=clip_s,
            limits=tuple(replace(limit, at_most=most) for limit, most in given if most is not None),
            ranked_by="log loss on validation clips",
            notes=("Everything that the int8 file stores of the network counts, scales and zero points included.",),
            classes=classes,
        )
