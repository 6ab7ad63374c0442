"""The base class of networks: from features to logits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Locality:
    """The dependence of a network's map on time.

    Attributes:
        pooling: of `classify_map` over time; its result is the same for the map and for its mean (maximum).
        stride: input frames a step of the map.
        reach: the most input frames on either side that one step depends on.
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

    Any such `nn.Module` is a network. One that derives from this class can declare more:

    Attributes:
        shortest_frames: the fewest frames that it takes.
        locality: where `forward(x)` is `classify_map(local(x))`, a pooling over time of a map whose steps depend on
            nearby frames: how near. Long recordings are then taken in chunks.
        initialise: draws the initial values of a new layer; torch's own where None.
    """

    shortest_frames: int = 1
    locality: Locality | None = None
    initialise: Callable[[nn.Module], None] | None = None
    arguments: dict[str, Any]
    """The arguments it was built with: recorded for registered classes."""

    def local(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the map in front of the pooling over time"""
        raise NotImplementedError

    def classify_map(self, mapped: Tensor) -> Tensor:
        """The output of `local`, of any number of steps -> (batch, classes), logits"""
        raise NotImplementedError


def shortest_frames(network: nn.Module) -> int:
    """The fewest frames that a network takes: as it declares, or 1."""
    return int(getattr(network, "shortest_frames", Network.shortest_frames))


def locality(network: nn.Module) -> Locality | None:
    """Of a network that declares one."""
    found: Locality | None = getattr(network, "locality", Network.locality)
    return found
