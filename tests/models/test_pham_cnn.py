"""The CNN of Pham et al. against the report's table, a forward by hand, and torch's own export."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import spread
from torch import nn

from tinyscene.accounting import CONVENTIONS, count, in_unit
from tinyscene.models import PhamCNN, create_classifier
from tinyscene.models.folding import Affine, fold_batch_norm
from tinyscene.models.preparation import prepare


def test_values_and_size_are_the_reports():
    network = PhamCNN()
    saved = {name: t for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert sum(tensor.numel() for tensor in saved.values()) == 62_855
    # Without the input's batch norm, 62,851 print the same; one before every convolution would add 896 and miss.
    assert [f"{4 * values / 1024:.1f}" for values in (62_855, 62_851, 62_855 + 4 * (32 + 64 + 128))] == [
        "245.5",
        "245.5",
        "249.0",
    ]


def test_dropout_is_table_2s_and_the_first_values_are_keras():
    network = PhamCNN()
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.20, 0.25, 0.30, 0.35]
    for layer in (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)):
        fan_in, values = layer.weight[0].numel(), layer.weight.numel()
        bound = (6 / (fan_in + values // layer.weight.shape[1])) ** 0.5  # Glorot uniform
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_table_2s_maps():
    """128 x 428 -> 64 x 107 x 32 -> 32 x 54 x 64 -> 16 x 13 x 128 -> 256, but for 14 in place of that 13."""
    network = PhamCNN().eval()
    x = network.norm(torch.randn(1, 1, 128, 428))
    maps = [x := block(x) for block in (network.block1, network.block2, network.block3, network.block4)]
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 64, 107), (64, 32, 54), (128, 16, 14), (256, 16, 14)]
    assert network.classify_map(maps[-1]).shape == (1, 3)


def by_hand(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The same from functions alone, in the order that table 2 names: Cv - Relu - Bn - Mp."""

    def norm(path: str, x: torch.Tensor) -> torch.Tensor:
        bn = network.get_submodule(path)
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    x = norm("norm", x)
    for block, pool in ((1, (2, 4)), (2, (2, 2)), (3, (2, 4)), (4, None)):
        conv = network.get_submodule(f"block{block}.0")
        x = F.conv2d(x, conv.weight, conv.bias, padding="same").relu()
        x = norm(f"block{block}.2", x)
        if pool is None:
            x = x.flatten(2).max(2).values
        else:
            # Incomplete windows at the end count as well.
            down, along = (-x.shape[2] % pool[0], -x.shape[3] % pool[1])
            x = F.max_pool2d(F.pad(x, (0, along, 0, down), value=-torch.inf), pool)
    return x @ network.dense.weight.T + network.dense.bias


@pytest.mark.parametrize(("bands", "frames"), [(128, 77), (40, 64), (9, 1)])
def test_a_forward_by_hand(bands, frames):
    network = spread(PhamCNN(channels=(4, 6, 8, 10)))
    features = torch.randn(2, 1, bands, frames)
    torch.testing.assert_close(network(features), by_hand(network, features), rtol=1e-4, atol=1e-5)


def test_no_batch_norm_folds_and_all_become_affines():
    network = spread(PhamCNN(channels=(4, 6, 8, 10)))
    features = torch.randn(1, 1, 40, 30)
    folded = fold_batch_norm(network, features)
    assert sum(isinstance(module, Affine) for module in folded.modules()) == 5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(features), network(features), rtol=1e-4, atol=1e-5)


def test_int8_holds_what_the_ledger_itemises():
    network = spread(PhamCNN())
    example = torch.randn(1, 1, 128, 40)
    prepared = prepare(network, example)
    prepared.set_ranges([example])
    ledger = count(prepared.convert(), example)
    sums: dict[tuple[str, str], int] = {}
    for row in ledger.tensors:
        sums[row.role, row.dtype] = sums.get((row.role, row.dtype), 0) + row.values
    kernels, outputs, normed = 60_448, 32 + 64 + 128 + 256 + 3, 1 + 32 + 64 + 128 + 256
    points = sums.pop(("zero_point", "int8"))
    assert sums == {
        ("weight", "int8"): kernels,
        ("bias", "int32"): outputs,
        ("norm", "float32"): 2 * normed,
        ("scale", "float32"): outputs + points,
    }
    real = CONVENTIONS["bn4"](ledger.tensors).bytes
    assert real == kernels + 4 * outputs + 8 * normed + 4 * outputs + 5 * points
    # One byte a value, batch norm at four a channel: the report's arithmetic.
    assert CONVENTIONS["pham2020"](ledger.tensors).bytes == kernels + outputs + 4 * normed == 62_855
    assert in_unit(real, "KB") - in_unit(62_855, "KB") > 5


def test_the_published_classifier_hears_the_first_channel_and_is_not_standardized():
    classifier = create_classifier("pham_cnn", ("indoor", "outdoor", "transportation"), seed=0)
    assert classifier.channel == 0
    assert classifier.standardize.fitted
    assert classifier.example(10.0).shape == (1, 1, 128, 428)
