"""Raw samples from a pipe, such as standard input."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tinyscene import audio
from tinyscene.errors import InputError, Numbers, check

# Sample type in the stream, and its value of 1.0.
ENCODINGS = {"s16le": ("<i2", 32_768.0), "f32le": ("<f4", 1.0)}
_AT_ONCE = 1 << 16
_HEADERS = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"FORM": "AIFF"}


class Bytes(Protocol):
    """A buffered binary stream."""

    def read1(self, size: int, /) -> bytes: ...


@dataclass
class Pcm:
    """Raw PCM: interleaved samples without a header.

    Attributes:
        stream: the source of bytes.
        rate: in Hz.
        channels: interleaved in the stream.
        encoding: s16le or f32le.
        left_over: bytes at the end of the stream short of a frame (a sample of every channel); known once all
            blocks are read.
    """

    stream: Bytes
    rate: int
    channels: int = 1
    encoding: str = "s16le"
    left_over: int = field(default=0, init=False)

    NAME = "standard input"

    def __post_init__(self) -> None:
        check(
            self,
            encoding=tuple(ENCODINGS),
            rate=Numbers(least=audio.LOWEST_RATE, whole=True),
            channels=Numbers(least=1, whole=True),
        )

    def blocks(self, sample_rate: int, channel: audio.Channel) -> Iterator[audio.Waveform]:
        """One channel at `sample_rate` Hz, block by block, as soon as the bytes arrive.

        Raises:
            InputError: the channel is missing, a sample is not finite, or the stream begins with a file's header.
        """
        if isinstance(channel, int) and channel >= self.channels:
            raise InputError(
                f"{self.NAME}: {self.channels} channels, the model takes number {channel} (from 0); accepted: a stream "
                f"with that channel, and --channels"
            )
        own = audio.finite((audio.pick(frames, channel) for frames in self._frames()), self.NAME)
        return audio.resample_blocks(own, self.rate, sample_rate)

    def _frames(self) -> Iterator[audio.Waveform]:
        """(frames, channels), each of the frames that have arrived"""
        dtype, full = ENCODINGS[self.encoding]
        frame = np.dtype(dtype).itemsize * self.channels
        held, begun = b"", False
        while piece := self.stream.read1(_AT_ONCE):
            held += piece
            if not begun and held[:4] in _HEADERS:
                raise InputError(
                    f"{self.NAME}: begins as a file ({_HEADERS[held[:4]]}); accepted: raw PCM, as from `ffmpeg -i FILE "
                    f"-f s16le -`, or the file's name"
                )
            # A pipe delivers any number of bytes: a frame may be cut in two, and the header, too.
            if begun := begun or len(held) >= 4:
                whole = len(held) // frame * frame
                samples = np.frombuffer(held[:whole], dtype).astype(np.float32)
                held = held[whole:]
                yield samples.reshape(-1, self.channels) / np.float32(full)
        self.left_over = len(held)
