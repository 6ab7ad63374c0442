"""Training, as one frozen value and one explicit loop."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tinyscene.augment import Augmentation, OnBatch, OnClip
from tinyscene.data import Clips, Waveforms, decode
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.batches import (
    AugmentedClips,
    features_of_clips,
    fit_standardization,
    refuse_short,
    training_length,
)
from tinyscene.training.checkpoint import Checkpoint
from tinyscene.training.keys import key_of
from tinyscene.training.loop import AfterStep, FeatureSource, Hooks, Penalty, Source, WaveformSource, train
from tinyscene.training.losses import CrossEntropy, Loss
from tinyscene.training.optimizers import Adam, Optimizer
from tinyscene.training.published import content_of, start_from
from tinyscene.training.run import Run, Stage
from tinyscene.training.schedules import Constant, Cosine, Schedule

# What a fit calls of its parts, which may be of a user's own.
_PARTS = {
    "optimizer": ("build", "Adam(), AdamW() or SGD()"),
    "schedule": ("factor", "Constant(), Cosine(), InverseTime(), Linear(), Step() or Triangular2()"),
    "loss": ("__call__", "CrossEntropy(), KLDivergence() or a function of logits and targets"),
}


@dataclass(frozen=True)
class EarlyStopping:
    """End after `patience` epochs without a better figure on the validation part; the best epoch's weights stay."""

    monitor: Literal["log_loss", "accuracy"] = "log_loss"
    patience: int = 30

    def __post_init__(self) -> None:
        check(self, monitor=("log_loss", "accuracy"), patience=Numbers(least=1, whole=True))


