"""Networks of users' kinds through every stage: right, or refused by a sentence that names the operation."""

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from menus import menus
from soak import SOAK
from tinyscene.accounting import CONVENTIONS, count
from tinyscene.compression import BudgetPruning, FilterPruning, MagnitudePruning, Quantize
from tinyscene.data import Clip, Clips
from tinyscene.deployment import export
from tinyscene.errors import InputError
from tinyscene.evaluation import evaluate
from tinyscene.features import LogMel
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Adam, Fit, Run
from tones import sine
from users_networks import BANDS, FRAMES, USERS

RATE, SAMPLES = 8000, 4000
PITCHES = {"bus": 400, "metro": 900, "park": 1800, "tram": 3200}
PARTS = {"train": 8, "test": 8}

# A pooling to several places, or a dense layer that reads all frames: files for clips of the trained length alone.
ONE_LENGTH = ("adaptive pooling", "flattened dense")
# What is right to refuse: (network, pathway) and the sentence.
REFUSED: dict[tuple[str, str], str] = {
    (
        "group norm",
        "filters",
    ): r"^body.0: filters .* can't be cut, GroupNorm \(body.1\) does not keep them separate",
    ("group norm", "budget"): r"no channels that can be pruned: those of body.0, since GroupNorm \(body.1\)",
    (
        "layer norm",
        "filters",
    ): r"^depthwise: filters .* can't be cut, LayerNorm \(norm\) does not keep them separate",
    (
        "prelu",
        "filters",
    ): r"^body.0.0: filters .* can't be cut, PReLU \(body.1\) does not keep them separate",
    ("prelu", "budget"): r"no channels that can be pruned: those of body.0.0, since PReLU \(body.1\)",
    ("recurrent", "budget"): r"with one channel a layer .* has 1,807.*those of convs.3.0, since GRU \(gru\)",
    (
        "attention",
        "filters",
    ): r"^patch: filters .* can't be cut, LayerNorm \(norm\) does not keep them separate",
    ("attention", "budget"): r"those of patch, since LayerNorm \(norm\).*since MultiheadAttention \(attention\)",
    ("weight norm", "magnitude"): r"the weight of 'conv1' is computed, as by weight_norm",
    ("weight norm", "filters"): r"the weight of 'conv1' is computed, as by weight_norm",
    ("weight norm", "budget"): r"the weight of 'conv1' is computed, as by weight_norm",
}
# Saving captures an int8 network again: those that share, compute, normalise or pool in a way of their own.
SAVED_AS_INT8 = ("used twice", "weight norm", "layer norm", "bands as channels", "norm without affine")
# Of the slow pathways, the networks in which they are likeliest to break; under soak all are.
SLOW = {
    "int8 trained": ("norm without affine",),
    "onnx outside": ("channel shuffle", "recurrent", "adaptive pooling"),
    "onnx inside": ("attention", "flattened dense"),
}


