"""Training beside the loop of the DCASE 2024 baseline: python benchmarks/training.py

CP-Mobile at 32 kHz, 256 bands, clips of 1 s at 44.1 kHz, batches of 64, two threads; time roll, Freq-MixStyle, mixup.
Ours rolls samples, as the other loop does, or whole frames of features that are computed once, in float32 or bfloat16.
Writes results/speed-training.csv: clips a second over five epochs, with checkpoints, and the ratio to the other loop.

The other loop is written after the baseline's published description (github.com/CPJKU/dcase2024_task1_baseline, its
README and the task's page): every epoch decodes each file, resamples it to 32 kHz, rolls it; a batch gets its log-mel
bands by `torch.stft` and a product, Freq-MixStyle with probability 0.4, mixup; AdamW steps on the default memory
format. It resamples by soxr at high quality, as librosa does; torchaudio has no CPU build for this torch.
"""

from turns import in_turns, keep  # isort: skip; tinyscene before torch, whose threads then wait as in a command

import itertools
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from frontends import sums_by_stft
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import tinyscene as ts
from tinyscene.augment import FreqMixStyle, Mixup, TimeRoll
from tinyscene.data import Clip, Clips
from tinyscene.models import create_classifier

CLIPS, BATCH, RATE, CLASSES = 512, 64, 44_100, tuple("abcdefghij")
THREADS, ROUNDS, EPOCHS = 2, 7, 5
RNG = np.random.default_rng(0)


class Files(Dataset):
    """Decoded, resampled and rolled at every epoch."""

    def __init__(self, clips: Clips) -> None:
        self.root, self.rows = clips.root, list(clips)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        samples, rate = soundfile.read(self.root / self.rows[place].path, dtype="float32")
        samples = soxr.resample(samples, rate, 32_000)
        samples = np.roll(samples, int(RNG.integers(-4000, 4001)))
        return torch.from_numpy(samples), CLASSES.index(self.rows[place].scene)


class OtherLoop:
    """Five epochs at each call."""

    def __init__(self, clips: Clips) -> None:
        classifier = create_classifier("cp_mobile", CLASSES)
        self.frontend = classifier.frontend
        self.network = classifier.network.to(memory_format=torch.contiguous_format).train()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3)
        self.loader = DataLoader(Files(clips), BATCH, shuffle=True)

    def __call__(self) -> None:
        for waveforms, labels in itertools.chain(*[self.loader] * EPOCHS):
            features = self.mel(waveforms)
            if RNG.random() < 0.4:
                features = self.mixstyle(features)
            order, weight = torch.randperm(len(labels)), float(RNG.beta(0.3, 0.3))
            logits = self.network(weight * features + (1 - weight) * features[order])
            loss = weight * F.cross_entropy(logits, labels) + (1 - weight) * F.cross_entropy(logits, labels[order])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    def mel(self, waveforms: Tensor) -> Tensor:
        """As torchaudio computes it: power 2, a dense product."""
        return self.frontend.levels(sums_by_stft(self.frontend, waveforms)).unsqueeze(1)

    def mixstyle(self, x: Tensor) -> Tensor:
        """The statistics of each band, mixed with another clip's."""
        mean, std = x.mean((1, 3), keepdim=True), (x.var((1, 3), keepdim=True) + 1e-6).sqrt()
        weight, order = torch.distributions.Beta(0.3, 0.3).sample((len(x), 1, 1, 1)), torch.randperm(len(x))
        other_mean, other_std = mean[order], std[order]
        return (x - mean) / std * (weight * std + (1 - weight) * other_std) + weight * mean + (1 - weight) * other_mean


class Ours:
    """A `Fit` of five epochs at each call; after the first, the clips are decoded and features standardized."""

    def __init__(self, clips: Clips, folder: Path, rolled: str, precision: str) -> None:
        self.clips, self.folder, self.precision, self.calls = clips, folder, precision, 0
        self.classifier = create_classifier("cp_mobile", CLASSES)
        self.fit = ts.Fit(
            epochs=EPOCHS,
            batch_size=BATCH,
            optimizer=ts.AdamW(1e-3),
            augment=(TimeRoll(0.125, rolled), FreqMixStyle(0.4, 0.3), Mixup(0.3)),
        )

    def __call__(self) -> None:
        self.calls += 1
        run = ts.Run(seed=self.calls, folder=self.folder / f"{self.calls}", quiet=True, precision=self.precision)
        self.classifier = self.fit(self.classifier, self.clips, run)


def written(folder: Path) -> Clips:
    """Noise of ten classes as 16-bit WAV files of one second."""
    rng = np.random.default_rng(0)
    rows = tuple(Clip(f"{i}.wav", CLASSES[i % 10], recording=str(i), split="train") for i in range(CLIPS))
    for clip in rows:
        soundfile.write(folder / clip.path, rng.uniform(-0.5, 0.5, RATE), RATE)
    return Clips("bench", folder, CLASSES, rows)


def main() -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(THREADS)
    ways = list(itertools.product(("waveforms", "features"), ("32-true", "bf16-mixed")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = written(folder)
        ours = {way: Ours(clips, folder / "-".join(way), *way) for way in ways}
        found = in_turns({"other": OtherLoop(clips), **ours}, ROUNDS)
    other = found.pop("other")
    rows = [
        {
            "network": "cp_mobile",
            "threads": str(THREADS),
            "batch": str(BATCH),
            "rolled": rolled,
            "precision": precision,
            "clips_a_second": f"{EPOCHS * CLIPS / taken:.1f}",
            "other_clips_a_second": f"{EPOCHS * CLIPS / other:.1f}",
            "ratio": f"{other / taken:.2f}",
        }
        for (rolled, precision), taken in found.items()
    ]
    keep("training", "python benchmarks/training.py", rows, ROUNDS)


if __name__ == "__main__":
    main()
