"""Sizes by convention against printed tables, hand counts and PyTorch's own folding."""

import pytest
import torch
from torch import nn

from tinyscene.accounting import CONVENTIONS, Ledger, count, count_classifier, get_convention, in_unit
from tinyscene.errors import InputError
from tinyscene.features import FrontEnd, LogMel
from tinyscene.models import Baseline2020, Baseline2021, CPMobile
from tinyscene.models.classifier import SceneClassifier

# L1-L2-L3-D, values with batch norm at four a channel, values without, KB at 16 bit without: SYSTEMS.md, singh2021.
SINGH = [
    ((16, 16, 32), 100, 46_246, 45_990, 89.82),
    ((16, 8, 16), 32, 14_914, 14_754, 28.82),
    ((16, 8, 32), 100, 27_390, 27_166, 53.06),
    ((16, 16, 24), 100, 38_334, 38_110, 74.43),
    ((16, 12, 32), 100, 36_818, 36_578, 71.44),
]


def ledger_of(network: nn.Module, *shape: int) -> Ledger:
    return count(network, torch.zeros(1, *(shape or (1, 40, 51))))


@pytest.mark.parametrize(("filters", "dense", "bn4", "bn0", "kilobytes"), SINGH)
def test_singh2021_row_by_row(filters, dense, bn4, bn0, kilobytes):
    rows = ledger_of(Baseline2021(filters=filters, dense=dense).half()).tensors
    assert CONVENTIONS["bn4"](rows).parameters == bn4
    assert CONVENTIONS["bn0"](rows).parameters == bn0
    assert round(in_unit(CONVENTIONS["bn0"](rows).bytes, "KB"), 2) == kilobytes


def test_the_unpruned_row_has_three_sizes_by_three_conventions():
    rows = ledger_of(Baseline2021().half()).tensors
    kilobytes = {name: round(in_unit(CONVENTIONS[name](rows).bytes, "KB"), 2) for name in ("bn4", "bn2", "bn0")}
    assert kilobytes == {"bn4": 90.32, "bn2": 90.07, "bn0": 89.82}


def test_the_baselines_by_their_editions_conventions():
    size = CONVENTIONS["bn0"](ledger_of(Baseline2020()).tensors)
    assert size.parameters == 115_219
    assert round(in_unit(size.bytes, "KB"), 2) == 450.07
    size = CONVENTIONS["int8_folded"](ledger_of(Baseline2021()).tensors)
    assert (size.parameters, size.bytes) == (45_990, 46_512)
    size = CONVENTIONS["bn2"](ledger_of(CPMobile().half(), 1, 256, 65).tensors)
    assert (size.parameters, size.bytes) == (61_148, 122_296)


class NormAfterRelu(nn.Module):
    """Its batch norm reads a ReLU, so that nothing folds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(torch.relu(self.conv(x)))


class ConvReadTwice(NormAfterRelu):
    """Its convolution feeds the batch norm and the sum."""

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class NormInPlaceRelu(NormAfterRelu):
    """The ReLU writes into the convolution's own storage."""

    def forward(self, x):
        return self.norm(torch.relu_(self.conv(x)))


class SharedConv(NormAfterRelu):
    """One convolution, once with a batch norm behind it and once without."""

    def forward(self, x):
        return self.norm(self.conv(x)).mean() + self.conv(x)


