"""Long recordings in bounded memory: chunks that overlap, one pooling over all of them.

A network streams if it has a `locality` (`models/network.py`), a front end if `reach_samples` is a number. What uses
the whole clip before it pools (squeeze-and-excitation, the deviation over time, a subtracted time mean) does not.
"""

import copy
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tinyscene.models.network import locality, shortest_frames
from tinyscene.threads import in_order


class Waveforms(Protocol):
    """A tensor (batch, samples), or a source of its stretches in order."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, part: tuple[slice, slice], /) -> Tensor: ...


class Chunk(NamedTuple):
    """Frames `first` to `last` of the input; of the output steps, `skip` are dropped and then `take` kept."""

    first: int
    last: int
    skip: int
    take: int | None


def chunks(frames: int, stride: int, context: int, most: int) -> Iterator[Chunk]:
    """Cut a recording so that every step is kept once, away from borders other than the recording's own.

    Args:
        stride: frames a step of the map.
        context: frames on either side, a multiple of `stride`, that are computed and dropped.
        most: frames of a chunk, context included; more only where they hold no complete step.
    """
    steps = max(1, (most - 2 * context) // stride)
    start = 0
    while True:
        first, last = max(0, start - context), min(frames, start + steps * stride + context)
        yield Chunk(first, last, (start - first) // stride, None if last == frames else steps)
        if last == frames:
            return
        start += steps * stride


@torch.inference_mode()
def stream(classifier: Any, waveforms: Waveforms, most: int) -> Tensor:
    """Logits of a classifier that `streams`, as of the whole recording at once except for rounding.

    Args:
        waveforms: (batch, samples), long enough for the network; stretches are read in order, none of which
            begins before the previous one.
        most: frames of a chunk; see `chunks`.

    Returns:
        (batch, classes)
    """
    network: Any = classifier.network
    if any(tensor.dtype == torch.float16 for tensor in network.state_dict().values()):
        network = copy.deepcopy(network).float()  # 16-bit weights compute at 32 bits
    near = locality(network)
    assert near is not None
    context = -(-(near.reach + shortest_frames(network)) // near.stride) * near.stride
    pooled, steps = torch.zeros(()), 0
    cuts = chunks(classifier.frontend.frames(waveforms.shape[-1]), near.stride, context, most)

    @torch.inference_mode()
    def mapped_of(cut: tuple[Chunk, int, Tensor]) -> Tensor:
        chunk, start, samples = cut
        features: Tensor = classifier.arranged(classifier.features(samples))
        mapped: Tensor = network.local(features[..., chunk.first - start : chunk.last - start])[..., chunk.skip :]
        return mapped[..., : chunk.take]

    for mapped in in_order(mapped_of, ((chunk, *_samples(classifier, waveforms, chunk)) for chunk in cuts)):
        if near.pooling == "max":
            highest = mapped.amax(-1, keepdim=True)
            pooled = torch.maximum(pooled, highest) if steps else highest
        else:
            pooled = pooled.to(mapped.device) + mapped.sum(-1, keepdim=True, dtype=torch.float64)
        steps += mapped.shape[-1]
    logits: Tensor = network.classify_map(pooled if near.pooling == "max" else (pooled / steps).float())
    return logits


def _samples(classifier: Any, waveforms: Waveforms, chunk: Chunk) -> tuple[int, Tensor]:
    """The samples that the frames of a chunk depend on, (batch, samples), and the first frame that they give."""
    frontend = classifier.frontend
    hop, reach = frontend.hop_length, frontend.reach_samples
    start = max(0, chunk.first - -(-reach // hop))
    begin, samples = start * hop, waveforms.shape[-1]
    # A front end may give fewer frames than hops: then more samples.
    enough = begin + bisect_left(range(samples - begin), chunk.last - start, key=frontend.frames)
    needed = waveforms[:, begin : max(enough, chunk.last * hop + reach)]
    return start, needed.to(classifier.standardize.mean.device)
