"""Augmentations of one waveform, drawn for every clip and epoch."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyscene.audio import SUFFIXES, Waveform, read, resample
from tinyscene.errors import InputError, Numbers, check

# Louder and softer than any sound; the output stays finite.
_LEVELS_DB = Numbers(least=-200, most=200)
_RISES_DB = Numbers(least=0, most=200)
# Where an equalizer's response begins, how many points it is drawn at, and its deepest fall.
_LOWEST_HZ, _POINTS, _DEEPEST_DB = 20.0, 256, 60.0


@dataclass(frozen=True)
class Crop:
    """A stretch of `duration_s`, up to an hour, at a random place; shorter clips are repeated."""

    duration_s: float

    def __post_init__(self) -> None:
        check(self, duration_s=Numbers(above=0, most=3600))

    def samples(self, sample_rate: int) -> int:
        """Length of the stretch in samples, at least one."""
        return max(1, round(self.duration_s * sample_rate))

    def __call__(self, waveform: Waveform, sample_rate: int, rng: np.random.Generator) -> Waveform:
        """(samples,) -> (duration_s x sample_rate,)"""
        return fit_length(waveform, self.samples(sample_rate), rng)


@dataclass(frozen=True)
class Gain:
    """A gain drawn uniformly between two levels in dB."""

    lowest_db: float = -6.0
    highest_db: float = 6.0

    def __post_init__(self) -> None:
        _check_levels(self, "lowest_db", "highest_db")

    def __call__(self, waveform: Waveform, sample_rate: int, rng: np.random.Generator) -> Waveform:
        """(samples,) -> (samples,)"""
        # uniform(0.0, -0.0) is an error in NumPy.
        return waveform * np.float32(10 ** (rng.uniform(self.lowest_db + 0.0, self.highest_db + 0.0) / 20))


@dataclass(frozen=True)
class Noise:
    """White noise at a signal-to-noise ratio drawn uniformly between two levels in dB."""

    lowest_snr_db: float = 10.0
    highest_snr_db: float = 40.0

    def __post_init__(self) -> None:
        _check_levels(self, "lowest_snr_db", "highest_snr_db")

    def __call__(self, waveform: Waveform, sample_rate: int, rng: np.random.Generator) -> Waveform:
        """(samples,) -> (samples,)"""
        snr_db = rng.uniform(self.lowest_snr_db + 0.0, self.highest_snr_db + 0.0)
        level = np.sqrt(np.mean(np.square(waveform, dtype=np.float64))) * 10 ** (-snr_db / 20)
        return waveform + np.float32(level) * rng.standard_normal(len(waveform), dtype=np.float32)


@dataclass(frozen=True)
class Speed:
    """One of several playback speeds by resampling: 1.15 is 15 % faster, shorter and higher."""

    rates: tuple[float, ...] = (0.85, 1.0, 1.15)

    def __post_init__(self) -> None:
        check(self, rates=Numbers(least=0.1, most=10, items=0))

    def __call__(self, waveform: Waveform, sample_rate: int, rng: np.random.Generator) -> Waveform:
        """(samples,) -> (samples / rate,)"""
        rate = float(rng.choice(self.rates))
        return resample(np.ascontiguousarray(waveform), rate * sample_rate, sample_rate)


@dataclass(frozen=True)
class Equalizer:
    """Filter with a random frequency response, with probability `p`: a microphone that nobody recorded with.

    Over the logarithm of frequency the response is a broken line through `knots` random levels, as in FilterAugment
    (Nam, Kim and Park, ICASSP 2022); below and above random corners it falls. Phases and the clip's level are kept. Its
    defaults were the best of three for microphones that training never heard (results/ablation.py: one seed).

    Args:
        ripple_db: the largest level at a knot, up or down.
        knots: at random frequencies, and one at either end.
        low_hz, high_hz: the lower corner lies at or below the one, the upper one at or above the other.
        slope_db: the steepest fall, in dB an octave; it ends at -60 dB.
        p: share of the clips.
    """

    ripple_db: float = 18.0
    knots: int = 4
    low_hz: float = 300.0
    high_hz: float = 4000.0
    slope_db: float = 90.0
    p: float = 1.0

    def __post_init__(self) -> None:
        check(self, ripple_db=_RISES_DB, knots=Numbers(least=0, whole=True), low_hz=Numbers(above=0))
        check(self, high_hz=Numbers(above=0), slope_db=_RISES_DB, p=Numbers(least=0, most=1))

    def response_db(self, frequencies: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Drawn levels at rising frequencies in Hz, the first above 0"""
        octaves = np.log2(frequencies)
        lowest, highest = octaves[0], octaves[-1]
        knots = np.sort(rng.uniform(lowest, highest, self.knots))
        levels = rng.uniform(-self.ripple_db, self.ripple_db, self.knots + 2)
        low = rng.uniform(lowest, np.log2(self.low_hz).clip(lowest, highest))
        high = rng.uniform(np.log2(self.high_hz).clip(lowest, highest), highest)
        below, above = rng.uniform(0, self.slope_db, 2)
        falls = below * (low - octaves).clip(0) + above * (octaves - high).clip(0)
        ripple = np.interp(octaves, [lowest, *knots, highest], levels)
        response: npt.NDArray[np.float64] = ripple - falls.clip(max=_DEEPEST_DB)
        return response

    def __call__(self, waveform: Waveform, sample_rate: int, rng: np.random.Generator) -> Waveform:
        """(samples,) -> (samples,)"""
        from scipy import fft

        frequencies = np.geomspace(min(_LOWEST_HZ, sample_rate / 4), sample_rate / 2, _POINTS)
        gains = 10 ** (self.response_db(frequencies, rng) / 20)
        if rng.random() >= self.p:
            return waveform
        # Zeros behind the clip keep its end from being heard at its beginning.
        size = fft.next_fast_len(len(waveform) + sample_rate // 10, real=True)
        response = np.interp(fft.rfftfreq(size, 1 / sample_rate), frequencies, gains).astype(np.float32)
        filtered = fft.irfft(fft.rfft(np.asarray(waveform, np.float32), size) * response, size)[: len(waveform)]
        return _at_level_of(waveform, filtered)


@dataclass(frozen=True)
class DeviceImpulseResponse:
    """Convolve with the impulse response of a microphone drawn from a folder, with probability `p` (Morocutti et al.,
    "Device-robust acoustic scene classification via impulse response augmentation", EUSIPCO 2023).

    The delay of the response is removed, and the level of the clip is kept. `folder` may be the file of one response.
    """

    folder: str
    p: float = 0.4

    def __post_init__(self) -> None:
        check(self, p=Numbers(least=0, most=1))

    def content(self) -> str:
        """Changes with any response of the folder; part of the key of a stored result."""
        digest = hashlib.sha256()
        for path in _paths(self.folder):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    def __call__(self, waveform: Waveform, sample_rate: int, rng: np.random.Generator) -> Waveform:
        """(samples,) -> (samples,)"""
        from scipy.signal import fftconvolve

        responses = _responses(self.folder, sample_rate)
        chosen = responses[int(rng.integers(len(responses)))]
        if rng.random() >= self.p:
            return waveform
        onset = int(np.abs(chosen).argmax())
        filtered = fftconvolve(waveform, chosen)[onset : onset + len(waveform)].astype(np.float32)
        return _at_level_of(waveform, filtered)


def _at_level_of(waveform: Waveform, changed: Waveform) -> Waveform:
    """The changed waveform at the level of the first."""
    before, after = (np.mean(np.square(one, dtype=np.float64)) for one in (waveform, changed))
    matched: Waveform = changed * np.float32(np.sqrt(before / (after + 1e-20)))
    return matched


@lru_cache(maxsize=128)
def _responses(folder: str, sample_rate: int) -> tuple[Waveform, ...]:
    return tuple(read(path, sample_rate) for path in _paths(folder))


def _paths(folder: str) -> list[Path]:
    place = Path(folder).expanduser()
    found = [place] if place.is_file() else place.glob("*")
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(
            f"DeviceImpulseResponse({folder!r}): no sound files there; accepted: a folder of impulse responses, or "
            f"the file of one"
        )
    return paths


def _check_levels(augmentation: object, lowest: str, highest: str) -> None:
    check(augmentation, **{lowest: _LEVELS_DB, highest: _LEVELS_DB})
    if getattr(augmentation, lowest) > getattr(augmentation, highest):
        raise InputError(f"{augmentation}; accepted: the lower level first")


def fit_length(waveform: Waveform, length: int, rng: np.random.Generator) -> Waveform:
    """(samples,) -> (length,): a random stretch of a longer waveform, a shorter one again and again."""
    if len(waveform) >= length:
        start = int(rng.integers(0, len(waveform) - length + 1))
        return waveform[start : start + length]
    return np.resize(waveform, length)
