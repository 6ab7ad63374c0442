"""Peak activation RAM against sums by hand."""

import pytest
import torch
from torch import nn

from tinyscene.accounting import count
from tinyscene.errors import InputError


def peak_ram_bytes(network: nn.Module, example: torch.Tensor) -> int:
    return count(network, example).peak_ram_bytes


def chain(inplace: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )


def test_a_chain_needs_its_two_largest_neighbours():
    # 64 values in, 256 after the conv and again after the ReLU, 64 after pooling (the flatten is a view), 10 out.
    assert peak_ram_bytes(chain(inplace=False), torch.zeros(1, 1, 8, 8)) == (256 + 256) * 4


def test_an_in_place_relu_needs_no_second_storage():
    assert peak_ram_bytes(chain(inplace=True), torch.zeros(1, 1, 8, 8)) == (64 + 256) * 4


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(4, 8, 3, padding=1)
        self.narrow = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        return x + self.narrow(torch.relu(self.widen(x)))


def test_a_residual_network_holds_its_input_until_the_sum():
    # At the ReLU: the input (4 x 64), what the ReLU reads (8 x 64) and what it writes (8 x 64).
    assert peak_ram_bytes(Residual(), torch.zeros(1, 4, 8, 8)) == (256 + 512 + 512) * 4


def test_python_names_do_not_keep_a_tensor_alive():
    class Hoarder(Residual):
        def forward(self, x):
            wide = self.widen(x)
            active = torch.relu(wide)
            narrow = self.narrow(active)
            total = x + narrow
            return total + 0 * total

    example = torch.zeros(1, 4, 8, 8)
    assert peak_ram_bytes(Hoarder(), example) == peak_ram_bytes(Residual(), example)


def test_an_output_made_early_is_held_to_the_end():
    class Early(Residual):
        def forward(self, x):
            wide = self.widen(x)
            return wide, self.narrow(torch.relu(wide)).relu().relu()

    # At the second convolution: the early output and the ReLU's (8 x 64 each), and what it writes (4 x 64).
    assert peak_ram_bytes(Early(), torch.zeros(1, 4, 8, 8)) == (512 + 512 + 256) * 4


@pytest.mark.parametrize(("precision", "each"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_precision_sets_the_bytes_a_value(precision, each):
    ledger = count(chain(inplace=False), torch.zeros(1, 1, 8, 8), precision=precision)
    assert (ledger.peak_ram_bytes, ledger.precision) == (512 * each, precision)


def test_parameters_are_left_out():
    # 1,000 weights, but only ten values in and ten hundred out.
    assert peak_ram_bytes(nn.Linear(10, 100), torch.zeros(1, 10)) == 110 * 4


def test_an_example_that_is_part_of_a_larger_tensor_counts_for_itself():
    batch = torch.zeros(50, 10)
    assert peak_ram_bytes(nn.Linear(10, 100), batch[:1]) == 110 * 4


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="float32, float16, int8"):
        count(nn.Linear(2, 2), torch.zeros(1, 2), precision="int4")


class Hidden(nn.Module):
    """Its weight is an ordinary attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = [torch.randn(3, 1, 3, 3)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, self.weight[0]).mean((2, 3))


def test_weights_outside_parameters_are_refused() -> None:
    with pytest.raises(InputError, match="computes with 27 values that are neither parameters nor buffers"):
        count(Hidden(), torch.zeros(1, 1, 8, 8))
