"""The waveform itself, for networks that learn their own front end."""

from torch import Tensor

from tinyscene.errors import InputError
from tinyscene.features.front_end import FrontEnd
from tinyscene.features.spectrogram import require_batch


class Raw(FrontEnd):
    """Samples as frames: one band, a hop of one sample.

    Args:
        sample_rate: of the waveforms, in Hz.
    """

    bands = hop_length = 1
    reach_samples = 0

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        if not isinstance(sample_rate, int) or sample_rate < 1:
            raise InputError(f"Raw(sample_rate={sample_rate}); accepted: a whole number, at least 1")
        self.sample_rate = sample_rate

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 1, 1, samples)"""
        require_batch(waveforms)
        return waveforms[:, None, None]
