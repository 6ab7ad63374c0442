"""Our MAC counters against the tools whose names they bear, and against published figures."""

import random
import warnings

import fvcore.nn
import pytest
import thop
import torch
import torchinfo
from torch import nn

from tinyscene.accounting import COUNTERS, count
from tinyscene.errors import InputError
from tinyscene.models import Baseline2020, Baseline2021, CPMobile


def tools(network: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """What the real torchinfo, fvcore and thop say."""
    network = network.eval()
    counter = fvcore.nn.FlopCountAnalysis(network, example)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "fvcore": counter.total(),
            "torchinfo": torchinfo.summary(network, input_data=example, verbose=0).total_mult_adds,
            "thop": thop.profile(network, (example,), verbose=False)[0],
        }


def ours(network: nn.Module, example: torch.Tensor) -> dict[str, int]:
    macs = count(network, example).macs
    return {name: macs[name] for name in ("fvcore", "torchinfo", "thop")}


class Residual(nn.Module):
    """Adds a branch to its input, and squeezes and excites it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, bands, frames) -> the same."""
        y = self.norm(self.conv(x))
        return torch.relu(y * self.gate(y) + x)


def random_network(seed: int) -> nn.Sequential:
    """Layers of every kind that the counters know, in random order and size."""
    choose = random.Random(seed)
    layers: list[nn.Module] = []
    channels = 1
    for _ in range(choose.randint(2, 4)):
        outputs = 4 * choose.randint(1, 3)
        groups = choose.choice([1, 2, 4]) if channels % 4 == 0 else 1
        padding = choose.choice([0, 1, "same"])
        stride = 1 if padding == "same" else choose.choice([1, 2])
        layers.append(nn.Conv2d(channels, outputs, 3, stride, padding, groups=groups, bias=choose.random() < 0.5))
        channels = outputs
        layers.append(
            choose.choice(
                [
                    nn.BatchNorm2d(channels),
                    nn.BatchNorm2d(channels, affine=False),
                    nn.GroupNorm(2, channels),
                    nn.Identity(),
                ]
            )
        )
        layers.append(choose.choice([nn.ReLU(inplace=True), nn.LeakyReLU(), nn.PReLU(), nn.Hardswish(), nn.Sigmoid()]))
        layers.append(choose.choice([Residual(channels), nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1), nn.Dropout(0.1)]))
    layers += [choose.choice([nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveMaxPool2d((2, 3))]), nn.Flatten()]
    layers += [nn.Linear(6 * channels, 12), nn.LayerNorm(12), nn.Linear(12, 5, bias=False)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Baseline2020(), (1, 1, 40, 23)),
        (Baseline2021(), (1, 1, 40, 51)),
        (Baseline2021(filters=(16, 8, 16), dense=32), (1, 1, 40, 500)),
        (CPMobile(), (1, 1, 256, 65)),
    ],
    ids=["baseline2020", "baseline2021", "singh_29kb", "cp_mobile"],
)
def test_published_networks_agree_with_the_tools(network, shape):
    example = torch.randn(shape)
    assert ours(network, example) == tools(network, example)


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_agree_with_the_tools(seed):
    network, example = random_network(seed), torch.randn(1, 1, 40, 41)
    assert ours(network, example) == tools(network, example)


def test_waveform_networks_agree_with_the_tools():
    network = nn.Sequential(
        nn.Conv1d(1, 8, 9, stride=2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Conv1d(8, 6, 5, groups=2, bias=False),
        nn.AvgPool1d(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    example = torch.randn(1, 1, 200)
    assert ours(network, example) == tools(network, example)


def test_cp_mobile_by_every_counter():
    macs = count(CPMobile(), torch.zeros(1, 1, 256, 65)).macs
    assert macs["conv_only"] == 29_416_448
    assert macs["torchinfo"] == 29_419_156
    assert round(macs["fvcore"] / 1e6, 2) == 31.02
    assert round(macs["thop"] / 1e6, 2) == 32.64


def test_the_2022_baseline_by_its_own_counter():
    macs = count(Baseline2021(), torch.zeros(1, 1, 40, 51)).macs
    assert macs["conv_only"] == 29_203_560
    assert macs["nessi"] == 29_234_920


def test_nessi_counts_a_sum_and_a_mean_once_an_element():
    class Sum(nn.Module):
        def forward(self, x):
            return (x + x).mean((2, 3))

    # The addition writes 3 * 4 * 5 elements, the mean reads as many.
    assert count(Sum(), torch.zeros(1, 3, 4, 5)).macs["nessi"] == 120


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), nn.AvgPool2d((4, 5))])
def test_nessi_counts_a_global_pooling_once_an_input(pool):
    assert count(pool, torch.zeros(1, 3, 4, 5)).macs["nessi"] == 60


def test_a_layer_that_runs_twice_is_counted_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x))

    example = torch.zeros(1, 2, 5, 5)
    ledger = count(Twice(), example)
    assert ledger.macs["conv_only"] == 2 * (2 * 2 * 9 * 25)
    assert ledger.macs["torchinfo"] == tools(Twice(), example)["torchinfo"]
    assert [row.layer for row in ledger.layers if row.layer_type == "Conv2d"] == ["conv"]


class Attending(nn.Module):
    """Attention by PyTorch's module and by hand, a recurrent layer, and products of every spelling."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, batch_first=True)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.transposed = nn.ConvTranspose1d(8, 8, 3, stride=2)
        self.dense = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, frames, 8) -> the same"""
        x = self.recurrent(self.heads(x, x, x)[0])[0]
        x = torch.addmm(x[0], x[0], self.dense)[None] + torch.einsum("btf,of->bto", x, self.dense)
        x = torch.baddbmm(x, x, self.dense[None]) + torch.bmm(x, self.dense[None])
        x = nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])[0]
        return self.transposed((x @ self.dense).mT).mT


def test_attention_and_recurrence_agree_with_the_tools():
    example = torch.randn(1, 7, 8)
    found, wanted = ours(Attending(), example), tools(Attending(), example)
    # thop has rules for recurrent layers, too, with gates and biases.
    wanted["thop"] -= thop.profile(nn.GRU(8, 8, batch_first=True), (example,), verbose=False)[0]
    assert found == wanted


def test_functional_layers_are_seen():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 1, 3, 3))

        def forward(self, x):
            return nn.functional.conv2d(x, self.weight).flatten(1) @ torch.ones(4 * 36, 2)

    example = torch.zeros(1, 1, 8, 8)
    macs = count(Functional(), example).macs
    assert macs["conv_only"] == 4 * 9 * 36 + 4 * 36 * 2
    assert macs["fvcore"] == tools(Functional(), example)["fvcore"]


def test_float16_weights_are_counted_like_float32_ones():
    example = torch.zeros(1, 1, 40, 51)
    network = Baseline2021()
    assert count(network.half(), example).macs == count(Baseline2021(), example).macs


def test_every_counter_says_why_it_differs():
    assert set(COUNTERS) == {"conv_only", "torchinfo", "nessi", "fvcore", "thop"}
    assert len({counter.reason for counter in COUNTERS.values()}) == 5


@pytest.mark.parametrize("shape", [(2, 1, 40, 51), (40,), (1, 1, 40, 4), (1, 3, 40, 51)])
def test_examples_that_cannot_be_counted_are_refused(shape):
    with pytest.raises(InputError, match=str(shape[0])):
        count(Baseline2021(), torch.zeros(shape))
