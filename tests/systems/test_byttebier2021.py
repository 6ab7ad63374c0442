"""The recipe of Byttebier et al.: what is trained at which rate, on what, and that all variants run."""

import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bare_runs import bare_runs
from tinyscene import SceneClassifier, evaluate, load_system, override, reproduce, scale_system
from tinyscene.compression import Calibration, MagnitudePruning, Quantize
from tinyscene.data import Clips, decode
from tinyscene.data.clips import Clip
from tinyscene.models import masks
from tinyscene.systems import Optimistic, System
from tinyscene.training import Fit, Run
from tinyscene.training.batches import AugmentedClips
from tones import CLASSES, tone_in_noise, write_clips

RATE = 44_100
VARIANTS = load_system("byttebier2021").variants


def fits(system: System) -> list[Fit]:
    """Those that train, quantization-aware ones included, in order."""
    found = [stage.fit if isinstance(stage, Quantize) else stage for stage in system.stages]
    return [fit for fit in found if isinstance(fit, Fit)]


def peaks(fit: Fit) -> list[float]:
    """Local maxima of the rate over a fine grid of its epochs."""
    grid = np.linspace(0, fit.epochs, 12 * fit.epochs + 1)
    rates = [fit.optimizer.lr * fit.schedule.factor(float(epoch), fit.epochs) for epoch in grid]
    return [b for a, b, c in zip(rates, rates[1:], rates[2:], strict=False) if a < b > c]


def clips_of(root: Path, seconds: float = 1.0, number: int = 4) -> Clips:
    """High and low tones in noise that grow louder, in three splits: the features are what changes over time."""
    samples = round(seconds * RATE)

    def wave(scene: str, _part: str, _take: int, rng: np.random.Generator) -> np.ndarray:
        return np.linspace(0, 1, samples) * tone_in_noise(scene, samples, RATE, rng)

    return write_clips(root, RATE, {"train": number, "validation": number, "test": number}, wave)


def test_the_four_systems_and_the_two_on_test():
    on_test = ["qat8_calib_multinomial_on_test", "qat8_calib_ovr_on_test"]
    assert sorted(VARIANTS) == sorted(["qat8", "qat8_calib_multinomial", "qat8_calib_ovr", "prune16", *on_test])
    trained = {variant.stages[:2] for name, variant in VARIANTS.items() if name.startswith("qat8")}
    assert len(trained) == 1
    marked = [name for name, variant in VARIANTS.items() if any(isinstance(s, Optimistic) for s in variant.stages)]
    assert sorted(marked) == sorted(on_test)
    calibrations = {name: [s for s in v.stages if isinstance(s, Calibration)] for name, v in VARIANTS.items()}
    assert calibrations["qat8_calib_multinomial"] == [Calibration("multinomial")]
    assert calibrations["qat8_calib_ovr"] == [Calibration("one-vs-rest")]


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.1])
def test_rates_peak_at_1e_3_and_halve_with_every_cycle_at_any_scale(scale):
    variants = scale_system(load_system("byttebier2021"), scale).variants
    straight, cut = fits(variants["qat8"]), fits(variants["prune16"])
    assert [fit.epochs for fit in straight] == [360 * scale, 120 * scale]
    assert [peaks(fit) for fit in straight] == [pytest.approx([1e-3, 5e-4, 2.5e-4]), pytest.approx([2.5e-4])]
    assert [fit.epochs for fit in cut] == [120 * scale, 240 * scale]
    assert [peaks(fit) for fit in cut] == [pytest.approx([1e-3]), pytest.approx([5e-4, 2.5e-4])]
    for fit in (*straight, *cut):
        assert fit.batch_size == 64
        assert fit.optimizer.weight_decay == 1e-4
        assert fit.optimizer.lr * fit.schedule.factor(0.0, fit.epochs) == pytest.approx(1e-6)


def test_a_tone_moves_by_the_speed_and_fills_the_crop(tmp_path):
    """Section 2.1: crops of 3 s, resampled by 85, 100 or 115 %; not padded, a departure."""
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(10 * RATE) / RATE)
    soundfile.write(tmp_path / "tone.wav", tone, RATE)
    clips = Clips("tone", tmp_path, ("a",), (Clip("tone.wav", "a", "train", recording="tone"),))
    (train, *_) = fits(VARIANTS["qat8"])
    on_clips = tuple(augmentation for augmentation in train.augment if not hasattr(augmentation, "domain"))
    heard = AugmentedClips(decode(clips, RATE, quiet=True), on_clips, seed=0)
    met = set()
    for epoch in range(24):
        crop = heard[epoch, 0].numpy()
        assert len(crop) == 3 * RATE
        sounding = int(np.flatnonzero(np.abs(crop) > 0.01)[-1]) + 1
        spectrum = np.abs(np.fft.rfft(crop * np.hanning(len(crop)), 4 * len(crop)))
        hz = spectrum.argmax() * RATE / (4 * len(crop))
        rate = min((0.85, 1.0, 1.15), key=lambda r: abs(1000 * r - hz))
        assert abs(hz - 1000 * rate) < 0.5
        assert sounding > len(crop) - 30
        met.add(rate)
    assert met == {0.85, 1.0, 1.15}