@pytest.fixture(scope="module", autouse=True)
def on_the_menu():
    """As the private file of a user adds them."""
    with menus(**{name: user.network for name, user in USERS.items()}):
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Half a second of one of four pitches, in noise."""
    root, rows = tmp_path_factory.mktemp("pitches"), []
    for place, (scene, hz) in enumerate(PITCHES.items()):
        for part, number in PARTS.items():
            for take in range(number):
                rng, name = np.random.default_rng([place, len(part), take]), f"{scene}-{part}-{take}.wav"
                wave = sine(hz * rng.uniform(0.95, 1.05), SAMPLES, RATE) + 0.1 * rng.standard_normal(SAMPLES)
                soundfile.write(root / name, 0.1 * wave, RATE)
                rows.append(Clip(name, scene, part, recording=name))
    return Clips("pitches", root, tuple(PITCHES), tuple(rows))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True, accelerator="cpu")


def fit(epochs: int, lr: float = 0.01) -> Fit:
    return Fit(epochs=epochs, batch_size=4, optimizer=Adam(lr=lr))


@cache
def untrained(name: str) -> SceneClassifier:
    torch.manual_seed(0)
    return SceneClassifier(LogMel(RATE, 256, BANDS, hop_length=200), USERS[name].network(), tuple(PITCHES))


_TRAINED: dict[str, tuple[SceneClassifier, list[dict[str, float]]]] = {}


def fitted(name: str, clips: Clips, folder: Path) -> tuple[SceneClassifier, list[dict[str, float]]]:
    """Trained once for all pathways, with its epochs."""
    if name not in _TRAINED:
        run = Run(folder=folder / "fit", quiet=True, accelerator="cpu")
        _TRAINED[name] = fit(8)(untrained(name), clips.development, run), list(run.history)
    return _TRAINED[name]


def trained(name: str, clips: Clips, folder: Path) -> SceneClassifier:
    return fitted(name, clips, folder)[0]


def noise(clips: int = 3, seed: int = 0) -> Tensor:
    """Features that no stage has seen."""
    return torch.randn(clips, 1, BANDS, FRAMES, generator=torch.Generator().manual_seed(seed))


def decisions(classifier: SceneClassifier, clips: Clips) -> list[str]:
    waves = [soundfile.read(clips.root / row.path, dtype="float32")[0] for row in clips.rows]
    return [classifier.predict(wave, RATE).label for wave in waves]


def parameters_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# The pathways: each takes a trained classifier, and fails where something is wrong.


def counting(name: str, clips: Clips, run: Run) -> None:
    user, network = USERS[name], copy.deepcopy(untrained(name).network).eval()
    ledger = count(network, noise(1))
    assert CONVENTIONS["bn2"](ledger.tensors).parameters == user.parameters == parameters_of(network)
    # By plain products, since PyTorch's own counter sees none of those of its fast attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
        network(noise(1))
    assert ledger.macs["conv_only"] == user.macs == flops.get_total_flops() / 2


def fitting(name: str, clips: Clips, run: Run) -> None:
    made, history = fitted(name, clips, run.folder)
    assert all(np.isfinite(row["train_loss"]) for row in history)
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    before, after = untrained(name).network.state_dict(), made.network.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key, value in made.network.named_parameters())
    assert evaluate(made, clips.test).accuracy >= 0.5


def magnitudes(name: str, clips: Clips, run: Run) -> None:
    before = trained(name, clips, run.folder)
    made = MagnitudePruning(0.5)(before, clips.development, run)
    values = torch.cat([p.detach().flatten() for p in before.network.parameters()])
    kept = values.abs() > values.abs().sort().values[round(0.5 * len(values)) - 1]
    expected = copy.deepcopy(before)
    nn.utils.vector_to_parameters(values * kept, expected.network.parameters())
    with torch.no_grad():
        torch.testing.assert_close(made.classify(noise()), expected.classify(noise()))
    tuned = fit(1)(made, clips.development, run)
    assert sum(int((p == 0).sum()) for p in tuned.network.parameters()) >= round(0.5 * len(values))


def left_of(small: nn.Module, whole: nn.Module) -> tuple[list[int], list[int]]:
    """Which rows and columns of a layer's weight are left: a cut moves values, and changes none."""
    first = [layer.weight.detach().flatten(1).view(*layer.weight.shape[:2], -1)[..., 0] for layer in (small, whole)]
    places = {value: place for place, value in enumerate(first[1].flatten().tolist())}
    found = np.array([[places[value] for value in row] for row in first[0].tolist()])
    # Two weights may be equal by chance: the place of most values of a row or column counts.
    of_rows, of_columns = np.divmod(found, whole.weight.shape[1])
    rows = np.median(of_rows, 1).astype(int).tolist()
    columns = np.median(of_columns, 0).astype(int).tolist()
    assert torch.equal(first[1][rows][:, columns], first[0])
    return rows, columns


def assert_equals_zeroed(small: nn.Module, whole: nn.Module) -> None:
    """The whole network gives the same where what no layer of the smaller one reads any more is zero."""
    small, whole = copy.deepcopy(small).double().eval(), copy.deepcopy(whole).double().eval()
    for path, layer in whole.named_modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        if getattr(layer, "groups", 1) > 1:
            assert layer.groups == layer.in_channels  # depthwise: what it gives is read by others
            continue
        rows, columns = left_of(small.get_submodule(path), layer)
        layer.register_forward_pre_hook(zeroing(layer, rows if isinstance(layer, nn.ConvTranspose2d) else columns))
    with torch.no_grad():
        torch.testing.assert_close(small(noise().double()), whole(noise().double()), rtol=1e-9, atol=1e-9)


