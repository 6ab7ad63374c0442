"""Read sound files: any rate and channel count, WAV of 8 to 32 bits and float, FLAC, Ogg, Opus, MP3, AIFF, AU, CAF."""

import re
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

_BLOCK_FRAMES = 1 << 16
# Frames that an MP3 decoder may leave out at the start, where one builds on missing ones before it.
_LOSSY_SLACK_FRAMES = 2 * 1152
# A line of libsndfile's log on a chunk that claims other bytes than the file has.
_CLAIM = re.compile(r"^ *(RIFF|FORM|data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
# What ffmpeg and sox claim when they write to a pipe and don't know the length.
_UNKNOWN = (0xFFFFFFFF, 0x7FFFF000)


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
        blocks = finite(_decode(file, path, channel), str(path))
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

    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}; accepted: a sound file ({ACCEPTED})")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty, 0 bytes; accepted: {ACCEPTED}")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(soundfile.SoundFile(str(path)))
            if file.format == "MP3" and (counted := mpeg.counted(path)) is not None:
                file = stack.enter_context(soundfile.SoundFile(stack.enter_context(counted)))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise InputError(f"{path}: not a readable sound file ({_reason(error)}); accepted: {ACCEPTED}") from error
        if file.samplerate < LOWEST_RATE:
            raise InputError(f"{path}: {file.samplerate} Hz; accepted: at least {LOWEST_RATE} Hz")
        _check_end(path, file)
        # After every read, soundfile seeks to the current position, where an MP3 decoder would wrongly restart.
        file.seekable = lambda: False
        yield file


def _decode(file: "SoundFile", path: Path, channel: Channel) -> Iterator[Waveform]:
    """Block by block, so that memory follows the file's contents and not its header."""
    import soundfile

    if isinstance(channel, int) and not 0 <= channel < file.channels:
        raise InputError(f"{path}: channel {channel} asked for, but the file has {file.channels} (numbered from 0)")
    frames = 0
    try:
        while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
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


def _check_end(path: Path, file: "SoundFile") -> None:
    """Refuse a cut file, which libsndfile silently takes for a shorter one."""
    if file.format == "OGG" and not _ogg_ends(path):
        raise InputError(f"{path}: truncated, its last Ogg page is missing; accepted: a complete file")
    log = file.extra_info
    # The outer chunk counts where the log, of 2 kB, ends before the samples. It may be 8 bytes off: many writers do so.
    told = re.search(r"^ *(data|SSND) *:", log, re.MULTILINE)
    for chunk, claimed, held in _CLAIM.findall(log):
        if not (told and chunk in ("RIFF", "FORM")) and int(claimed) > int(held) + 8 and int(claimed) not in _UNKNOWN:
            raise InputError(
                f"{path}: truncated, the header claims {int(claimed):,} bytes, the file has {int(held):,}; "
                f"accepted: a complete file"
            )


def _ogg_ends(path: Path) -> bool:
    """Whether the last page (at most 65,307 bytes) is marked as the end of its stream (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65_307))
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page >= 0 and len(tail) > page + 5 and bool(tail[page + 5] & 4)


def _reason(error: Exception) -> str:
    return str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
