"""The waveform itself, for networks that learn their own front end."""

from typing import Any

from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.features.spectrogram import require_batch


class Raw(nn.Module):
    """Samples as frames: one band, a hop of one sample.

    Args:
        sample_rate: of the waveforms, in Hz.
    """

    bands, hop_length, shortest_samples = 1, 1, 1
    reach_samples, channel = 0, None

    def __init__(self, sample_rate: int) -> None:
        self.arguments: dict[str, Any] = {"sample_rate": sample_rate}
        super().__init__()
        if not isinstance(sample_rate, int) or sample_rate < 1:
            raise InputError(f"Raw(sample_rate={sample_rate}); accepted: a whole number, at least 1")
        self.sample_rate = sample_rate

    def frames(self, samples: int) -> int:
        """As many as there are samples."""
        return samples

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 1, 1, samples)"""
        require_batch(waveforms)
        return waveforms[:, None, None]
