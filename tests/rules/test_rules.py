"""Each edition against its own published baseline, and the edges of a limit."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

from tinyscene.accounting import COUNTERS, LayerRow, Ledger, TensorRow, count
from tinyscene.data.tau import SCENES
from tinyscene.errors import InputError
from tinyscene.models import Baseline2020, Baseline2021, CPMobile
from tinyscene.rules import RULES, Limit, dcase2020, dcase2021, dcase2022, dcase2023, dcase2024, dcase2025


def ledger_of(values: int, *, itemsize: int = 1, kept: int | None = None) -> Ledger:
    row = TensorRow(
        "a", "weight", values, values if kept is None else kept, values, "any", itemsize, "weight", "Linear"
    )
    return Ledger((row,), (LayerRow("a", "Linear", (1, 1), dict.fromkeys(COUNTERS, 0)),), (1, 1), 0)


def one_second(network):
    return count(network, torch.zeros(1, 1, 40, 51))


def test_the_2020_baseline_is_450_kilobytes_of_500():
    (finding,) = dcase2020.judge(one_second(Baseline2020())).findings
    assert finding.value == 4 * 115_219
    assert finding.text == "fits: 450.07 of 500 KB, 49.93 KB to spare (bn0, without zeros)"


def test_the_2021_baseline_fits_at_16_bit_only():
    verdict = dcase2021.judge(one_second(Baseline2021().half()))
    assert verdict.passed
    assert "fits: 90.32 of 128 KB, 37.68 KB to spare" in verdict.text
    verdict = dcase2021.judge(one_second(Baseline2021()))
    assert not verdict.passed
    assert "does not fit: 180.65 of 128 KB, 52.65 KB over" in verdict.text


def test_the_2022_baseline_by_parameters_and_by_nessi():
    parameters, macs = dcase2022.judge(one_second(Baseline2021())).findings
    assert (parameters.value, macs.value) == (45_990, 29_234_920)
    assert macs.text == "fits: 29.23 of 30 MMACs, 0.77 MMACs to spare (nessi)"


@pytest.mark.parametrize("rules", [dcase2023, dcase2024, dcase2025])
def test_cp_mobile_is_legal_at_16_bit_and_not_at_32(rules):
    example = torch.zeros(1, 1, 256, 65)
    size, macs = rules.judge(count(CPMobile().half(), example)).findings
    assert (size.value, size.margin, macs.value, macs.margin) == (122_296, 5_704, 29_419_156, 580_844)
    assert not rules.judge(count(CPMobile(), example)).passed


@pytest.mark.parametrize(
    ("rules", "limit"), [(dcase2020, 512_000), (dcase2021, 131_072), (dcase2023, 128_000), (dcase2024, 128_000)]
)
def test_a_limit_includes_itself_and_not_one_byte_more(rules, limit):
    assert rules.judge(ledger_of(limit)).findings[0].passed
    assert not rules.judge(ledger_of(limit + 1)).findings[0].passed


def test_one_byte_over_is_said_as_one_byte():
    (finding,) = dcase2021.judge(ledger_of(131_073)).findings
    assert finding.text.startswith("does not fit: 128.000977 of 128 KB, 1 B over")


def test_zeros_count_from_2022_on():
    pruned = ledger_of(200_000, kept=100_000)
    assert [rules.judge(pruned).findings[0].passed for rules in RULES.values()] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_systems_between_128000_and_131072_bytes_are_legal_in_2021_alone():
    # 130,704 B are byttebier2021's first system.
    verdicts = {name: rules.judge(ledger_of(130_704)).findings[0].passed for name, rules in RULES.items()}
    assert verdicts["dcase2021"]
    assert not verdicts["dcase2023"]
    assert any("1024" in note for note in dcase2021.notes)


def test_classes_and_clips_by_edition():
    assert dcase2020.classes == ("indoor", "outdoor", "transportation")
    for rules in list(RULES.values())[1:]:
        assert rules.classes == SCENES
    assert len(set(SCENES)) == 10
    assert sorted(SCENES) == list(SCENES)
    assert [rules.clip_s for rules in RULES.values()] == [10, 10, 1, 1, 1, 1]
    assert all(name == rules.name for name, rules in RULES.items())


def test_rules_are_values():
    stricter = replace(dcase2021, limits=(replace(dcase2021.limits[0], at_most=64 * 1024),))
    assert not stricter.judge(ledger_of(70_000)).passed
    assert dcase2021.judge(ledger_of(70_000)).passed
    with pytest.raises(FrozenInstanceError):
        dcase2021.name = "mine"


def test_a_ledger_without_macs_is_not_taken_for_a_free_one():
    with pytest.raises(KeyError, match="nessi"):
        dcase2022.judge(replace(ledger_of(1), layers=()))


class Sequences(nn.Module):
    """Some layer over the frames of (1, 1, 8, frames)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 1, 8, frames) -> (1, frames, ...)"""
        found = self.layer(x[0].mT)
        return found[0] if isinstance(found, tuple) else found


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, frames, 8) -> (1, frames, 5)"""
        return torch.fft.rfft(x).abs()


