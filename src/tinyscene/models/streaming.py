"""Long recordings in bounded memory: chunks that overlap, one pooling over all of them.

A network streams if `forward(x)` is `classify_map(local(x))`, where `local` gives a map whose every step hears nearby
frames alone, and `classify_map` pools it over time by a mean or a maximum; its attribute `locality` says which, and how
far a step hears. A front end streams if `reach_samples` says how far a frame hears. What looks at the whole clip
before it pools (squeeze-and-excitation, the deviation over time, a subtracted time mean) does not stream.
"""

import copy
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tinyscene.models.classifier import SceneClassifier


class Waveforms(Protocol):
    """A tensor (batch, samples), or what gives its stretches one after the other."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, part: tuple[slice, slice], /) -> Tensor: ...


@dataclass(frozen=True)
class Locality:
    """How the map of a network depends on time.

    Attributes:
        pooling: what `classify_map` takes over time; it gives the same of the map and of its mean (maximum).
        stride: input frames a step of the map.
        reach: input frames on either side, at most, that one step hears.
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


class Chunk(NamedTuple):
    """Frames `first` to `last` go in; of the steps that come out, `skip` are dropped and then `take` kept."""

    first: int
    last: int
    skip: int
    take: int | None


def chunks(frames: int, stride: int, context: int, most: int) -> Iterator[Chunk]:
    """Cut a recording so that every step is kept once, away from borders that are not the recording's own.

    Args:
        stride: frames a step of the map.
        context: frames on either side, a multiple of `stride`, that are computed and dropped.
        most: frames of a chunk, context included; more only where they hold no whole step.
    """
    steps = max(1, (most - 2 * context) // stride)
    start = 0
    while True:
        first, last = max(0, start - context), min(frames, start + steps * stride + context)
        yield Chunk(first, last, (start - first) // stride, None if last == frames else steps)
        if last == frames:
            return
        start += steps * stride


def streams(classifier: "SceneClassifier") -> bool:
    """Whether the classifier's logits can be computed chunk by chunk."""
    local = getattr(classifier.network, "locality", None) is not None
    return local and getattr(classifier.frontend, "reach_samples", None) is not None


@torch.inference_mode()
def stream(classifier: "SceneClassifier", waveforms: Waveforms, most: int) -> Tensor:
    """Logits of a classifier that `streams`, as of the whole recording at once but for rounding.

    Args:
        waveforms: (batch, samples), long enough for the network; it is asked for stretches in order, none of which
            begins before the one before.
        most: frames of a chunk; see `chunks`.

    Returns:
        (batch, classes)
    """
    network: Any = classifier.network
    if any(tensor.dtype == torch.float16 for tensor in network.state_dict().values()):
        network = copy.deepcopy(network).float()  # 16-bit weights compute at 32 bits
    locality: Locality = network.locality
    frames = int(classifier.frontend.frames(waveforms.shape[-1]))  # type: ignore[operator]
    context = -(-(locality.reach + int(network.shortest_frames)) // locality.stride) * locality.stride
    pooled, steps = torch.zeros(()), 0
    for chunk in chunks(frames, locality.stride, context, most):
        features = frames_of(classifier, waveforms, chunk.first, chunk.last)
        mapped: Tensor = network.local(classifier.arranged(features))[..., chunk.skip :]
        mapped = mapped[..., : chunk.take]
        if locality.pooling == "max":
            highest = mapped.amax(-1, keepdim=True)
            pooled = torch.maximum(pooled, highest) if steps else highest
        else:
            pooled = pooled.to(mapped.device) + mapped.sum(-1, keepdim=True, dtype=torch.float64)
        steps += mapped.shape[-1]
    logits: Tensor = network.classify_map(pooled if locality.pooling == "max" else (pooled / steps).float())
    return logits


def frames_of(classifier: "SceneClassifier", waveforms: Waveforms, first: int, last: int) -> Tensor:
    """Frames `first` to `last` of a recording's features, from the samples that they hear.

    (batch, samples) -> (batch, channels, bands, last - first)
    """
    frontend: Any = classifier.frontend
    hop, reach = int(frontend.hop_length), int(frontend.reach_samples)
    start = max(0, first - -(-reach // hop))
    begin, samples = start * hop, waveforms.shape[-1]
    # A front end may give fewer frames than hops: as many samples as it takes.
    enough = begin + bisect_left(range(samples - begin), last - start, key=frontend.frames)
    heard = waveforms[:, begin : max(enough, last * hop + reach)]
    features = classifier.features(heard.to(classifier.standardize.mean.device))
    return features[..., first - start : last - start]
