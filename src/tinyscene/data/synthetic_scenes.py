"""Synthetic scenes and devices: which sounds make a scene, how places differ, what a device does to a sound.

Scenes come in groups whose mean spectra overlap (halls full of voices, vehicles, streets and parks). What
distinguishes them is mostly when things happen: rates, bursts, beats.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import uniform_filter1d

from tinyscene.audio import Waveform

Spectrum = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Take:
    """One realisation to be drawn: from which generator, how long, at which rate in Hz."""

    rng: np.random.Generator
    samples: int
    sample_rate: int

    @property
    def hz(self) -> Waveform:
        """The bins of its spectrum, shape (samples // 2 + 1,), 0 Hz as the next one."""
        hz: Waveform = np.maximum(fft.rfftfreq(self.samples, 1 / self.sample_rate), 0.1).astype(np.float32)
        return hz

    def noise(self, magnitude: Waveform) -> Spectrum:
        """The spectrum of Gaussian noise that has an RMS of 1 in time: (samples // 2 + 1,) -> the same shape"""
        drawn = self.rng.random(2 * len(magnitude), np.float32) - np.float32(0.5)
        power = float(np.square(magnitude).sum(dtype=np.float64)) / 12
        return drawn.view(np.complex64) * (magnitude * np.float32(self.samples / (2 * power**0.5)))


@dataclass(frozen=True)
class Noise:
    """A band of noise whose level, in dB over the background, beats regularly and wanders at random."""

    level_db: float
    low_hz: float
    high_hz: float
    beat_db: float = 0.0
    beat_hz: float = 1.0
    wander_db: float = 0.0
    wander_hz: float = 1.0

    def __call__(self, take: Take) -> Waveform:
        """(samples,)"""
        hz = take.hz
        slopes = (1 + (self.low_hz / hz) ** 4) * (1 + (hz / self.high_hz) ** 4)
        knots_s = np.arange(0, take.samples / take.sample_rate + 0.005, 0.005)
        coarse_s = np.arange(0, knots_s[-1] + 1 / self.wander_hz, 0.5 / self.wander_hz)
        level_db = self.level_db + self.beat_db * np.sin(2 * np.pi * (self.beat_hz * knots_s + take.rng.random()))
        level_db += self.wander_db * np.interp(knots_s, coarse_s, take.rng.standard_normal(len(coarse_s)))
        envelope = np.interp(np.arange(take.samples) / take.sample_rate, knots_s, from_db(level_db))
        noise: Waveform = fft.irfft(take.noise((slopes**-0.5).astype(np.float32)), take.samples) * envelope.astype(
            np.float32
        )
        return noise


@dataclass(frozen=True)
class Events:
    """Bursts of short tones with partials, `rate_hz` a second: steps, rail joints, bells, birds, horns.

    `jitter` 0 is a clock, 1 a Poisson process. `glide` is the last pitch over the first one.
    """

    level_db: float
    rate_hz: float
    pitch_hz: float
    decay_s: float
    jitter: float = 1.0
    burst: int = 1
    gap_s: float = 0.1
    glide: float = 1.0
    partials: tuple[float, ...] = (0.45, 0.7, 1, 1.3, 1.7, 2.2)

    def __call__(self, take: Take) -> Waveform:
        """(samples,)"""
        time_s = np.arange(int(4 * self.decay_s * take.sample_rate)) / take.sample_rate
        cycles = np.cumsum(self.pitch_hz * self.glide ** (time_s / time_s[-1])) / take.sample_rate
        waves = [np.sin(2 * np.pi * (ratio * cycles + take.rng.random())) for ratio in self.partials]
        one = (np.sum(waves, 0) * np.exp(-time_s / self.decay_s)).astype(np.float32)
        one *= np.float32(from_db(self.level_db) / np.sqrt(np.mean(one[: len(one) // 4] ** 2)))
        scene = np.zeros(take.samples + len(one), np.float32)
        for start in self.starts(take):
            scene[start : start + len(one)] += np.float32(from_db(2.0 * take.rng.standard_normal())) * one
        return scene[: take.samples]

    def starts(self, take: Take) -> npt.NDArray[np.intp]:
        """(events,): the samples at which they begin."""
        count = int(2 * take.samples / take.sample_rate * self.rate_hz) + 8
        gaps = 1 - self.jitter + self.jitter * take.rng.standard_exponential(count)
        bursts_s = (np.cumsum(gaps) - gaps[0] * take.rng.random()) / self.rate_hz
        starts = ((bursts_s[:, None] + self.gap_s * np.arange(self.burst)).ravel() * take.sample_rate).astype(np.intp)
        inside: npt.NDArray[np.intp] = starts[starts < take.samples]
        return inside


Place = tuple[Noise | Events, ...]


def _voices(level_db: float, talkers: int) -> Noise:
    """Syllables; many talkers together lose the rhythm of one."""
    return Noise(level_db, 250, 2500, wander_db=9 / talkers**0.5, wander_hz=3.5)


SCENES: dict[str, Place] = {
    "airport": (_voices(-2, 8), Events(2, 17, 900, 0.01, jitter=0.15), Events(8, 0.3, 620, 0.4, burst=3, gap_s=0.35)),
    "shopping_mall": (_voices(-2, 8), Events(4, 2.1, 520, 0.12, jitter=0, burst=2), Events(2, 3, 900, 0.02)),
    "metro_station": (
        _voices(-2, 6),
        Noise(-2, 150, 2500, wander_db=6, wander_hz=0.3),
        Events(6, 0.9, 900, 0.03, burst=5),
    ),
    "bus": (Noise(2, 40, 250, 5, 11), Events(2, 11, 1500, 0.012, jitter=0.1), _voices(-6, 2)),
    "metro": (
        Noise(2, 40, 280, 2, 1.5),
        Events(5, 1.4, 500, 0.025, jitter=0.1, burst=2),
        Events(3, 0.4, 2300, 0.3, glide=0.87),
    ),
    "tram": (
        Noise(2, 45, 280),
        Events(6, 0.9, 1100, 0.12, jitter=0.3, burst=2, gap_s=0.28),
        Events(3, 0.7, 1700, 0.25, glide=1.65),
    ),
    "park": (Noise(1, 60, 500, wander_db=5, wander_hz=2), Events(5, 1.2, 3000, 0.03, jitter=0.6, burst=5, glide=1.4)),
    "public_square": (Noise(0, 1200, 5000, 3, 6), _voices(-3, 4), Events(3, 2.5, 900, 0.02)),
    "street_pedestrian": (
        _voices(1, 2),
        Events(4, 1.9, 900, 0.025, jitter=0.05),
        Events(1, 2.1, 1100, 0.02, jitter=0.05),
    ),
    "street_traffic": (
        Noise(4, 150, 2500, wander_db=6, wander_hz=0.5),
        Noise(0, 40, 270, 2, 4),
        Events(6, 0.2, 430, 0.15, burst=2, gap_s=0.4),
    ),
}

# How far places differ: levels in dB, frequencies and times by exp(ratio * normal).
CITY_SPREAD, LOCATION_SPREAD = (1.5, 0.12), (1.5, 0.06)
COLOUR_DB = 1.2


@dataclass(frozen=True)
class Device:
    """A recorder: band limits, resonances (Hz, dB), dynamic compression, noise floor under the sound's RMS."""

    low_hz: float
    high_hz: float
    resonances: tuple[tuple[float, float], ...] = ()
    compression: float = 1.0
    noise_db: float = -45.0


# a is a studio recorder, b and c are telephones; s1 to s6 are simulated, s4 to s6 far from all others.
DEVICES: dict[str, Device] = {
    "a": Device(30, 20_000),
    "b": Device(90, 14_000, ((2800, 4),), 1.3, -32),
    "c": Device(130, 11_000, ((1500, 3), (5000, 4)), 1.5, -30),
    "s1": Device(110, 9000, ((900, 4),), 1.3, -32),
    "s2": Device(60, 12_000, ((3600, 5),), 1.6, -35),
    "s3": Device(150, 8000, ((600, 3), (2200, 4)), 1.4, -28),
    "s4": Device(400, 5000, ((1300, 10),), 2.5, -20),
    "s5": Device(250, 7000, ((2500, 12), (700, -6)), 3.0, -18),
    "s6": Device(60, 3200, ((480, 9), (1700, -6)), 2.0, -22),
}


def vary_place(place: Place, rng: np.random.Generator, spread: tuple[float, float]) -> Place:
    """A place of the same kind: levels move by decibels, frequencies and times by ratios."""
    varied = []
    for sound in place:
        changes: dict[str, Any] = {"level_db": sound.level_db + spread[0] * rng.standard_normal()}
        for name in (field.name for field in fields(sound) if field.name.endswith(("_hz", "_s"))):
            changes[name] = getattr(sound, name) * float(np.exp(spread[1] * rng.standard_normal()))
        varied.append(replace(sound, **changes))
    return tuple(varied)


def sound_of(place: Place, take: Take) -> Spectrum:
    """The sound at `place`, before any device, over a background that falls with frequency."""
    slope = (-3.5 + take.rng.standard_normal()) / 6
    waveform: Waveform = fft.irfft(take.noise(np.maximum(take.hz / 1000, 0.03) ** np.float32(slope)), take.samples)
    for sound in place:
        waveform += sound(take)
    spectrum: Spectrum = fft.rfft(waveform)
    return spectrum


def colour(take: Take) -> Waveform:
    """A smooth random magnitude response, (samples // 2 + 1,): distance, walls, ground."""
    octaves = np.log2(take.hz / 31.25)
    gains_db = np.interp(octaves, np.arange(11), COLOUR_DB * take.rng.standard_normal(11))
    response: Waveform = from_db(gains_db).astype(np.float32)
    return response


def through_device(sound: Spectrum, device: Device, take: Take) -> Waveform:
    """Record a sound, given by its spectrum (samples // 2 + 1,): (samples,).

    The noise is of the microphone, so that it rises wherever the compressor does.
    """
    gain_db = sum(db * np.exp(-0.5 * (np.log2(take.hz / hz) / 0.4) ** 2) for hz, db in device.resonances)
    limits = 1 / np.sqrt((1 + (device.low_hz / take.hz) ** 6) * (1 + (take.hz / device.high_hz) ** 6))
    captured = sound * (limits * from_db(gain_db)).astype(np.float32)
    captured *= np.float32(take.samples / np.sqrt(2 * np.sum(np.abs(captured) ** 2, dtype=np.float64)))
    pink = np.maximum(take.hz / 1000, 0.06) ** np.float32(-0.5)
    captured += np.float32(from_db(device.noise_db)) * take.noise(pink)
    recorded: Waveform = fft.irfft(captured, take.samples)
    # The level's changes, in dB, are divided by the ratio within 30 ms.
    level = uniform_filter1d(recorded**2, int(0.03 * take.sample_rate), mode="nearest")
    compressed: Waveform = recorded * np.maximum(level, 1e-6) ** np.float32((1 / device.compression - 1) / 2)
    return compressed


def from_db(level_db: Any) -> Any:
    """Decibels to an amplitude ratio."""
    return 10 ** (np.asarray(level_db) / 20)
