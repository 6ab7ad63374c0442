"""The recipe of Schmidt et al.: what each stage leaves, counted, and that all variants run."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bare_runs import int8_files
from soak import SOAK
from tinyscene import SceneClassifier, load_system, reproduce, scale_system
from tinyscene.accounting import count, total
from tinyscene.augment import Mixup, SpecAugment, TimeRoll
from tinyscene.compression import BudgetPruning, FeatureSelection, LinearFit, Quantize, frobenius_norm, l1_norm
from tinyscene.data import Clips
from tinyscene.features import LogMel
from tinyscene.models import Tandem
from tinyscene.systems import SystemFile, override
from tinyscene.training import SGD, Run
from tones import CLASSES, tone_in_noise, write_clips

RATE = 16_000
FILE = load_system("schmidt2022")
VARIANTS = FILE.variants
FRAMES = 34


def test_the_recipe_is_the_reports() -> None:
    """Sections 2.1, 3.2 and 3.3; SYSTEMS.md for the readings."""
    frontend = VARIANTS["tandem"].build(CLASSES).frontend
    settings = frontend.sample_rate, frontend.n_fft, frontend.win_length, frontend.hop_length, frontend.bands
    assert settings == (16_000, 2048, 2048, 480, 256)
    assert frontend.frames(16_000) == FRAMES
    pretrain, train, select, prune, quantize = VARIANTS["int8"].stages
    assert pretrain == LinearFit(0.5)
    assert (train.epochs, train.batch_size) == (80, 64)
    assert train.optimizer == SGD(0.035, momentum=0.9, weight_decay=1e-3, rates=(("linear", 0.0),))
    assert [train.schedule.factor(epoch, 80) for epoch in (0, 3, 80)] == pytest.approx([0, 1, 0.01])
    assert train.augment == (TimeRoll(0.4), SpecAugment(bands=20), Mixup(0.2))
    assert isinstance(select, FeatureSelection)
    assert (select.keep, select.updates * 7) == (192, 5)
    assert isinstance(prune, BudgetPruning)
    assert (prune.by, prune.updates * 7) == (frobenius_norm, 5)
    assert select.fit == prune.fit == quantize.fit
    assert isinstance(quantize, Quantize)
    rates = [prune.fit.optimizer.lr * prune.fit.schedule.factor(epoch, 7) for epoch in (0, 3.5, 7)]
    assert rates == pytest.approx([1e-3, 5.5e-4, 1e-4])
    for control, by in (("pruned_without_admm", frobenius_norm), ("pruned_by_l1", l1_norm)):
        cut, tune = VARIANTS[control].stages[-2:]
        assert (cut.fit, cut.by, cut.parameters, cut.macs) == (None, by, prune.parameters, prune.macs)
        assert tune == prune.fit


def test_the_branches_add_up() -> None:
    """12,810 and 315,410, printed by SYSTEMS.md; 192 bands leave 9,610 to the linear model."""
    classifier = VARIANTS["tandem"].build(tuple("abcdefghij"))
    ledger = count(classifier.network, classifier.example(1.0))
    linear = total(row for row in ledger.tensors if row.layer.startswith("linear") and row.role != "statistic")
    network = total(row for row in ledger.tensors if row.layer.startswith("cnn") and row.role != "statistic")
    assert (linear.parameters, network.parameters) == (12_810, 315_410)
    selected = VARIANTS["selected"].stages[-1].shape(classifier)
    assert sum(p.numel() for p in selected.network.linear.parameters()) == 5 * 192 * 10 + 10
    assert selected.example(1.0).shape == (1, 1, 192, FRAMES)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """High and low tones in noise, half a second each."""

    def wave(scene: str, _part: str, _take: int, rng: np.random.Generator) -> np.ndarray:
        return tone_in_noise(scene, RATE // 2, RATE, rng)

    return write_clips(tmp_path_factory.mktemp("tones"), RATE, {"train": 4, "validation": 4, "test": 4}, wave)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SystemFile:
    """The system with 64 bands and a narrow network, and an epoch or two everywhere."""
    monkeypatch.setattr(
        "tinyscene.systems.schmidt2022.create_frontend", lambda _name: LogMel(RATE, 1024, 64, hop_length=1024)
    )
    monkeypatch.setattr("tinyscene.systems.schmidt2022.Tandem", lambda classes: Tandem(classes, bands=64, width=1))
    monkeypatch.setattr(
        "tinyscene.systems.schmidt2022.MomentsLinear",
        lambda classes: type(Tandem(classes, bands=64, width=1).linear)(classes, bands=64),
    )
    changes = ["all.stages.2.keep=32", "all.stages.3.parameters=4000", "all.stages.3.macs=400_000"]
    return override(scale_system(FILE, 0.1), [*changes, "all.stages.1.epochs=1"])


def test_every_variant_runs_to_its_file(small: SystemFile, clips: Clips, tmp_path: Path) -> None:
    # `tandem`, `selected` and `pruned` are where `int8` begins, and the controls differ in the criterion alone.
    controls = ("pruned_by_l1",) if SOAK else ()
    some = small.only("linear", "int8", *controls)
    with int8_files():
        rows = reproduce(some, clips, Run(folder=tmp_path / "run", accelerator="cpu", quiet=True))
    last = {row.variant: row for row in rows}
    assert all(row.file.bytes > 0 for row in rows if SOAK or row.stage.startswith("Quantize"))
    # The first stage of the tandem predicts what the linear model does.
    of = {(row.variant, row.index): row.scores for row in rows}
    np.testing.assert_allclose(of["int8", 0].probabilities, of["linear", 0].probabilities, atol=1e-6)
    for variant in ("int8", *controls):
        saved = SceneClassifier.load(tmp_path / "run" / last[variant].model)
        assert saved.frontend.bands == 32
    pruned = next(row for row in rows if row.stage.startswith("BudgetPruning") and row.variant == "int8")
    for row in (pruned, *(last[name] for name in controls)):
        assert row.to_json()["parameters"] <= 4000
        assert row.to_json()["macs_by_counter"]["torchinfo"] <= 400_000
    assert pruned.metrics["primal_residual"] >= 0
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert "The linear model's loss is the multi-class squared hinge" in receipt["departures"]
    _layers_are_int8(tmp_path / "run" / last["int8"].model / "scene.onnx")


def _layers_are_int8(path: Path) -> None:
    """Every convolution and dense layer of the file reads int8 weights and activations, and its output becomes int8."""
    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    readers = {name: [node for node in graph.node if name in node.input] for name in made}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    # A quantized tensor has the type of its zero point.
    types |= {node.output[0]: types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(layers) > 30
    for layer in layers:
        for name in layer.input[:2]:
            assert made[name].op_type == "DequantizeLinear"
            assert types[made[name].input[0]] == onnx.TensorProto.INT8
        (reader,) = readers[layer.output[0]]
        if reader.op_type == "Relu":
            (reader,) = readers[reader.output[0]]
        assert reader.op_type == "QuantizeLinear"
        assert types[reader.output[0]] == onnx.TensorProto.INT8


def test_selected_bands_are_those_of_the_whole_front_end() -> None:
    """What is kept is computed as before; the rest is not computed at all."""
    classifier = VARIANTS["selected"].build(CLASSES).eval()
    classifier.standardize.fit([classifier.frontend(torch.randn(4, RATE))])
    selected = VARIANTS["selected"].stages[-1].shape(classifier).eval()
    kept = list(selected.frontend.arguments["kept"])
    waveforms = torch.randn(2, RATE)
    torch.testing.assert_close(selected.features(waveforms), classifier.features(waveforms)[:, :, kept])
    assert selected.frontend.weights.shape[0] == len(kept) == 192
