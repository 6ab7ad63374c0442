"""Gammatone-like spectrogram: bins of a Fourier transform weighted by gammatone filters."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from tinyscene.errors import InputError
from tinyscene.features.spectrogram import BandSpectrogram

Floats = npt.NDArray[np.float64]

# Glasberg and Moore (1990): ERB = 24.7 + f / 9.26449, in Hz.
_EAR_Q, _LEAST_ERB_HZ = 9.26449, 24.7
_ORDER, _BANDWIDTH = 4, 1.019
_DB_OF_MAGNITUDE = 20 / np.log(10)


class Gammatone(BandSpectrogram):
    """The fast gammatonegram of Ellis (2009): magnitudes of a Fourier transform, weighted by gammatone filters.

    A band sums the magnitudes of all bins, divided by `n_fft`, each times the filter's gain there; the levels are in
    decibels, 20 log10(sum + floor). Centre frequencies are equally spaced on the ERB scale, `f_min_hz` the lowest and
    one step under `f_max_hz` the highest. A tone at a band's centre is highest in that band wherever the window
    resolves neighbours: in all but the two lowest of the report's 128.

    Pham et al. (DCASE 2020 Task 1b, table 1) have a window of 2048, a hop of 1024, an FFT of 4096 points, 128 bands and
    a lowest frequency of 10 Hz. Their table 2 prints 428 frames for 10 s. At 48 kHz, centred frames are 469 (and 467
    where none reaches over an end; 429 to 431 at 44.1 kHz), so that the origin of 428 is unknown. Here
    `frames_per_s=42.8` cuts off the last frames: 428 of 10 s, its first 9.1 s, and in proportion of a
    clip of any other length.

    Args:
        sample_rate: of the waveforms, in Hz.
        n_fft: points of the Fourier transform.
        bands: number of filters.
        win_length: of the periodic Hann window, in samples; `n_fft` where None.
        hop_length: in samples.
        f_min_hz, f_max_hz: range of the centre frequencies; half the sample rate where None.
        log: "db", or None for magnitudes.
        floor: added before the logarithm; a full-scale tone has about 0.1 in its band.
        frames_per_s: the most frames a second, at least one frame; all where None.
        channel: the channel of a recording to use, counted from 0; the mean of all where None.

    Raises:
        InputError: a setting outside these.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        bands: int,
        *,
        hop_length: int,
        win_length: int | None = None,
        f_min_hz: float = 50.0,
        f_max_hz: float | None = None,
        log: Literal["db"] | None = "db",
        floor: float = 1e-6,
        frames_per_s: float | None = None,
        channel: int | None = None,
    ) -> None:
        if log not in ("db", None):
            raise InputError(f"Gammatone(log={log!r}); accepted: 'db', None")
        if frames_per_s is not None and not 0 < frames_per_s < math.inf:
            raise InputError(
                f"Gammatone(frames_per_s={frames_per_s}); accepted: above 0 and finite, or None for all frames"
            )
        if channel is not None and channel < 0:
            raise InputError(f"Gammatone(channel={channel}); accepted: at least 0, or None for the mean of all")
        super().__init__(
            sample_rate,
            n_fft,
            bands,
            win_length=win_length,
            hop_length=hop_length,
            window="hann",
            power=1,
            log_factor=_DB_OF_MAGNITUDE if log else None,
            floor=floor,
            center=True,
        )
        self.frames_per_s, self.channel = frames_per_s, channel
        highest = sample_rate / 2 if f_max_hz is None else f_max_hz
        if highest > sample_rate / 2:
            raise InputError(f"Gammatone(f_max_hz={f_max_hz}); accepted: at most {sample_rate / 2} Hz")
        centres = erb_centres(bands, f_min_hz, highest)
        hz: Floats = np.fft.rfftfreq(n_fft, 1 / sample_rate).astype(np.float64)
        self.weigh(np.stack([gammatone_gain(hz, centre, sample_rate) for centre in centres]) / n_fft)

    def frames(self, samples: int) -> int:
        """Frames of a waveform of that many samples."""
        whole = super().frames(samples)
        if self.frames_per_s is None:
            return whole
        return min(whole, max(1, round(self.frames_per_s * samples / self.sample_rate)))


def erb_centres(bands: int, f_min_hz: float, f_max_hz: float) -> Floats:
    """Centre frequencies in Hz, rising, equally spaced on the ERB scale (Slaney 1993, ERBSpace): (bands,)

    Raises:
        InputError: no band, or an empty range.
    """
    if bands < 1:
        raise InputError(f"bands={bands}; accepted: at least 1")
    if not 0 < f_min_hz < f_max_hz:
        raise InputError(f"bands from {f_min_hz} to {f_max_hz} Hz; accepted: above 0 Hz, the lower edge first")
    shift = _EAR_Q * _LEAST_ERB_HZ
    lowest, highest = np.log(f_min_hz + shift), np.log(f_max_hz + shift)
    centres: Floats = np.exp(np.linspace(lowest, highest, bands, endpoint=False)) - shift
    return centres


def gammatone_gain(hz: Floats, centre_hz: float, sample_rate: int) -> Floats:
    """Magnitude response of a gammatone filter of order 4, one at its centre: (frequencies,) -> (frequencies,)

    Slaney's digital filter (Apple technical report 35, 1993): a pair of poles, four times, and four real zeros.
    """
    erb_hz = _LEAST_ERB_HZ + centre_hz / _EAR_Q
    radius = np.exp(-2 * np.pi * _BANDWIDTH * erb_hz / sample_rate)
    angle = 2 * np.pi * centre_hz / sample_rate
    pole = radius * np.exp(1j * angle)
    offsets = np.sqrt([3 + 2**1.5, 3 - 2**1.5]) * np.sin(angle)
    zeros = radius * (np.cos(angle) + np.concatenate([offsets, -offsets]))

    def response(z: npt.NDArray[np.complex128]) -> Floats:
        poles = np.abs((z - pole) * (z - pole.conj())) ** _ORDER
        return np.asarray(np.abs(z[:, None] - zeros).prod(1) / poles)

    gain: Floats = response(np.exp(2j * np.pi * hz / sample_rate)) / response(np.exp([1j * angle]))
    return gain
