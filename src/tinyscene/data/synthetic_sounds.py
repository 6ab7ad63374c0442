"""The sounds that synthetic scenes are made of: noise, voices, hum, strikes and chirps, each a stochastic process.

A sound is a frozen value; called with a `Take` it gives one realisation. `level_db` is its level while it sounds,
over the background, which has an RMS of 1 (0 dB).
"""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tinyscene.audio import Waveform
from tinyscene.data.synthetic_signals import (
    Floats,
    Take,
    add,
    at_level,
    filtered,
    from_db,
    octaves,
    phase,
    pulses,
    resonances,
    shaped_noise,
    stretch,
    wander,
)

Pair = tuple[float, float]

# Vowels [a, i, u, e]: the first two formants in Hz (after Peterson and Barney, 1952), and a third common to all.
VOWELS: tuple[Pair, ...] = ((730, 1090), (270, 2290), (300, 870), (530, 1840))
THIRD_FORMANT_HZ = 2600.0


@dataclass(frozen=True)
class Sound:
    """The base class of sounds. Subclasses return a waveform of shape (samples,)."""

    level_db: float

    def __call__(self, take: Take) -> Waveform:
        raise NotImplementedError


S = TypeVar("S", bound=Sound)


def vary(sound: S, rng: np.random.Generator, spread_db: float, spread_ratio: float) -> S:
    """The same kind of sound, slightly varied: levels by decibels, frequencies and times by ratios."""
    changes: dict[str, Any] = {}
    for field in fields(sound):
        value = getattr(sound, field.name)
        if field.name.endswith("_db"):
            # A depth of 0 dB means no such modulation.
            varies = field.name == "level_db" or value != 0
            changes[field.name] = value + spread_db * varies * rng.standard_normal()
        elif field.name.endswith(("_hz", "_s")):
            changes[field.name] = value * float(np.exp(spread_ratio * rng.standard_normal()))
    return replace(sound, **changes)


@dataclass(frozen=True)
class Noise(Sound):
    """A band of noise; its level wanders at random (`wander_*`) and beats regularly (`beat_*`)."""

    low_hz: float
    high_hz: float
    wander_db: float = 0.0
    wander_hz: float = 1.0
    beat_db: float = 0.0
    beat_hz: float = 1.0

    def __call__(self, take: Take) -> Waveform:
        """(samples,), RMS set by `level_db`, Gaussian."""
        # Second-order slopes on both sides, so that bands overlap.
        low, high = (octaves(take, edge_hz) for edge_hz in (self.low_hz, self.high_hz))
        noise = shaped_noise(take, 1 / np.sqrt((1 + np.exp2(-4 * low)) * (1 + np.exp2(4 * high))))
        envelope_db = self.wander_db * wander(take, self.wander_hz)
        envelope_db += self.beat_db * np.sin(phase(take, self.beat_hz))
        noise *= stretch(take, from_db(self.level_db + envelope_db))
        return noise


@dataclass(frozen=True)
class Voices(Sound):
    """Talkers: glottal pulses through formants, in syllables. Many together blur each one's rhythm."""

    pitch_hz: float
    syllable_hz: float
    talkers: int

    def __call__(self, take: Take) -> Waveform:
        """(samples,)"""
        vowels = take.rng.permutation(len(VOWELS))[:2]
        trains = np.zeros((2, take.samples), np.float32)
        for _ in range(self.talkers):
            times_s, amplitudes, vowel = self._talker(take)
            for index in (0, 1):
                trains[index] += pulses(take, times_s, amplitudes * (vowel == index))
        voices = np.zeros(take.samples, np.float32)
        for train, vowel in zip(trains, vowels, strict=True):
            response = resonances(take.sample_rate, (*VOWELS[vowel], THIRD_FORMANT_HZ), decay_s=0.004)
            voices += filtered(train, response)
        return at_level(voices, self.level_db, quantile=0.0)

    def _talker(self, take: Take) -> tuple[Floats, Floats, npt.NDArray[np.intp]]:
        """Times (s), amplitudes and vowels (0 or 1) of one talker's glottal pulses, each of shape (pulses,)."""
        pitch_hz = self.pitch_hz * np.exp(0.25 * take.rng.standard_normal())
        count = int(take.duration_s * pitch_hz)
        times_s = np.cumsum(1 + 0.02 * take.rng.standard_normal(count)) / pitch_hz
        cycles = 1.3 * self.syllable_hz * times_s + np.interp(times_s, *self._drift(take))
        syllable = cycles.astype(np.intp)
        spoken = take.rng.random(syllable.max() + 1) < 0.75
        vowel = take.rng.integers(0, 2, syllable.max() + 1)
        loudness = np.exp(0.5 * take.rng.standard_normal())
        amplitudes = loudness * spoken[syllable] * np.sin(np.pi * (cycles - syllable)) ** 2
        return times_s, amplitudes, vowel[syllable]

    def _drift(self, take: Take) -> tuple[Floats, Floats]:
        """A random start and an uneven pace, in syllables, at 2 knots a second."""
        knots_s = np.arange(0, take.duration_s + 1, 0.5)
        return knots_s, 2 + take.rng.random() + 0.3 * take.rng.standard_normal(len(knots_s))


