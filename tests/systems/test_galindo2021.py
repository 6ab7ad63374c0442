"""The recipe of Galindo-Meza et al.: what is trained at which rate, what stays, and that all variants run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from bare_runs import bare_runs, int8_files
from soak import SOAK
from tinyscene import InputError, Run, SceneClassifier, evaluate, load_system, override, reproduce, scale_system
from tinyscene.accounting import count, total
from tinyscene.augment import Crop, Gain, Mixup, Noise
from tinyscene.cli import app
from tinyscene.compression import LotteryTicket, Quantize
from tinyscene.data import Clips
from tinyscene.data.clips import Clip
from tinyscene.models import AemNet, masks
from tinyscene.systems import SystemFile
from tinyscene.training import Adam, CrossEntropy
from tones import CLASSES, tone_in_noise, write_clips

RATE = 16_000
FILE = load_system("galindo2021")
VARIANTS = FILE.variants


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """High and low tones in noise; those of the test part of unequal lengths."""

    def wave(scene: str, part: str, take: int, rng: np.random.Generator) -> np.ndarray:
        return tone_in_noise(scene, RATE // 2 + (take * 1000 if part == "test" else 0), RATE, rng)

    return write_clips(tmp_path_factory.mktemp("tones"), RATE, {"train": 3, "validation": 3, "test": 3}, wave)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> SystemFile:
    """The system with a narrow network, and an epoch everywhere."""

    def narrow(classes: int) -> AemNet:
        return AemNet(classes=classes, width=1 / 16, pooling=10, filters=(4, 32), embedding=16)

    monkeypatch.setattr("tinyscene.systems.galindo2021.AemNet", narrow)
    file = override(
        scale_system(FILE, 1 / 100), ["all.stages.0.augment.0.duration_s=0.25", "all.stages.0.batch_size=3"]
    )
    settings = [f"{variant}.stages.2" for variant in ("ticket", "ticket_int8", "random_ticket")]
    settings = [f"{path}.{field}" for path in settings for field in ("augment.0.duration_s=0.25", "batch_size=3")]
    later = ["ticket_int8.stages.3.fit.augment.0.duration_s=0.25", "ticket_int8.stages.3.fit.batch_size=3"]
    return override(file, [*settings, *later])


def test_the_three_systems_of_the_report_and_a_control() -> None:
    assert list(VARIANTS) == ["aemnet", "ticket", "ticket_int8", "random_ticket"]
    printed = {
        name: v.reported and (v.reported.parameters, v.reported.kb, v.reported.accuracy) for name, v in VARIANTS.items()
    }
    assert printed == {
        "aemnet": (319_093, "1246.45", 0.6149),
        "ticket": (127_637, "498.58", 0.5873),
        "ticket_int8": (127_637, "124.64", 0.5650),
        "random_ticket": None,
    }
    # One training is shared by all, and the control differs in its mask alone; a ticket's rounds train as that does.
    assert len({variant.stages[0] for variant in VARIANTS.values()}) == 1
    assert VARIANTS["ticket_int8"].stages[:3] == VARIANTS["ticket"].stages
    ticket, control = (VARIANTS[name].stages for name in ("ticket", "random_ticket"))
    assert (ticket[0], ticket[2]) == (control[0], control[2])
    assert (ticket[1], control[1]) == (LotteryTicket(0.6, fit=ticket[0]), LotteryTicket(0.6, by="random"))
    assert override(FILE, ["ticket.stages.1.rounds=3"]).variants["ticket"].stages[1].rounds == 3


def test_it_trains_as_the_report_says() -> None:
    for fit in (VARIANTS["ticket"].stages[0], VARIANTS["ticket"].stages[2]):
        assert (fit.optimizer.lr, fit.optimizer.weight_decay, fit.schedule.decay) == (1e-4, 1e-4, 1e-2)
        assert fit.augment == (Crop(1.0), Noise(10.0, 40.0), Gain(-6.0, 6.0), Mixup(0.2, "waveforms"))
        assert (fit.epochs, fit.batch_size, fit.loss, fit.init) == (100, 32, CrossEntropy(), None)
    tune = replace(VARIANTS["aemnet"].stages[0], epochs=20, optimizer=Adam(lr=1e-5, weight_decay=1e-4))
    assert VARIANTS["ticket_int8"].stages[3] == Quantize(fit=tune)
    classifier = VARIANTS["aemnet"].build(CLASSES)
    assert (classifier.sample_rate, classifier.network.dropout.p) == (16_000, 0.2)
    assert classifier.example(10.0).shape == (1, 1, 1, 160_000)
    # The setting that the docstring names for those who have AudioSet weights.
    edited = override(FILE, ["all.stages.0.init=aemnet.safetensors", 'all.stages.0.optimizer.rates=(("body", 0.1),)'])
    first, _, second = edited.variants["ticket"].stages
    assert (first.init, first.optimizer.rates) == ("aemnet.safetensors", (("body", 0.1),))
    assert (second.init, second.optimizer.rates) == (None, ())


def test_count_prints_the_reports_arithmetic_beside_what_the_int8_file_holds() -> None:
    printed = CliRunner().invoke(app, ["count", "galindo2021"], env={"COLUMNS": "200"}).stdout
    row = next(line for line in printed.splitlines() if "│ Quantize " in line)
    assert "127,637 galindo2021 ✓  124.64" in row
    assert "✗" not in printed
    classifier = VARIANTS["ticket_int8"].build(VARIANTS["ticket_int8"].rules.classes)
    for stage in VARIANTS["ticket_int8"].stages:
        classifier = stage.shape(classifier)
    rows = count(classifier.network, classifier.example(1.0)).tensors
    # By hand: the channels of all 21 layers with weights each have a scale and an int32 bias.
    channels = 64 + 128 + sum((1, 16, 32, 32, 64, 64, 128, 128, 256)) + 16 + 32 + 32 + 64 + 64 + 128 + 128 + 256 + 256
    channels += 512 + 10
    assert channels == 2411
    scales = sum(row.values for row in rows if row.tensor.endswith("weight_scale"))
    assert scales == sum(row.values for row in rows if row.role == "bias") == channels
    stored = total(rows).kept_bytes
    # Survivors but for batch norm and biases, which are folded to int32 ones; scales; activations.
    activations = sum(row.bytes for row in rows if row.role in ("scale", "zero_point")) - 4 * channels
    assert stored == (127_637 - 2 * (channels - 522) - 522) + 4 * channels + 4 * channels + activations
    assert f"{stored:,}" in printed
    assert stored > 128 * 1024


def test_all_stages_run_and_each_is_a_row(small: SystemFile, clips: Clips, tmp_path: Path) -> None:
    # `aemnet` and `ticket` are where `ticket_int8` begins.
    some = small.only("ticket_int8", "random_ticket")
    with int8_files():
        rows = reproduce(some, clips, Run(folder=tmp_path / "run", accelerator="cpu", quiet=True))
    assert len(rows) == 4 + 3
    assert all(row.scores is not None for row in rows)
    assert all(row.file.parity for row in rows if SOAK or row.stage.startswith("Quantize"))
    loaded = {(row.variant, row.index): SceneClassifier.load(tmp_path / "run" / row.model) for row in rows}
    initial = _untrained(small)
    for variant in ("ticket_int8", "random_ticket"):
        trained, ticket = loaded[variant, 0], loaded[variant, 1]
        assert not masks.masks_of(trained.network)
        kept = masks.masks_of(ticket.network)
        removed = round(0.6 * sum(p.numel() for p in initial.network.parameters()))
        assert sum(int((~mask).sum()) for mask in kept.values()) == removed
        for name, tensor in initial.network.state_dict().items():
            expected = tensor * kept.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(ticket.network.state_dict()[name], expected), name
        for row in (row for row in rows if row.variant == variant and row.index >= 1):
            state = loaded[variant, row.index].network.state_dict()
            assert all(not state[path][~mask].any() for path, mask in kept.items())
            assert row.to_json()["parameters"] - row.to_json()["nonzero"] == removed
    same = loaded["ticket_int8", 1].network.state_dict()
    assert not torch.equal(same["body.embed.weight_mask"], loaded["random_ticket", 1].network.body.embed.weight_mask)
    folders = [path.name for path in (tmp_path / "run" / "stages").iterdir()]
    assert sum(name.startswith("0-") for name in folders) == 1, "the first training is shared"
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert "Without such weights, as here, it trains from its random start" in receipt["departures"]
    # Nothing is done again, and the ticket still knows what it goes back to.
    system = override(small, ["ticket.stages.1.ratio=0.5"]).variants["ticket"]
    edited = replace(small, variants={"ticket": replace(system, stages=system.stages[:2])})
    with bare_runs():
        again = reproduce(edited, clips, Run(folder=tmp_path / "run", accelerator="cpu", quiet=True))
    half = SceneClassifier.load(tmp_path / "run" / again[1].model).network
    mask = half.body.embed.weight_mask
    assert torch.equal(half.body.embed.weight[mask], initial.network.body.embed.weight[mask])


def _untrained(file: SystemFile) -> SceneClassifier:
    """As `reproduce` draws it."""
    from tinyscene.training.batches import INITIAL

    Run(seed=0, accelerator="cpu").seed_torch(INITIAL)
    return file.variants["ticket"].build(CLASSES)


def test_a_clip_that_is_too_short_is_named(clips: Clips, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", 0.1 * np.random.default_rng(0).standard_normal(4000), RATE)
    rows = (*clips.rows, Clip(str(tmp_path / "short.wav"), "low", "test", device="a", recording="short"))
    with pytest.raises(InputError, match=r"short.wav .*: 0\.250 s; accepted: at least 0\.320 s for this network"):
        evaluate(VARIANTS["aemnet"].build(CLASSES), Clips("two", clips.root, CLASSES, rows).test, Run(quiet=True))
