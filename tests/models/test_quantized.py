"""int8 networks: equal to the fake-quantized ones to the bit, to integer arithmetic in NumPy within a step."""

import copy
import json
from functools import cache

import numpy as np
import pytest
import torch
import torchinfo
from safetensors.torch import load_file
from small_networks import CASES, SE_FLOAT, bands_of, noise, small
from torch import Tensor, fx, nn

from soak import SOAK
from tinyscene.accounting import count
from tinyscene.errors import InputError
from tinyscene.features import LogMel, Raw
from tinyscene.models import NETWORKS, AemNet
from tinyscene.models.blocks import StatisticsPooling
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.fake_quantize import ActivationQuantize
from tinyscene.models.folding import fold_batch_norm
from tinyscene.models.preparation import prepare
from tinyscene.models.quantized import FakeQuantized, Int8Network
from tinyscene.models.ranges import cheapest, histogram

LAYERS = nn.Conv1d | nn.Conv2d | nn.Linear
# (batch, frames)
SHAPES = ((1, 5), (1, 41), (3, 17), (7, 30), (2, 100))
Q = torch.ops.quantized_decomposed


@cache
def float_network(name: str) -> nn.Module:
    return small(name)


@cache
def shared_fake(name: str, keep_float: tuple[str, ...] = ()) -> FakeQuantized:
    network = float_network(name)
    prepared = prepare(network, noise(network, 1, 30), keep_float)
    prepared.set_ranges([noise(network, 2, 30, seed) for seed in range(3)])
    return prepared


@cache
def shared_int8(name: str, keep_float: tuple[str, ...] = ()) -> Int8Network:
    return shared_fake(name, keep_float).convert()


def train_a_step(prepared: FakeQuantized, features: Tensor) -> None:
    prepared.train()
    optimizer = torch.optim.Adam(prepared.parameters(), 1e-2)
    logits = prepared(features)
    nn.functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    optimizer.step()


def assert_equal_everywhere(int8: Int8Network, prepared: FakeQuantized, network: nn.Module) -> None:
    prepared.eval()
    for seed, (batch, frames) in enumerate(SHAPES):
        # Louder than what set the ranges: part of it is clipped.
        features = 2 * noise(network, batch, frames, 100 + seed)
        with torch.no_grad():
            assert (int8(features) - prepared(features)).abs().max() == 0.0