def test_the_front_end_gives_the_reports_features():
    classifier = VARIANTS["qat8"].build(CLASSES)
    waveform = torch.randn(1, 3 * RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    features = classifier.features(waveform)
    assert features.shape == (1, 1, 128, 301)
    assert features.mean(3).abs().max() < 1e-4
    # One second from its definition: frames of 1,323 samples every 441, magnitudes of 4,096 points, logarithm.
    signal = np.pad(waveform[0, :RATE].double().numpy(), 2048)
    window = np.pad(np.hanning(1324)[:-1], ((4096 - 1323) // 2, 4096 - 1323 - (4096 - 1323) // 2))
    frames = np.stack([np.abs(np.fft.rfft(signal[i * 441 : i * 441 + 4096] * window)) for i in range(101)], 1)
    bands = np.log(classifier.frontend.weights.double().numpy() @ frames + 1e-5)
    got = classifier.features(waveform[:, :RATE])[0, 0].numpy()
    np.testing.assert_allclose(got, bands - bands.mean(1, keepdims=True), atol=2e-3)


def test_the_cut_is_kept_through_the_later_cycles(tmp_path):
    clips = clips_of(tmp_path, number=3)
    only = scale_system(load_system("byttebier2021").only("prune16"), 1 / 240)
    small = override(
        only,
        [f"prune16.stages.{i}.{field}" for i in (0, 2) for field in ("augment.1.duration_s=0.5", "batch_size=3")],
    )
    with bare_runs():
        rows = reproduce(small, clips, Run(folder=tmp_path / "run", accelerator="cpu", quiet=True))
    assert [row.stage.split()[0] for row in rows] == ["Fit", "MagnitudePruning", "Fit", "HalfPrecision"]
    first, cut, tuned, half = (SceneClassifier.load(tmp_path / "run" / row.model) for row in rows)
    zeros = {name: ~mask for name, mask in masks.masks_of(cut.network).items()}
    trainable = sum(parameter.numel() for parameter in first.network.parameters())
    assert sum(int(zero.sum()) for zero in zeros.values()) == round(0.25 * trainable)
    assert not masks.masks_of(first.network)
    for later in (tuned, half):
        for name, zero in zeros.items():
            assert not later.network.get_parameter(name)[zero].any(), name
    assert any(not torch.equal(tuned.network.get_parameter(name), cut.network.get_parameter(name)) for name in zeros)


def test_int8_variants_run_on_one_second(tmp_path):
    """From one trained and quantized network; those fitted on the test part are marked."""
    clips = clips_of(tmp_path)
    file = scale_system(load_system("byttebier2021"), 1 / 360)
    names = ["qat8", "qat8_calib_multinomial", "qat8_calib_ovr_on_test"]
    settings = [
        f"all.stages.{path}{field}"
        for path in ("0.", "1.fit.")
        for field in ("augment.1.duration_s=0.5", "batch_size=4")
    ]
    with bare_runs():
        rows = reproduce(
            override(file.only(*names), settings), clips, Run(folder=tmp_path / "run", accelerator="cpu", quiet=True)
        )
    stages = {path.name for path in (tmp_path / "run" / "stages").iterdir() if path.is_dir()}
    assert len([name for name in stages if name.startswith(("0-", "1-"))]) == 2
    last = {row.variant: row for row in rows}
    assert set(last) == set(names)
    for name, row in last.items():
        # Two classes in place of ten: eight rows of the dense layer fewer.
        size = VARIANTS["qat8"].reported.convention(row.ledger.tensors)
        assert size.parameters == 113_976 - 8 * (1536 + 2)
        assert (row.scores.training_clips > 0) == name.endswith("_on_test")
    loaded = SceneClassifier.load(tmp_path / "run" / last["qat8"].model)
    assert evaluate(loaded, clips.test).accuracy == last["qat8"].scores.accuracy


def test_pruning_before_training_counts_the_same():
    """`count` needs no data: the number of zeros depends on the shapes alone."""
    system = VARIANTS["prune16"]
    classifier = system.build(system.rules.classes)
    (pruning,) = [stage for stage in system.stages if isinstance(stage, MagnitudePruning)]
    pruned = pruning.shape(copy.deepcopy(classifier))
    assert sum(int((~mask).sum()) for mask in masks.masks_of(pruned.network).values()) == 20_520
