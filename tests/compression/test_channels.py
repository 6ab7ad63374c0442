"""Channels that only go together: the cut network computes what the whole one does with those channels silent."""

import copy

import pytest
import torch
from prunable_networks import PRUNABLE, assert_cut_equals_silenced, build, drawn, groups_of, noise, sets_of, spread
from reordering_networks import FOLLOWED, REFUSED, Between, Tied
from torch import nn

from tinyscene.compression.channels import Coupled, Member, cut
from tinyscene.compression.coupling import coupled_channels
from tinyscene.errors import InputError
from tinyscene.models import NETWORKS, masks
from tinyscene.models.classifier import SceneClassifier


def reasons(name):
    return {group.name: group.exempt for group in sets_of(name) if group.exempt}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PRUNABLE)
def test_the_cut_network_equals_the_silenced_one(name, seed):
    classifier, groups = build(name, seed), groups_of(name)
    kept = drawn(groups, seed)
    network, features = classifier.network.double(), noise(classifier, seed)
    small = copy.deepcopy(network)
    cut(small, zip(groups, kept, strict=True), classifier.short_example())
    silent = assert_cut_equals_silenced(small, network, groups, kept, features)
    with torch.no_grad():
        assert not torch.allclose(silent, network(features), atol=1e-3)


@pytest.mark.parametrize("name", PRUNABLE)
def test_every_removed_channel_is_gone_from_the_saved_file(name, tmp_path):
    classifier, groups = build(name), groups_of(name)
    kept = drawn(groups, 5)
    before = copy.deepcopy(classifier.network.state_dict())
    cut(classifier.network, zip(groups, kept, strict=True), classifier.short_example())
    loaded = SceneClassifier.load(classifier.save(tmp_path))
    for group, units in zip(groups, kept, strict=True):
        for path, side, unit_of in group.members:
            stays = int(((unit_of < 0) | units[unit_of]).sum())
            layer, weight = loaded.network.get_submodule(path), loaded.network.state_dict()[f"{path}.weight"]
            held = len(weight) if side == "out" else weight.shape[1] * getattr(layer, "groups", 1)
            assert held == stays < len(unit_of) or units.all()
    features = noise(classifier).float()
    with torch.no_grad():
        assert torch.equal(loaded.network(features), classifier.network(features))
    assert sum(map(torch.numel, loaded.network.state_dict().values())) < sum(map(torch.numel, before.values()))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_channel_is_in_one_set_and_every_unit_equally_large(name):
    found = sets_of(name)
    sides = [(path, side) for group in found for path, side, _ in group.members]
    makers = {
        (path, "out")
        for path, layer in build(name).network.named_modules()
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)
    }
    assert makers <= set(sides)
    assert len(set(sides)) == len(sides)
    for group in found:
        for _, _, unit_of in group.members:
            assert len(set(unit_of.bincount(minlength=group.units).tolist())) == 1, group.name


def test_what_cannot_go_says_why():
    logits, single = "they are the logits", "there is only one unit, and one has to stay"
    height = "they become another dimension of the next layer's input"
    # Of AemNet's 1-D convolutions the second makes the bands of an image; its first block starts from one channel.
    assert reasons("aemnet") == {"body.low.3": height, "body.high.0.0": single, "dense": logits}
    assert reasons("cp_mobile") == {"classify.0": logits}
    assert reasons("moments_linear") == {"layers.0": logits}
    assert reasons("tandem") == {"linear.layers.0": logits}
    assert reasons("se_resnet") == {"dense": logits}