def activations_of(int8: Int8Network, features: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What every quantizer puts out as integers, and its zero point, by the scale's name."""
    found = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Tensor:
            result = super().run_node(n)
            if n.target == Q.quantize_per_tensor.tensor:
                found[str(n.args[1].target)] = result, self.env[n.args[2]]
            return result

    with torch.no_grad():
        Recorder(int8, graph=int8.graph).run(features)
    return found


def weights_of(int8: Int8Network) -> dict[str, tuple[Tensor, Tensor]]:
    """Integers and scales of every weight, by the layer's path."""
    state = int8.state_dict()
    paths = [name.removesuffix(".weight_scale") for name in state if name.endswith(".weight_scale")]
    return {path: (state[f"{path}.weight"], state[f"{path}.weight_scale"]) for path in paths}


# Converted equals fake-quantized


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_the_converted_network_equals_the_fake_quantized_one_exactly(name, keep_float):
    assert_equal_everywhere(shared_int8(name, keep_float), shared_fake(name, keep_float), float_network(name))


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_it_still_does_after_a_training_step(name, keep_float):
    network, prepared = float_network(name), copy.deepcopy(shared_fake(name, keep_float))
    train_a_step(prepared, noise(network, 6, 37))
    # Converting leaves the one that is trained as it is.
    int8 = prepared.convert()
    assert prepared.training
    assert_equal_everywhere(int8, prepared, network)
    features = noise(network, 3, 37)
    with torch.no_grad():
        assert not torch.equal(int8(features), shared_int8(name, keep_float)(features))


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_it_computes_nearly_what_the_float_network_does(name, keep_float):
    network = float_network(name)
    features = noise(network, 8, 30)
    with torch.no_grad():
        expected = network(features)
        apart = (shared_int8(name, keep_float)(features) - expected).std()
    assert 0 < apart < 0.2 * expected.std()


@pytest.mark.parametrize("name", ["aemnet", "baseline2021", "se_resnet"])
def test_a_deep_copy_computes_the_same_and_is_independent(name):
    network = float_network(name)
    int8, features = shared_int8(name), noise(network, 2, 30)
    twin = copy.deepcopy(int8)
    with torch.no_grad():
        logits = int8(features)
        assert torch.equal(twin(features), logits)
        for tensor in twin.buffers():
            tensor.zero_()
        assert torch.equal(int8(features), logits)


# Which tensors are integers


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_weights_are_symmetric_int8_and_use_127_steps_in_every_channel(name, keep_float):
    weights = weights_of(shared_int8(name, keep_float))
    network = float_network(name)
    folded = fold_batch_norm(network, noise(network, 1, 30), keep_float)
    kept = [one for one, _ in network.named_modules() if ".se." in one and keep_float]
    layers = {one for one, m in network.named_modules() if isinstance(m, LAYERS) and one not in kept}
    assert set(weights) == layers
    for path, (whole, scale) in weights.items():
        assert whole.dtype == torch.int8
        assert whole.flatten(1).int().abs().amax(1).tolist() == [127] * len(whole), path
        wanted = folded.get_submodule(path).weight.detach().double().numpy()
        across = scale.double().numpy().reshape(-1, *[1] * (whole.ndim - 1))
        # Half a step, and what float32 loses on the way.
        assert np.abs(whole.numpy() * across - wanted).max() <= 0.5001 * scale.max()
        np.testing.assert_allclose(np.abs(wanted).reshape(len(wanted), -1).max(1) / 127, scale.numpy(), rtol=1e-5)


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_biases_are_int32_and_what_is_kept_is_float32(name, keep_float):
    int8 = shared_int8(name, keep_float)
    state = int8.state_dict()
    quantized = set(weights_of(int8))
    for key, tensor in state.items():
        path, _, last = key.rpartition(".")
        if last == "bias":
            assert tensor.dtype == (torch.int32 if path in quantized else torch.float32), key
        elif last.endswith("zero_point"):
            assert tensor.dtype == torch.int8, key
        elif last != "num_batches_tracked" and path not in quantized:
            assert tensor.dtype == torch.float32, key
    in_float = {key for key in state if key.endswith(".se.expand.weight") and state[key].dtype == torch.float32}
    assert len(in_float) == (6 if keep_float else 0)


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_activations_use_all_eight_bits(name, keep_float):
    """PyTorch's own setting for x86 would stay within seven, -64 to 63; a sigmoid's range is what LiteRT asks for."""
    network, int8 = float_network(name), shared_int8(name, keep_float)
    found = activations_of(int8, torch.cat([noise(network, 2, 30, s) for s in range(3)]))
    for path, (whole, zero_point) in found.items():
        assert whole.dtype == torch.int8
        if "sigmoid" in path:
            assert (float(int8.state_dict()[path]), int(zero_point)) == (1 / 256, -128)
            continue
        # Rounding on the way moves the extremes of the inner ones by some steps.
        near = 0 if path == "input_scale" else 12
        if zero_point < 127:
            assert whole.max() >= 127 - near, path
        if zero_point > -128:
            assert whole.min() <= -128 + near, path


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_real_zero_is_an_integer(name, keep_float):
    state = shared_int8(name, keep_float).state_dict()
    scales = [key.removesuffix("_scale") for key in state if key.endswith("_scale") and "weight" not in key]
    for path in scales:
        scale, zero_point = state[f"{path}_scale"], state[f"{path}_zero_point"]
        zero = torch.zeros(1)
        whole = Q.quantize_per_tensor.tensor(zero, scale, zero_point, -128, 127, torch.int8)
        assert whole == zero_point
        assert Q.dequantize_per_tensor.tensor(whole, scale, zero_point, -128, 127, torch.int8) == 0.0
    assert len(scales) > 3


@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_a_filter_of_zeros_keeps_its_bias(level):
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.bias.copy_(torch.tensor([0.5, 0.75, -0.25]))
    network = nn.Sequential(nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten(), layer).eval()
    prepared = prepare(network, torch.zeros(1, 1, 4, 6))
    features = level * torch.randn(5, 1, 4, 6)
    prepared.set_ranges([features])
    int8 = prepared.convert()
    with torch.no_grad():
        logits = int8(features)
    assert not weights_of(int8)["2"][0][1].any()
    assert (logits[:, 1] - 0.75).abs().max() <= 0.51 * int8.output_step


# Against integers


class Residual(nn.Module):
    """Two convolutions, one in groups, a sum, a maximum over time and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.dense = nn.Linear(4 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        return self.dense(torch.flatten((self.second(y) + y).amax(-1), 1))


def np_rescale(real: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """NumPy's rint rounds half to even."""
    return np.clip(np.rint(real / scale) + zero_point, -128, 127).astype(np.int64)


def np_conv(x: np.ndarray, weight: np.ndarray, groups: int) -> np.ndarray:
    """3x3 with a border of zeros, in integers: (batch, in, h, w), (out, in / groups, 3, 3) -> (batch, out, h, w)"""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    parts = zip(np.split(windows, groups, 1), np.split(weight, groups, 0), strict=True)
    return np.concatenate([np.einsum("bchwkl,ockl->bohw", a, b) for a, b in parts], 1)


def np_integers(int8: Int8Network, features: np.ndarray) -> np.ndarray:
    """The int8 logits of `Residual`, all sums in integers."""
    s = {key: tensor.numpy() for key, tensor in int8.state_dict().items()}
    real = {key: np.float64(s[f"{key}_scale"]) for key in ("input", "first.output", "second.output", "dense.output")}
    zero = {key: int(s[f"{key}_zero_point"]) for key in real}
    added = next(key.removesuffix("_scale") for key in s if key.startswith("add"))
    real[added], zero[added] = np.float64(s[f"{added}_scale"]), int(s[f"{added}_zero_point"])

    def out(layer: str, total: np.ndarray, read: str, to: str, relu: bool = False) -> np.ndarray:
        total = total + s[f"{layer}.bias"].reshape(-1, *[1] * (total.ndim - 2))
        assert np.abs(total).max() < 2**31
        scales = real[read] * s[f"{layer}.weight_scale"].reshape(-1, *[1] * (total.ndim - 2))
        return np_rescale((np.maximum(total, 0) if relu else total) * scales, real[to], zero[to])

    weights = {layer: s[f"{layer}.weight"].astype(np.int64) for layer in ("first", "second", "dense")}
    x = np_rescale(features, real["input"], zero["input"]) - zero["input"]
    y = out("first", np_conv(x, weights["first"], 1), "input", "first.output", relu=True) - zero["first.output"]
    z = out("second", np_conv(y, weights["second"], 2), "first.output", "second.output") - zero["second.output"]
    total = np_rescale(z * real["second.output"] + y * real["first.output"], real[added], zero[added]) - zero[added]
    return out("dense", total.max(-1).reshape(len(x), -1) @ weights["dense"].T, added, "dense.output")


def test_logits_are_those_of_integer_arithmetic():
    torch.manual_seed(0)
    network = Residual().eval()
    prepared = prepare(network, torch.zeros(1, 1, 6, 9))
    prepared.set_ranges([torch.randn(20, 1, 6, 9)])
    int8, features = prepared.convert(), torch.randn(200, 1, 6, 13)
    with torch.no_grad():
        logits = int8(features).double()
    state = int8.state_dict()
    got = (logits / state["dense.output_scale"]).round() + state["dense.output_zero_point"]
    apart = np.abs(got.numpy() - np_integers(int8, features.double().numpy()))
    assert apart.max() <= 1
    assert (apart == 0).mean() > 0.99
    # And it says something: many different values, few at the ends.
    assert len(np.unique(got)) > 100


def test_biases_are_rounded_to_the_nearest_multiple_of_the_product_of_scales():
    torch.manual_seed(0)
    network = Residual().eval()
    prepared = prepare(network, torch.zeros(1, 1, 6, 9))
    prepared.set_ranges([torch.randn(4, 1, 6, 9)])
    state = {key: tensor.numpy() for key, tensor in prepared.convert().state_dict().items()}
    for layer, read in (("first", "input"), ("second", "first.output")):
        step = state[f"{read}_scale"] * state[f"{layer}.weight_scale"]
        bias = network.get_submodule(layer).bias.detach().double().numpy()
        assert state[f"{layer}.bias"].tolist() == np.rint(bias / step.astype(np.float64)).tolist()


# Saved and loaded


def int8_classifier(name: str, keep_float: tuple[str, ...] = ()) -> SceneClassifier:
    network = float_network(name)
    frontend = Raw(8000) if isinstance(network, AemNet) else LogMel(8000, 1024, bands_of(network), hop_length=160)
    int8 = copy.deepcopy(shared_int8(name, keep_float))
    classes = int8(noise(network, 1, 30)).shape[1]
    return SceneClassifier(frontend, int8, list("abcdefghij"[:classes])).eval()


# Of those of one kind, one; under soak all.
SAVED = [("aemnet", ()), ("baseline2021", ()), ("cp_mobile", ()), ("moments_linear", ()), ("se_resnet", SE_FLOAT)]


@pytest.mark.parametrize(("name", "keep_float"), CASES if SOAK else SAVED)
def test_saved_and_loaded_gives_the_same_logits_bit_for_bit(name, keep_float, tmp_path):
    classifier = int8_classifier(name, keep_float)
    loaded = SceneClassifier.load(classifier.save(tmp_path))
    assert loaded.precision == classifier.precision == "int8"
    waveforms = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for some in (waveforms, waveforms[:1, :8000]):
            assert torch.equal(loaded(some), classifier(some))
            assert torch.equal(copy.deepcopy(loaded)(some), classifier(some))
    mine, theirs = classifier.state_dict(), loaded.state_dict()
    assert list(mine) == list(theirs)
    assert all(mine[key].dtype == theirs[key].dtype and torch.equal(mine[key], theirs[key]) for key in mine)


def test_the_description_holds_no_weights_and_the_file_holds_int8(tmp_path):
    folder = int8_classifier("baseline2021").save(tmp_path)
    described = json.loads((folder / "model.json").read_text())
    assert described["int8"] == {"keep_float": [], "example": [1, 1, 40, 30]}
    assert (folder / "model.json").stat().st_size < 2500
    tensors = load_file(folder / "weights.safetensors")
    whole = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name.endswith("weight")}
    assert whole == {f"network.{layer}.weight" for layer in ("L1", "L2", "L3", "dense", "output")}


