"""A fresh dense layer: what stands before it stays, bit for bit."""

import copy
from pathlib import Path

import pytest
import torch

from tinyscene.compression import ReplaceDense
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021, CPMobile
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Run

CLASSES = ("bus", "park", "tram")
NO_CLIPS = Clips("none", Path("/"), CLASSES, ())
KEPT = ("L1", "bn1", "L2", "bn2", "L3", "bn3")


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    network = Baseline2021(filters=(4, 5, 6), dense=12, classes=3)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)
    return SceneClassifier(LogMel(8000, 256, 40, hop_length=200), network, CLASSES)


def replaced(classifier, units=5, seed=0):
    return ReplaceDense(units)(classifier, NO_CLIPS, Run(seed))


def test_convolutions_and_batch_norms_stay_bit_identical(classifier):
    before = copy.deepcopy(classifier.state_dict())
    new = replaced(classifier)
    for path in KEPT:
        for name, tensor in new.network.get_submodule(path).state_dict().items():
            assert torch.equal(tensor, before[f"network.{path}.{name}"])
    assert new.network.dense.weight.shape == (5, 12)
    assert new.network.output.weight.shape == (3, 5)
    assert new(torch.randn(2, 4000)).shape == (2, 3)
    # The argument has its old layers and values.
    assert classifier.network.dense.weight.shape == (12, 12)
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())


def test_the_seed_decides_the_new_values_whatever_torch_drew_before(classifier):
    torch.manual_seed(1)
    one = replaced(classifier).network.state_dict()
    following = torch.rand(1)
    torch.manual_seed(2)
    torch.rand(99)
    two = replaced(classifier).network.state_dict()
    other = replaced(classifier, seed=1).network.state_dict()
    for name in ("dense.weight", "output.weight"):
        assert torch.equal(one[name], two[name])
        assert not torch.equal(one[name], other[name])
    # Nor does it disturb what torch draws next.
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), following)


def test_the_new_values_begin_as_the_network_begins(classifier):
    new = replaced(classifier, units=400).network
    assert not new.dense.bias.any()
    assert not new.output.bias.any()
    # Glorot's bound, which is twice to three times that of torch's own layers here.
    bound = (6 / (12 + 400)) ** 0.5
    assert 0.98 * bound < new.dense.weight.abs().max() <= bound


def test_the_same_size_is_begun_afresh_as_well(classifier):
    new = replaced(classifier, units=12)
    assert not torch.equal(new.network.dense.weight, classifier.network.dense.weight)


def test_unusable_arguments_are_refused(classifier):
    with pytest.raises(InputError, match="units=0"):
        replaced(classifier, units=0)
    with pytest.raises(InputError, match="no dense layer 'fc'; accepted: dense, output"):
        ReplaceDense(5, layer="fc").shape(classifier)
    with pytest.raises(InputError, match="no dense layer 'L3'"):
        ReplaceDense(5, reader="L3").shape(classifier)
    with pytest.raises(InputError, match=r"'dense' takes 12 inputs and does not read the 3 outputs of 'output'"):
        ReplaceDense(5, layer="output", reader="dense").shape(classifier)
    mobile = SceneClassifier(LogMel(8000, 256, 40, hop_length=200), CPMobile(classes=3), CLASSES)
    with pytest.raises(InputError, match="no dense layer 'dense'"):
        ReplaceDense(5).shape(mobile)
