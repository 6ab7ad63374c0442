"""Read sound files: any rate and channel count, WAV of 8 to 32 bits and float, FLAC, Ogg, Opus, MP3, AIFF, AU, CAF."""

import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tinyscene import mpeg
from tinyscene.errors import InputError

if TYPE_CHECKING:
    from soundfile import SoundFile

Waveform = npt.NDArray[np.float32]
Channel = int | str

# Formats that libsndfile reads, and whose end is checked here or by it.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".wave", ".oga", ".opus", ".aifc", ".au", ".snd", ".caf"),
    *(".w64", ".rf64", ".mp2"),
)
# Other common sound files: left out, and named.
OTHER_SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".aac", ".ac3", ".wma", ".amr", ".3gp", ".webm", ".mka", ".ape", ".wv", ".tta"),
    *(".mpc", ".dsf", ".dff", ".ra", ".spx", ".gsm", ".voc", ".sph", ".nist", ".sd2", ".raw", ".pcm"),
)
SHORTEST_S = 0.1
# A lower rate means a broken header; resampled from 1 Hz, one block would fill the memory.
LOWEST_RATE = 1000
ACCEPTED = "WAV (8 to 32 bits or float), FLAC, Ogg, MP3, AIFF, AU or CAF"

_BLOCK_FRAMES = 1 << 20
# Samples kept in memory of a recording that is processed as it is read.
_STREAMED_FRAMES = 1 << 16
# Frames that an MP3 decoder may leave out at the start, where one builds on missing ones before it.
_LOSSY_SLACK_FRAMES = 2 * 1152
_UNKNOWN = 0xFFFFFFFF
_W64_HEAD = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"


@dataclass(frozen=True)
class AudioInfo:
    """The header of a sound file."""

    sample_rate: int
    channels: int
    frames: int

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate


def probe(path: Path) -> AudioInfo:
    """Read the header of a sound file. Raises InputError if it can't be read, or its rate is below 1000 Hz."""
    with _opened(path) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames)


def read(path: Path, sample_rate: int | None = None, channel: Channel = "mean") -> Waveform:
    """Decode one channel of a sound file.

    Args:
        path: the file.
        sample_rate: in Hz; resampled to it (soxr, high quality) where the file has another. None keeps the file's.
        channel: "mean" of all channels, or the index of one.

    Returns:
        float32 samples in -1 ... 1, shape (samples,).

    Raises:
        InputError: the file is missing, empty, not audio, shorter than its header claims, shorter than
            0.1 s, silent throughout, holds NaN or infinite samples, or lacks the channel.
    """
    with _opened(path) as file:
        rate = file.samplerate
        blocks = list(_decode(file, path, channel))
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    check_waveform(waveform, rate, str(path))
    return waveform if sample_rate is None else resample(waveform, rate, sample_rate)


def read_blocks(path: Path, sample_rate: int, channel: Channel = "mean") -> Iterator[Waveform]:
    """The samples of `read`, block by block, in memory that does not grow with the file.

    Raises:
        InputError: as `read`, once the fault is reached; length and silence are for the caller to check.
    """
    with _opened(path) as file:
        blocks = finite(_decode(file, path, channel, _STREAMED_FRAMES), str(path))
        yield from resample_blocks(blocks, file.samplerate, sample_rate)


def resampled_length(samples: int, rate_in: int, rate_out: int) -> int:
    """The number of samples that `resample` returns."""
    return (2 * samples * rate_out + rate_in) // (2 * rate_in)


def resample_blocks(blocks: Iterable[Waveform], rate_in: float, rate_out: float) -> Iterator[Waveform]:
    """The samples of `resample` on the joined blocks, bit for bit, as soon as its filter has enough input."""
    if rate_in == rate_out:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(rate_in, rate_out, 1)
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def finite(blocks: Iterable[Waveform], where: str) -> Iterator[Waveform]:
    """The same blocks. Raises InputError, naming `where` and the sample, at one that is NaN or infinite."""
    before = 0
    for block in blocks:
        _check_finite(block, before, where)
        before += len(block)
        yield block


