"""Learning rate schedules: the factor on the optimiser's rate, as a function of training progress alone.

Nothing is remembered between steps, so that a resumed run needs no state of its schedule.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """The optimiser's own rate throughout."""

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """A linear warm-up, then half a cosine down to `final` times the rate."""

    warmup_epochs: float = 0.0
    final: float = 0.0

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class Step:
    """The rate times `gamma` after every `every_epochs`."""

    every_epochs: int
    gamma: float = 0.1

    def factor(self, epoch: float, epochs: int) -> float:
        """At `epoch` (with its fraction) of `epochs`."""
        return self.gamma ** (int(epoch) // self.every_epochs)


Schedule = Constant | Cosine | Step
