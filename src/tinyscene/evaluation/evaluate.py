"""Run a classifier over labelled clips; compare two of them clip by clip."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tinyscene import metrics
from tinyscene.data import Clips, decode
from tinyscene.errors import InputError
from tinyscene.evaluation.scores import Scores
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.batches import features_of_clips, logits_of
from tinyscene.training.run import Run

# Features of so many clips are in memory at a time.
_CLIPS_A_STEP = 1024


def evaluate(classifier: SceneClassifier, clips: Clips, run: Run | None = None) -> Scores:
    """Score `classifier` on labelled clips of any length, each heard whole.

    Raises:
        InputError: there are no clips, a label is unknown to the classifier, or a clip is too short for it.
    """
    run = run or Run()
    if not len(clips):
        raise InputError(f"{clips.root} ({clips.name}): no clips to evaluate; accepted: a split with labelled clips")
    if clips.classes != classifier.classes:
        raise InputError(
            f"{clips.root} ({clips.name}) has the classes {', '.join(clips.classes)}, "
            f"the classifier {', '.join(classifier.classes)}; accepted: the same, in the same order"
        )
    waveforms = decode(clips, classifier.sample_rate, quiet=run.quiet)
    shortest = classifier.shortest_samples
    for clip, length in zip(waveforms.clips, waveforms.lengths, strict=True):
        if length < shortest:
            raise InputError(
                f"{clips.root / clip.path} ({clip.row or clips.name}): {length / classifier.sample_rate:.3f} s; "
                f"accepted: at least {shortest / classifier.sample_rate:.3f} s for this network"
            )
    logits = []
    kept = []
    for features in features_of_clips(classifier, waveforms, run, "test"):
        kept.append(features)
        if len(kept) == _CLIPS_A_STEP:
            logits.append(logits_of(classifier, kept))
            kept = []
    if kept:
        logits.append(logits_of(classifier, kept))
    probabilities = np.concatenate([part.double().softmax(1).numpy() for part in logits])
    return Scores(waveforms.clips, probabilities, classifier.heard_devices)


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its paired 95 % bootstrap interval over recordings."""

    clips: int
    mean: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        return {"clips": self.clips, "difference": self.mean, "interval": [self.low, self.high]}


def compare(first: Scores, second: Scores, figure: Literal["accuracy", "log_loss"] = "accuracy") -> Difference:
    """How much better or worse `second` is than `first` on the same clips.

    Raises:
        InputError: they were not scored on the same clips.
    """
    place = {(clip.path, clip.start_s): i for i, clip in enumerate(second.clips)}
    keys = [(clip.path, clip.start_s) for clip in first.clips]
    if len(place) != len(keys) or any(key not in place for key in keys):
        other = next((key[0] for key in keys if key not in place), "of another number")
        raise InputError(
            f"the two were scored on different clips ({len(keys)} and {len(place)}; {other}); "
            f"accepted: runs over the same test clips"
        )
    order = [place[key] for key in keys]
    values = (second.right[order] - first.right) if figure == "accuracy" else (second.losses[order] - first.losses)
    low, high = metrics.bootstrap_interval(values, first.recordings)
    return Difference(len(keys), float(values.mean()), low, high)


def compare_by_device(
    first: Scores, second: Scores, figure: Literal["accuracy", "log_loss"] = "accuracy"
) -> dict[str, Difference]:
    """`compare` overall ("all") and for every device apart."""
    theirs = second.by("device")
    parts = {device: compare(mine, theirs[device], figure) for device, mine in first.by("device").items()}
    return {"all": compare(first, second, figure), **parts}
