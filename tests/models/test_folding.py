"""Folding computes the same, against PyTorch's own fusion, and leaves no batch norm outside what is kept."""

import copy

import pytest
import torch
from small_networks import noise, small, spread
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from tinyscene.accounting import CONVENTIONS, count
from tinyscene.models import NETWORKS, masks
from tinyscene.models.folding import Affine, fold_batch_norm

EXAMPLE = torch.zeros(1, 2, 6, 8)


def norms(network: nn.Module) -> set[str]:
    return {path for path, module in network.named_modules() if isinstance(module, _BatchNorm)}


def assert_computes_the_same(folded: nn.Module, network: nn.Module, features: Tensor) -> None:
    with torch.no_grad():
        expected = network(features)
        torch.testing.assert_close(folded(features), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


class Block(nn.Module):
    """Batch norms, and a forward that says what reads what."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            self.add_module(name, module)
        spread(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def on_input() -> nn.Module:
    return Block(lambda m, x: m.conv(m.norm(x)), norm=nn.BatchNorm2d(2), conv=nn.Conv2d(2, 3, 3))


def after_relu() -> nn.Module:
    return Block(lambda m, x: m.norm(m.conv(x).relu()), conv=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(3))


def beside_another_reader() -> nn.Module:
    def forward(m, x):
        y = m.conv(x)
        return m.norm(y) + y

    return Block(forward, conv=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(3))


def of_a_layer_that_runs_twice() -> nn.Module:
    def forward(m, x):
        return m.norm(m.conv(x)) + m.conv(x.relu())

    return Block(forward, conv=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(3))


def on_a_view_with_other_channels() -> nn.Module:
    """The storage is the convolution's own."""

    def forward(m, x):
        y = m.conv(x)
        return m.norm(y.view(y.shape[0], 6, 2, 6)).view(y.shape)

    return Block(forward, conv=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(6))


def that_runs_twice() -> nn.Module:
    def forward(m, x):
        return m.norm(m.one(x)) + m.norm(m.two(x))

    return Block(forward, one=nn.Conv2d(2, 3, 3), two=nn.Conv2d(2, 3, 3), norm=nn.BatchNorm2d(3))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_computes_the_same(name):
    network = small(name)
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norm(network, noise(network, 1, 20))
    assert_computes_the_same(folded, network, noise(network, 3, 33))
    assert not norms(folded)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(("conv", "norm"), [("L1", "bn1"), ("L2", "bn2"), ("L3", "bn3")])
def test_a_folded_convolution_is_the_one_that_pytorch_fuses(conv, norm):
    network = small("baseline2021")
    folded = fold_batch_norm(network, noise(network, 1, 20)).get_submodule(conv)
    layer, by = network.get_submodule(conv), network.get_submodule(norm)
    weight, bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, by.running_mean, by.running_var, by.eps, by.weight, by.bias
    )
    torch.testing.assert_close(folded.weight, weight)
    torch.testing.assert_close(folded.bias, bias)


def test_a_dense_layer_takes_its_batch_norm_in_as_pytorch_fuses_it():
    network = spread(nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4)))
    folded = fold_batch_norm(network, torch.zeros(1, 5))
    by = network[1]
    weight, bias = fuse_linear_bn_weights(
        network[0].weight, None, by.running_mean, by.running_var, by.eps, by.weight, by.bias
    )
    torch.testing.assert_close(folded[0].weight, weight)
    torch.testing.assert_close(folded[0].bias, bias)
    assert isinstance(folded[1], nn.Identity)


def test_groups_and_a_norm_without_scale_fold_too():
    network = spread(nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4, affine=False)))
    folded = fold_batch_norm(network, EXAMPLE)
    assert_computes_the_same(folded, network, torch.randn(3, 2, 6, 8))
    assert isinstance(folded[1], nn.Identity)


