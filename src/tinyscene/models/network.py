"""What every network is: features in, logits out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Locality:
    """How the map of a network depends on time.

    Attributes:
        pooling: what `classify_map` takes over time; it gives the same of the map and of its mean (maximum).
        stride: input frames a step of the map.
        reach: input frames on either side, at most, that one step depends on.
    """

    pooling: Literal["mean", "max"]
    stride: int
    reach: int

    @classmethod
    def of(cls, pooling: Literal["mean", "max"], layers: Iterable[tuple[int, int]]) -> "Locality":
        """From (kernel, stride) along time of the layers in a row, each padded at both ends or not at all."""
        stride, reach = 1, 0
        for kernel, step in layers:
            reach += (kernel - 1) * stride
            stride *= step
        return cls(pooling, stride, reach)


class Network(nn.Module):
    """Features (batch, channels, bands, frames) -> logits (batch, classes).

    Any `nn.Module` that does this is a network. One that derives from this class can tell more of itself:

    Attributes:
        shortest_frames: fewest frames that it takes.
        locality: where `forward(x)` is `classify_map(local(x))`, a pooling over time of a map whose steps depend on
            nearby frames alone: how near. Long recordings are taken in chunks then.
        initialise: draws the initial values of a layer that is put in anew; torch's own where None.
    """

    shortest_frames: int = 1
    locality: Locality | None = None
    initialise: Callable[[nn.Module], None] | None = None
    arguments: dict[str, Any]
    """What it was built with: recorded for what is registered."""

    def local(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the map in front of the pooling over time"""
        raise NotImplementedError

    def classify_map(self, mapped: Tensor) -> Tensor:
        """What `local` gives, of any number of steps -> (batch, classes), logits"""
        raise NotImplementedError


def shortest_frames(network: nn.Module) -> int:
    """Fewest frames that a network takes: what it tells, or 1."""
    return int(getattr(network, "shortest_frames", Network.shortest_frames))


def locality(network: nn.Module) -> Locality | None:
    """Of a network that tells one."""
    found: Locality | None = getattr(network, "locality", Network.locality)
    return found