def zeroing(layer: nn.Module, kept: list[int]) -> Callable[..., tuple[Tensor]]:
    axis = -1 if isinstance(layer, nn.Linear) else 1

    def hook(_layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        given = inputs[0].movedim(axis, -1)
        there = torch.zeros(given.shape[-1], dtype=torch.bool)
        there[kept] = True
        return ((given * there).movedim(-1, axis),)

    return hook


def filters(name: str, clips: Clips, run: Run) -> None:
    before, path = trained(name, clips, run.folder), USERS[name].prune
    made = FilterPruning(path, 0.5)(before, clips.development, run)
    whole, small = before.network.get_submodule(path), made.network.get_submodule(path)
    norms = whole.weight.detach().abs().flatten(1).sum(1)
    lowest = set(norms.argsort()[: round(0.5 * len(norms))].tolist())
    if whole.groups == 1:
        assert set(left_of(small, whole)[0]) == set(range(len(norms))) - lowest
    assert_equals_zeroed(made.network, before.network)
    assert np.isfinite(fit(1)(made, clips.development, run).classify(noise()).detach().numpy()).all()


def budget(name: str, clips: Clips, run: Run) -> None:
    before = trained(name, clips, run.folder)
    most = round(0.6 * USERS[name].parameters)
    made = BudgetPruning(parameters=most, clip_s=0.5)(before, clips.development, run)
    assert 0.3 * USERS[name].parameters < parameters_of(made.network) <= most
    assert_equals_zeroed(made.network, before.network)
    assert np.isfinite(fit(1)(made, clips.development, run).classify(noise()).detach().numpy()).all()


def assert_same_decisions(one: SceneClassifier, other: SceneClassifier, clips: Clips) -> None:
    pairs = zip(decisions(one, clips.test), decisions(other, clips.test), strict=True)
    assert np.mean([ours == theirs for ours, theirs in pairs]) >= 0.9


def saves_as_int8(made: SceneClassifier, folder: Path) -> None:
    loaded = SceneClassifier.load(made.save(folder))
    with torch.no_grad():
        assert torch.equal(loaded.classify(noise()), made.classify(noise()))


def int8(name: str, clips: Clips, run: Run) -> None:
    before = trained(name, clips, run.folder)
    made = Quantize()(before, clips.development, run)
    assert made.precision == "int8"
    if SOAK or name in SAVED_AS_INT8:
        saves_as_int8(made, run.folder / "saved")
    assert_same_decisions(made, before, clips)


def int8_trained(name: str, clips: Clips, run: Run) -> None:
    before = trained(name, clips, run.folder)
    made = Quantize(fit=fit(1, lr=0.001))(before, clips.development, run)
    saves_as_int8(made, run.folder / "saved")
    # An epoch more moves decisions in float too.
    alike = fit(1, lr=0.001)(before, clips.development, Run(folder=run.folder / "alike", quiet=True, accelerator="cpu"))
    assert_same_decisions(made, alike, clips)


def saving(name: str, clips: Clips, run: Run) -> None:
    before = trained(name, clips, run.folder)
    loaded = SceneClassifier.load(before.save(run.folder / "saved"))
    assert type(loaded.network) is USERS[name].network
    with torch.no_grad():
        assert torch.equal(loaded.classify(noise()), before.classify(noise()))


def onnx_outside(name: str, clips: Clips, run: Run) -> None:
    before = trained(name, clips, run.folder)
    file = export(before, run.folder / "scene.onnx")
    assert file.clip_samples == (SAMPLES if name in ONE_LENGTH else None)
    (logits,) = onnxruntime.InferenceSession(file.path).run(None, {"features": noise().numpy()})
    with torch.no_grad():
        expected = before.classify(noise()).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def onnx_inside(name: str, clips: Clips, run: Run) -> None:
    before = trained(name, clips, run.folder)
    file = export(before, run.folder / "scene.onnx", front_end="inside")
    waves = 0.1 * np.random.default_rng(0).standard_normal((3, SAMPLES)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(file.path).run(None, {"waveforms": waves})
    with torch.no_grad():
        expected = before(torch.from_numpy(waves)).softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


PATHWAYS: dict[str, Callable[[str, Clips, Run], None]] = {
    "count": counting,
    "fit": fitting,
    "magnitude": magnitudes,
    "filters": filters,
    "budget": budget,
    "int8": int8,
    "int8 trained": int8_trained,
    "save": saving,
    "onnx outside": onnx_outside,
    "onnx inside": onnx_inside,
}
OLD = "old weight norm"  # refused from the start
CELLS = [
    (name, pathway)
    for name in USERS
    for pathway in PATHWAYS
    if name != OLD and (SOAK or name in SLOW.get(pathway, USERS))
]


@pytest.mark.parametrize(("name", "pathway"), CELLS, ids=[f"{name}, {pathway}" for name, pathway in CELLS])
def test_right_or_refused_by_a_sentence_that_names_the_operation(
    name: str, pathway: str, clips: Clips, run: Run
) -> None:
    sentence = REFUSED.get((name, pathway))
    if sentence is None:
        PATHWAYS[pathway](name, clips, run)
        return
    with pytest.raises(InputError) as refused:
        PATHWAYS[pathway](name, clips, run)
    assert re.search(sentence, str(refused.value))


def test_weight_norm_of_the_old_form_is_refused_whatever_is_to_be_done() -> None:
    with pytest.raises(InputError, match=r"conv1 has torch.nn.utils.weight_norm .* accepted: .*parametrizations"):
        untrained(OLD)
