"""Inputs on which a file is compared with the classifier: sounds at the edges of what a microphone gives, or clips."""

from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from tinyscene.data import Clips, decode
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier

NOISE_LEVELS = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
# A clip that is longer than the others shows what depends on the number of frames.
LONGER = 1.5
MOST_CLIPS = 64


def generated(classifier: SceneClassifier, clip_s: float) -> list[Tensor]:
    """Standardized features in batches of several sizes, (batch, channels, bands, frames), the same on every call.

    Noise at several levels and of several colours, silence, an impulse, full scale, a sweep; longer clips at the end.
    """
    samples = max(round(clip_s * classifier.sample_rate), classifier.shortest_samples)
    sounds = _features(classifier, _sounds(samples))
    longer = _features(classifier, _sounds(round(LONGER * samples)))
    return [sounds, sounds[:1], sounds[1:4], longer]


def of_clips(classifier: SceneClassifier, clips: Clips) -> list[Tensor]:
    """Standardized features of up to 64 clips, evenly taken from all, in batches of one length.

    Raises:
        InputError: there are no clips, or one can't be used.
    """
    if not len(clips):
        raise InputError(f"{clips.root} ({clips.name}): no clips to compare on; accepted: at least one")
    rows = [clips.rows[i] for i in np.unique(np.linspace(0, len(clips) - 1, MOST_CLIPS).round().astype(int))]
    chosen = clips.where(lambda clip: clip in rows)
    waveforms = decode(chosen, classifier.sample_rate, classifier.channel, quiet=True)
    order = sorted(range(len(waveforms)), key=lambda i: waveforms.lengths[i])
    return [
        _features(classifier, np.stack([waveforms[i] for i in same]))
        for _, same in groupby(order, key=lambda i: waveforms.lengths[i])
    ]


@torch.inference_mode()
def _features(classifier: SceneClassifier, waveforms: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
    """(batch, samples) -> (batch, channels, bands, frames)"""
    device = classifier.standardize.mean.device
    features: Tensor = classifier.features(torch.from_numpy(np.ascontiguousarray(waveforms, np.float32)).to(device))
    return features.cpu()


def _sounds(samples: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(batch, samples), in -1 ... 1"""
    rng = np.random.default_rng(0)
    time = np.arange(samples) / samples
    impulse = np.zeros(samples)
    impulse[samples // 3] = 1.0
    loudest = np.where(rng.uniform(size=samples) < 0.5, -1.0, 1.0)
    sweep = np.sin(np.pi * samples / 2 * time**2)
    noises = [level * rng.uniform(-1, 1, samples) for level in NOISE_LEVELS]
    walks = [np.cumsum(rng.standard_normal(samples)) for _ in range(4)]
    coloured = [level * walk / np.abs(walk).max() for level, walk in zip(NOISE_LEVELS, walks, strict=False)]
    bursts = [noise * (np.sin(2 * np.pi * rate * time) > 0) for rate, noise in zip((2, 5, 11), noises, strict=False)]
    return np.stack([np.zeros(samples), impulse, loudest, sweep, *noises, *coloured, *bursts]).astype(np.float32)
