"""Masks stay beside their weights through saving, loading and copying."""

import copy

import pytest
import torch
from torch import nn

from tinyscene.accounting import count
from tinyscene.models import create_classifier, masks
from tinyscene.models.classifier import SceneClassifier


@pytest.fixture
def masked() -> SceneClassifier:
    """The even values of one weight and one bias are gone."""
    classifier = create_classifier("baseline2021", ("a", "b", "c"), filters=(4, 4, 8), dense=6, seed=0)
    for path in ("L2.weight", "bn1.weight"):
        parameter = classifier.network.get_parameter(path)
        masks.attach(classifier.network, path, (torch.arange(parameter.numel()) % 2 == 1).view(parameter.shape))
    return classifier.eval()


def test_attaching_zeroes_what_the_mask_removes_and_nothing_else():
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    kept = torch.rand(3, 4) < 0.5
    masks.attach(layer, "weight", kept)
    assert torch.equal(layer.weight.detach(), before * kept)
    assert torch.equal(layer.weight_mask, kept)
    masks.attach(layer, "weight", torch.ones(3, 4))
    assert layer.weight_mask.all()


def test_apply_sets_back_even_what_is_not_finite():
    layer = nn.Linear(2, 2)
    masks.attach(layer, "bias", torch.tensor([True, False]))
    pairs = masks.removed(layer)
    layer.bias.data = torch.tensor([3.0, float("nan")])
    masks.apply(pairs)
    assert layer.bias.tolist() == [3.0, 0.0]


def test_a_saved_mask_comes_back(masked, tmp_path):
    loaded = SceneClassifier.load(masked.save(tmp_path))
    assert set(masks.masks_of(loaded.network)) == {"L2.weight", "bn1.weight"}
    for path, kept in masks.masks_of(masked.network).items():
        assert torch.equal(masks.masks_of(loaded.network)[path], kept)
        assert torch.equal(loaded.network.get_parameter(path), masked.network.get_parameter(path))
    waveform = torch.randn(1, masked.sample_rate)
    assert torch.equal(loaded(waveform), masked(waveform))


def test_a_copy_has_masks_of_its_own(masked):
    twin = copy.deepcopy(masked)
    twin.network.L2.weight_mask.fill_(True)
    assert not masked.network.L2.weight_mask.all()


def test_the_ledger_counts_what_is_kept(masked):
    rows = {row.name: row for row in count(masked.network, masked.example(1.0)).tensors}
    assert (rows["L2.weight"].values, rows["L2.weight"].kept) == (784, 392)
    assert (rows["bn1.weight"].values, rows["bn1.weight"].kept) == (4, 2)
    assert "L2.weight_mask" not in rows
