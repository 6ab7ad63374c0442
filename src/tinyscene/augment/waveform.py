"""Augmentations of one waveform, drawn for every clip and epoch."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tinyscene.audio import SUFFIXES, Waveform, read, resample
from tinyscene.errors import InputError, Numbers, check

# Louder and softer than any sound; the output stays finite.
_LEVELS_DB = Numbers(least=-200, most=200)


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
        level = np.sqrt(
            np.mean(np.square(waveform, dtype=np.float64)) / (np.mean(np.square(filtered, dtype=np.float64)) + 1e-20)
        )
        matched: Waveform = filtered * np.float32(level)
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