class Standardized(nn.Conv2d):
    """A convolution that brings its filters to deviation one (Qiao et al., arXiv:1903.10520), whatever folding did."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / self.weight.flatten(1).std(1).view(-1, 1, 1, 1)
        return nn.functional.conv2d(x, weight, self.bias)


def behind_filters_of_deviation_one() -> nn.Module:
    return Block(lambda m, x: m.norm(m.conv(x)), conv=Standardized(2, 3, 3), norm=nn.BatchNorm2d(3))


def behind_a_computed_weight() -> nn.Module:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    return Block(lambda m, x: m.norm(m.conv(x)), conv=conv, norm=nn.BatchNorm2d(3))


@pytest.mark.parametrize("rows", [6, 3])
def test_a_norm_over_another_axis_than_the_dense_layers_outputs_becomes_an_affine(rows):
    """Frames of a sequence, as many as the dense layer has outputs or not."""
    dense, norm = nn.Linear(8, 6), nn.BatchNorm1d(rows)
    network = Block(lambda m, x: m.norm(m.dense(x.mT)), dense=dense, norm=norm).eval()
    example = torch.zeros(1, 8, rows)
    folded = fold_batch_norm(network, example)
    assert isinstance(folded.norm, Affine)
    assert_computes_the_same(folded, network, torch.randn(3, 8, rows))
    held = CONVENTIONS["int8_folded"](count(network, example).tensors)
    assert (held.parameters, held.bytes) == (48 + 6 + 2 * rows, 48 + 4 * 6 + 4 * 2 * rows)


class Rectified(nn.Conv2d):
    """A convolution and its activation in one module."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_scales_that_begin_at_zero_hide_no_wrong_fold():
    network = nn.Sequential(Rectified(2, 3, 3), nn.BatchNorm2d(3)).eval()
    nn.init.zeros_(network[1].weight)
    assert isinstance(fold_batch_norm(network, EXAMPLE)[1], Affine)


@pytest.mark.parametrize(
    "build",
    [
        on_input,
        behind_filters_of_deviation_one,
        behind_a_computed_weight,
        after_relu,
        beside_another_reader,
        on_a_view_with_other_channels,
        of_a_layer_that_runs_twice,
        that_runs_twice,
    ],
)
def test_a_norm_that_no_layer_can_take_in_becomes_an_affine(build):
    network = build()
    folded = fold_batch_norm(network, EXAMPLE)
    assert isinstance(folded.norm, Affine)
    assert_computes_the_same(folded, network, torch.randn(3, 2, 6, 8))


def test_what_is_kept_stays_batch_norm():
    network = small("se_resnet")
    folded = fold_batch_norm(network, noise(network, 1, 20), ("blocks.*.se",))
    assert norms(folded) == {f"blocks.{number}.se.norm" for number in range(6)}
    assert_computes_the_same(folded, network, noise(network, 2, 24))


def test_a_norm_that_uses_the_statistics_of_its_batch_stays():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    assert norms(fold_batch_norm(network, EXAMPLE)) == {"1"}


def test_masked_weights_stay_zero_and_masked():
    network = spread(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    kept = torch.rand(network[0].weight.shape) < 0.5
    masks.attach(network, "0.weight", kept)
    folded = fold_batch_norm(network, EXAMPLE)
    assert torch.equal(masks.masks_of(folded)["0.weight"], kept)
    assert torch.equal(folded[0].weight != 0, kept)


def test_a_masked_norm_scale_takes_its_whole_filter_with_it():
    network = spread(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    masks.attach(network, "1.weight", torch.tensor([True, False, True]))
    folded = fold_batch_norm(network, EXAMPLE)
    assert masks.masks_of(folded)["0.weight"].flatten(1).all(1).tolist() == [True, False, True]
    assert not masks.masks_of(folded)["0.weight"][1].any()
    assert not folded[0].weight[1].any()
    assert_computes_the_same(folded, network, torch.randn(3, 2, 6, 8))


def test_masks_of_the_layer_and_of_its_norm_add_up():
    network = spread(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    kept = torch.rand(network[0].weight.shape) < 0.5
    masks.attach(network, "0.weight", kept)
    masks.attach(network, "1.weight", torch.tensor([True, False, True]))
    (found,) = masks.masks_of(fold_batch_norm(network, EXAMPLE)).values()
    assert torch.equal(found, torch.stack([kept[0], torch.zeros_like(kept[1]), kept[2]]))


def test_a_bias_that_folding_makes_has_no_mask():
    network = spread(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    masks.attach(network, "0.bias", torch.tensor([False, False, True]))
    masks.attach(network, "1.bias", torch.tensor([False, True, True]))
    folded = fold_batch_norm(network, EXAMPLE)
    assert not masks.masks_of(folded)
    assert folded[0].bias.all()
    assert_computes_the_same(folded, network, torch.randn(3, 2, 6, 8))


def test_an_affine_keeps_the_mask_of_its_scale():
    network = after_relu()
    kept = torch.tensor([True, False, True])
    masks.attach(network, "norm.weight", kept)
    folded = fold_batch_norm(network, EXAMPLE)
    assert torch.equal(masks.masks_of(folded)["norm.scale"], kept)
    assert torch.equal(folded.norm.scale != 0, kept)
    assert_computes_the_same(folded, network, torch.randn(3, 2, 6, 8))


def test_a_norm_that_computes_something_else_stays():
    class Twice(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    network = nn.Sequential(nn.Conv2d(1, 4, 3), Twice(4)).eval()
    example = torch.randn(1, 1, 6, 6)
    folded = fold_batch_norm(network, example)
    torch.testing.assert_close(folded(example), network(example))
