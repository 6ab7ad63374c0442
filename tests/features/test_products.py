"""Spectrograms by matrix products against the Fourier transform."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyscene.features import Gammatone, LogMel, Raw
from tinyscene.features.products import as_products
from tinyscene.features.spectrogram import BandSpectrogram
from tinyscene.models import NETWORKS, create_frontend

SPECTRAL = sorted(name for name in NETWORKS if name != "aemnet")


@pytest.mark.parametrize("name", SPECTRAL)
def test_it_gives_what_the_front_end_gives(name: str) -> None:
    frontend: Any = create_frontend(name)
    noise = 0.1 * torch.randn(2, frontend.sample_rate, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(as_products(frontend)(noise), frontend(noise), rtol=1e-5, atol=1e-4)


@given(
    st.sampled_from([60, 64, 97, 128, 250]),
    st.floats(0.2, 1),
    st.integers(1, 200),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([1, 2]),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_any_transform_window_and_hop(
    n_fft: int, share: float, hop: int, further: int, center: bool, power: Any, seed: int
) -> None:
    frontend = LogMel(
        8000,
        n_fft,
        5,
        win_length=max(1, round(share * n_fft)),
        hop_length=hop,
        power=power,
        log=None,
        center=center,
        drop_last_frame=further > 1,
    )
    samples = frontend.shortest_samples + further * hop + seed % 7
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, samples)).astype(np.float32))
    expected = frontend(noise)
    torch.testing.assert_close(as_products(frontend)(noise), expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogMel(8000, 256, 20, hop_length=100, f_min_hz=300.0, f_max_hz=2000.0, kept=(0, 3, 4, 19)),
        lambda: LogMel(8000, 256, 20, hop_length=100, subtract_mean=True),
        lambda: Gammatone(8000, 512, 40, hop_length=160, frames_per_s=20.0),
    ],
)
def test_bands_left_out_and_means_subtracted(make: Callable[[], BandSpectrogram]) -> None:
    frontend = make()
    noise = torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(as_products(frontend)(noise), frontend(noise), rtol=1e-5, atol=1e-4)


def test_what_has_no_transform_stays() -> None:
    raw = Raw(16_000)
    assert as_products(raw) is raw


def test_zeros_beside_the_bands_are_not_stored() -> None:
    frontend: Any = create_frontend("cp_mobile")
    held = sum(tensor.numel() for name, tensor in as_products(frontend).named_buffers() if name.startswith("bands_"))
    assert held < frontend.weights.numel() / 10


@pytest.mark.parametrize("name", SPECTRAL)
def test_no_constant_is_a_view_of_a_larger_one(name: str) -> None:
    """ExecuTorch would store what it is a view of."""
    for tensor in as_products(create_frontend(name)).buffers():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("name", SPECTRAL)
def test_no_padding_is_negative(name: str) -> None:
    """ExecuTorch can't run one that is."""
    frontend: Any = create_frontend(name)
    waveforms = torch.zeros(1, frontend.sample_rate)
    graph = torch.export.export(as_products(frontend), (waveforms,)).graph
    paddings = [node.args[1] for node in graph.nodes if node.target == torch.ops.aten.pad.default]
    assert paddings
    assert all(many >= 0 for padding in paddings for many in padding)