def _check_finite(waveform: Waveform, before: int, where: str) -> None:
    if not np.isfinite(waveform).all():
        first = int(np.flatnonzero(~np.isfinite(waveform))[0])
        raise InputError(f"{where}: sample {before + first} is {waveform[first]}; accepted: finite samples")


def resample(waveform: Waveform, rate_in: float, rate_out: float) -> Waveform:
    """Resample samples of shape (samples,) from one rate to another, in Hz (soxr, high quality)."""
    if rate_in == rate_out:
        return waveform
    import soxr

    resampled: Waveform = soxr.resample(waveform, rate_in, rate_out)
    return resampled


def as_waveform(samples: npt.ArrayLike, where: str) -> Waveform:
    """Samples as float32: integers scaled by the range of their type, as in sound files, floats unchanged.

    int8, int16 and int32 are signed, uint8 has silence at 128 (as in WAV).

    Raises:
        InputError: values of another type, named by `where`.
    """
    given = np.asarray(samples)
    if given.dtype == np.uint8:
        return ((given.astype(np.float32) - 128) / 128).astype(np.float32)
    if given.dtype in (np.int8, np.int16, np.int32):
        # In float64: 32 bits of an integer are more than a float32 holds.
        return (given / -float(np.iinfo(given.dtype).min)).astype(np.float32)
    if not np.issubdtype(given.dtype, np.floating):
        raise InputError(
            f"{where}: samples of type {given.dtype}; accepted: float, or integers of sound files (int8, int16, int32, "
            f"uint8)"
        )
    return given.astype(np.float32, copy=False)


def check_waveform(waveform: Waveform, sample_rate: int, where: str) -> None:
    """Raise InputError, naming `where`, for samples that can't be classified."""
    if waveform.ndim != 1:
        raise InputError(f"{where}: shape {waveform.shape}; accepted: one channel, shape (samples,)")
    if len(waveform) < SHORTEST_S * sample_rate:
        raise InputError(
            f"{where}: {len(waveform)} samples at {sample_rate} Hz; accepted: at least {SHORTEST_S} s "
            f"({round(SHORTEST_S * sample_rate)} samples)"
        )
    _check_finite(waveform, 0, where)
    check_sound(bool(waveform.any()), where)


def check_sound(audible: bool, where: str) -> None:
    """Raise InputError, naming `where`, for a recording in which no sample differs from zero."""
    if not audible:
        raise InputError(f"{where}: silent, every sample is zero; accepted: a recording with a signal")


@contextmanager
def _opened(path: Path) -> Iterator["SoundFile"]:
    """The file, so that all of it can be read. Raises InputError as `probe`."""
    import soundfile

    _check_file(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(soundfile.SoundFile(str(path)))
            if file.format == "MP3" and (source := _counted(path)) is not None:
                file = stack.enter_context(soundfile.SoundFile(stack.enter_context(source)))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise InputError(f"{path}: not a readable sound file ({_reason(error)}); accepted: {ACCEPTED}") from error
        if file.samplerate < LOWEST_RATE:
            raise InputError(f"{path}: {file.samplerate} Hz; accepted: at least {LOWEST_RATE} Hz")
        # After every read, soundfile seeks to the current position, where an MP3 decoder would wrongly restart.
        file.seekable = lambda: False
        yield file


def _counted(path: Path) -> mpeg.Behind | None:
    """The file with the number of its frames put before them; None where it has one. InputError if it was cut."""
    found = mpeg.frames_of(path)
    if found is None:
        return None
    # Some writers also count the frame that holds the number.
    if found.cut or (found.claimed or 0) > found.whole + 1:
        claimed = "its last frame is cut" if found.cut else f"its header claims {found.claimed} codec frames"
        raise InputError(f"{path}: truncated, {claimed}, the file holds {found.whole} whole; accepted: a complete file")
    stated = found.claimed is not None and found.claimed >= found.whole
    return mpeg.Behind(found.xing, path, found.begin) if found.xing and not stated else None


def _decode(file: "SoundFile", path: Path, channel: Channel, at_once: int = _BLOCK_FRAMES) -> Iterator[Waveform]:
    """Block by block, so that memory follows the file's contents and not its header."""
    import soundfile

    if isinstance(channel, int) and not 0 <= channel < file.channels:
        raise InputError(f"{path}: channel {channel} asked for, but the file has {file.channels} (numbered from 0)")
    frames = 0
    try:
        while len(block := file.read(at_once, dtype="float32", always_2d=True)):
            frames += len(block)
            yield pick(block, channel)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"{path}: broken after {frames} frames ({_reason(error)})") from error
    slack = _LOSSY_SLACK_FRAMES if file.format == "MP3" else 0
    if frames < file.frames - slack:
        raise InputError(
            f"{path}: truncated, the header claims {file.frames} frames, the file holds {frames}; "
            f"accepted: a complete file"
        )