class Grouped(nn.Module):
    """Two convolutions in groups, one in 2 and one in 4, in a row, and a depthwise one that doubles its channels."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 16, 3)
        self.b = nn.Conv2d(16, 16, 3, groups=2)
        self.c = nn.Conv2d(16, 24, 3, groups=4)
        self.d = nn.Conv2d(24, 48, 3, groups=24)
        self.e = nn.Conv2d(48, 5, 1)

    def forward(self, x):
        return self.e(torch.relu(self.d(torch.relu(self.c(self.b(self.a(x)))))).mean((2, 3), keepdim=True)).flatten(1)


class Straddling(nn.Module):
    """Six and four channels side by side, read in two groups of five: the second begins within the first six."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(1, 6, 1)
        self.right = nn.Conv2d(1, 4, 1)
        self.both = nn.Conv2d(10, 4, 1, groups=2)
        self.dense = nn.Linear(4, 3)

    def forward(self, x):
        return self.dense(self.both(torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3)))


def test_channels_that_groups_read_unequally_stay():
    found = {group.name: group.exempt for group in coupled_channels(Straddling(), torch.zeros(1, 1, 8, 8))}
    # The first of one group is the first of six, that of the other the last of them.
    assert found["left"] == "the units are of unequal size"
    assert "right" not in found
    assert found["both"] == ""


def test_groups_stay_equal():
    torch.manual_seed(0)
    network = Grouped().double()
    found = coupled_channels(network, torch.zeros(1, 1, 12, 12))
    units = {group.name: (group.units, group.exempt) for group in found}
    # Of the 16 channels between groups of 2 and of 4, a unit takes one from each of the 4.
    assert units["a"] == (8, "")
    assert units["b"] == (4, "")
    assert units["d"] == (2, "")
    assert units["e"] == (5, "they are the logits")
    groups = [group for group in found if group.name in "abd"]
    kept = drawn(groups, 1)
    small = copy.deepcopy(network)
    cut(small, zip(groups, kept, strict=True), torch.zeros(1, 1, 12, 12))
    assert_cut_equals_silenced(small, network, groups, kept, torch.randn(2, 1, 12, 12, dtype=torch.float64))


class Odd(nn.Module):
    """A depthwise convolution on two input channels, a layer norm, and two maps side by side."""

    def __init__(self):
        super().__init__()
        self.heard = nn.Conv2d(2, 2, 3, groups=2)
        self.left = nn.Conv2d(2, 3, 1)
        self.right = nn.Conv2d(2, 4, 1)
        self.mix = nn.Conv2d(7, 6, 1)
        self.norm = nn.LayerNorm(6)
        self.dense = nn.Linear(6, 5)

    def forward(self, x):
        x = self.heard(x)
        return self.dense(self.norm(self.mix(torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3))))


def test_what_no_cut_takes_apart_is_exempt_and_what_stands_side_by_side_is_told_apart():
    torch.manual_seed(0)
    network = Odd().double()
    found = {group.name: group for group in coupled_channels(network, torch.zeros(1, 2, 8, 8))}
    assert found["heard"].exempt == "they are the input's"
    assert found["mix"].exempt == "LayerNorm (norm) does not keep them separate"
    groups = found["left"], found["right"]
    kept = torch.tensor([True, False, True]), torch.tensor([False, True, True, False])
    small = copy.deepcopy(network)
    cut(small, zip(groups, kept, strict=True), torch.zeros(1, 2, 8, 8))
    assert torch.equal(small.mix.weight, network.mix.weight[:, [0, 2, 4, 5]])
    assert_cut_equals_silenced(small, network, groups, kept, torch.randn(2, 2, 8, 8, dtype=torch.float64))


