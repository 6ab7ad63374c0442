"""Spectrograms by matrix products only, for runtimes without a Fourier transform."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyscene.features.spectrogram import BandSpectrogram

# Bands whose weights are stored together, from the lowest bin that any of them reads to the highest.
_BANDS_A_BLOCK = 16


def as_products(frontend: nn.Module) -> nn.Module:
    """The same front end, its Fourier transform by matrix products where it has one."""
    return SpectrogramByProducts(frontend) if isinstance(frontend, BandSpectrogram) else frontend


class SpectrogramByProducts(nn.Module):
    """The output of a `BandSpectrogram` for clips of one length, within the rounding of its sums.

    The transform of n_fft = rows x columns points is that of all columns, a rotation, and that of all rows (Cooley and
    Tukey, 1965), each a product with a small matrix. A real signal's bins mirror each other: half the columns'
    frequencies are computed. Of the bands' weights, those that are zero on both sides of a block are not stored.

    Args:
        frontend: copied without its tensors, for its scale and its frames.
    """

    def __init__(self, frontend: BandSpectrogram) -> None:
        super().__init__()
        n_fft, window = frontend.n_fft, frontend.win_length
        self.frontend, self.hop = copy.deepcopy(frontend), frontend.hop_length
        self.hops = math.ceil(window / self.hop)
        # A file would hold them unused, and with many bands they outweigh the network.
        for unused in ("window", "weights"):
            self.frontend.register_buffer(unused, None, persistent=False)
        rows = min((n for n in range(1, n_fft + 1) if n_fft % n == 0), key=lambda n: n + 2 * (n_fft // n))
        self.columns = n_fft // rows
        half = rows // 2 + 1
        used = math.ceil(window / self.columns)
        self.window = self._constant("window", frontend.window)
        # Sample n = columns x r + c; bin k = a + rows x b.
        angles = np.outer(np.arange(half), np.arange(used)) * (2 * np.pi / rows)
        self.over_rows = self._constant("over_rows", np.concatenate([np.cos(angles), -np.sin(angles)]))
        angles = np.outer(np.arange(self.columns), np.arange(half)) * (2 * np.pi / n_fft)
        # One constant each: some runtimes would take part of a larger one for a product of two activations.
        self.turn_by_cosine = self._constant("turn_by_cosine", np.cos(angles))
        self.turn_by_sine = self._constant("turn_by_sine", -np.sin(angles))
        angles = np.outer(np.arange(self.columns), np.arange(self.columns)) * (2 * np.pi / self.columns)
        self.cosines = self._constant("cosines", np.cos(angles))
        self.sines = self._constant("sines", np.sin(angles))
        bins = np.arange(n_fft // 2 + 1)
        mirrored = np.where(bins % rows < half, bins, n_fft - bins)
        place = mirrored % rows * self.columns + mirrored // rows
        self.blocks: list[tuple[int, int]] = []
        for number, weights in enumerate(torch.split(frontend.weights, _BANDS_A_BLOCK)):
            audible = weights.any(0).nonzero()
            low, high = (int(audible[0]), int(audible[-1]) + 1) if len(audible) else (0, 1)
            self.blocks.append((low, high))
            self._constant(f"bands_{number}", weights[:, low:high])
        self.first = min(low for low, _ in self.blocks)
        last = max(high for _, high in self.blocks)
        self.place: Tensor
        self.register_buffer("place", torch.from_numpy(place[self.first : last]), persistent=False)

    def _constant(self, name: str, values: Tensor | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
        tensor = torch.as_tensor(values, dtype=torch.float32).contiguous().clone()  # a view would be stored whole
        self.register_buffer(name, tensor, persistent=False)
        return tensor

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 1, bands, frames)"""
        length, frames = waveforms.shape[-1], self.frontend.frames(waveforms.shape[-1])
        before, total = self.frontend.lead, self.samples(frames)
        # ExecuTorch has no negative padding.
        samples = waveforms[..., max(0, -before) : total - before]
        around = max(0, before), max(0, total - before - length)
        return self.scaled(self.sums(F.pad(samples, around)))

    def samples(self, frames: int) -> int:
        """Samples that `sums` takes for that many frames: whole hops."""
        return (frames + self.hops - 1) * self.hop

    def sums(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, frames, bands): see `BandSpectrogram.sums`; the first frame begins at sample 0"""
        spectrum = self._spectrum(self._framed(waveforms))
        spectrum = spectrum if self.frontend.power == 2 else spectrum.sqrt()
        bands = [
            F.linear(spectrum[..., low - self.first : high - self.first], getattr(self, f"bands_{number}"))
            for number, (low, high) in enumerate(self.blocks)
        ]
        return torch.cat(bands, -1)

    def scaled(self, sums: Tensor) -> Tensor:
        """(batch, frames, bands) -> (batch, 1, bands, frames), on the front end's scale"""
        return self.frontend.levels(sums.transpose(1, 2)).unsqueeze(1)

    def _framed(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, frames, window): hops side by side, as no runtime has a sliding window."""
        hops = waveforms.reshape(waveforms.shape[0], -1, self.hop)
        frames = hops.shape[1] - self.hops + 1
        shifted = [hops[:, place : place + frames] for place in range(self.hops)]
        return torch.cat(shifted, -1)[..., : self.window.shape[0]] * self.window

    def _spectrum(self, frames: Tensor) -> Tensor:
        """(batch, frames, window) -> (batch, frames, bins), energies"""
        used = self.over_rows.shape[1]
        padded = F.pad(frames, (0, used * self.columns - frames.shape[-1]))
        columns = padded.reshape(*frames.shape[:2], used, self.columns).transpose(-1, -2)
        real, imaginary = F.linear(columns, self.over_rows).chunk(2, -1)
        cosine, sine = self.turn_by_cosine, self.turn_by_sine
        turned = torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], -1).transpose(-1, -2)
        by_cosine, by_sine = F.linear(turned, self.cosines), F.linear(turned, self.sines)
        (real_c, imaginary_c), (real_s, imaginary_s) = by_cosine.chunk(2, -2), by_sine.chunk(2, -2)
        energy = (real_c + imaginary_s).square() + (imaginary_c - real_s).square()
        return energy.flatten(-2)[..., self.place]