def pick(block: npt.NDArray[np.float32], channel: Channel) -> Waveform:
    """One channel of several, or their mean: (frames, channels) -> (frames,)"""
    if isinstance(channel, int):
        return np.ascontiguousarray(block[:, channel])
    if channel != "mean":
        raise InputError(f'channel {channel!r}; accepted: "mean" or the index of a channel')
    return block[:, 0].copy() if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _check_file(path: Path) -> None:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}; accepted: a sound file ({ACCEPTED})")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: empty, 0 bytes; accepted: {ACCEPTED}")
    with path.open("rb") as file:
        head = file.read(12)
    # libsndfile silently shortens a cut WAV, AIFF, AU or Ogg, so that their headers are checked here.
    if head[:4] == b"OggS" and not _ogg_ends(path, size):
        raise InputError(f"{path}: truncated, its last Ogg page is missing; accepted: a complete file")
    claimed = _claimed_bytes(path, head)
    if claimed > size + 1:
        raise InputError(
            f"{path}: truncated, the header claims {claimed:,} bytes, the file has {size:,}; accepted: a complete file"
        )


def _claimed_bytes(path: Path, head: bytes) -> int:
    """Bytes that a WAV, AIFF or AU file needs for its samples; 0 for other formats, and where it is not stated."""
    if head[:4] == b".snd":
        offset, samples = struct.unpack(">II", head[4:12])
        return 0 if samples == _UNKNOWN else int(offset + samples)
    if head == _W64_HEAD:  # of 64 bits, as are all of its chunks
        with path.open("rb") as file:
            return int(struct.unpack("<16xQ", file.read(24))[0])
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _end_of(path, b"data", "<I")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _end_of(path, b"SSND", ">I")
    return 0


def _end_of(path: Path, samples: bytes, order: str) -> int:
    """The end of the chunk of samples, or of the outer chunk if there is none; 0 where neither is known."""
    with path.open("rb") as file:
        head = file.read(12)
        outer: int = struct.unpack(order, head[4:8])[0]
        # ffmpeg and sox don't know the length when they write to a pipe; RF64 has it in 64 bits.
        unknown = outer == _UNKNOWN
        long = 0
        start = 12
        while len(chunk := file.read(8)) == 8:
            length: int = struct.unpack(order, chunk[4:])[0]
            if chunk[:4] == b"ds64":
                long = struct.unpack("<8xQ", file.read(16))[0]
            if chunk[:4] == samples and (long or not unknown):
                return start + 8 + (long or length)
            start += 8 + length + length % 2  # chunks begin at even offsets
            file.seek(start)
    return 0 if unknown else outer + 8


def _ogg_ends(path: Path, size: int) -> bool:
    """Whether the last page (at most 65,307 bytes) is marked as the end of its stream (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, size - 65_307))
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page >= 0 and len(tail) > page + 5 and bool(tail[page + 5] & 4)


def _reason(error: Exception) -> str:
    return str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