MACS = Limit("macs", 30_000_000, "MMACs", counter="torchinfo")


@pytest.mark.parametrize(
    ("layer", "missed"),
    [
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), "multi_head_attention_forward in layer.self_attn"),
        # 9 frames of 8 x 6 weights, of which torchinfo counts one and its biases.
        (nn.Linear(8, 6), f"1 operation, 0.00 MMACs known: linear in layer ({9 * 48 - 54:,} MACs)"),
        (Spectrum(), "fft_rfft in layer (MACs unknown)"),
    ],
)
def test_no_verdict_passes_over_work_that_its_counter_does_not_see(layer, missed):
    (finding,) = replace(dcase2024, limits=(MACS,)).judge(count(Sequences(layer), torch.zeros(1, 1, 8, 9))).findings
    assert finding.margin > 0
    assert not finding.passed
    assert finding.text.startswith("can't be judged: 0.00 of 30 MMACs by torchinfo, which misses")
    assert missed in finding.text
    assert "try " in finding.text


@pytest.mark.parametrize("layer", [nn.GRU(8, 4, batch_first=True), nn.Conv1d(9, 4, 1), nn.LayerNorm(8)])
def test_what_the_counter_sees_is_judged(layer):
    ledger = count(Sequences(layer), torch.zeros(1, 1, 8, 9))
    assert replace(dcase2024, limits=(MACS,)).judge(ledger).passed


def test_attention_is_judged_by_the_counter_of_all_products():
    ledger = count(Sequences(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), torch.zeros(1, 1, 8, 9))
    macs = 4 * 9 * 64 + 2 * 81 * 8 + 2 * 9 * 8 * 16
    for limit, passed in ((macs, True), (macs - 1, False)):
        rules = replace(dcase2024, limits=(Limit("macs", limit, "MACs", counter="conv_only"),))
        assert rules.judge(ledger).passed is passed


def test_over_the_limit_without_what_is_uncounted_is_over_it():
    ledger = count(Sequences(nn.Linear(8, 6)), torch.zeros(1, 1, 8, 9))
    (finding,) = replace(dcase2024, limits=(replace(MACS, at_most=1),)).judge(ledger).findings
    assert finding.text.startswith("does not fit")


@pytest.mark.parametrize(
    "arguments",
    [
        {"quantity": "watts", "at_most": 1, "unit": "W"},
        {"quantity": "bytes", "at_most": 1, "unit": "kb", "convention": "bn4"},
        {"quantity": "bytes", "at_most": 1, "unit": "KB", "convention": "bn5"},
        {"quantity": "macs", "at_most": 1, "unit": "MMACs", "counter": "ptflops"},
        {"quantity": "macs", "at_most": 1, "unit": "KB", "counter": "thop"},
    ],
)
def test_a_limit_that_could_not_be_measured_is_refused(arguments):
    with pytest.raises(InputError, match=r"accepted|there are"):
        Limit(**arguments)
