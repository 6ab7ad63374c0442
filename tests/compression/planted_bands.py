"""Clips in which three mel bands of sixteen tell the scene; every other band has a tone of random level."""

from pathlib import Path

import numpy as np
import soundfile
import torch

from tinyscene.compression import FeatureSelection
from tinyscene.data import Clips
from tinyscene.data.clips import Clip
from tinyscene.features import LogMel
from tinyscene.features.logmel import mel_matrix
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.moments_linear import MomentsLinear
from tinyscene.training import SGD, Adam, Fit, Linear, Run

RATE, N_FFT, BANDS, SAMPLES = 8000, 512, 16, 2000
CLASSES = ("a", "b", "c")
PLANTED = (4, 8, 12)
PARTS = {"train": 24, "test": 8}

TRAIN = Fit(epochs=10, batch_size=8, optimizer=Adam(lr=1e-2))
SELECTION = FeatureSelection(
    keep=3, rho=0.1, mask_rate=30.0, fit=Fit(epochs=7, batch_size=4, optimizer=SGD(lr=1e-3), schedule=Linear(0.1))
)


def write_clips(
    root: Path, seed: int = 0, parts: dict[str, int] = PARTS, own_level: tuple[float, float] = (0.05, 0.2)
) -> Clips:
    """So many clips a scene and split; a scene's own tone is of `own_level`, the other planted ones are at 0.02."""
    rng = np.random.default_rng(seed)
    # A tone where a band peaks is in no other.
    hz = np.fft.rfftfreq(N_FFT, 1 / RATE)[mel_matrix(RATE, N_FFT, BANDS, 0, RATE / 2, "slaney").argmax(1)]
    time = np.arange(SAMPLES) / RATE
    rows = []
    for split, number in parts.items():
        for i in range(number):
            for scene, own in zip(CLASSES, PLANTED, strict=True):
                level = rng.uniform(0.02, 0.2, BANDS)
                level[list(PLANTED)] = 0.02
                level[own] = rng.uniform(*own_level)
                tones = level @ np.sin(2 * np.pi * hz[:, None] * time + rng.uniform(0, 6, (BANDS, 1)))
                path = f"{scene}-{split}-{i}.wav"
                soundfile.write(root / path, 0.3 * (tones + 0.1 * rng.standard_normal(SAMPLES)), RATE)
                rows.append(Clip(path, scene, split, device="a", recording=path))
    return Clips("planted", root, CLASSES, tuple(rows))


def frontend(**settings) -> LogMel:
    return LogMel(RATE, N_FFT, **({"n_mels": BANDS, "hop_length": 128} | settings))


def linear_model() -> SceneClassifier:
    torch.manual_seed(0)
    return SceneClassifier(frontend(), MomentsLinear(len(CLASSES), BANDS), CLASSES)


def run_in(folder: Path) -> Run:
    return Run(seed=3, folder=folder, accelerator="cpu", quiet=True)
