"""A small data set and recipes to train on it; as a script, one process of a run on several devices."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tinyscene.augment import Crop, Mixup, Noise, SpecAugment
from tinyscene.compression import Quantize
from tinyscene.data import Clips
from tinyscene.data.clips import Clip
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import SGD, Adam, Cosine, EarlyStopping, Fit, Run
from tinyscene.training.batches import Plan
from tinyscene.training.checkpoint import Checkpoint

RATE = 8000
CLASSES = ("hum", "noise", "whistle")
PARTS = {"train": 8, "validation": 4, "test": 4}


def write_clips(root: Path, seconds=lambda rng: 0.5) -> Clips:
    """Hum, noise and whistle, each at its own pitch and level, in noise."""
    rng = np.random.default_rng(0)
    rows = []
    for split, number in PARTS.items():
        for scene in CLASSES:
            for i in range(number):
                samples = round(seconds(rng) * RATE)
                hz = {"hum": rng.uniform(150, 400), "noise": 0.0, "whistle": rng.uniform(1500, 3000)}[scene]
                tone = np.sin(2 * np.pi * hz * np.arange(samples) / RATE)
                waveform = rng.uniform(0.05, 0.3) * (tone + 0.3 * rng.standard_normal(samples))
                path = f"{scene}-{split}-{i}.wav"
                soundfile.write(root / path, waveform, RATE)
                rows.append(Clip(path, scene, split, device="ab"[i % 2], recording=path))
    return Clips("small", root, CLASSES, tuple(rows))


def build(classes=CLASSES, **frontend) -> SceneClassifier:
    torch.manual_seed(1)
    settings = {"n_fft": 256, "n_mels": 20, "hop_length": 160} | frontend
    network = Baseline2021(filters=(8, 8, 12), dense=24, classes=len(classes), bands=20)
    return SceneClassifier(LogMel(RATE, **settings), network, classes)


class Gain(LogMel):
    """A learned exponent a band, as in PCEN."""

    def __init__(self, sample_rate: int = RATE, n_fft: int = 256, n_mels: int = 12) -> None:
        super().__init__(sample_rate, n_fft, n_mels, hop_length=160)
        self.exponent = nn.Parameter(torch.linspace(0.8, 1.2, n_mels)[:, None])

    def forward(self, waveforms):
        return super().forward(waveforms) * self.exponent


class Tied(nn.Module):
    """One kernel in two layers, and a dense layer."""

    def __init__(self, inputs: int = 1, classes: int = 3) -> None:
        super().__init__()
        self.inputs, self.classes = inputs, classes
        self.first = nn.Conv2d(inputs, 6, 3, padding=1)
        self.second, self.third = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.third.weight = self.second.weight
        self.dense = nn.Linear(6, classes)

    def forward(self, features):
        mapped = self.second(self.first(features).relu()).relu()
        return self.dense(self.third(mapped).relu().mean((2, 3)))


def train_learned(clips: Clips, run: Run) -> SceneClassifier:
    """Without batch norm, whose statistics are those of one device's share, several devices train as one."""
    torch.manual_seed(0)
    return Fit(epochs=2, batch_size=8, optimizer=SGD(0.1))(SceneClassifier(Gain(), Tied(), CLASSES), clips, run)


RECIPES = {
    # Features stay in memory.
    "memory": Fit(epochs=4, batch_size=5, optimizer=Adam(3e-3), augment=(SpecAugment(4, 4), Mixup(0.3))),
    # Waveforms come from the loader, and the best epoch's weights are kept.
    "loader": Fit(
        epochs=4,
        batch_size=5,
        optimizer=SGD(0.02, weight_decay=1e-3),
        schedule=Cosine(warmup_epochs=1),
        augment=(Noise(), Crop(0.4), Mixup(0.3, "waveforms"), SpecAugment(4, 4)),
        early_stopping=EarlyStopping("log_loss", patience=2),
    ),
    "averaged": Fit(epochs=4, batch_size=5, optimizer=Adam(3e-3), augment=(Mixup(0.3),), average=0.9),
}


def train(clips: Clips, recipe: str, folder: Path, out: Path, workers: int = 0, death: tuple[str, int] | None = None):
    """Train in a process of its own, which kills itself at the n-th step, checkpoint or half-written checkpoint."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as Linux starts a loader's workers
    if death is not None:
        _die(*death)
    run = Run(seed=3, folder=folder, workers=workers, accelerator="cpu", quiet=True)
    RECIPES[recipe](build(), clips, run).save(out)
    # Early stopping gives back one epoch alone; the figures of every epoch tell whether all of them were the same.
    (out / "history.json").write_text(json.dumps([{**row, "seconds": 0} for row in run.history]))


def _die(where: str, at: int) -> None:
    passed = 0

    def pass_by(*_) -> None:
        nonlocal passed
        passed += 1
        if passed == at:
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "step":
        register_optimizer_step_post_hook(pass_by)
    elif where == "checkpoint":
        save = Checkpoint.save
        Checkpoint.save = lambda *arguments: (save(*arguments), pass_by())
    elif where == "partial":
        replace = Path.replace

        def interrupted(self, target):
            if Path(target).parent.name == "checkpoints":
                pass_by()
            return replace(self, target)

        Path.replace = interrupted
    else:
        raise ValueError(where)


def main() -> None:
    """Two processes by gloo; each writes what it ended with. Fabric starts this script again for the second."""
    root, folder = map(Path, sys.argv[1:3])
    torch.set_num_threads(1)
    clips = written_clips(root)
    run = Run(seed=3, folder=folder, accelerator="cpu", devices=2, quiet=True)
    epoch, taken = Plan.epoch, []
    Plan.epoch = lambda plan, number: taken.append(epoch(plan, number)) or taken[-1]
    for recipe, fit in RECIPES.items():
        trained = fit(build(), clips.development, run)
        trained.save(folder / f"{recipe}-{run.fabric.global_rank}")
    (folder / f"clips-{run.fabric.global_rank}.json").write_text(json.dumps(taken))
    run.folder = folder / "learned"
    trained = train_learned(clips.train, run)
    learned = {name: parameter.contiguous() for name, parameter in trained.named_parameters()}
    save_file(learned, folder / f"learned-{run.fabric.global_rank}.safetensors")
    run.folder = folder / "int8"
    trained = Fit(epochs=1, batch_size=8)(build(), clips.development, run)
    int8 = Quantize(fit=Fit(epochs=3, batch_size=8))(trained, clips.development, run)
    int8.save(folder / f"int8-{run.fabric.global_rank}")


def written_clips(root: Path) -> Clips:
    """The clips that another process wrote."""
    rows = [Clip(path.name, *path.stem.split("-")[:2], recording=path.name) for path in sorted(root.glob("*.wav"))]
    return Clips("small", root, CLASSES, tuple(rows))


if __name__ == "__main__":
    main()
