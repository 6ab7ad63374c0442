"""Clips of two scenes that differ in pitch: the least that there is to learn."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile

from tinyscene.data import Clips
from tinyscene.data.clips import Clip

CLASSES = ("high", "low")


def sine(hz: float, samples: int, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(samples) / rate)


def tone_in_noise(scene: str, samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,)"""
    tone = sine(3000 if scene == "high" else 300, samples, rate)
    return 0.1 * (tone + 0.1 * rng.standard_normal(samples))


def write_clips(
    root: Path,
    rate: int,
    parts: Mapping[str, int],
    wave: Callable[[str, str, int, np.random.Generator], np.ndarray],
    device: str = "a",
) -> Clips:
    """So many clips of either scene in every part; `wave(scene, part, take, rng)` is (samples,) or (samples, channels).

    Each clip is drawn from a seed of its own.
    """
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for part, number in parts.items():
        for scene in CLASSES:
            for take in range(number):
                rng = np.random.default_rng([take, len(part), len(scene)])
                name = f"{scene}-{part}-{take}.wav"
                soundfile.write(root / name, wave(scene, part, take, rng), rate)
                rows.append(Clip(name, scene, part, device=device, recording=name))
    return Clips("tones", root, CLASSES, tuple(rows))
