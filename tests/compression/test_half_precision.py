"""16-bit weights against NumPy's float16."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tinyscene.compression import HalfPrecision
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021, CPMobile
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Run

CLASSES = ("bus", "park", "tram")
NO_CLIPS = Clips("none", Path("/"), CLASSES, ())


def build(network):
    torch.manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.01, 1.0)
    return SceneClassifier(LogMel(8000, 256, 40, hop_length=200), network, CLASSES).eval()


@pytest.fixture(params=[Baseline2021, CPMobile])
def classifier(request):
    return build(request.param(classes=3))


def test_values_are_numpys_rounding_and_the_argument_stays(classifier):
    before = copy.deepcopy(classifier.state_dict())
    halved = HalfPrecision()(classifier, NO_CLIPS, Run())
    rounded = 0
    for name, tensor in halved.network.state_dict().items():
        exact = before[f"network.{name}"]
        if exact.is_floating_point():
            assert tensor.dtype == torch.float16
            np.testing.assert_array_equal(tensor.numpy(), exact.numpy().astype(np.float16))
            rounded += int((tensor.float() != exact).sum())
    assert rounded > 1000
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    assert all(tensor.dtype == torch.float32 for tensor in halved.standardize.state_dict().values() if tensor.ndim)


def test_the_file_holds_two_bytes_a_value(classifier, tmp_path):
    def stored(folder):
        return load_file(folder / "weights.safetensors")

    single, half = classifier.save(tmp_path / "single"), HalfPrecision().shape(classifier).save(tmp_path / "half")
    values = sum(
        array.size
        for name, array in stored(single).items()
        if name.startswith("network.") and array.dtype == np.float32
    )
    assert values > 10_000
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (single, half)]
    # The header, a line of JSON, changes by its digits.
    assert abs(sizes[0] - sizes[1] - 2 * values) < 0.02 * sizes[0]
    network = {name: array for name, array in stored(half).items() if name.startswith("network.")}
    assert sum(array.nbytes for array in network.values() if array.dtype == np.float16) == 2 * values


def test_arithmetic_stays_at_32_bits(classifier):
    halved = HalfPrecision().shape(classifier)
    widened = copy.deepcopy(classifier)
    for tensor in widened.network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    waveforms = 0.1 * torch.randn(2, 8000)
    with torch.inference_mode():
        logits = halved(waveforms)
        assert logits.dtype == torch.float32
        assert torch.equal(logits, widened(waveforms))
        assert not torch.equal(logits, classifier(waveforms))


def test_halving_twice_is_halving_once(classifier):
    once = HalfPrecision().shape(classifier)
    twice = HalfPrecision().shape(once)
    assert all(torch.equal(tensor, twice.state_dict()[name]) for name, tensor in once.state_dict().items())


@pytest.mark.parametrize("value", [65_520.0, -1e9, float("nan"), float("inf")])
def test_what_16_bits_cannot_hold_is_named(value):
    classifier = build(Baseline2021(classes=3))
    with torch.no_grad():
        classifier.network.bn2.running_var[3] = value
    with pytest.raises(InputError, match=r"bn2\.running_var.*65,504"):
        HalfPrecision().shape(classifier)


def test_the_largest_value_is_held():
    classifier = build(Baseline2021(classes=3))
    with torch.no_grad():
        classifier.network.bn2.running_var[3] = 65_519.0  # the largest that rounds down
    assert HalfPrecision().shape(classifier).network.bn2.running_var[3] == 65_504
