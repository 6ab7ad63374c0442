"""A recording as it comes in, of which only what is still needed is kept."""

from collections import deque
from collections.abc import Iterable

import numpy as np

from tinyscene.audio import Waveform


class Tape:
    """Stretches of a recording in order; each may overlap the previous one.

    Args:
        blocks: the recording, in order, each of shape (samples,).

    Attributes:
        length: samples so far.
        most_held: the largest number of samples kept at a time.
        sounding: whether a sample so far differed from zero.
    """

    def __init__(self, blocks: Iterable[Waveform]) -> None:
        self._blocks, self._held, self._first = iter(blocks), deque[Waveform](), 0
        self.length, self.most_held, self.sounding = 0, 0, False

    def cut(self, start: int, end: int) -> Waveform:
        """Samples `start` to `end`, as soon as they arrive; fewer where the recording ends.

        Samples before `start` are dropped: no later stretch may begin before it.
        """
        if start < self._first:
            raise ValueError(f"samples from {start} on, but those before {self._first} were dropped")
        self._forget(start)
        while self.length < end and self._pull():
            self._forget(start)
        held = np.concatenate(self._held) if self._held else np.zeros(0, np.float32)
        return held[max(0, start - self._first) : max(0, end - self._first)]

    def run_out(self) -> int:
        """Skip the rest; return the total length in samples."""
        while self._pull():
            self._forget(self.length)
        return self.length

    def _pull(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        self._held.append(block)
        self.length += len(block)
        self.sounding = self.sounding or bool(block.any())
        self.most_held = max(self.most_held, self.length - self._first)
        return True

    def _forget(self, start: int) -> None:
        while self._held and self._first + len(self._held[0]) <= start:
            self._first += len(self._held.popleft())