class BesideTheInput(nn.Module):
    """The second convolution reads what the first makes beside the features themselves."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 1)
        self.second = nn.Conv2d(5, 3, 1)
        self.dense = nn.Linear(3, 2)

    def forward(self, x):
        return self.dense(self.second(torch.cat([x, self.first(x)], 1)).mean((2, 3)))


def test_what_stands_beside_the_input_is_told_apart_from_it():
    torch.manual_seed(0)
    network = BesideTheInput().double()
    found = {group.name: group for group in coupled_channels(network, torch.zeros(1, 1, 8, 8))}
    groups, kept = [found["first"]], [torch.tensor([True, False, False, True])]
    small = copy.deepcopy(network)
    cut(small, zip(groups, kept, strict=True), torch.zeros(1, 1, 8, 8))
    assert torch.equal(small.second.weight, network.second.weight[:, [0, 1, 4]])
    assert_cut_equals_silenced(small, network, groups, kept, torch.randn(2, 1, 8, 8, dtype=torch.float64))


EXAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_followed_through_every_order(name):
    torch.manual_seed(0)
    make, units = FOLLOWED[name]
    network = spread(make()).double().eval()
    groups = [group for group in coupled_channels(network, EXAMPLE) if not group.exempt]
    assert groups[0].units == units
    for seed in range(2):
        kept, small = drawn(groups, seed), copy.deepcopy(network)
        cut(small, zip(groups, kept, strict=True), EXAMPLE)
        assert_cut_equals_silenced(small, network, groups, kept, torch.randn(2, 1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_channels_is_named(name):
    make, operation = REFUSED[name]
    first = coupled_channels(make(), EXAMPLE)[0]
    assert first.name == "first"
    assert first.exempt == f"{operation} does not keep them separate"


def test_a_gate_that_is_not_zero_at_zero_goes_with_its_channel():
    torch.manual_seed(0)
    network = Between(nn.Sigmoid()).double()
    group = coupled_channels(network, EXAMPLE)[0]
    small = copy.deepcopy(network)
    cut(small, [(group, torch.arange(8) < 5)], EXAMPLE)
    with torch.no_grad():
        network.second.weight[:, 5:] = 0
        features = torch.randn(2, 1, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(small(features), network(features), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wrong", [[1, 0, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, -1]])
def test_a_cut_that_takes_one_channel_for_another_is_refused(wrong):
    network, order = Between(nn.ReLU()), torch.arange(8)
    members = Member("first", "out", order), Member("second", "in", torch.tensor(wrong))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match="first: without these channels the network would compute something else"):
        cut(network, [(Coupled("first", 8, members), order % 7 > 0)], EXAMPLE)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_layers_that_hold_one_tensor_stay():
    reasons = {group.name: group.exempt for group in coupled_channels(Tied(), EXAMPLE)}
    assert reasons["first"] == reasons["second"] == reasons["third"] == "second and third share a tensor"


def test_masks_types_and_what_is_trained_stay():
    classifier = build("se_resnet")
    network = classifier.network
    for path in ("blocks.0.second.0.weight", "blocks.0.second.1.bias", "dense.weight"):
        masks.attach(network, path, torch.rand_like(network.get_parameter(path)) > 0.5)
    network.stem[0].weight.requires_grad_(False)
    groups = groups_of("se_resnet")
    kept = drawn(groups, 3)
    held = masks.masks_of(network)
    small = copy.deepcopy(network)
    cut(small, zip(groups, kept, strict=True), classifier.short_example())
    assert masks.masks_of(small).keys() == held.keys()
    for path, mask in masks.masks_of(small).items():
        parameter = small.get_parameter(path)
        assert mask.dtype == torch.bool
        assert mask.shape == parameter.shape
        # Nothing else is zero.
        assert torch.equal(mask, parameter != 0)
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in network.parameters()]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in small.parameters() if p.ndim == 4)


def test_looking_changes_nothing():
    classifier = build("tandem").train()
    classifier.network.requires_grad_(False)
    before = copy.deepcopy(classifier.network.state_dict())
    coupled_channels(classifier.network, classifier.short_example())
    assert classifier.network.training
    assert not any(p.requires_grad for p in classifier.network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.network.state_dict().items())


def test_cutting_everything_or_what_is_exempt_is_refused():
    classifier = build("baseline2020")
    found = {group.name: group for group in sets_of("baseline2020")}
    with pytest.raises(InputError, match="L1: all 6 channels would be removed; keep at least one"):
        cut(classifier.network, [(found["L1"], torch.zeros(6, dtype=torch.bool))], classifier.short_example())
    with pytest.raises(InputError, match="output: its channels can't be pruned, they are the logits"):
        cut(classifier.network, [(found["output"], torch.tensor([True, False, True]))], classifier.short_example())
