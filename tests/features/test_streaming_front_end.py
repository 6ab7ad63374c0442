"""Front ends in steps against the Fourier transform of the whole recording."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.features import Gammatone, LogMel, Raw
from tinyscene.features.streaming import StreamingFrontEnd, in_one_piece


def noise(samples: int, seed: int = 0, batch: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, samples)).astype(np.float32))


def after_steps(streaming: StreamingFrontEnd, waveforms: Tensor) -> Tensor:
    state = torch.zeros(len(waveforms), streaming.state_size)
    for samples in waveforms.split(streaming.step_samples, 1):
        features, state = streaming(samples, state)
    return features


@given(
    st.sampled_from([60, 64, 97, 128]),
    st.floats(0.2, 1),
    st.integers(1, 150),
    st.integers(2, 9),
    st.data(),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_steps_give_what_the_whole_recording_gives(
    n_fft: int, share: float, hop: int, frames: int, data: st.DataObject, center: bool, subtract: bool
) -> None:
    frontend = LogMel(
        8000,
        n_fft,
        5,
        win_length=max(1, round(share * n_fft)),
        hop_length=hop,
        center=center,
        log="db",
        floor=1e-3,
        subtract_mean=subtract,
    )
    streaming = StreamingFrontEnd(frontend, frames, hop * data.draw(st.integers(1, frames - 1)))
    waveforms = noise(streaming.step_samples * data.draw(st.integers(1, 7)), n_fft + hop)
    found, expected = after_steps(streaming, waveforms), in_one_piece(frontend, waveforms, frames)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogMel(8000, 256, 20, hop_length=64),
        lambda: LogMel(8000, 256, 20, hop_length=64, center=False),
        lambda: Gammatone(8000, 512, 40, hop_length=64),
    ],
)
def test_the_whole_recording_gives_the_front_end_s_own_frames(make: Callable[[], Any]) -> None:
    """Where hops of the recording's own frames end with it, these are the last that hear no padding."""
    frontend = make()
    assert frontend.lead % frontend.hop_length == 0
    waveforms = noise(64 * 40)
    own = frontend(waveforms)
    unpadded = (waveforms.shape[1] + frontend.lead - frontend.win_length) // 64 + 1
    torch.testing.assert_close(in_one_piece(frontend, waveforms, 9), own[..., unpadded - 9 : unpadded])


def test_frames_that_a_front_end_leaves_out_of_a_clip_are_heard() -> None:
    """42.8 frames a second are kept of more: those left out lie at the end of a clip, and a stream has none."""
    given: dict[str, Any] = {"hop_length": 160}
    every, some = Gammatone(8000, 512, 40, **given), Gammatone(8000, 512, 40, frames_per_s=20.0, **given)
    waveforms = noise(160 * 100)
    torch.testing.assert_close(in_one_piece(some, waveforms, 20), in_one_piece(every, waveforms, 20))
    streaming = StreamingFrontEnd(some, 20, 160 * 5)
    torch.testing.assert_close(after_steps(streaming, waveforms), in_one_piece(some, waveforms, 20), rtol=0, atol=1e-3)


def test_raw_samples() -> None:
    streaming, waveforms = StreamingFrontEnd(Raw(8000), 1000, 300), noise(1500)
    assert torch.equal(after_steps(streaming, waveforms), waveforms[:, None, None, -1000:])
    short = after_steps(streaming, waveforms[:, :600])
    assert torch.equal(short[..., :400], torch.zeros(2, 1, 1, 400))
    assert torch.equal(short[..., 400:], waveforms[:, None, None, :600])


def test_before_the_first_step_there_is_silence() -> None:
    frontend = LogMel(8000, 256, 20, hop_length=100)
    streaming = StreamingFrontEnd(frontend, 10, 300)
    first, _ = streaming(torch.zeros(1, 300), torch.zeros(1, streaming.state_size))
    torch.testing.assert_close(first, frontend(torch.zeros(1, 8000))[..., :10])


@pytest.mark.parametrize("step", [0, 99, 150, 1000, 2000])
def test_other_steps_are_refused(step: int) -> None:
    with pytest.raises(InputError, match=f"steps of {step} samples; accepted: a multiple of 100.*900"):
        StreamingFrontEnd(LogMel(8000, 256, 20, hop_length=100), 10, step)


def test_other_front_ends_are_refused() -> None:
    with pytest.raises(InputError, match="Identity can't be streamed"):
        StreamingFrontEnd(nn.Identity(), 10, 100)
