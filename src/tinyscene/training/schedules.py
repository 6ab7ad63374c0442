"""Learning rate schedules: the factor on the optimiser's rate, as a function of training progress only.

Schedules are stateless, so that a resumed run needs nothing from them.
"""

import math
from dataclasses import dataclass

from tinyscene.errors import InputError, Numbers, check

# Of the optimiser's rate.
_SHARE, _MULTIPLE = Numbers(least=0, most=1), Numbers(least=0, most=1000)


@dataclass(frozen=True)
class Constant:
    """The optimiser's rate throughout."""

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """A linear warm-up, shorter than the fit, then half a cosine down to `final` times the rate."""

    warmup_epochs: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        check(self, warmup_epochs=Numbers(least=0), final=_MULTIPLE)

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class Linear:
    """A straight line from the optimiser's rate down to `final` times it, over the fit's epochs."""

    final: float = 0.1

    def __post_init__(self) -> None:
        check(self, final=_MULTIPLE)

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        return 1 + (self.final - 1) * epoch / epochs


@dataclass(frozen=True)
class Step:
    """The rate times `gamma` after every `every_epochs`."""

    every_epochs: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check(self, every_epochs=Numbers(least=1, whole=True), gamma=_SHARE)

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        return self.gamma ** (int(epoch) // self.every_epochs)


@dataclass(frozen=True)
class InverseTime:
    """The rate over 1 + `decay` x epoch: the "learning rate decay" of older toolkits, which count updates or epochs.

    Here it counts epochs: with updates, 1e-2 would leave a tenth of the rate after 900 batches.
    """

    decay: float = 1e-2

    def __post_init__(self) -> None:
        check(self, decay=Numbers(least=0))

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        return 1 / (1 + self.decay * epoch)


@dataclass(frozen=True)
class Triangular2:
    """Linearly up to the rate and down again, `cycles` times, the peak halved after each (Smith, WACV 2017).

    A cycle takes its share of the fit's epochs, so that scaled epochs keep the shape. Peaks are halved as such: Smith
    halves the height above the lowest rate, which differs by at most half of that rate.

    Args:
        cycles: within this fit.
        lowest: the rate at both ends of a cycle, relative to the optimiser's.
        first: number of the first cycle. After one cycle and a cut, `Triangular2(cycles=2, first=1)` continues at half
            the rate. The optimiser's state is new in every fit; Adam's settles within some hundred steps, which a
            cycle spends near its lowest rate.
    """

    cycles: int = 3
    lowest: float = 1e-3
    first: int = 0

    def __post_init__(self) -> None:
        check(
            self,
            cycles=Numbers(least=1, most=1000, whole=True),
            first=Numbers(least=0, most=1000, whole=True),
            lowest=_SHARE,
        )
        if not 0 <= self.lowest <= (peak := 0.5 ** (self.first + self.cycles - 1)):
            raise InputError(f"{self}; accepted: a lowest rate from 0 to that of the last peak, {peak:g}")

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        cycle, place = divmod(self.cycles * epoch / epochs, 1)
        peak: float = 0.5 ** (self.first + cycle)
        return self.lowest + (peak - self.lowest) * (1 - abs(2 * place - 1))


Schedule = Constant | Cosine | InverseTime | Linear | Step | Triangular2
