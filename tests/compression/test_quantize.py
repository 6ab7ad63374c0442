"""Quantize as a stage: ranges from training clips, masks, pruned networks, what it refuses, and resuming."""

import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from killing import killed_at, same_weights
from tinyscene.accounting import count
from tinyscene.compression import FilterPruning, HalfPrecision, MagnitudePruning
from tinyscene.compression.quantize import Quantize
from tinyscene.data import Clips
from tinyscene.data.clips import Clip
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021, CPMobile, masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.ranges import cheapest, histogram
from tinyscene.training import Adam, Fit, Run

RATE, CLASSES = 8000, ("hum", "noise", "whistle")
QAT = Fit(epochs=1, batch_size=6, optimizer=Adam(1e-3))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """Six training clips a class, two to validate and one to test on, of several levels."""
    root, rows = tmp_path_factory.mktemp("scenes"), []
    for i in range(27):
        rng = np.random.default_rng(i)
        scene, split = CLASSES[i % 3], "train" if i < 18 else "validation" if i < 24 else "test"
        samples = 2400 + 80 * (i % 4)
        hz = {"hum": rng.uniform(150, 400), "noise": 0.0, "whistle": rng.uniform(1500, 3000)}[scene]
        tone = np.sin(2 * np.pi * hz * np.arange(samples) / RATE)
        wave = rng.uniform(0.02, 0.3) * (tone + 0.3 * rng.standard_normal(samples))
        soundfile.write(root / f"{i}.wav", wave, RATE, subtype="FLOAT")
        rows.append(Clip(f"{i}.wav", scene, split, device="ab"[i // 3 % 2], recording=f"place {i}"))
    return Clips("scenes", root, CLASSES, tuple(rows))


def frontend() -> LogMel:
    return LogMel(RATE, n_fft=256, n_mels=20, hop_length=160)


def untrained() -> SceneClassifier:
    torch.manual_seed(1)
    return SceneClassifier(frontend(), Baseline2021((4, 4, 8), 12, 3, 20), CLASSES).eval()


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory) -> SceneClassifier:
    run = Run(folder=tmp_path_factory.mktemp("trained"), accelerator="cpu", quiet=True)
    return Fit(epochs=3, batch_size=6, optimizer=Adam(1e-2))(untrained(), clips.development, run)


@pytest.fixture
def new_run(tmp_path: Path):
    """new_run(seed): on the CPU, quiet, in a folder of its own."""

    def build(seed: int = 0, name: str = "") -> Run:
        return Run(seed=seed, folder=tmp_path / (name or f"run-{seed}"), accelerator="cpu", quiet=True)

    return build


def features_of(classifier: SceneClassifier, clips: Clips) -> list[Tensor]:
    waves = [soundfile.read(clips.root / clip.path, dtype="float32")[0] for clip in clips]
    with torch.no_grad():
        return [classifier.features(torch.from_numpy(wave)[None]) for wave in waves]


# Ranges


def step_of(features: list[Tensor]) -> float:
    low, high = cheapest(torch.cat([histogram(one) for one in features]))
    return float(high - low) / 255


@pytest.mark.parametrize("what", ["input", "output.output"])
def test_ranges_after_training_are_the_cheapest_for_training_clips(what, trained, clips, new_run):
    state = Quantize()(trained, clips.development, new_run()).network.state_dict()
    seen = features_of(trained, clips.train)
    if what == "output.output":
        with torch.no_grad():
            seen = [trained.classify(one) for one in seen]
    assert float(state[f"{what}_scale"]) == pytest.approx(step_of(seen), rel=1e-3)


def test_ranges_know_nothing_of_validation_clips(trained, clips, new_run):
    louder = clips.where(lambda clip: clip.split == "train")
    assert same_weights(
        Quantize()(trained, clips.development, new_run()), Quantize()(trained, louder, new_run(name="alone"))
    )


def test_so_many_clips_are_drawn_as_it_says(trained, clips, new_run):
    def input_scale(quantize: Quantize, seed: int, name: str) -> float:
        return float(quantize(trained, clips.train, new_run(seed, name)).network.state_dict()["input_scale"])

    ranges = [step_of([one]) for one in features_of(trained, clips.train)]
    found = {seed: input_scale(Quantize(clips=1), seed, f"one-{seed}") for seed in range(2)}
    for scale in found.values():
        assert min(abs(scale - one) for one in ranges) < 1e-3 * scale
    assert len(set(found.values())) > 1
    assert input_scale(Quantize(clips=1), 0, "again") == found[0]
    assert input_scale(Quantize(), 0, "all") == pytest.approx(step_of(features_of(trained, clips.train)), rel=1e-3)


def test_the_same_seed_gives_the_same_trained_network_and_another_another(trained, clips, new_run):
    runs = {name: new_run(seed, name) for seed, name in ((0, "first"), (0, "again"), (1, "other"))}
    first, again, other = (Quantize(fit=QAT)(trained, clips.train, run) for run in runs.values())
    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert [row["epoch"] for row in runs["first"].history] == [0]
    assert not torch.equal(first.network.L2.weight, Quantize()(trained, clips.train, new_run()).network.L2.weight)


# What comes out


@pytest.mark.parametrize("fit", [None, QAT])
def test_the_argument_is_never_changed(fit, trained, clips, new_run):
    before = copy.deepcopy(trained)
    quantized = Quantize(fit=fit)(trained, clips.development, new_run())
    assert quantized.precision == "int8"
    assert same_weights(trained, before)
    assert (trained.provenance.recordings, trained.training) == (before.provenance.recordings, before.training)
    assert type(trained.network) is Baseline2021


@pytest.mark.parametrize(("fit", "keep_float"), [(None, ()), (QAT, ("dense",)), (QAT, ("L2", "bn2"))])
def test_shape_gives_the_structure_that_quantizing_gives(fit, keep_float, trained, clips, new_run):
    quantize = Quantize(fit=fit, keep_float=keep_float)
    shaped = quantize.shape(trained).state_dict()
    quantized = quantize(trained, clips.train, new_run()).state_dict()
    assert [(key, one.shape, one.dtype) for key, one in shaped.items()] == [
        (key, one.shape, one.dtype) for key, one in quantized.items()
    ]
    for layer in ("L1", "L2", "L3", "dense", "output"):
        wanted = torch.float32 if layer in keep_float else torch.int8
        assert quantized[f"network.{layer}.weight"].dtype == wanted


@pytest.mark.parametrize("fit", [None, Fit(epochs=1, batch_size=6, optimizer=Adam(1e-6))])
def test_logits_stay_near_those_in_float_and_come_back_from_a_file(fit, trained, clips, new_run, tmp_path):
    quantized = Quantize(fit=fit)(trained, clips.development, new_run())
    loaded = SceneClassifier.load(quantized.save(tmp_path / "model"))
    with torch.no_grad():
        wanted, got, again = (
            torch.cat([one.classify(features) for features in features_of(one, clips.test)])
            for one in (trained, quantized, loaded)
        )
    assert 0 < (got - wanted).abs().mean() < 0.1 * wanted.std()
    assert torch.equal(again, got)


def test_it_remembers_what_it_heard(trained, clips, new_run):
    classifier = untrained()
    assert Quantize()(classifier, clips.train, new_run()).provenance.recordings == tuple(
        sorted(clips.train.recording_hashes)
    )
    quantized = Quantize(fit=QAT)(trained, clips.development, new_run(1))
    assert set(quantized.provenance.recordings) == set(clips.development.recording_hashes)


# Masks and pruned networks


@pytest.mark.parametrize("fit", [None, QAT])
def test_masked_weights_are_zero_in_int8_and_the_ledger_counts_the_others(fit, trained, clips, new_run, tmp_path):
    pruned = MagnitudePruning(0.4).shape(trained)
    wanted = {path: kept for path, kept in masks.masks_of(pruned.network).items() if path.endswith("weight")}
    quantized = Quantize(fit=fit)(pruned, clips.train, new_run())
    loaded = SceneClassifier.load(quantized.save(tmp_path / "model"))
    for classifier in (quantized, loaded):
        rows = {row.name: row for row in count(classifier.network, classifier.short_example()).tensors}
        for layer, norm in (("L1", "bn1"), ("L2", "bn2"), ("L3", "bn3"), ("dense", ""), ("output", "")):
            whole, kept = classifier.network.get_submodule(layer).weight, wanted[f"{layer}.weight"]
            if norm:
                kept = kept & wanted[f"{norm}.weight"].view(-1, 1, 1, 1)
            assert whole.dtype == torch.int8
            assert not kept.all()
            assert not whole[~kept].any(), layer
            row = rows[f"{layer}.weight"]
            assert (row.values, row.kept, row.kept_bytes) == (kept.numel(), int(kept.sum()), int(kept.sum()))


def test_a_masked_norm_scale_takes_its_filter_with_it_through_training(trained, clips, new_run):
    masked = copy.deepcopy(trained)
    masks.attach(masked.network, "bn2.weight", torch.tensor([True, False, True, True]))
    whole = Quantize(fit=QAT)(masked, clips.train, new_run()).network.L2.weight
    assert whole.flatten(1).any(1).tolist() == [True, False, True, True]


def mobile() -> SceneClassifier:
    torch.manual_seed(0)
    network = CPMobile(classes=3, base_channels=8, blocks=(2, 1), strides=((1, 2),))
    return SceneClassifier(frontend(), network, CLASSES).eval()


@pytest.mark.parametrize(
    ("build", "layers"), [(untrained, ("L1", "L2", "L3")), (mobile, ("stages.0.expand.0", "stages.2.project.0"))]
)
def test_networks_with_fewer_filters_quantize(build, layers, clips, new_run, tmp_path):
    pruned = FilterPruning(layers, 0.5).shape(build())
    quantized = Quantize()(pruned, clips.train, new_run())
    for layer in layers:
        wanted = pruned.network.get_submodule(layer).weight.shape
        assert quantized.network.get_submodule(layer).weight.shape == wanted
        assert wanted != build().network.get_submodule(layer).weight.shape
    loaded = SceneClassifier.load(quantized.save(tmp_path / "model"))
    for one in features_of(quantized, clips.test):
        with torch.no_grad():
            assert torch.equal(loaded.classify(one), quantized.classify(one))


# What it refuses


def test_test_clips_are_refused(trained, clips, new_run):
    for fit in (None, QAT):
        with pytest.raises(InputError, match="Quantize was given the test clip 24.wav"):
            Quantize(fit=fit)(trained, clips, new_run())


def test_no_training_clips_and_no_number_of_clips_are_refused(trained, clips, new_run):
    with pytest.raises(InputError, match="train split has no clip of hum, noise, whistle"):
        Quantize()(trained, clips.validation, new_run())
    with pytest.raises(InputError, match="clips=0.*at least 1"):
        Quantize(clips=0)


def test_a_pattern_that_matches_nothing_is_refused(trained):
    with pytest.raises(InputError, match=r"keep_float='blocks\.\*\.se' matches no module; accepted: a path in L1, bn1"):
        Quantize(keep_float=("blocks.*.se",)).shape(trained)


def test_a_clip_that_is_too_short_is_named(clips, new_run, tmp_path):
    for clip in clips.train:
        (tmp_path / clip.path).write_bytes((clips.root / clip.path).read_bytes())
    soundfile.write(tmp_path / "7.wav", np.full(1000, 0.1), RATE)
    short = Clips("short", tmp_path, CLASSES, clips.train.rows)
    # Five frames are 0.2 s.
    coarse = SceneClassifier(LogMel(RATE, n_fft=256, n_mels=20, hop_length=400), untrained().network, CLASSES)
    with pytest.raises(InputError, match=r"7\.wav.*0\.125 s; accepted: at least 0\.2"):
        Quantize()(coarse, short, new_run())


STAGES = (Quantize(), Quantize(fit=QAT), QAT, FilterPruning("L2", 0.5), HalfPrecision(), MagnitudePruning(0.5))


@pytest.fixture(scope="module")
def rounded(trained) -> dict[str, SceneClassifier]:
    return {"int8": Quantize().shape(trained), "float16": HalfPrecision().shape(trained)}


# Halving what is halved changes nothing.
REFUSED = [(stage, "int8") for stage in STAGES] + [(one, "float16") for one in STAGES if one != HalfPrecision()]


@pytest.mark.parametrize(("stage", "precision"), REFUSED)
def test_rounded_weights_are_refused(stage, precision, rounded, clips, new_run):
    with pytest.raises(InputError, match=f"{type(stage).__name__} was given {precision} weights; accepted: float32"):
        stage(rounded[precision], clips.development, new_run())


# Killed and resumed


def test_killed_training_goes_on_to_the_same_integers(trained, clips, new_run):
    quantize = Quantize(fit=Fit(epochs=3, batch_size=6, optimizer=Adam(1e-3)))
    whole = quantize(MagnitudePruning(0.2).shape(trained), clips.train, new_run(name="whole"))
    with killed_at(5):  # the second step of the second epoch
        quantize(MagnitudePruning(0.2).shape(trained), clips.train, new_run(name="killed"))
    steps: list[object] = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(None))
    resumed = quantize(MagnitudePruning(0.2).shape(trained), clips.train, new_run(name="killed"))
    hook.remove()
    assert same_weights(whole, resumed)
    # It did go on where it was: the last two of three epochs.
    assert len(steps) == 6


def test_training_while_quantized_begins_with_a_trained_classifier(clips, new_run) -> None:
    with pytest.raises(InputError, match=r"Quantize\(fit=...\) with init='w.safetensors'; accepted"):
        Quantize(fit=Fit(init="w.safetensors"))
    with pytest.raises(InputError, match=r"untrained classifier; accepted: one that a Fit trained"):
        Quantize(fit=Fit(epochs=1))(untrained(), clips.development, new_run())


def test_modules_that_stay_in_float_are_named(trained, clips, tmp_path, capsys):
    run = Run(folder=tmp_path, accelerator="cpu")
    int8 = Quantize(keep_float=("dense",))(trained, clips.development, run)
    rows = count(int8.network, int8.example(0.5)).tensors
    assert {row.layer for row in rows if (row.role, row.dtype) == ("weight", "float32")} == {"dense"}
    assert int8.network.in_float == ("dense",)
    assert "kept in float: dense" in capsys.readouterr().err
    assert Quantize()(trained, clips.development, run).network.in_float == ()
    assert "kept in float" not in capsys.readouterr().err