# What bites


@pytest.mark.parametrize(("name", "keep_float"), CASES)
def test_no_batch_norm_is_left_in_the_graph_but_what_is_kept(name, keep_float):
    for module in (shared_fake(name, keep_float).graph, shared_int8(name, keep_float)):
        left = [node for node in module.graph.nodes if "batch_norm" in str(node.target)]
        assert len(left) == (6 if keep_float else 0)


class Pooled(nn.Module):
    """What doesn't change over time doesn't behind the 1x1 convolution either."""

    def __init__(self, pooling: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pooling, self.dense = nn.Conv2d(1, 3, 1), pooling, nn.Linear(2 * 3 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(torch.flatten(self.pooling(self.conv(x)), 1))


class ScaledStatistics(StatisticsPooling):
    """Reshapes and scales between the sum and the root."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(3, keepdim=True)
        centred = x - mean
        std = (2 * torch.flatten((centred * centred).mean(3) + self.eps, 1)).sqrt().view(-1, *x.shape[1:3])
        return torch.cat([mean.squeeze(3), std], 1)


class PlantedStatistics(StatisticsPooling):
    """Fake-quantizes `var + eps`, as one that marks every addition would."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0.01

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(3, keepdim=True)
        variance = (x - mean).square().mean(3) + self.eps
        std = (
            torch.fake_quantize_per_tensor_affine(variance, self.step, -128, -128, 127) if self.step else variance
        ).sqrt()
        return torch.cat([mean.squeeze(3), std], 1)


def gradients_are_finite(network: nn.Module) -> bool:
    features = torch.full((2, 1, 4, 8), 0.3)
    network(features).square().sum().backward()
    return all(bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("keep_float", [(), ("pooling",)])
@pytest.mark.parametrize("pooling", [StatisticsPooling, ScaledStatistics])
def test_what_never_changes_over_time_gives_finite_gradients(pooling, keep_float):
    prepared = prepare(Pooled(pooling()).eval(), torch.zeros(1, 1, 4, 8), keep_float)
    prepared.set_ranges([torch.randn(2, 1, 4, 8)])
    assert gradients_are_finite(prepared.train())


def test_the_hazard_is_real_where_the_sum_is_rounded():
    network = Pooled(PlantedStatistics())
    network(torch.randn(2, 1, 4, 8))
    assert not gradients_are_finite(network)
    network.zero_grad()
    network.pooling.step = 0.0
    assert gradients_are_finite(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_ledger_counts_an_int8_network_where_torchinfo_does_not(name):
    network, int8 = float_network(name), shared_int8(name)
    example = noise(network, 1, 30)
    layers = [m for m in network.modules() if isinstance(m, LAYERS)]
    weights = sum(layer.weight.numel() for layer in layers)
    # Those of layers into which a batch norm folds are new.
    folded = [m for m in fold_batch_norm(network, example).modules() if isinstance(m, LAYERS)]
    biases = sum(len(layer.bias) for layer in folded if layer.bias is not None)
    ledger = count(int8, example)
    rows = {role: [row for row in ledger.tensors if row.role == role] for role in ("weight", "bias")}
    assert sum(row.bytes for row in rows["weight"]) == sum(row.values for row in rows["weight"]) == weights
    assert sum(row.values for row in rows["bias"]) == biases
    assert sum(row.bytes for row in rows["bias"]) == 4 * biases
    assert ledger.macs["conv_only"] == count(network, example).macs["conv_only"] > 0
    by_torchinfo = torchinfo.summary(int8, input_data=example, verbose=0)
    # Batch norms that fold into no layer are all that it sees.
    affine = sum(row.values for row in ledger.tensors if row.role == "norm")
    assert by_torchinfo.total_params - affine < weights / 10
    assert by_torchinfo.total_mult_adds == 0


# Training


def test_fake_quantized_training_lowers_the_loss():
    network = Pooled(StatisticsPooling()).eval()
    prepared = prepare(network, torch.zeros(1, 1, 4, 8))
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(40) % 2
    features = torch.randn(40, 1, 4, 8, generator=generator) + 0.8 * (2 * labels - 1).view(-1, 1, 1, 1)
    prepared.set_ranges([features])
    prepared.train()
    optimizer = torch.optim.Adam(prepared.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(prepared(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    int8 = prepared.convert()
    with torch.no_grad():
        after = nn.functional.cross_entropy(int8(features), labels).item()
    assert after < 0.5 * losses[0]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", ["baseline2020", "baseline2021"])
def test_dropout_is_active_in_training_alone(name):
    prepared, features = copy.deepcopy(shared_fake(name)), noise(float_network(name), 4, 30)
    for quantizer in prepared.train().quantizers():
        quantizer.eval()
    with torch.no_grad():
        assert not torch.equal(prepared(features), prepared(features))
        prepared.eval()
        assert torch.equal(prepared(features), prepared(features))


def test_kept_batch_norm_follows_its_batches_in_training_alone():
    network = float_network("se_resnet")
    prepared, features = copy.deepcopy(shared_fake("se_resnet", SE_FLOAT)), noise(network, 4, 30)
    statistics = {key: tensor for key, tensor in prepared.state_dict().items() if "running" in key}
    assert len(statistics) == 12
    before = {key: tensor.clone() for key, tensor in statistics.items()}
    prepared.eval()(features)
    assert all(torch.equal(tensor, before[key]) for key, tensor in statistics.items())
    prepared.train()(features)
    assert not any(torch.equal(tensor, before[key]) for key, tensor in statistics.items())


def test_ranges_follow_in_training_alone():
    prepared, features = copy.deepcopy(shared_fake("cp_mobile")), 9 * noise(float_network("cp_mobile"), 2, 30)

    def ranges() -> dict[str, float]:
        return {one.path: float(one.scale) for one in prepared.quantizers() if isinstance(one, ActivationQuantize)}

    before = ranges()
    with torch.no_grad():
        prepared.eval()(features)
        assert ranges() == before
        prepared.train()(features)
    # A moving average: a hundredth of the way to the range of the batch, which is at most its extremes.
    wider = float(features.max() - features.min()) / 255
    moved = (ranges()["input"] - 0.99 * before["input"]) / 0.01
    assert 0.5 * wider < moved < 1.001 * wider
    assert sum(now != before[path] for path, now in ranges().items()) > len(before) / 2


def test_training_brings_back_ranges_that_were_far_too_wide():
    torch.manual_seed(0)
    features, right = torch.randn(8, 1, 4, 8), Pooled(StatisticsPooling()).eval()
    prepared = prepare(right, features[:1])
    prepared.set_ranges([features])
    wanted = float(next(one.scale for one in prepared.quantizers() if getattr(one, "path", "") == "input"))
    prepared.set_ranges([6 * features])
    prepared.train()
    with torch.no_grad():
        for _ in range(300):
            prepared(features)
    found = float(next(one.scale for one in prepared.quantizers() if getattr(one, "path", "") == "input"))
    assert wanted / 1.5 < found < 1.5 * wanted


def test_setting_ranges_leaves_training_off_and_takes_what_is_not_rounded():
    network = float_network("baseline2021")
    prepared = prepare(network, noise(network, 1, 30))
    batches = [(1 + seed) * noise(network, 2, 20 + seed, seed) for seed in range(4)]
    prepared.set_ranges(batches)
    assert not prepared.training
    with torch.no_grad():
        logits = [network(one) for one in batches]
    int8 = prepared.convert()
    for values, name in ((batches, "input"), (logits, "output.output")):
        low, high = cheapest(torch.cat([histogram(one) for one in values]))
        scale = float(int8.state_dict()[f"{name}_scale"])
        assert scale == pytest.approx(float(high - low) / 255, rel=1e-3)
        assert abs(int(int8.state_dict()[f"{name}_zero_point"]) + 128 + round(float(low) / scale)) <= 1


# Refusals


def test_a_pattern_that_matches_nothing_names_the_modules():
    network = float_network("se_resnet")
    with pytest.raises(InputError, match=r"keep_float='block' matches no module.*stem, blocks, pooling, dense"):
        prepare(network, noise(network, 1, 30), ("pooling", "block"))


@pytest.mark.parametrize(
    "give", [lambda x, y: (x, y), lambda x, y: [x, y], lambda x, y: {"logits": y}, lambda x, y: (y,)]
)
def test_several_outputs_or_one_in_a_nest_are_refused(give):
    class Several(Pooled):
        def forward(self, x: Tensor) -> object:
            return give(x.mean(3), super().forward(x))

    with pytest.raises(InputError, match=r"Several gives [12] outputs.*accepted: a network that gives one tensor"):
        prepare(Several(StatisticsPooling()).eval(), torch.zeros(1, 1, 4, 8))


def test_a_module_called_head_is_quantized_as_any_other():
    class WithHead(nn.Module):
        def __init__(self, head: str) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.last = nn.Conv2d(1, 3, 3), head
            self.add_module(head, nn.Linear(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.get_submodule(self.last)(self.stem(x).relu().mean((2, 3)))

    x, logits = torch.randn(4, 1, 6, 9, generator=torch.Generator().manual_seed(0)), []
    for name in ("head", "dense"):
        prepared = prepare(WithHead(name).eval(), x[:1])
        prepared.set_ranges([x])
        int8 = prepared.convert()
        assert f"{name}.weight_scale" in int8.state_dict()
        logits.append(int8(x))
    assert torch.equal(*logits)


def test_a_network_of_one_length_is_refused():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(4 * 9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.dense(torch.flatten(x, 1))

    with pytest.raises(InputError, match="Fixed can't be exported for any batch and length.*accepted"):
        prepare(Fixed().eval(), torch.zeros(1, 1, 4, 9))


class Twice(nn.Module):
    """A layer with a bias that runs at two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)
        self.dense = nn.Linear(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.layer(x))
        return self.dense(torch.relu(self.layer(3 * x)).mean((2, 3)))


class Odd(nn.Module):
    """Same padding by name, a transposed convolution with batch norm, chunks, and dropout before a reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(1, 8, 3, padding="same")
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.part = nn.Conv2d(4, 4, 1)
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.up(torch.relu(self.same(x))))
        first, second = x.chunk(2, 1)
        x = torch.relu(self.part(first)) + second
        x = self.drop(torch.relu(x).amax((2, 3)))
        return self.dense(x.view(x.size(0), -1))


@pytest.mark.parametrize("network", [Twice, Odd])
def test_odd_networks_round_as_they_were_trained(network) -> None:
    torch.manual_seed(0)
    net = network().eval()
    if network is Odd:
        net.norm.running_mean.normal_()
        net.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(4, 1, 8, 20)
    prepared = prepare(net, x[:1])
    prepared.set_ranges([x])
    with torch.no_grad():
        assert torch.equal(prepared(x), prepared.convert()(x))
        assert (prepared(x) - net(x)).abs().max() < 0.1 * net(x).abs().max()


def test_dropout_widens_no_range() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4, 3)
    )
    x = torch.randn(16, 1, 8, 8)
    prepared = prepare(net.eval(), x[:1])
    prepared.set_ranges([x])
    before = prepared.convert().state_dict()["2.output_scale"]
    prepared.train()
    with torch.no_grad():
        for _ in range(300):
            prepared(x)
    assert prepared.convert().state_dict()["2.output_scale"] == pytest.approx(float(before), rel=0.02)


def test_a_bias_that_fits_no_integer_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 3))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(1e6)
    x = torch.zeros(2, 1, 4, 4)
    prepared = prepare(nn.Sequential(net[0], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).eval(), x[:1])
    prepared.set_ranges([x])
    with pytest.raises(InputError, match=r"0\.bias: a bias does not fit 32 bits"):
        prepared.convert()


def test_a_dead_input_leaves_the_bias_as_it_is() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with torch.no_grad():
        net[0].bias.fill_(-100)
        net[2].bias.uniform_(-2, 2)
    x = torch.randn(4, 1, 4, 6)
    prepared = prepare(net.eval(), x[:1])
    prepared.set_ranges([x])
    with torch.no_grad():
        assert (prepared.convert()(x) - net(x)).abs().max() < 0.02


class Shared(nn.Module):
    """Two layers with one weight, one of which stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        second.weight, second.bias = self.first.weight, self.first.bias
        self.body = nn.Sequential(second, nn.ReLU(), second, nn.Sigmoid())
        self.dense = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.body(torch.relu(self.first(x))).mean((2, 3)))


@pytest.mark.parametrize("keep_float", [(), ("first", "body")])
def test_a_shared_weight_is_stored_and_counted_once(keep_float) -> None:
    torch.manual_seed(0)
    net, x = Shared().eval(), torch.randn(2, 4, 8, 20)
    prepared = prepare(net, x[:1], keep_float)
    prepared.set_ranges([x])
    int8 = prepared.convert()
    assert torch.equal(int8(x), prepared.eval()(x))
    assert sorted(row.values for row in count(int8, x[:1]).tensors if row.role == "weight") == [3 * 4, 4 * 4 * 9]
    assert "Conv2d" in repr(int8)


@pytest.mark.parametrize(("keep_float", "kept"), [(("first",), "first"), (("body",), "body.0"), (("b*.0",), "body.0")])
def test_half_of_a_shared_weight_in_float_is_refused(keep_float, kept) -> None:
    net = Shared().eval()
    said = rf"keeps {kept} in float, but first, body.0 share weights; accepted: all of these, or none"
    with pytest.raises(InputError, match=said):
        prepare(net, torch.randn(1, 4, 8, 20), keep_float)


@pytest.mark.parametrize("name", ["graph", "local", "meta"])
def test_a_module_with_a_name_that_is_taken_is_refused(name) -> None:
    net = nn.Sequential()
    net.add_module(name, nn.Conv2d(1, 4, 3))
    with pytest.raises(InputError, match=f"module called '{name}'.*try another name"):
        prepare(net.eval(), torch.zeros(1, 1, 8, 8))
