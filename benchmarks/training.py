"""Training beside the loop of the DCASE 2024 baseline: python benchmarks/training.py [NETWORK...]

CP-Mobile at 32 kHz, 256 bands, and the networks of the five systems behind their own front ends; clips of 1 s at
44.1 kHz, batches of 64, two threads; time roll, Freq-MixStyle, mixup. Ours rolls samples, as the other loop does, or
whole frames of features that are computed once, in float32 or bfloat16. Writes results/speed-training.csv: clips a
second over five epochs (two of fewer clips for the five), with checkpoints, and the ratio to the other loop.

The other loop is written after the baseline's published description (github.com/CPJKU/dcase2024_task1_baseline, its
README and the task's page): every epoch decodes each file, resamples it, rolls it; a batch gets its bands by
`torch.stft` and a product, Freq-MixStyle with probability 0.4, mixup; AdamW steps on the default memory format. It
resamples by soxr at high quality, as librosa does; torchaudio has no CPU build for this torch.
"""

from turns import in_turns, keep  # isort: skip; tinyscene before torch, whose threads then wait as in a command

import itertools
import sys
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
from tinyscene.features.spectrogram import BandSpectrogram
from tinyscene.models import create_classifier

BATCH, RATE, CLASSES = 64, 44_100, tuple("abcdefghij")
THREADS, ROUNDS = 2, 7
# Clips and epochs.
NETWORKS = {"cp_mobile": (512, 5)}
NETWORKS |= dict.fromkeys(("baseline2021", "pham_cnn", "se_resnet", "aemnet", "tandem"), (256, 2))
RNG = np.random.default_rng(0)


class Files(Dataset):
    """Decoded, resampled and rolled at every epoch."""

    def __init__(self, clips: Clips, rate: int) -> None:
        self.root, self.rows, self.rate = clips.root, list(clips), rate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        samples, rate = soundfile.read(self.root / self.rows[place].path, dtype="float32")
        samples = soxr.resample(samples, rate, self.rate)
        samples = np.roll(samples, int(RNG.integers(-self.rate // 8, self.rate // 8 + 1)))
        return torch.from_numpy(samples), CLASSES.index(self.rows[place].scene)


class OtherLoop:
    """Some epochs at each call."""

    def __init__(self, name: str, clips: Clips) -> None:
        classifier = create_classifier(name, CLASSES)
        self.frontend, self.epochs = classifier.frontend, NETWORKS[name][1]
        self.network = classifier.network.to(memory_format=torch.contiguous_format).train()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3)
        self.loader = DataLoader(Files(clips, self.frontend.sample_rate), BATCH, shuffle=True)

    def __call__(self) -> None:
        for waveforms, labels in itertools.chain(*[self.loader] * self.epochs):
            features = self.mel(waveforms)
            if RNG.random() < 0.4 and features.shape[2] > 1:
                features = self.mixstyle(features)
            order, weight = torch.randperm(len(labels)), float(RNG.beta(0.3, 0.3))
            logits = self.network(weight * features + (1 - weight) * features[order])
            loss = weight * F.cross_entropy(logits, labels) + (1 - weight) * F.cross_entropy(logits, labels[order])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    def mel(self, waveforms: Tensor) -> Tensor:
        """As torchaudio computes it, by a dense product; a raw waveform stays one."""
        if not isinstance(self.frontend, BandSpectrogram):
            return self.frontend(waveforms)
        return self.frontend.levels(sums_by_stft(self.frontend, waveforms)).unsqueeze(1)

    def mixstyle(self, x: Tensor) -> Tensor:
        """The statistics of each band, mixed with another clip's."""
        mean, std = x.mean((1, 3), keepdim=True), (x.var((1, 3), keepdim=True) + 1e-6).sqrt()
        weight, order = torch.distributions.Beta(0.3, 0.3).sample((len(x), 1, 1, 1)), torch.randperm(len(x))
        other_mean, other_std = mean[order], std[order]
        return (x - mean) / std * (weight * std + (1 - weight) * other_std) + weight * mean + (1 - weight) * other_mean


class Ours:
    """A `Fit` at each call; after the first, the clips are decoded and features standardized."""

    def __init__(self, name: str, clips: Clips, folder: Path, rolled: str, precision: str) -> None:
        self.clips, self.folder, self.precision, self.calls = clips, folder, precision, 0
        self.classifier = create_classifier(name, CLASSES)
        self.fit = ts.Fit(
            epochs=NETWORKS[name][1],
            batch_size=BATCH,
            optimizer=ts.AdamW(1e-3),
            augment=(TimeRoll(0.125, rolled), FreqMixStyle(0.4, 0.3), Mixup(0.3)),
        )

    def __call__(self) -> None:
        self.calls += 1
        run = ts.Run(seed=self.calls, folder=self.folder / f"{self.calls}", quiet=True, precision=self.precision)
        self.classifier = self.fit(self.classifier, self.clips, run)


def written(folder: Path, number: int) -> Clips:
    """Noise of ten classes as 16-bit WAV files of one second."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = tuple(Clip(f"{i}.wav", CLASSES[i % 10], recording=str(i), split="train") for i in range(number))
    for clip in rows:
        soundfile.write(folder / clip.path, rng.uniform(-0.5, 0.5, RATE), RATE)
    return Clips("bench", folder, CLASSES, rows)


def measured(name: str) -> list[dict[str, str]]:
    """The rows of one network: every way for CP-Mobile, rolled features for the others."""
    number, epochs = NETWORKS[name]
    ways = [*itertools.product(("waveforms", "features"), ("32-true", "bf16-mixed"))]
    rounds = ROUNDS
    if name != "cp_mobile":
        ways, rounds = ways[2:], ROUNDS // 2
    with tempfile.TemporaryDirectory() as place:
        clips = written(Path(place, "clips"), number)
        ours = {way: Ours(name, clips, Path(place, "-".join(way)), *way) for way in ways}
        found = in_turns({"other": OtherLoop(name, clips), **ours}, rounds)
    other = found.pop("other")
    rows = [
        {
            "network": name,
            "threads": str(THREADS),
            "batch": str(BATCH),
            "rolled": rolled,
            "precision": precision,
            "clips_a_second": f"{epochs * number / taken:.1f}",
            "other_clips_a_second": f"{epochs * number / other:.1f}",
            "ratio": f"{other / taken:.2f}",
        }
        for (rolled, precision), taken in found.items()
    ]
    print(*rows, sep="\n", flush=True)
    return rows


def main() -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(THREADS)
    rows = [row for name in sys.argv[1:] or NETWORKS for row in measured(name)]
    keep(
        "training",
        " ".join(["python benchmarks/training.py", *sys.argv[1:]]),
        rows,
        f"{ROUNDS} (of others {ROUNDS // 2})",
    )


if __name__ == "__main__":
    main()
