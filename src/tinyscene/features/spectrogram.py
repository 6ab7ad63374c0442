"""Bands of a short-time Fourier transform, shared by the front ends that weight its bins."""

import itertools
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from tinyscene.errors import InputError
from tinyscene.features.front_end import FrontEnd
from tinyscene.threads import by_threads

WINDOWS = {"hann": torch.hann_window, "hamming": torch.hamming_window}
# Points of the transform times bands; no sensible mel matrix is larger.
_MOST_WEIGHTS = 1 << 26
# Frames times points of the transform: what a step computes stays in the processor's cache.
_POINTS_A_STEP = 5 << 16


def check_kept(kept: Sequence[int], bands: int) -> None:
    """Raise InputError unless `kept` are some of `bands` bands, rising."""
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= bands:
        raise InputError(
            f"bands {tuple(kept)} of {bands}; accepted: at least one of 0 to {bands - 1}, rising, each once"
        )


def require_batch(waveforms: Tensor) -> None:
    """Raise InputError unless waveforms are (batch, samples)."""
    if waveforms.ndim != 2:
        raise InputError(f"waveforms of shape {tuple(waveforms.shape)}; accepted: (batch, samples)")


class BandSpectrogram(FrontEnd):
    """Weighted sums over the bins of a Fourier transform, and their logarithm.

    A front end derives from it and gives it `weights`, (bands, n_fft // 2 + 1).

    Args:
        sample_rate: of the waveforms, in Hz.
        n_fft: points of the Fourier transform.
        bands: number of them.
        win_length, hop_length: in samples; the window is `n_fft` long where None.
        window: "hann" or "hamming", periodic.
        power: 2 sums energies, 1 magnitudes.
        log_factor: multiplies the natural logarithm; None for no logarithm.
        floor: added before the logarithm.
        center: frames centred on multiples of the hop, the ends padded with zeros.

    Raises:
        InputError: a setting outside these.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        bands: int,
        *,
        win_length: int | None,
        hop_length: int,
        window: str,
        power: int,
        log_factor: float | None,
        floor: float,
        center: bool,
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_fft, self.bands = sample_rate, n_fft, bands
        self.win_length, self.hop_length = n_fft if win_length is None else win_length, hop_length
        self.power, self.log_factor, self.floor, self.center = power, log_factor, floor, center
        name = type(self).__name__
        for setting, value, accepted in (("window", window, tuple(WINDOWS)), ("power", power, (1, 2))):
            if value not in accepted:
                raise InputError(f"{name}({setting}={value!r}); accepted: {', '.join(map(repr, accepted))}")
        sizes = (("sample_rate", sample_rate), ("n_fft", n_fft), ("hop_length", hop_length), ("bands", bands))
        for setting, number in sizes:
            if not isinstance(number, int | np.integer) or number < 1:
                raise InputError(f"{name}({setting}={number}); accepted: a whole number, at least 1")
        if n_fft * bands > _MOST_WEIGHTS:
            raise InputError(
                f"{name}: {bands} bands over n_fft={n_fft} points; accepted: at most {_MOST_WEIGHTS:,} of both together"
            )
        if log_factor and not floor > 0:
            raise InputError(f"{name}(floor={floor}); accepted: above 0, so that silence has a logarithm")
        if not 1 <= self.win_length <= n_fft:
            raise InputError(f"{name}: a window of {self.win_length} samples; accepted: 1 to n_fft={n_fft}")
        self.shortest_samples, self.reach_samples = max(1, n_fft - self._padding), n_fft
        self.window: Tensor
        self.weights: Tensor
        self.register_buffer("window", WINDOWS[window](self.win_length, periodic=True), persistent=False)

    def weigh(self, weights: npt.NDArray[np.float64]) -> None:
        """Set the weight of every bin in every band, (bands, n_fft // 2 + 1)."""
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)

    def frames(self, samples: int) -> int:
        """Frames of a waveform of that many samples."""
        return 1 + (samples + self._padding - self.n_fft) // self.hop_length

    @property
    def lead(self) -> int:
        """Samples by which the first frame's window precedes the waveform; negative where it begins within it."""
        # A window shorter than the transform is centred in it.
        return (self.n_fft // 2 if self.center else 0) - (self.n_fft - self.win_length) // 2

    @property
    def _padding(self) -> int:
        """Zeros that centring adds, at both ends together: one less than `n_fft` where that is odd."""
        return 2 * (self.n_fft // 2) if self.center else 0

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 1, bands, frames)"""
        require_batch(waveforms)
        return self.levels(self.sums(waveforms)).unsqueeze(1)

    def sums(self, waveforms: Tensor, frames: int | None = None) -> Tensor:
        """(batch, samples) -> (batch, bands, frames), weighted sums over the bins, not yet on the front end's scale

        Of the first `frames` frames; where None, of those that the front end keeps of a clip.
        """
        frames = self.frames(waveforms.shape[-1]) if frames is None else frames
        if frames > 0 and waveforms.shape[0] > 0 and self._unobserved(waveforms):
            return self._in_cache(waveforms, frames)
        stft = torch.stft(
            waveforms,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window,
            center=self.center,
            pad_mode="constant",
            return_complex=True,
        )[..., :frames]
        return self.weights @ (stft.real**2 + stft.imag**2 if self.power == 2 else stft.abs())

    def _unobserved(self, waveforms: Tensor) -> bool:
        """Whether the sums can be computed outside of torch's sight: on a processor, without a gradient or a trace."""
        used = (waveforms, self.window, self.weights)
        if any(one.device.type != "cpu" or one.dtype != used[0].dtype for one in used):
            return False
        if torch.is_grad_enabled() and any(one.requires_grad for one in used):
            return False
        traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
        return not (traced or _get_current_dispatch_mode())

    def _in_cache(self, waveforms: Tensor, frames: int) -> Tensor:
        """The same on a processor, some frames at a time, each thread by itself in memory that it uses again."""
        steps = min(frames, -(-frames * self.n_fft // _POINTS_A_STEP))
        bounds = [frames * step // steps for step in range(steps + 1)]
        jobs = [(clip, *step) for clip in range(len(waveforms)) for step in itertools.pairwise(bounds)]
        sums = waveforms.new_empty(len(waveforms), self.bands, frames)
        by_threads(partial(self._steps, waveforms, sums), jobs)
        return sums

    @torch.inference_mode()  # also in other threads
    def _steps(self, waveforms: Tensor, sums: Tensor, jobs: Sequence[tuple[int, int, int]]) -> None:
        """Put the sums of some frames into their place, for jobs of (clip, first frame, last frame + 1)."""
        most = max(last - first for _, first, last in jobs)
        sparse = self._sparse()
        windowed = waveforms.new_zeros(most, self.n_fft)
        energy = waveforms.new_empty(self.n_fft // 2 + 1, most)
        for clip, first, last in jobs:
            rows = windowed[: last - first]
            torch.mul(self._windows(waveforms[clip], first, last), self.window, out=rows[:, : self.win_length])
            squares = torch.view_as_real(torch.fft.rfft(rows)).square_()
            heard = energy[:, : last - first]
            torch.add(squares[..., 0], squares[..., 1], out=heard.T)
            if self.power == 1:
                heard.sqrt_()
            weighed = self.weights @ heard if sparse is None else torch.from_numpy(sparse @ heard.numpy())
            sums[clip, :, first:last] = weighed

    @cached_property
    def _held(self) -> dict[tuple[int, int], Any]:
        """The sparse weights, by the buffer and its version; a cached property, so that no key depends on it."""
        return {}

    def _sparse(self) -> Any:
        """`weights` as SciPy's sparse array; None where they learn, or a quarter or more are not zero."""
        from scipy.sparse import csr_array

        weights = self.weights
        if weights is not self._buffers.get("weights"):
            return None
        key = id(weights), 0 if weights.is_inference() else weights._version
        if key not in self._held:
            values = weights.numpy(force=True)
            self._held.clear()
            self._held[key] = csr_array(values) if 4 * np.count_nonzero(values) < values.size else None
        return self._held[key]

    def _windows(self, waveform: Tensor, first: int, last: int) -> Tensor:
        """(samples,) -> (last - first, win_length), zeros beyond its ends"""
        start = first * self.hop_length - self.lead
        end = start + (last - first - 1) * self.hop_length + self.win_length
        before, after = max(0, -start), max(0, end - len(waveform))
        part = waveform[max(0, start) : end]
        return (F.pad(part, (before, after)) if before or after else part).unfold(0, self.win_length, self.hop_length)

    def levels(self, sums: Tensor) -> Tensor:
        """Weighted sums (batch, bands, frames) -> the same shape, on the front end's scale"""
        return sums if self.log_factor is None else (sums + self.floor).log() * self.log_factor