class NormOnSubBands(NormAfterRelu):
    """The batch norm reads a view with other channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm(self.conv(x).reshape(1, 8, 3, 6))


@pytest.mark.parametrize("network", [NormAfterRelu, ConvReadTwice, NormInPlaceRelu, SharedConv, NormOnSubBands])
def test_a_batch_norm_that_cannot_fold_stays_as_scale_and_shift(network):
    channels = network().norm.num_features
    size = CONVENTIONS["int8_folded"](ledger_of(network(), 1, 8, 8).tensors)
    assert size.parameters == 36 + 4 + 2 * channels
    assert size.bytes == 36 + 4 * 4 + 2 * channels * 4


def test_a_dense_layer_takes_in_the_batch_norm_behind_it():
    network = nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    size = CONVENTIONS["int8_folded"](count(network, torch.zeros(1, 6)).tensors)
    assert (size.parameters, size.bytes) == (30 + 5 + 10 + 2, 30 + 10 + 4 * (5 + 2))


def test_a_mask_is_no_parameter_and_says_what_is_kept():
    network = Baseline2021().half()
    mask = torch.rand(network.L2.weight.shape) < 0.25
    network.L2.register_buffer("weight_mask", mask)
    rows = ledger_of(network).tensors
    kept = int(mask.sum())
    size = CONVENTIONS["bn4"](rows)
    assert size.parameters == 46_246
    assert size.kept == 46_246 - mask.numel() + kept
    assert (size.bytes, size.kept_bytes) == (2 * size.parameters, 2 * size.kept)
    (row,) = [row for row in rows if row.name == "L2.weight"]
    # The weights have not been zeroed: what the mask says counts, what is zero now stands beside it.
    assert (row.kept, row.nonzero) == (kept, int(torch.count_nonzero(network.L2.weight)))


def test_running_means_and_biases_that_happen_to_be_zero_are_kept():
    size = CONVENTIONS["bn4"](ledger_of(Baseline2021()).tensors)
    assert size.kept == size.parameters == 46_246


def test_rows_name_roles_types_and_data_types():
    rows = {row.name: row for row in ledger_of(Baseline2021().half()).tensors}
    assert {name.split(".")[1]: row.role for name, row in rows.items() if row.layer == "bn1"} == {
        "weight": "norm",
        "bias": "norm",
        "running_mean": "statistic",
        "running_var": "statistic",
    }
    assert (rows["L1.weight"].role, rows["L1.bias"].role) == ("weight", "bias")
    assert (rows["dense.weight"].layer_type, rows["dense.weight"].dtype) == ("Linear", "float16")
    assert (rows["dense.weight"].bytes, rows["bn2.weight"].folds_into) == (12_800, "L2")


def test_shared_weights_count_once():
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    network[1].weight = network[0].weight
    assert CONVENTIONS["bn2"](count(network, torch.zeros(1, 4)).tensors).parameters == 16


def test_a_buffer_is_no_parameter_but_is_not_invisible():
    network = nn.Linear(4, 2)
    network.register_buffer("table", torch.ones(7))
    network.register_buffer("scratch", torch.ones(9), persistent=False)
    rows = count(network, torch.zeros(1, 4)).tensors
    assert CONVENTIONS["bn2"](rows).parameters == 10
    assert CONVENTIONS["bn4"](rows).parameters == CONVENTIONS["bn0"](rows).parameters == 17


class Learned(FrontEnd):
    """Filters that are trained, each with a gain."""

    sample_rate, bands, hop_length, shortest_samples = 8000, 3, 100, 5

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv1d(1, 3, 5, 100)
        self.gain = nn.Parameter(torch.ones(3, 1))

    def forward(self, waveforms):
        return (self.filters(waveforms[:, None]) * self.gain)[:, None]


def test_the_constants_of_a_front_end_are_listed_and_never_counted():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    classifier = SceneClassifier(LogMel(8000, 256, 10, hop_length=100), network, ("a", "b"))
    rows = count_classifier(classifier, 1.0, inside=classifier.frontend).tensors
    assert sum(row.values for row in rows if row.role == "frontend") == 256 + 10 * 129
    assert {convention(rows).parameters for convention in CONVENTIONS.values()} == {4}


def test_a_front_end_that_learns_is_counted():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    ledger = count_classifier(SceneClassifier(Learned(), network, ("a", "b")), 1.0)
    assert CONVENTIONS["bn2"](ledger.tensors).parameters == 3 * 5 + 3 + 3 + 4
    assert {row.layer for row in ledger.tensors} == {"frontend.filters", "frontend", "2"}
    # 80 frames of three filters, and the dense layer.
    assert ledger.macs["conv_only"] == 80 * 3 * 5 + 2
    # The waveform, the filters' map, and a copy of it that the gain makes.
    assert ledger.peak_ram_bytes == 4 * (8000 + 240) or ledger.peak_ram_bytes == 4 * (8000 + 480)


def test_a_transform_that_does_not_learn_is_left_out_where_another_part_does():
    class Gain(LogMel):
        def __init__(self):
            super().__init__(8000, 256, 10, hop_length=100)
            self.gain = nn.Parameter(torch.ones(10, 1))

        def forward(self, waveforms):
            return super().forward(waveforms) * self.gain

    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    ledger = count_classifier(SceneClassifier(Gain(), network, ("a", "b")), 1.0)
    assert CONVENTIONS["bn2"](ledger.tensors).parameters == 10 + 4
    assert not ledger.uncounted
    assert ledger.macs["conv_only"] == 2


def test_learned_bands_cost_the_same_on_any_number_of_threads():
    class Bands(LogMel):
        def __init__(self):
            super().__init__(8000, 256, 10, hop_length=100)
            weights = nn.Parameter(self.weights.clone())
            del self.weights
            self.weights = weights

    network, before = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(count_classifier(SceneClassifier(Bands(), network, ("a", "b")), 10.0))
        finally:
            torch.set_num_threads(before)
    assert found[0] == found[1]
    assert found[0].macs["conv_only"] == 801 * 10 * 129 + 2


def test_a_transform_in_your_own_front_end_is_named_as_uncounted():
    class Spectrum(Learned):
        def forward(self, waveforms):
            return super().forward(torch.fft.irfft(torch.fft.rfft(waveforms), waveforms.shape[-1]))

    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    ledger = count_classifier(SceneClassifier(Spectrum(), network, ("a", "b")), 1.0)
    assert {"fft_rfft", "fft_irfft"} <= {row.operation for row in ledger.uncounted}


def test_units_and_conventions_are_never_guessed():
    assert in_unit(2048, "KB") == 2.0
    assert in_unit(2000, "kB") == 2.0
    assert in_unit(7, "B") == 7
    with pytest.raises(InputError, match="kB"):
        in_unit(1, "kb")
    with pytest.raises(InputError, match="bn4, bn2, bn0, int8_folded"):
        get_convention("bn3")
