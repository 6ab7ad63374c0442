"""Front ends beside librosa, torch.stft and the bare Fourier transform: python benchmarks/frontends.py

Writes results/speed-frontends.csv. Ratios are the peer's time over ours: above 1 is faster than the peer. The last one
is our time over that of `torch.fft.rfft` of the same frames, which neither windows, weighs nor takes logarithms.
"""

from collections.abc import Callable

from turns import in_turns, keep  # isort: skip; tinyscene before torch, whose threads then wait as in a command

import librosa
import numpy as np
import scipy.fft
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from tinyscene import Gammatone, LogMel
from tinyscene.features.spectrogram import BandSpectrogram

SETTINGS: dict[str, Callable[[], BandSpectrogram]] = {
    "log-mel, 44.1 kHz, 2048 points, hop 882, 40 bands": lambda: LogMel(
        44_100, 2048, 40, window_s=0.04, hop_s=0.02, window="hamming", log="db"
    ),
    "log-mel, 44.1 kHz, 2048 points, hop 1024, 128 bands": lambda: LogMel(44_100, 2048, 128, hop_length=1024, log="db"),
    "log-mel, 32 kHz, 4096 points, hop 500, 256 bands": lambda: LogMel(
        32_000, 4096, 256, win_length=3072, hop_length=500, log="db"
    ),
    "gammatone, 44.1 kHz, 4096 points, hop 1024, 128 bands": lambda: Gammatone(
        44_100, 4096, 128, win_length=2048, hop_length=1024, f_min_hz=10.0
    ),
}
# (clips, seconds)
BATCHES = ((1, 10.0), (1, 1.0), (64, 1.0), (16, 10.0))


def by_librosa(frontend: BandSpectrogram, waveform: np.ndarray) -> np.ndarray:
    """Levels of one clip as its users compute them; for gammatone bands, its transform and our weights."""
    frames = {"n_fft": frontend.n_fft, "hop_length": frontend.hop_length, "win_length": frontend.win_length}
    frames["window"] = "hamming" if float(frontend.window[0]) > 0.01 else "hann"
    if isinstance(frontend, LogMel):
        bands = {"sr": frontend.sample_rate, "n_mels": frontend.bands, "pad_mode": "constant"}
        return librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, **frames, **bands), top_db=None)
    magnitudes = np.abs(librosa.stft(waveform, **frames, pad_mode="constant"))
    return librosa.amplitude_to_db(frontend.weights.numpy() @ magnitudes, top_db=None)


def sums_by_stft(frontend: BandSpectrogram, waveforms: Tensor) -> Tensor:
    """(..., samples) -> (..., bands, frames), by `torch.stft` and a dense product."""
    stft = torch.stft(
        waveforms,
        frontend.n_fft,
        frontend.hop_length,
        frontend.win_length,
        frontend.window,
        pad_mode="constant",
        return_complex=True,
    )
    return frontend.weights @ (stft.real**2 + stft.imag**2 if frontend.power == 2 else stft.abs())


def by_stft(frontend: BandSpectrogram, waveforms: Tensor) -> list[Tensor]:
    """Levels clip by clip."""
    return [frontend.levels(sums_by_stft(frontend, waveform)) for waveform in waveforms]


def row(setting: str, clips: int, clip_s: float, threads: int) -> dict[str, str]:
    """One row of the table."""
    frontend = SETTINGS[setting]()
    samples = round(clip_s * frontend.sample_rate)
    waveforms = torch.from_numpy(np.random.default_rng(0).standard_normal((clips, samples), np.float32) * 0.1)
    padded = torch.nn.functional.pad(waveforms, (frontend.n_fft // 2,) * 2)
    frames = padded.unfold(1, frontend.n_fft, frontend.hop_length)
    torch.set_num_threads(threads)
    ways = {
        "ours": lambda: frontend(waveforms),
        "librosa": lambda: [by_librosa(frontend, waveform) for waveform in waveforms.numpy()],
        "torch.stft": lambda: by_stft(frontend, waveforms),
        "bare": lambda: torch.fft.rfft(frames),
    }
    with torch.inference_mode(), threadpool_limits(threads, "blas"), scipy.fft.set_workers(threads):
        difference = (frontend(waveforms)[0, 0] - by_stft(frontend, waveforms[:1])[0]).abs().max()
        found = in_turns(ways)
    return {
        "front_end": setting,
        "clips": str(clips),
        "clip_s": f"{clip_s:g}",
        "threads": str(threads),
        "ms_a_clip": f"{1000 * found['ours'] / clips:.3f}",
        "librosa_over_ours": f"{found['librosa'] / found['ours']:.2f}",
        "torch_stft_over_ours": f"{found['torch.stft'] / found['ours']:.2f}",
        "ours_over_bare_rfft": f"{found['ours'] / found['bare']:.2f}",
        "largest_difference": f"{difference:.1e}",
    }


def main() -> None:
    """Measure, print and write all rows."""
    rows = [row(setting, *batch, threads) for threads in (1, 2) for setting in SETTINGS for batch in BATCHES]
    keep("frontends", "python benchmarks/frontends.py", rows)


if __name__ == "__main__":
    main()
