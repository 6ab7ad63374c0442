"""The bookkeeping of two reports: from rows made by hand of the real network's shapes, and before and after folding."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from tinyscene.accounting import CONVENTIONS, Ledger, Size, TensorRow, count, in_unit, item_table
from tinyscene.models import SEResNet, masks
from tinyscene.models.preparation import prepare

BOOKKEEPING = CONVENTIONS["byttebier2021"]


def row(layer: str, tensor: str, values: int, role: str, dtype: str, itemsize: int) -> TensorRow:
    return TensorRow(layer, tensor, values, values, values, dtype, itemsize, role, "")


def int8_rows() -> tuple[TensorRow, ...]:
    """What an int8 SE-ResNet stores: batch norm folded, squeeze-and-excitation and pooling in floating point."""
    rows, requantized = [], ["input", "pooling"]
    for path, module in SEResNet().named_modules():
        if ".se." in path:
            if isinstance(module, nn.Conv2d):
                rows.append(row(path, "weight", module.weight.numel(), "weight", "float32", 4))
                rows.append(row(path, "bias", module.bias.numel(), "bias", "float32", 4))
            elif isinstance(module, nn.BatchNorm2d):
                rows += [row(path, t, module.num_features, "norm", "float32", 4) for t in ("weight", "bias")]
                rows += [row(path, f"running_{t}", module.num_features, "statistic", "float32", 4) for t in ("m", "v")]
        elif isinstance(module, nn.Conv2d | nn.Linear):
            rows.append(row(path, "weight", module.weight.numel(), "weight", "int8", 1))
            rows.append(row(path, "bias", len(module.bias), "bias", "int32", 4))
            rows.append(row(path, "weight_scale", len(module.bias), "scale", "float32", 4))
            requantized.append(path)
        elif path.endswith(".se"):
            requantized.append(path)
        elif path.startswith("blocks.") and path.count(".") == 1 and module.shortcut is not None:
            requantized.append(path)  # its addition
    for path in requantized:
        rows.append(row(path, "output_scale", 1, "scale", "float32", 4))
        rows.append(row(path, "output_zero_point", 1, "zero_point", "int8", 1))
    return tuple(rows)


def test_all_values_and_bytes_are_the_reports():
    size = BOOKKEEPING(int8_rows())
    assert size.parameters == size.kept == 113_976
    assert size.bytes == size.kept_bytes == 130_704
    assert f"{in_unit(size.bytes, 'KB'):.2f}" == "127.64"


def test_every_item_is_the_reports():
    """SYSTEMS.md: 109,320 x 1; 658 x 4; 658 x 8; SE 3,132 x 4 and 144 x 4; 32 points x (4 + 8)."""
    items: dict[tuple[str, str, int, bool], int] = {}
    for counted in BOOKKEEPING.counted(int8_rows()):
        key = (counted.role, counted.dtype, counted.itemsize, ".se." in counted.layer)
        items[key] = items.get(key, 0) + counted.values
    assert items.pop(("weight", "float32", 4, True)) + items.pop(("bias", "float32", 4, True)) == 3_132
    assert items == {
        ("weight", "int8", 1, False): 109_320,
        ("bias", "float32", 4, False): 658,
        ("scale", "float64", 8, False): 658,
        ("norm", "float32", 4, True): 72,
        ("statistic", "float32", 4, True): 72,
        ("scale", "float32", 4, False): 32,
        ("zero_point", "int64", 8, False): 32,
    }


def test_a_network_without_int8_layers_is_counted_as_stored():
    stored = (row("conv", "weight", 9, "weight", "float16", 2), row("conv", "bias", 1, "bias", "float16", 2))
    assert BOOKKEEPING.counted((*stored, row("frontend", "mel", 5, "frontend", "float32", 4))) == stored


@pytest.mark.parametrize("name", ["byttebier2021", "bn4"])
def test_the_table_lists_items_that_add_up(name):
    buffer = io.StringIO()
    ledger = Ledger(int8_rows(), (), (1, 1, 128, 301), 0)
    Console(file=buffer, width=200).print(item_table(ledger, CONVENTIONS[name]))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in buffer.getvalue().splitlines() if "│" in line]
    items = {(item, dtype): [int(n.replace(",", "")) for n in numbers] for item, dtype, *numbers in lines[:-1]}
    assert all(values * each == size for values, each, size in items.values())
    *_, (_, _, values, _, size) = lines
    assert values == f"{sum(figures[0] for figures in items.values()):,}"
    assert size == f"{sum(figures[2] for figures in items.values()):,}"
    if name == "byttebier2021":
        assert (values, size) == ("113,976", "130,704")
        assert items["weights, floating point layers", "float32"][0] == 3_132 - 36 - 216
        assert items["biases", "float32"] == [658, 4, 2_632]
        assert items["quantization scales", "float64"] == [658, 8, 5_264]
        assert items["zero points", "int64"] == [32, 8, 256]


def test_pham2020_scales_every_value_as_its_kernels_are() -> None:
    """Half of the kernels: half of everything, to half a value a tensor; int8 kernels: a byte for everything."""

    def rows(kept: int, dtype: str, itemsize: int) -> tuple[TensorRow, ...]:
        kernel = replace(row("conv", "weight", 400, "weight", dtype, itemsize), kept=kept)
        return kernel, row("conv", "bias", 10, "bias", "int32", 4)

    normed = [row("norm", t, 10, "norm", "float32", 4) for t in ("weight", "bias")]
    normed += [row("norm", f"running_{t}", 10, "statistic", "float32", 4) for t in ("mean", "var")]
    explicit = [row("norm", t, 10, "norm", "float32", 4) for t in ("scale", "shift")]
    points = [
        row("conv", "output_scale", 1, "scale", "float32", 4),
        row("input", "zero_point", 1, "zero_point", "int8", 1),
    ]
    convention = CONVENTIONS["pham2020"]
    whole = convention((*rows(400, "float32", 4), *normed))
    assert (whole.parameters, whole.kept_bytes) == (450, 1800)
    half = convention((*rows(200, "float32", 4), *normed))
    assert (half.parameters, half.kept, half.kept_bytes) == (450, 225, 900)
    int8 = convention((*rows(400, "int8", 1), *explicit, *points))
    assert (int8.parameters, int8.kept_bytes) == (450, 450)
    assert convention(()).parameters == 0


def test_galindo2021_counts_an_int8_network_as_before_folding():
    """A layer whose bias came of folding had a scale and a shift; one that had its own bias keeps one value."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4)
            self.biased, self.dense = nn.Conv2d(4, 5, 1), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dense(self.biased(self.norm(self.conv(x)).relu()).mean((2, 3)))

    network, example = Both().eval(), torch.randn(1, 1, 8, 9)
    values = 36 + 8 + 20 + 5 + 10 + 2
    convention = CONVENTIONS["galindo2021"]
    assert values == sum(parameter.numel() for parameter in network.parameters())
    assert convention(count(network, example).tensors) == Size(values, values, 4 * values, 4 * values)
    masks.attach(network, "biased.weight", torch.arange(20).view(5, 4, 1, 1) % 4 > 0)
    prepared = prepare(network, example)
    prepared.set_ranges([example])
    found = convention(count(prepared.convert(), example).tensors)
    assert found == Size(values, values - 5, values, values - 5)
