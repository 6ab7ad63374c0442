"""Inputs for comparing a file with the classifier: extreme sounds of a microphone, and clips."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinyscene.data import Clips, decode
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


def generated(samples: int, hop: int = 0) -> list[Probe]:
    """Silence, an impulse, full scale, a sweep, noise at several levels and of several colours; the same on every call.

    Args:
        samples: length of a clip.
        hop: samples a frame: also in batches of other sizes, as clips of a few more frames, and of longer ones. With 0,
            only as clips of this length.
    """
    sounds = _sounds(samples)
    if not hop:
        return [sounds]
    longer = [_sounds(samples + more * hop).part(2, 5) for more in MORE_FRAMES]
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
    decoded = decode(clips.where(lambda clip: clip in rows), classifier.sample_rate, classifier.channel, quiet=True)
    batches: dict[int, list[int]] = {}
    for i, length in enumerate(decoded.lengths):
        batches.setdefault(samples or length, []).append(i)
    found = []
    for same in batches.values():
        scenes = [str(decoded.clips.rows[i].scene) for i in same]
        known = {*scenes} <= {*classifier.classes}
        targets = tuple(map(classifier.classes.index, scenes)) if known else ()
        cut = [at_least(np.asarray(decoded[i][:samples], np.float32), samples or 0) for i in same]
        found.append(Probe(np.stack(cut), (CLIPS,) * len(same), targets))
    return found


def at_least(waveform: Samples, samples: int) -> Samples:
    """(length,) -> (at least `samples`,), a shorter one again and again, as in training."""
    return np.resize(waveform, max(samples, len(waveform)))


def _sounds(samples: int) -> Probe:
    """In -1 ... 1"""
    rng = np.random.default_rng(0)
    time = np.arange(samples) / samples
    impulse = np.where(np.arange(samples) == samples // 3, 1.0, 0.0)
    sounds = [("silence", np.zeros(samples)), ("impulse", impulse)]
    sounds.append(("full scale", np.where(rng.uniform(size=samples) < 0.5, -1.0, 1.0)))
    sounds.append(("sweep", np.sin(np.pi * samples / 2 * time**2)))
    noises = [level * rng.uniform(-1, 1, samples) for level in NOISE_LEVELS]
    walks = [np.cumsum(rng.standard_normal(samples)) for _ in range(4)]
    noises += [level * walk / np.abs(walk).max() for level, walk in zip(NOISE_LEVELS, walks, strict=False)]
    noises += [noise * (np.sin(2 * np.pi * rate * time) > 0) for rate, noise in zip((2, 5, 11), noises, strict=False)]
    kinds, waveforms = zip(*sounds, *(("noise", noise) for noise in noises), strict=True)
    return Probe(np.stack(waveforms).astype(np.float32), kinds)
