"""Synthetic scenes and devices: the sounds of a scene, how places differ, what a device does to a sound.

Scenes come in groups whose mean spectra overlap (halls full of voices, vehicles, streets and parks); what
distinguishes them is mostly when things happen: rates, bursts, beats.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from tinyscene.audio import Waveform
from tinyscene.data.synthetic_signals import (
    CONTROL_RATE_HZ,
    Spectrum,
    Take,
    from_db,
    noise_spectrum,
    octaves,
    shaped_noise,
    stretch,
)
from tinyscene.data.synthetic_sounds import Chirps, Hum, Noise, Sound, Strikes, Voices, vary

Place = tuple[Sound, ...]

# fmt: off
SCENES: dict[str, Place] = {
    "airport": (
        Voices(-2, pitch_hz=150, syllable_hz=3.5, talkers=8),
        Strikes(2, rate_hz=17, jitter=0.15, burst=1, gap_s=0, pitch_hz=900, decay_s=0.010),  # trolley over joints
        Strikes(8, rate_hz=0.3, jitter=0.5, burst=3, gap_s=0.35, pitch_hz=620, decay_s=0.4, partials=(1, 2, 3)),
    ),
    "shopping_mall": (
        Voices(-2, pitch_hz=165, syllable_hz=3.5, talkers=8),
        Strikes(4, rate_hz=2.1, jitter=0, burst=2, gap_s=0.12, pitch_hz=520, decay_s=0.12, partials=(1, 1.5, 2)),
        Strikes(2, rate_hz=3, jitter=1, burst=1, gap_s=0, pitch_hz=900, decay_s=0.020),
    ),
    "metro_station": (
        Voices(-2, pitch_hz=150, syllable_hz=3.5, talkers=6),
        Noise(-2, low_hz=150, high_hz=2500, wander_db=6, wander_hz=0.3),
        Chirps(6, rate_hz=0.9, jitter=0.3, burst=5, gap_s=0.11, start_hz=900, stop_hz=900, duration_s=0.06),
    ),
    "bus": (
        Hum(2, pitch_hz=28, resonance_hz=110, beat_db=5, beat_hz=11),
        Strikes(2, rate_hz=11, jitter=0.1, burst=1, gap_s=0, pitch_hz=1500, decay_s=0.012),  # rattling panes
        Voices(-6, pitch_hz=160, syllable_hz=3.5, talkers=2),
    ),
    "metro": (
        Hum(2, pitch_hz=36, resonance_hz=120, beat_db=2, beat_hz=1.5),
        Strikes(5, rate_hz=1.4, jitter=0.1, burst=2, gap_s=0.13, pitch_hz=500, decay_s=0.025),  # rail joints
        Chirps(3, rate_hz=0.4, jitter=1, burst=1, gap_s=0, start_hz=2300, stop_hz=2000, duration_s=0.6),
    ),
    "tram": (
        Hum(2, pitch_hz=45, resonance_hz=120),
        Strikes(6, rate_hz=0.9, jitter=0.3, burst=2, gap_s=0.28, pitch_hz=1100, decay_s=0.12, partials=(1, 2.4)),
        Chirps(3, rate_hz=0.7, jitter=1, burst=1, gap_s=0, start_hz=1700, stop_hz=2800, duration_s=0.5),
    ),
    "park": (
        Noise(1, low_hz=60, high_hz=500, wander_db=5, wander_hz=2),
        Chirps(5, rate_hz=1.2, jitter=0.6, burst=5, gap_s=0.1, start_hz=3000, stop_hz=4300, duration_s=0.06),
    ),
    "public_square": (
        Noise(0, low_hz=1200, high_hz=5000, beat_db=3, beat_hz=6),  # fountain
        Voices(-3, pitch_hz=180, syllable_hz=3.5, talkers=4),
        Strikes(3, rate_hz=2.5, jitter=1, burst=1, gap_s=0, pitch_hz=900, decay_s=0.020),
    ),
    "street_pedestrian": (
        Voices(1, pitch_hz=160, syllable_hz=4, talkers=2),
        Strikes(4, rate_hz=1.9, jitter=0.05, burst=1, gap_s=0, pitch_hz=900, decay_s=0.025),  # one walker
        Strikes(1, rate_hz=2.1, jitter=0.05, burst=1, gap_s=0, pitch_hz=1100, decay_s=0.020),
    ),
    "street_traffic": (
        Noise(4, low_hz=150, high_hz=2500, wander_db=6, wander_hz=0.5),
        Hum(0, pitch_hz=32, resonance_hz=115, beat_db=2, beat_hz=4),
        Chirps(6, rate_hz=0.2, jitter=1, burst=2, gap_s=0.4, start_hz=430, stop_hz=425, duration_s=0.3, harmonics=5),
    ),
}
# fmt: on

# How far places differ: levels in dB, frequencies and times by exp(ratio * normal).
CITY_SPREAD = (2.0, 0.15)
LOCATION_SPREAD = (2.0, 0.08)
COLOUR_DB = 2.0
TILT_DB_PER_OCTAVE, TILT_SPREAD = -3.5, 1.0
RESPONSE_TAPS = 2048
ROOM_DECAY_S = 0.008


@dataclass(frozen=True)
class Device:
    """A recorder: band limits, resonances (Hz, dB), room in its response, dynamic compression, noise floor."""

    low_hz: float
    high_hz: float
    resonances: tuple[tuple[float, float], ...] = ()
    room: float = 0.2
    compression: float = 1.0
    noise_db: float = -45.0  # under the sound's RMS


# a is a studio recorder, b and c are telephones; s1 to s6 are simulated, s4 to s6 far from all others.
DEVICES: dict[str, Device] = {
    "a": Device(30, 20_000),
    "b": Device(90, 14_000, ((2800, 4),), compression=1.3, noise_db=-32),
    "c": Device(130, 11_000, ((1500, 3), (5000, 4)), compression=1.5, noise_db=-30),
    "s1": Device(110, 9000, ((900, 4),), room=0.4, compression=1.3, noise_db=-32),
    "s2": Device(60, 12_000, ((3600, 5),), room=0.4, compression=1.6, noise_db=-35),
    "s3": Device(150, 8000, ((600, 3), (2200, 4)), room=0.4, compression=1.4, noise_db=-28),
    "s4": Device(400, 5000, ((1300, 10),), room=0.6, compression=2.5, noise_db=-20),
    "s5": Device(250, 7000, ((2500, 12), (700, -6)), room=0.6, compression=3.0, noise_db=-18),
    "s6": Device(60, 3200, ((480, 9), (1700, -6)), room=0.6, compression=2.0, noise_db=-22),
}


def vary_place(place: Place, rng: np.random.Generator, spread: tuple[float, float]) -> Place:
    """A place of the same kind: each of its sounds a little different."""
    return tuple(vary(sound, rng, *spread) for sound in place)


def sound_of(place: Place, take: Take) -> Waveform:
    """The sound at `place`, before any device; shape (samples,)."""
    slope = TILT_DB_PER_OCTAVE + TILT_SPREAD * take.rng.standard_normal()
    spectrum = shaped_noise(take, from_db(np.float32(slope) * np.maximum(octaves(take, 1000), -5)))
    for sound in place:
        spectrum += sound(take)
    return spectrum


def colour(take: Take) -> Waveform:
    """A smooth random magnitude response: distance, walls, ground. Shape (samples // 2 + 1,)."""
    knots_hz = 31.25 * 2.0 ** np.arange(11)
    gains_db = COLOUR_DB * take.rng.standard_normal(len(knots_hz))
    gain_db = np.interp(octaves(take, knots_hz[0]), np.arange(len(knots_hz)), gains_db)
    response: Waveform = from_db(gain_db.astype(np.float32))
    return response


def response_of(device: Device, take: Take) -> Spectrum:
    """Frequency response of a device's finite impulse response, shape (samples // 2 + 1,).

    Its phase is random: a direct sound, then a decaying random tail; band limits and resonances on top.
    """
    time_s = np.arange(RESPONSE_TAPS) / take.sample_rate
    impulse = device.room * take.rng.standard_normal(RESPONSE_TAPS) * np.exp(-time_s / ROOM_DECAY_S)
    impulse[0] = 5.0
    frequency_hz = np.maximum(fft.rfftfreq(RESPONSE_TAPS, 1 / take.sample_rate), 1.0)
    gain_db = np.zeros_like(frequency_hz)
    for centre_hz, peak_db in device.resonances:
        gain_db += peak_db * np.exp(-0.5 * (np.log2(frequency_hz / centre_hz) / 0.4) ** 2)
    limits = 1 / np.sqrt((1 + (device.low_hz / frequency_hz) ** 6) * (1 + (frequency_hz / device.high_hz) ** 6))
    taps = fft.irfft(fft.rfft(impulse) * limits * from_db(gain_db), RESPONSE_TAPS)
    response: Spectrum = fft.rfft(taps.astype(np.float32), take.samples)
    return response


def through_device(spectrum: Spectrum, response: Spectrum, device: Device, take: Take) -> Waveform:
    """Record a sound, given by its spectrum of shape (samples // 2 + 1,); shape (samples,).

    The noise is the microphone's, so that it rises with the compressor's gain.
    """
    captured = spectrum * response
    rms = np.sqrt(2 * np.sum(captured.real**2 + captured.imag**2, dtype=np.float64)) / take.samples
    captured *= np.float32(1 / rms)
    pink = np.exp2(np.maximum(octaves(take, 1000), -4) * np.float32(-0.5))
    captured += np.float32(from_db(device.noise_db)) * noise_spectrum(take, pink)
    recorded: Waveform = fft.irfft(captured, take.samples)
    if device.compression != 1:
        recorded *= compression_gain(recorded, device.compression, take)
    return recorded


def compression_gain(waveform: Waveform, ratio: float, take: Take) -> Waveform:
    """Gain that divides level changes, in dB, by `ratio`; it reacts within 30 ms; shape (samples,)."""
    edges = np.arange(int(take.duration_s * CONTROL_RATE_HZ)) * take.sample_rate // CONTROL_RATE_HZ
    power = np.add.reduceat(waveform**2, edges) / np.diff(edges, append=take.samples)
    decay = np.exp(-np.arange(30) / (0.030 * CONTROL_RATE_HZ))
    before = np.full(len(decay) - 1, power.mean())
    smooth = np.convolve(np.concatenate((before, power)), decay / decay.sum(), mode="valid")
    gain = np.maximum(smooth, 1e-6) ** ((1 / ratio - 1) / 2)
    return stretch(take, np.pad(gain, (0, 3), mode="edge"))
