"""The recipe of Pham et al.: one training for all variants, one channel, and zeros wherever the masks have them."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from bare_runs import no_pictures
from tinyscene import SceneClassifier, evaluate, export, load_system, override, reproduce, scale_system
from tinyscene.augment import Mixup
from tinyscene.compression import Calibration, MagnitudePruning, Quantize
from tinyscene.data import Clips, load
from tinyscene.deployment import Artifact
from tinyscene.evaluation import Row
from tinyscene.evaluation.tables import count_table
from tinyscene.models import masks
from tinyscene.systems import SystemFile, count_system
from tinyscene.training import Adam, Fit, KLDivergence, Run
from tones import CLASSES, sine, write_clips

RATE = 48_000
VARIANTS = load_system("pham2020").variants
KERNELS = ("block1.0.weight", "block2.0.weight", "block3.0.weight", "block4.0.weight", "dense.weight")


def binaural(hz: float, other_hz: float, rng: np.random.Generator) -> np.ndarray:
    """One tone in the first channel, another and louder one in the second: (samples, 2)."""
    samples = RATE // 4
    tones = np.stack([0.1 * sine(hz, samples, RATE), 0.5 * sine(other_hz, samples, RATE)], 1)
    return tones + 0.02 * rng.standard_normal((samples, 2))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """The first channel tells the scene; the second says the opposite."""

    def wave(scene: str, _part: str, _take: int, rng: np.random.Generator) -> np.ndarray:
        return binaural(*((6000, 400) if scene == "high" else (400, 6000)), rng)

    return write_clips(tmp_path_factory.mktemp("binaural"), RATE, {"train": 6, "test": 3}, wave, device="")


def small_system() -> SystemFile:
    """A few epochs of a few steps each; the rest as in the report."""
    file = scale_system(load_system("pham2020"), 0.03)
    fits = ["all.stages.0.", "pruned.stages.1.fit.", "int8.stages.1.fit."]
    return override(file, [f"{path}batch_size=6" for path in fits])


@pytest.fixture(scope="module")
def run(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    folder = tmp_path_factory.mktemp("pham2020") / "run"
    with no_pictures():
        return folder, reproduce(small_system(), clips, Run(folder=folder, accelerator="cpu", quiet=True))


def test_the_recipe_is_the_reports() -> None:
    (train,) = VARIANTS["baseline"].stages
    assert isinstance(train, Fit)
    assert (train.epochs, train.batch_size, train.loss) == (100, 100, KLDivergence())
    assert isinstance(train.optimizer, Adam)
    assert train.optimizer.weight_decay == 1e-4
    assert train.optimizer.lr == 1e-3
    assert train.augment == (Mixup(alpha=0.2, domain="features"),)
    (_, pruning), (_, quantization) = VARIANTS["pruned"].stages, VARIANTS["int8"].stages
    assert isinstance(pruning, MagnitudePruning)
    assert (pruning.ratio, pruning.scope, pruning.what) == (0.5, "layer", "weights")
    assert pruning.fit == replace(train, epochs=30)
    assert isinstance(quantization, Quantize)
    assert quantization.fit == pruning.fit
    assert VARIANTS["baseline"].rules.classes == ("indoor", "outdoor", "transportation")
    assert VARIANTS["baseline"].build(CLASSES).example(10.0).shape == (1, 1, 128, 428)


def test_both_variants_start_from_one_checkpoint(run: tuple[Path, list[Row]]) -> None:
    folder, rows = run
    first = {row.variant: folder / row.model / "weights.safetensors" for row in rows if row.index == 0}
    assert set(first) == {"baseline", "pruned", "int8"}
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in first.values()}) == 1
    # Trained once: one folder, and no second one beside it.
    assert len(set(first.values())) == len(list((folder / "stages").glob("0-*/"))) == 1


def test_zeros_stay_after_every_stage_and_in_the_files(run: tuple[Path, list[Row]]) -> None:
    import onnx

    folder, rows = run
    half = {"block1.0.weight": 144, "block2.0.weight": 9_216, "block3.0.weight": 4_096, "block4.0.weight": 16_384}
    wanted = {**half, "dense.weight": 256 * len(CLASSES) // 2}
    for row in rows:
        classifier = SceneClassifier.load(folder / row.model)
        kept = masks.masks_of(classifier.network)
        found = {path: int((~mask).sum()) for path, mask in kept.items()}
        assert found == (wanted if row.stage.startswith("MagnitudePruning") else {})
        if not found:
            continue
        assert {p: int((classifier.network.get_parameter(p) == 0).sum()) for p in KERNELS} == wanted
        held = onnx.load(folder / row.model / "scene.onnx").graph.initializer
        zeros = {tensor.name: int((onnx.numpy_helper.to_array(tensor) == 0).sum()) for tensor in held}
        assert {path: zeros[path] for path in KERNELS} == wanted
        assert row.to_json()["nonzero"] == row.to_json()["parameters"] - sum(wanted.values())


def test_every_stage_has_a_file_that_agrees(run: tuple[Path, list[Row]]) -> None:
    folder, rows = run
    for row in rows:
        assert row.file.parity.agreement == 1.0
        assert Artifact.load(folder / row.model / "scene.onnx").frontend.channel == 0


def test_a_pruned_network_stays_so_at_8_bits(run: tuple[Path, list[Row]], clips: Clips, tmp_path: Path) -> None:
    folder, rows = run
    (model,) = {row.model for row in rows if row.stage.startswith("MagnitudePruning")}
    pruned = SceneClassifier.load(folder / model)
    tune = Fit(epochs=1, batch_size=6, optimizer=Adam(1e-3, 1e-4), loss=KLDivergence())
    int8 = Quantize(fit=tune)(pruned, clips.development, Run(folder=tmp_path, accelerator="cpu", quiet=True))
    file = export(int8, tmp_path / "int8.onnx", clip_s=0.25)
    rows_of_file = {row.name: row for row in file.certificate.ledger.tensors}
    for path, mask in masks.masks_of(pruned.network).items():
        weight = int8.network.state_dict()[path]
        assert weight.dtype == torch.int8
        assert not weight[~mask].any()
        assert rows_of_file[path].values - rows_of_file[path].kept == int((~mask).sum())


def test_a_tone_in_the_other_channel_is_ignored(run: tuple[Path, list[Row]], clips: Clips, tmp_path: Path) -> None:
    """By training, by evaluation, and by prediction, of the classifier and of its file."""
    folder, rows = run
    last = folder / next(row.model for row in rows if row.variant == "int8" and row.index == 1)
    classifier, artifact = SceneClassifier.load(last), Artifact.load(last / "scene.onnx")
    for number, other in enumerate((50.0, 1000.0, 9000.0)):
        soundfile.write(tmp_path / f"{number}.wav", binaural(3000, other, np.random.default_rng(7)), RATE)
    heard: list[Callable[[Path], dict[str, float]]] = [
        lambda path: classifier.predict(path).probabilities,
        lambda path: artifact.predict(path).probabilities,
    ]
    for probabilities in heard:
        assert len({tuple(probabilities(tmp_path / f"{n}.wav").values()) for n in range(3)}) == 1
    # Those of both channels differ: the second is five times as loud. Before rounding, which takes some for the same.
    classifier = SceneClassifier.load(
        folder / next(row.model for row in rows if row.variant == "int8" and row.index == 0)
    )
    classifier.frontend.channel = 1
    assert len({tuple(classifier.predict(tmp_path / f"{n}.wav").probabilities.values()) for n in range(3)}) == 3


def test_every_stage_decodes_the_first_channel(monkeypatch: pytest.MonkeyPatch, clips: Clips, tmp_path: Path) -> None:
    """Recordings that differ in the second channel alone train, quantize and calibrate to the same bits."""

    def trained(name: str, other_hz: float) -> dict[str, torch.Tensor]:
        def wave(scene: str, _part: str, _take: int, rng: np.random.Generator) -> np.ndarray:
            return binaural(6000 if scene == "high" else 400, other_hz, rng)

        here = write_clips(tmp_path / name, RATE, {"train": 2, "validation": 1}, wave, device="")
        own = Run(folder=tmp_path / f"{name}-run", accelerator="cpu", quiet=True)
        torch.manual_seed(0)
        classifier = Fit(epochs=1, batch_size=2)(VARIANTS["int8"].build(CLASSES), here, own)
        classifier = Calibration("multinomial")(Quantize()(classifier, here, own), here, own)
        logits = torch.from_numpy(evaluate(classifier, here.validation, own).probabilities)
        return {**classifier.state_dict(), "probabilities": logits}

    first, second = trained("first", 100.0), trained("second", 12_000.0)
    assert list(first) == list(second)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_table_marks_hits_and_misses() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(count_table(count_system(load_system("pham2020"), quiet=True), "pham2020"))
    lines = [line for line in console.export_text().splitlines() if " KB pham2020 " in line]
    assert [mark for line in lines for mark in "✓✗" if mark in line] == ["✓", "✓", "✗"]
    assert "245.53" in lines[0]
    assert "122.8 KB" in lines[1]
    assert "127.46" in lines[1]
    assert "66.62" in lines[2]
    assert "61.5 KB pham2020 ✗, ours 61.4" in lines[2]


def test_its_data_set_has_its_three_classes(tau_tree: Callable[..., Path], tmp_path: Path) -> None:
    clips = load(tau_tree(tmp_path / "tau", "tau2020-3class"), "tau2020-3class")
    assert clips.classes == VARIANTS["pruned"].rules.classes
