"""Recording devices, imitated by impulse responses."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tinyscene.audio import SUFFIXES, Waveform, read
from tinyscene.errors import InputError, Numbers, check


@dataclass(frozen=True)
class DeviceImpulseResponse:
    """Convolve with the impulse response of a microphone drawn from a folder, with probability `p` (Morocutti et al.,
    "Device-robust acoustic scene classification via impulse response augmentation", EUSIPCO 2023).

    The delay of the response is removed, and the level of the clip is kept.
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


@lru_cache(maxsize=4)
def _responses(folder: str, sample_rate: int) -> tuple[Waveform, ...]:
    return tuple(read(path, sample_rate) for path in _paths(folder))


def _paths(folder: str) -> list[Path]:
    paths = sorted(path for path in Path(folder).expanduser().glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(
            f"DeviceImpulseResponse({folder!r}): no sound files there; accepted: a folder of impulse responses"
        )
    return paths
