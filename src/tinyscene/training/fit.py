"""Training, as one frozen value and one explicit loop."""

import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tinyscene.augment import Augmentation, OnBatch, OnClip
from tinyscene.data import Clips, Waveforms, decode
from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.saved import settings_of
from tinyscene.training.batches import (
    AugmentedClips,
    features_of_clips,
    fit_in_memory,
    fit_standardization,
    refuse_short,
    training_length,
)
from tinyscene.training.checkpoint import Checkpoint
from tinyscene.training.loop import AfterStep, FeatureSource, Hooks, Penalty, Source, WaveformSource, train
from tinyscene.training.losses import CrossEntropy, Loss
from tinyscene.training.optimizers import Adam, Optimizer
from tinyscene.training.published import content_of, start_from
from tinyscene.training.run import Run, key_of, weights_fingerprint
from tinyscene.training.schedules import Constant, Schedule


@dataclass(frozen=True)
class EarlyStopping:
    """End after `patience` epochs without a better figure on the validation part; the best epoch's weights stay."""

    monitor: Literal["log_loss", "accuracy"] = "log_loss"
    patience: int = 30


@dataclass(frozen=True)
class Fit:
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
        for name, least in (("epochs", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise InputError(f"Fit({name}={getattr(self, name)}); accepted: at least {least}")
        if self.optimizer.lr <= 0:
            raise InputError(f"Fit: a learning rate of {self.optimizer.lr}; accepted: above 0")
        if self.stop_after is not None and not 0 <= self.stop_after <= self.epochs:
            raise InputError(f"Fit(stop_after={self.stop_after}); accepted: 0 to its {self.epochs} epochs")
        last = self.epochs if self.stop_after is None else self.stop_after
        if not 0 <= self.start_after <= last:
            raise InputError(
                f"Fit(start_after={self.start_after}); accepted: 0 to the {last} epochs after which it ends"
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

    def __call__(
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
        clips.refuse_test("Fit")
        self._check(classifier, clips)
        classifier = copy.deepcopy(self.shape(classifier)).to(run.fabric.device)
        if self.init is not None:
            start_from(classifier.network, self.init)
        waveforms = decode(clips.train, classifier.sample_rate, classifier.channel, quiet=run.quiet)
        watched = decode(clips.validation, classifier.sample_rate, classifier.channel, quiet=run.quiet)
        refuse_short(classifier.shortest_samples, watched)
        # What stands in no tensor counts as well: the front end's settings, strides, dropout.
        start = [weights_fingerprint(classifier), repr(classifier), str(settings_of(classifier.frontend))]
        hooks = Hooks(after_step, penalty)
        checkpoint = Checkpoint(
            run, key_of(self, run.seed, run.place, start, waveforms.fingerprint, watched.fingerprint, hooks)
        )
        source = self._source(classifier, waveforms, run)
        watch = partial(features_of_clips, classifier, watched, run, "validation")
        held = [] if classifier.frontend_learns else list(watch())
        train(self, classifier, source, clips, lambda: held or list(watch()), checkpoint, run, hooks)
        classifier.heard_devices = tuple(sorted({clip.device for clip in clips.train if clip.device}))
        classifier.heard_recordings = tuple(sorted({*classifier.heard_recordings, *clips.recording_hashes}))
        classifier.trained_clip_s = training_length(waveforms, self._augment_of("clips")) / classifier.sample_rate
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
        kept: list[Tensor] = []
        fixed = not on_clips and not on_waveforms and not classifier.frontend_learns
        if fixed and fit_in_memory(classifier, len(waveforms), length):
            kept = list(features_of_clips(classifier, waveforms, run, "train", length))
        fit_standardization(classifier, waveforms, run, kept)
        if kept:
            with torch.no_grad():
                return FeatureSource(classifier.standardize(torch.cat(kept)), on_features)
        clips = AugmentedClips(waveforms, on_clips, run.seed)
        return WaveformSource(classifier, clips, on_waveforms, on_features)

    def _augment_of(self, domain: str) -> tuple[Any, ...]:
        return tuple(a for a in self.augment if getattr(a, "domain", "clips") == domain)

    def _check(self, classifier: SceneClassifier, clips: Clips) -> None:
        clips.require_classes(classifier.classes)
        clips.train.require("train")
        for augmentation in self.augment:
            domain = getattr(augmentation, "domain", "clips")
            if domain not in ("clips", "waveforms", "features"):
                raise InputError(f'{augmentation}: domain {domain!r}; accepted: none, "waveforms" or "features"')
        if self.early_stopping:
            clips.require_validation("Fit(early_stopping=...)")
        classifier.require_float("Fit")
