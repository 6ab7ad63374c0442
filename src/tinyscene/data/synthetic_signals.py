"""Signals that synthetic sounds are built from: shaped noise, slow curves, pulses, resonances, mixing."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from tinyscene.audio import Waveform

Floats = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complex64]

# Slow curves (envelopes, gains) are computed at this rate and stretched to the samples.
CONTROL_RATE_HZ = 200


@dataclass(frozen=True)
class Take:
    """One realisation to be drawn: its generator, length and rate (Hz)."""

    rng: np.random.Generator
    samples: int
    sample_rate: int

    @property
    def duration_s(self) -> float:
        return self.samples / self.sample_rate


def shaped_noise(take: Take, magnitude: Waveform) -> Waveform:
    """Gaussian noise of RMS 1, shape (samples,); `magnitude` of shape (samples // 2 + 1,) shapes its spectrum."""
    noise: Waveform = fft.irfft(noise_spectrum(take, magnitude), take.samples)
    return noise


def noise_spectrum(take: Take, magnitude: Waveform) -> Spectrum:
    """Spectrum of Gaussian noise whose RMS is 1 in time, of the shape of `magnitude`, (samples // 2 + 1,)."""
    # Uniform draws cost a third of normal ones; summed over many bins they are still Gaussian in time.
    uniform = take.rng.random(2 * len(magnitude), np.float32)
    uniform -= np.float32(0.5)
    power = float(np.square(magnitude).sum(dtype=np.float64)) / 12
    return uniform.view(np.complex64) * (magnitude * np.float32(take.samples / (2 * math.sqrt(power))))


def octaves(take: Take, above_hz: float) -> Waveform:
    """The bins of a take's spectrum in octaves above a frequency, shape (samples // 2 + 1,); 0 Hz counts as bin 1."""
    return _log2_hz(take.samples, take.sample_rate) - np.float32(math.log2(above_hz))


@functools.cache
def _log2_hz(samples: int, sample_rate: int) -> Waveform:
    bins = np.maximum(np.arange(samples // 2 + 1), 1)
    return np.log2(bins * (sample_rate / samples)).astype(np.float32)


def wander(take: Take, rate_hz: float) -> Floats:
    """A slow Gaussian process with a standard deviation near 1 and about `rate_hz` swings a second (control rate)."""
    knots_s = np.arange(0, take.duration_s + 1 / rate_hz, 0.5 / rate_hz)
    return np.interp(control_times_s(take), knots_s, take.rng.standard_normal(len(knots_s)))


def phase(take: Take, rate_hz: float) -> Floats:
    """Angle in radians, at the control rate, of a cycle that starts anywhere."""
    angle: Floats = 2 * np.pi * (rate_hz * control_times_s(take) + take.rng.random())
    return angle


def control_times_s(take: Take) -> Floats:
    return np.arange(int(take.duration_s * CONTROL_RATE_HZ) + 2) / CONTROL_RATE_HZ


def stretch(take: Take, control: Floats) -> Waveform:
    """Bring a curve from the control rate to (samples,), linearly."""
    left, fraction = _control_positions(take.samples, take.sample_rate)
    curve = control.astype(np.float32)
    stretched: Waveform = np.diff(curve)[left]
    stretched *= fraction
    stretched += curve[left]
    return stretched


@functools.cache
def _control_positions(samples: int, sample_rate: int) -> tuple[npt.NDArray[np.intp], Waveform]:
    """Each sample's position on a control curve: index of the point to its left, fraction of the way to the next."""
    at = np.arange(samples) * (CONTROL_RATE_HZ / sample_rate)
    left = at.astype(np.intp)
    return left, (at - left).astype(np.float32)


def pulses(take: Take, times_s: Floats, amplitudes: Floats) -> Waveform:
    """Impulses at the samples nearest to `times_s`, shape (samples,)."""
    at = (times_s * take.sample_rate).astype(np.intp)
    inside = (at >= 0) & (at < take.samples)
    train = np.bincount(at[inside], amplitudes[inside], minlength=take.samples)
    return train.astype(np.float32)


def resonances(sample_rate: int, frequencies_hz: Sequence[float], decay_s: float) -> Waveform:
    """Impulse response of decaying resonances, falling by 6 dB from one to the next; (6 decay_s * sample_rate,)."""
    time_s = np.arange(int(6 * decay_s * sample_rate)) / sample_rate
    waves = [0.5**k * np.sin(2 * np.pi * hz * time_s) for k, hz in enumerate(frequencies_hz)]
    response: Waveform = (np.sum(waves, 0) * np.exp(-time_s / decay_s)).astype(np.float32)
    return response


def filtered(waveform: Waveform, response: Waveform) -> Waveform:
    """Convolve with a short impulse response, by overlapping blocks; shape (samples,)."""
    taps = len(response)
    hop = fft.next_fast_len(8 * taps, real=True) - taps
    blocks = np.zeros((-(-len(waveform) // hop), hop), np.float32)
    blocks.ravel()[: len(waveform)] = waveform
    spectra = fft.rfft(blocks, hop + taps)
    spectra *= fft.rfft(response, hop + taps)
    longer = fft.irfft(spectra, hop + taps)
    longer[1:, :taps] += longer[:-1, hop:]
    convolved: Waveform = longer[:, :hop].ravel()[: len(waveform)]
    return convolved


def at_level(waveform: Waveform, level_db: float, quantile: float) -> Waveform:
    """Scale to an RMS of `level_db`. With `quantile` the RMS is of the loudest part only (for what decays)."""
    power = np.sort(waveform**2)[int(quantile * len(waveform)) :] if quantile else waveform**2
    rms = float(np.sqrt(power.mean()))
    return waveform * np.float32(from_db(level_db) / max(rms, 1e-9))


def add(scene: Waveform, start: int, sound: Waveform) -> None:
    """Mix `sound` into `scene` from sample `start`, cut to what fits."""
    first = max(0, -start)
    part = sound[first : max(first, len(scene) - start)]
    scene[start + first : start + first + len(part)] += part


def from_db(level_db: float | Floats | Waveform) -> Any:
    """Decibels to an amplitude ratio."""
    return np.exp(np.multiply(level_db, math.log(10) / 20))
