"""Run a classifier over labelled clips; compare two of them clip by clip."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tinyscene import metrics
from tinyscene.data import Clips, decode
from tinyscene.deployment import Artifact
from tinyscene.deployment.probes import at_least
from tinyscene.errors import InputError
from tinyscene.evaluation.scores import Scores, plain_interval
from tinyscene.models.classifier import SceneClassifier
from tinyscene.progress import track
from tinyscene.training.batches import features_of_clips, logits_of, refuse_short
from tinyscene.training.run import Run

TABLE = "predictions.csv"
Metric = Literal["accuracy", "log_loss"]


def evaluate(classifier: SceneClassifier | Artifact, clips: Clips, run: Run | None = None) -> Scores:
    """Score `classifier`, or an exported file, on labelled clips of any length, each taken whole.

    A file takes each as in `Artifact.predict`: one for a single length splits it, and the mean of the probabilities
    counts; a shorter one is repeated, as in training. It does not store its classifier's training recordings,
    so that its scores are never marked as optimistic.

    Raises:
        InputError: there are no clips, a label is unknown to the classifier, or a clip is too short for it.
    """
    clips.require_classes(classifier.classes)
    if not len(clips.labels):
        raise InputError(f"{clips.root} ({clips.name}): no clips to evaluate; accepted: a split with labelled clips")
    scored, probabilities = probabilities_of(classifier, clips, run)
    if isinstance(classifier, Artifact):
        return Scores(scored, probabilities, tuple(classifier.facts["provenance"]["devices"]))
    known = classifier.provenance
    return Scores(scored, probabilities, known.devices, frozenset(known.recordings))


def probabilities_of(
    classifier: SceneClassifier | Artifact, clips: Clips, run: Run | None = None
) -> tuple[Clips, npt.NDArray[np.float64]]:
    """The clips, labelled or not, and the probabilities (clips, classes) by `classifier` for each, taken whole.

    Raises:
        InputError: a clip can't be read, or is too short for the classifier.
    """
    run = run or Run()
    waveforms = decode(clips, classifier.sample_rate, classifier.channel, quiet=run.quiet)
    part = "/".join(sorted({clip.split for clip in clips}))
    own = classifier.clip_samples if isinstance(classifier, Artifact) else None
    if own is None:
        refuse_short(classifier.shortest_samples, waveforms)
    if isinstance(classifier, Artifact):
        indices = track(range(len(waveforms)), f"the file classifies the {part} part", len(waveforms), quiet=run.quiet)
        return waveforms.clips, np.stack(
            [classifier.classify_recording(at_least(waveforms[i], own or 0)) for i in indices]
        )
    features = features_of_clips(classifier, waveforms, run, part)
    logits = logits_of(classifier, track(features, f"classifying the {part} part", len(waveforms), quiet=run.quiet))
    return waveforms.clips, logits.double().softmax(1).numpy()


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its paired 95 % bootstrap interval over recordings."""

    clips: int
    mean: float
    low: float
    high: float
    optimistic: bool = False
    """Whether one of the two was trained, stopped or calibrated on recordings that it was scored on."""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        interval = plain_interval((self.low, self.high))
        return {"clips": self.clips, "difference": self.mean, "interval": interval, "optimistic": self.optimistic}


def compare(first: Scores, second: Scores, metric: Metric = "accuracy") -> Difference:
    """The difference of `second` from `first` on the same clips.

    Raises:
        InputError: they were not scored on the same clips.
    """
    return compare_by_device(first, second, metric)["all"]


def compare_by_device(first: Scores, second: Scores, metric: Metric = "accuracy") -> dict[str, Difference]:
    """`compare` overall ("all") and for every device, as `first` names them."""
    order = _matched(first, second)
    values = second.right[order] - first.right if metric == "accuracy" else second.losses[order] - first.losses
    devices = np.array([clip.device for clip in first.clips])
    parts = {"all": np.ones(len(devices), bool)} | {d: devices == d for d in sorted(set(devices.tolist()) - {""})}
    optimistic = first.optimistic or second.optimistic
    return {
        part: Difference(
            int(members.sum()),
            float(values[members].mean()),
            *metrics.bootstrap_interval(values[members], first.recordings[members]),
            optimistic,
        )
        for part, members in parts.items()
    }


def _matched(first: Scores, second: Scores) -> list[int]:
    """The index in `second` of each clip of `first`."""
    mine, theirs = ([(clip.path, clip.start_s, clip.duration_s) for clip in one.clips] for one in (first, second))
    if apart := set(mine) ^ set(theirs):
        raise InputError(
            f"the two were scored on different clips ({len(mine)} and {len(theirs)}; {min(key[0] for key in apart)} "
            f"in only one); accepted: runs over the same test clips"
        )
    place = {key: i for i, key in enumerate(theirs)}
    return [place[key] for key in mine]


def compare_runs(first: str | Path, second: str | Path) -> dict[str, dict[str, dict[str, Difference]]]:
    """Second minus first, by variant and seed, then metric ("accuracy", "log_loss"), then device ("all" comes first).

    Args:
        first, second: folders of models, with predictions.csv, or of runs with common variants.
    """
    return {
        name: {metric: compare_by_device(one, other, metric) for metric in get_args(Metric)}
        for name, one, other in pairs_of(Path(first), Path(second))
    }


def pairs_of(first: Path, second: Path) -> Iterator[tuple[str, Scores, Scores]]:
    """Title and scores of two model folders, or of every common variant and seed of two runs.

    Raises:
        InputError: a folder holds no predictions, or the runs have no common variant.
    """
    if (first / TABLE).is_file() and (second / TABLE).is_file():
        yield f"{first} → {second}", Scores.load(first / TABLE), Scores.load(second / TABLE)
        return
    here, there = _variants(first), _variants(second)
    common = [name for name in here if name in there]
    if not common:
        raise InputError(
            f"{first} has {', '.join(here)}, {second} has {', '.join(there)}, nothing in common; "
            f"accepted: two runs of one system, or two folders with {TABLE}"
        )
    for name in common:
        yield name, Scores.load(here[name]), Scores.load(there[name])


def _variants(run: Path) -> dict[str, Path]:
    """predictions.csv of a model's folder, or of every variant and seed of a run."""
    if (run / TABLE).is_file():
        return {".": run / TABLE}
    found = {str(path.parent.relative_to(run)): path for path in sorted(run.glob(f"*/seed-*/{TABLE}"))}
    if not found:
        raise InputError(f"{run}: no {TABLE} in it; accepted: a folder that `reproduce` wrote, or one of its models")
    return found
