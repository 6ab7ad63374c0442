"""Inputs for comparing a file with the classifier: extreme sounds of a microphone, and clips."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from tinyscene.data import Clips, Waveforms, decode
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier

Samples = npt.NDArray[np.float32]

NOISE_LEVELS = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
# A longer clip reveals what depends on the number of frames.
LONGER = 1.5
# And lengths of more frames: a pooling to several places may be right for only one remainder of the frames.
MORE_FRAMES = range(1, 8)
MOST_CLIPS = 64
CLIPS = "held-out clips"


@dataclass(frozen=True)
class Probe:
    """Waveforms of one length, (batch, samples), with their kinds, and classes where they are clips."""

    waveforms: Samples
    kinds: tuple[str, ...]
    targets: tuple[int, ...] = ()

    def part(self, start: int, stop: int) -> "Probe":
        """A selection of them."""
        return Probe(self.waveforms[start:stop], self.kinds[start:stop], self.targets[start:stop])


def generated(samples: int, any_length: bool, hop: int = 0) -> list[Probe]:
    """Silence, an impulse, full scale, a sweep, noise at several levels and of several colours; the same on every call.

    Args:
        samples: length of a clip.
        any_length: also in batches of other sizes, and with longer clips.
        hop: samples a frame, for clips of a few more frames.
    """
    sounds = _sounds(samples)
    if not any_length:
        return [sounds]
    longer = [_sounds(samples + more * hop).part(2, 5) for more in MORE_FRAMES if hop]
    return [sounds, sounds.part(0, 1), sounds.part(1, 4), *longer, _sounds(round(LONGER * samples))]


def of_clips(classifier: SceneClassifier, clips: Clips, samples: int | None) -> list[Probe]:
    """Up to 64 clips, evenly spaced over all, in batches of one length.

    Args:
        samples: length to cut or zero-pad them to, at their end; unchanged where None.

    Raises:
        InputError: there are no clips, or one can't be used.
    """
    if not len(clips):
        raise InputError(f"{clips.root} ({clips.name}): no clips to compare on; accepted: at least one")
    rows = [clips.rows[i] for i in np.unique(np.linspace(0, len(clips) - 1, MOST_CLIPS).round().astype(int))]
    chosen = clips.where(lambda clip: clip in rows)
    waveforms = decode(chosen, classifier.sample_rate, classifier.channel, quiet=True)
    lengths = [samples or length for length in waveforms.lengths]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [_clips(classifier, waveforms, list(same), samples) for _, same in groupby(order, key=lengths.__getitem__)]


def _clips(classifier: SceneClassifier, waveforms: Waveforms, places: list[int], samples: int | None) -> Probe:
    scenes = [waveforms.clips.rows[i].scene for i in places]
    known = all(scene in classifier.classes for scene in scenes)
    targets = tuple(classifier.classes.index(str(scene)) for scene in scenes) if known else ()
    found = np.stack([at_least(np.asarray(waveforms[i][:samples], np.float32), samples or 0) for i in places])
    return Probe(found, (CLIPS,) * len(places), targets)


def at_least(waveform: Samples, samples: int) -> Samples:
    """(length,) -> (at least `samples`,), with zeros behind a shorter one, as in training."""
    return np.pad(waveform, (0, max(0, samples - len(waveform))))


def _sounds(samples: int) -> Probe:
    """In -1 ... 1"""
    kinds, waveforms = zip(*_each(samples), strict=True)
    return Probe(np.stack(waveforms).astype(np.float32), kinds)


def _each(samples: int) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    rng = np.random.default_rng(0)
    time = np.arange(samples) / samples
    yield "silence", np.zeros(samples)
    impulse = np.zeros(samples)
    impulse[samples // 3] = 1.0
    yield "impulse", impulse
    yield "full scale", np.where(rng.uniform(size=samples) < 0.5, -1.0, 1.0)
    yield "sweep", np.sin(np.pi * samples / 2 * time**2)
    noises = [level * rng.uniform(-1, 1, samples) for level in NOISE_LEVELS]
    walks = [np.cumsum(rng.standard_normal(samples)) for _ in range(4)]
    yield from (("noise", noise) for noise in noises)
    for level, walk in zip(NOISE_LEVELS, walks, strict=False):
        yield "noise", level * walk / np.abs(walk).max()
    for rate, noise in zip((2, 5, 11), noises, strict=False):
        yield "noise", noise * (np.sin(2 * np.pi * rate * time) > 0)