@dataclass(frozen=True)
class Fit(Stage):
    """Train a classifier's network on the train split; the validation split, where there is one, is watched.

    Parameters of the front end that require a gradient are trained with it, at the optimiser's rate; features are
    standardized as those of the untrained front end were.

    Args:
        epochs: passes over the train split.
        batch_size: clips a step, over all devices.
        optimizer: Adam, AdamW or SGD, with its learning rate and weight decay.
        schedule: the factor on that rate over the epochs.
        loss: of logits and targets.
        augment: in this order, those of clips before those of batches of waveforms before those of features.
        early_stopping: None trains all epochs and keeps the last weights.
        init: a safetensors file with published weights to start from, by the names of the network's tensors; a part of
            the network that it leaves out whole keeps its own. A network with masks is refused. None starts from the
            classifier as it is.
        stop_after: end after so many of the epochs, the schedule still that of all.
        start_after: count so many of the epochs as done: schedule and random draws are those of the epochs after them.
            The optimiser's state begins anew.

    Clips of unequal length are cut, or padded at their end, to the median length unless `augment` holds a `Crop`.
    """

    epochs: int = 100
    batch_size: int = 32
    optimizer: Optimizer = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=Constant)
    loss: Loss = field(default_factory=CrossEntropy)
    augment: tuple[Augmentation, ...] = ()
    early_stopping: EarlyStopping | None = None
    init: str | Path | None = None
    stop_after: int | None = None
    start_after: int = 0

    def __post_init__(self) -> None:
        check(self, epochs=Numbers(least=1, whole=True), batch_size=Numbers(least=2, whole=True))
        if self.stop_after is not None:
            check(self, stop_after=Numbers(least=0, most=self.epochs, whole=True))
        last = self.epochs if self.stop_after is None else self.stop_after
        check(self, start_after=Numbers(least=0, most=last, whole=True))
        check(self, early_stopping=EarlyStopping | None, init=str | Path | None, augment=tuple | list)
        for name, (method, accepted) in _PARTS.items():
            _refuse_kind(self, name, getattr(self, name), method, accepted)
        for augmentation in self.augment:
            _refuse_kind(self, "augment", augmentation, "__call__", "values such as Mixup(), or functions of yours")
            domain = getattr(augmentation, "domain", "clips")
            if domain not in ("clips", "waveforms", "features"):
                raise InputError(f'{augmentation}: domain {domain!r}; accepted: none, "waveforms" or "features"')
        if isinstance(self.schedule, Cosine) and not self.schedule.warmup_epochs < self.epochs:
            raise InputError(
                f"Fit(epochs={self.epochs}, schedule={self.schedule}); accepted: a warm-up of fewer epochs"
            )

    def content(self) -> str | None:
        """Changes with the published weights; part of the key of a stored result."""
        return None if self.init is None else content_of(self.init)

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Training changes no structure; with `init`, a network that holds masks is refused."""
        pruned = masks.masks_of(classifier.network)
        if self.init is not None and pruned:
            raise InputError(
                f"Fit(init={str(self.init)!r}) on a pruned network, with masks on {len(pruned)} of its tensors, which "
                f"were chosen by other weights; accepted: init in a Fit before the pruning"
            )
        return classifier

    def apply(
        self,
        classifier: SceneClassifier,
        clips: Clips,
        run: Run,
        after_step: AfterStep | None = None,
        penalty: Penalty | None = None,
    ) -> SceneClassifier:
        """Train on `clips.train`, watching `clips.validation`.

        `after_step` and `penalty` are other stages': values or partials of them, since the key of a checkpoint holds
        what they are.

        Raises:
            InputError: a test clip is among the clips, the train split lacks a class, a clip is too short, early
                stopping has nothing to watch, the classifier has 16-bit weights, or it is pruned and there is `init`.
        """
        self._check(classifier, clips)
        classifier = copy.deepcopy(self.shape(classifier)).to(run.fabric.device)
        if self.init is not None:
            start_from(classifier.network, self.init)
        waveforms = decode(clips.train, classifier.sample_rate, classifier.channel, quiet=run.quiet)
        watched = decode(clips.validation, classifier.sample_rate, classifier.channel, quiet=run.quiet)
        refuse_short(classifier.shortest_samples, watched)
        hooks = Hooks(after_step, penalty)
        data = waveforms.fingerprint, watched.fingerprint
        checkpoint = Checkpoint(run, key_of(self, run.seed, run.place, classifier, data, hooks))
        source = self._source(classifier, waveforms, run)
        validation = features_of_clips(classifier, watched, run, "validation")
        train(self, classifier, source, clips, validation, checkpoint, run, hooks)
        clip_s = training_length(waveforms, self._augment_of("clips")) / classifier.sample_rate
        classifier.provenance = replace(classifier.provenance, clip_s=clip_s)
        return classifier.eval()

    def _source(self, classifier: SceneClassifier, waveforms: Waveforms, run: Run) -> Source:
        """Features computed once where no augmentation touches the waveforms and memory holds them."""
        on_clips: tuple[OnClip, ...] = self._augment_of("clips")
        on_waveforms: tuple[OnBatch, ...] = self._augment_of("waveforms")
        on_features: tuple[OnBatch, ...] = self._augment_of("features")
        length = training_length(waveforms, on_clips)
        if length < classifier.shortest_samples:
            raise InputError(
                f"Fit trains on {length / classifier.sample_rate:.3f} s of every clip, the median or the crop; "
                f"accepted: at least {classifier.shortest_samples / classifier.sample_rate:.3f} s for this network"
            )
        # What it can't take, or gives in place of logits, is refused before anything is computed.
        classifier.eval().classify(classifier.example(length / classifier.sample_rate))
        kept = None if on_clips or on_waveforms else features_of_clips(classifier, waveforms, run, "train", length)
        if isinstance(kept, list):
            fit_standardization(classifier, waveforms, run, kept)
            return FeatureSource(classifier, kept, on_features)
        fit_standardization(classifier, waveforms, run)
        clips = AugmentedClips(waveforms, on_clips, run.seed)
        return WaveformSource(classifier, clips, on_waveforms, on_features)

    def _augment_of(self, domain: str) -> tuple[Any, ...]:
        return tuple(a for a in self.augment if getattr(a, "domain", "clips") == domain)

    def _check(self, classifier: SceneClassifier, clips: Clips) -> None:
        clips.require_classes(classifier.classes)
        clips.train.require("train")
        if self.early_stopping:
            clips.require_validation("Fit(early_stopping=...)")
        classifier.require_float("Fit")


def _refuse_kind(fit: Fit, name: str, given: object, method: str, accepted: str) -> None:
    """Raise InputError for what has no such method, a class instead of a value of it among them."""
    if isinstance(given, type) or not callable(getattr(given, method, None)):
        raise InputError(f"Fit({name}={given!r}); accepted: {accepted}")
