"""The bookkeeping of Byttebier et al., from rows made by hand of the real network's shapes."""

import io

import pytest
from rich.console import Console
from torch import nn

from tinyscene.accounting import CONVENTIONS, Ledger, TensorRow, in_unit, item_table
from tinyscene.models import SEResNet

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
