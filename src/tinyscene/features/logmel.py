"""Log-mel spectrogram."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tinyscene.errors import InputError
from tinyscene.features.spectrogram import BandSpectrogram, check_kept

LOGS = {"db": 10 / np.log(10), "log10": 1 / np.log(10), "ln": 1.0}


class LogMel(BandSpectrogram):
    """Short-time Fourier transform, mel bands, logarithm; agrees with `librosa.feature.melspectrogram`.

    Args:
        sample_rate: of the waveforms, in Hz.
        n_fft: points of the Fourier transform.
        n_mels: mel bands.
        window_s, hop_s: window and hop in seconds, or
        win_length, hop_length: the same in samples. The window is `n_fft` long where neither is given.
        window: "hann" or "hamming", periodic (the "asymmetric" windows of DCASE baselines).
        mel: of `MEL_SCALES`: "slaney" (linear to 1 kHz, bands of equal area) or "htk" (bands of equal height).
        f_min_hz, f_max_hz: edges of the lowest and highest band; half the sample rate where None.
        power: 2 for energies, 1 for magnitudes.
        log: "ln", "log10", "db" (10 log10), or None for none.
        floor: added before the logarithm.
        center: frames centred on multiples of the hop, the ends padded with zeros.
        drop_last_frame: leave out the frame that centring adds: 500 frames instead of 501 for 10 s.
        subtract_mean: each band's mean over the frames subtracted; with a logarithm, a gain changes nothing then.
        kept: bands of the `n_mels` to compute, counted from 0, rising; all where None.

    Warns where bands are so narrow that no bin of the transform lies in them, as librosa does.

    Raises:
        InputError: a setting outside these.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        n_mels: int,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        win_length: int | None = None,
        hop_length: int | None = None,
        window: Literal["hann", "hamming"] = "hann",
        mel: str = "slaney",
        f_min_hz: float = 0.0,
        f_max_hz: float | None = None,
        power: Literal[1, 2] = 2,
        log: Literal["db", "log10", "ln"] | None = "ln",
        floor: float = 1e-10,
        center: bool = True,
        drop_last_frame: bool = False,
        subtract_mean: bool = False,
        kept: Sequence[int] | None = None,
    ) -> None:
        kept = None if kept is None else tuple(kept)
        if log not in (*LOGS, None):
            raise InputError(f"LogMel(log={log!r}); accepted: {', '.join(map(repr, (*LOGS, None)))}")
        if n_mels < 1:
            raise InputError(f"LogMel(n_mels={n_mels}); accepted: at least 1")
        if kept is not None:
            check_kept(kept, n_mels)
        whole = win_length is None and window_s is None
        super().__init__(
            sample_rate,
            n_fft,
            n_mels if kept is None else len(kept),
            win_length=None if whole else _samples("win", win_length, window_s, sample_rate),
            hop_length=_samples("hop", hop_length, hop_s, sample_rate),
            window=window,
            power=power,
            log_factor=LOGS[log] if log else None,
            floor=floor,
            center=center,
        )
        self.drop_last_frame, self.subtract_mean = drop_last_frame, subtract_mean
        if drop_last_frame:
            self.shortest_samples = max(1, n_fft + self.hop_length - self._padding)
        if subtract_mean:
            self.reach_samples = None
        highest = sample_rate / 2 if f_max_hz is None else f_max_hz
        matrix = mel_matrix(sample_rate, n_fft, n_mels, f_min_hz, highest, mel)
        self.weigh(matrix if kept is None else matrix[list(kept)])
        if empty := [band for band in kept or range(n_mels) if not matrix[band].any()]:
            warnings.warn(
                f"LogMel({sample_rate}, {n_fft}, {n_mels}): no bin of the transform lies in the bands "
                f"{', '.join(map(str, empty))}, which are constant; try a larger n_fft or fewer n_mels",
                stacklevel=3,  # past `record_arguments`
            )

    def frames(self, samples: int) -> int:
        """Frames of a waveform of that many samples."""
        return super().frames(samples) - int(self.drop_last_frame)

    def levels(self, sums: Tensor) -> Tensor:
        """Weighted sums (batch, n_mels, frames) -> the same shape, on a logarithmic scale"""
        scaled = super().levels(sums)
        return scaled - scaled.mean(-1, keepdim=True) if self.subtract_mean else scaled


def mel_matrix(
    sample_rate: int, n_fft: int, n_mels: int, f_min_hz: float, f_max_hz: float, mel: str
) -> npt.NDArray[np.float64]:
    """Triangular mel bands over the bins of a Fourier transform, shape (n_mels, n_fft // 2 + 1).

    "slaney" is the scale and area normalisation of Slaney's Auditory Toolbox (1998), "htk" the scale of the HTK book
    (O'Shaughnessy 1987) with unit height.
    """
    if mel not in MEL_SCALES:
        raise InputError(f"mel={mel!r}; accepted: {', '.join(map(repr, MEL_SCALES))}")
    if not 0 <= f_min_hz < f_max_hz <= sample_rate / 2:
        raise InputError(
            f"bands from {f_min_hz} to {f_max_hz} Hz; accepted: inside 0 ... {sample_rate / 2} Hz, the lower edge first"
        )
    to_mel, to_hz, equal_area = MEL_SCALES[mel]
    edges = np.linspace(to_mel(np.array(f_min_hz)), to_mel(np.array(f_max_hz)), n_mels + 2)
    hz = to_hz(edges)
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    rising = (bins - hz[:-2, None]) / (hz[1:-1] - hz[:-2])[:, None]
    falling = (hz[2:, None] - bins) / (hz[2:] - hz[1:-1])[:, None]
    bands: npt.NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return bands * (2 / (hz[2:] - hz[:-2]))[:, None] if equal_area else bands


_KNEE_HZ, _HZ_A_MEL, _LOG_STEP = 1000.0, 200 / 3, np.log(6.4) / 27
Floats = npt.NDArray[np.float64]


def _hz_to_slaney(hz: Floats) -> Floats:
    logarithmic = _KNEE_HZ / _HZ_A_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _HZ_A_MEL, logarithmic)


def _slaney_to_hz(mel: Floats) -> Floats:
    knee = _KNEE_HZ / _HZ_A_MEL
    return np.where(mel < knee, mel * _HZ_A_MEL, _KNEE_HZ * np.exp(_LOG_STEP * (mel - knee)))


def _hz_to_htk(hz: Floats) -> Floats:
    return np.asarray(2595.0 * np.log10(1 + hz / 700))


def _htk_to_hz(mel: Floats) -> Floats:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


MEL_SCALES: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats], bool]] = {
    "slaney": (_hz_to_slaney, _slaney_to_hz, True),
    "htk": (_hz_to_htk, _htk_to_hz, False),
}
"""From Hz, to Hz, and whether bands have equal area (or else equal height)."""


def _samples(name: str, length: int | None, seconds: float | None, sample_rate: int) -> int:
    """One length in samples from either way to give it."""
    long = "window_s" if name == "win" else "hop_s"
    if length is not None and seconds is not None:
        raise InputError(f"LogMel({long}={seconds}, {name}_length={length}); accepted: one of the two")
    chosen = round(seconds * sample_rate) if seconds is not None else length
    if chosen is None or chosen < 1:
        raise InputError(
            f"LogMel({long}={seconds}, {name}_length={length}); accepted: one of them, at least one sample"
        )
    return chosen
