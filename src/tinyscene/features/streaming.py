"""A front end that takes a recording in steps: the features of the clip that ends now, each frame computed once."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyscene.errors import InputError
from tinyscene.features.products import SpectrogramByProducts, as_products
from tinyscene.features.raw import Raw
from tinyscene.features.spectrogram import BandSpectrogram


class StreamingFrontEnd(nn.Module):
    """The next samples in, with the state; the features of the last `frames` frames out, with the next state.

    The state holds what these frames share with the next ones (weighted sums, not yet on the front end's scale, so that
    zeros are silence), and the samples that the next frames begin with. Before the first step it is all zeros.

    Frames lie on the grid of hops that ends with each step, unpadded: a clip's first and last frames, which
    reach over its ends, contain zeros there; here they contain the samples before, and none that are still to come.

    Args:
        frontend: a spectrogram, or raw waveforms; copied.
        frames: of a clip.
        step_samples: in each step: a whole number of hops, shorter than the clip.

    Raises:
        InputError: another front end, or another step.
    """

    def __init__(self, frontend: nn.Module, frames: int, step_samples: int) -> None:
        super().__init__()
        if not isinstance(frontend, BandSpectrogram | Raw):
            raise InputError(f"{type(frontend).__name__} can't be streamed; accepted: spectrograms and raw waveforms")
        hop = frontend.hop_length
        self.frontend, self.frames, self.step_samples = as_products(frontend), frames, step_samples
        if step_samples % hop or not hop <= step_samples < frames * hop:
            raise InputError(
                f"steps of {step_samples} samples; accepted: a multiple of {hop} (the hop) from {hop} to "
                f"{(frames - 1) * hop}, all but one of the clip's {frames} frames"
            )
        new = step_samples // hop
        self.kept = (frames - new) * frontend.bands
        overlap = self.frontend.samples(new) - step_samples if isinstance(self.frontend, SpectrogramByProducts) else 0
        self.overlap = overlap

    @property
    def state_size(self) -> int:
        """Numbers in the state."""
        return self.kept + self.overlap

    def forward(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, step_samples), (batch, state_size) -> (batch, 1, bands, frames), (batch, state_size)"""
        joined = torch.cat([state[:, self.kept :], samples], 1) if self.overlap else samples
        products = isinstance(self.frontend, SpectrogramByProducts)
        new = self.frontend.sums(joined).flatten(1) if products else joined  # type: ignore[operator]
        clip = torch.cat([state[:, : self.kept], new], 1)
        kept = clip[:, new.shape[1] :]
        after = torch.cat([kept, joined[:, self.step_samples :]], 1) if self.overlap else kept
        if not products:
            return self.frontend(clip), after
        return self.frontend.scaled(clip.reshape(clip.shape[0], self.frames, -1)), after  # type: ignore[operator]


def in_one_piece(frontend: nn.Module, waveforms: Tensor, frames: int) -> Tensor:
    """The last output of a `StreamingFrontEnd`, from the whole recording at once: (batch, samples) -> (batch, 1, bands,
    frames). The samples are whole hops."""
    if not isinstance(frontend, BandSpectrogram):
        return frontend(F.pad(waveforms, (frames - waveforms.shape[-1], 0)))  # type: ignore[no-any-return]
    hop, window_hops = frontend.hop_length, math.ceil(frontend.win_length / frontend.hop_length)
    # Silence before, so that there are enough frames, and hops end with the recording.
    silence = (frames + window_hops) * hop - frontend.lead
    first = waveforms.shape[-1] // hop + 1
    # The transform is longer than the window: no frame reads what follows.
    padded = F.pad(waveforms, (silence, frontend.n_fft))
    return frontend.levels(frontend.sums(padded, first + frames)[..., first:]).unsqueeze(1)