@dataclass(frozen=True)
class Hum(Sound):
    """An engine or a motor: pulses at a wandering pitch through broad resonances; loudness beats."""

    pitch_hz: float
    resonance_hz: float
    beat_db: float = 0.0
    beat_hz: float = 1.0

    def __call__(self, take: Take) -> Waveform:
        """(samples,)"""
        count = int(take.duration_s * self.pitch_hz)
        times_s = np.cumsum(1 + 0.01 * take.rng.standard_normal(count)) / self.pitch_hz
        beat = self.beat_db * np.sin(2 * np.pi * (self.beat_hz * times_s + take.rng.random()))
        response = resonances(take.sample_rate, (self.resonance_hz, 2.3 * self.resonance_hz), decay_s=0.02)
        train = pulses(take, times_s, from_db(beat))
        return at_level(filtered(train, response), self.level_db, quantile=0.0)


@dataclass(frozen=True)
class Events(Sound):
    """Something that happens `rate_hz` times a second, each time as a burst of `burst` sounds, `gap_s` apart.

    `jitter` 0 is a clock, 1 a Poisson process.
    """

    rate_hz: float
    jitter: float
    burst: int
    gap_s: float

    def __call__(self, take: Take) -> Waveform:
        """(samples,)"""
        waveforms = [at_level(self.one(take), self.level_db, quantile=0.5) for _ in range(3)]
        scene = np.zeros(take.samples, np.float32)
        for start_s in self._starts_s(take):
            gain = np.float32(from_db(2.0 * take.rng.standard_normal()))
            add(scene, round(start_s * take.sample_rate), gain * waveforms[take.rng.integers(3)])
        return scene

    def one(self, take: Take) -> Waveform:
        """One sound of the burst, of its own length."""
        raise NotImplementedError

    def _starts_s(self, take: Take) -> Floats:
        """(bursts * burst,) in seconds"""
        count = int(2 * take.duration_s * self.rate_hz) + 8
        gaps = 1 - self.jitter + self.jitter * take.rng.standard_exponential(count)
        bursts_s = (np.cumsum(gaps) - gaps[0] * take.rng.random()) / self.rate_hz
        starts_s: Floats = (bursts_s[:, None] + self.gap_s * np.arange(self.burst)).ravel()
        return starts_s[starts_s < take.duration_s]


@dataclass(frozen=True)
class Strikes(Events):
    """Struck bodies: decaying partials, harmonic ratios for bells and gongs, random ones for steps and joints."""

    pitch_hz: float
    decay_s: float
    partials: tuple[float, ...] = ()

    def one(self, take: Take) -> Waveform:
        """(4 decay_s * sample_rate,)"""
        ratios = np.array(self.partials or np.exp(take.rng.uniform(-0.9, 0.9, 24)))
        time_s = np.arange(int(4 * self.decay_s * take.sample_rate)) / take.sample_rate
        start = 2 * np.pi * take.rng.random((len(ratios), 1))
        waves = np.sin((2 * np.pi * self.pitch_hz * ratios[:, None] * time_s + start).astype(np.float32))
        waves /= np.sqrt(1 + np.arange(len(ratios), dtype=np.float32))[:, None]
        struck: Waveform = waves.sum(0) * np.exp(-time_s / self.decay_s).astype(np.float32)
        return struck


@dataclass(frozen=True)
class Chirps(Events):
    """Glides from one pitch to another: birds, squeals, beeps, horns."""

    start_hz: float
    stop_hz: float
    duration_s: float
    harmonics: int = 1

    def one(self, take: Take) -> Waveform:
        """(duration_s * sample_rate,)"""
        count = int(self.duration_s * take.sample_rate)
        shift = np.exp(0.08 * take.rng.standard_normal())
        pitch_hz = shift * np.geomspace(self.start_hz, self.stop_hz, count)
        cycles = np.cumsum(pitch_hz) / take.sample_rate
        waves = [np.sin(2 * np.pi * order * cycles) / order for order in range(1, self.harmonics + 1)]
        fade = np.sin(0.5 * np.pi * np.clip(5 - 5 * np.abs(np.linspace(-1, 1, count)), 0, 1)) ** 2
        glide: Waveform = (np.sum(waves, 0) * fade).astype(np.float32)
        return glide
