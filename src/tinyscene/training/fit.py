"""Training: one frozen value and one explicit loop."""

import copy
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch

from tinyscene.augment import Excerpt, OnBatch, OnClip
from tinyscene.data import Clips, Waveforms, decode
from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.network import shortest_frames
from tinyscene.training.batches import (
    AugmentedClips,
    features_of_clips,
    fit_standardization,
    refuse_short,
    training_length,
)
from tinyscene.training.checkpoint import Checkpoint
from tinyscene.training.keys import key_of
from tinyscene.training.loop import AfterStep, Data, FeatureSource, Hooks, Penalty, Source, WaveformSource, train
from tinyscene.training.published import content_of, start_from
from tinyscene.training.run import Run, Stage
from tinyscene.training.settings import FitSettings


@dataclass(frozen=True)
class Fit(FitSettings, Stage):
    """Train a classifier's network on the train split, monitoring the validation split if there is one.

    Front-end parameters that require a gradient are trained too, at the optimiser's rate; features are
    standardized by the statistics of the untrained front end. Clips of unequal length are cut, or
    repeated, to the median length unless `augment` holds a `Crop`. Its arguments are those of `FitSettings`.
    """

    def content(self) -> str | None:
        """Changes with the published weights; part of the key of a stored result."""
        return None if self.init is None else content_of(self.init)

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Structure stays the same; with `init`, a network with masks is refused."""
        pruned = masks.masks_of(classifier.network)
        if self.init is not None and pruned:
            raise InputError(
                f"Fit(init={str(self.init)!r}) on a pruned network, with masks on {len(pruned)} of its tensors that "
                f"were chosen by other weights; accepted: init in a Fit before pruning"
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
        """Train on `clips.train`, monitoring `clips.validation`.

        `after_step` and `penalty` are other stages': values or partials of functions, which the key of a checkpoint
        describes.

        Raises:
            InputError: a test clip is among the clips, the train split lacks a class, a clip is too short, early
                stopping has nothing to monitor, the classifier has 16-bit weights, or it is pruned and `init` is given.
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
        watching = Data(clips, source, features_of_clips(classifier, watched, run, "validation"))
        train(self, classifier, watching, checkpoint, run, hooks)
        clip_s = training_length(waveforms, self._augment_of("clips")) / classifier.sample_rate
        if self.teacher is not None:
            classifier.provenance = classifier.provenance.merged(self.teacher.provenance)
        share = prod(one.share for one in self.augment if isinstance(one, Excerpt))
        # Clips are classified whole where the network takes more than an excerpt of them.
        if share < 1 and not _takes(classifier.eval(), clip_s):
            clip_s *= share
        classifier.provenance = replace(classifier.provenance, clip_s=clip_s)
        return classifier.eval()

    def _source(self, classifier: SceneClassifier, waveforms: Waveforms, run: Run) -> Source:
        """Features, computed once where no augmentation changes the waveforms and memory suffices."""
        on_clips: tuple[OnClip, ...] = self._augment_of("clips")
        on_waveforms: tuple[OnBatch, ...] = self._augment_of("waveforms")
        on_features: tuple[OnBatch, ...] = self._augment_of("features")
        length = training_length(waveforms, on_clips)
        if length < classifier.shortest_samples:
            raise InputError(
                f"Fit trains on {length / classifier.sample_rate:.3f} s of every clip, the median or the crop; "
                f"accepted: at least {classifier.shortest_samples / classifier.sample_rate:.3f} s for this network"
            )
        frames = classifier.frontend.frames(length)
        for excerpt in (one for one in on_features if isinstance(one, Excerpt)):
            frames = excerpt.frames(frames)
        if frames < shortest_frames(classifier.network):
            raise InputError(
                f"Fit trains on {frames} frames of every clip, by Excerpt; accepted: a share of at least "
                f"{shortest_frames(classifier.network)} frames for this network"
            )
        # Unusable features, and outputs other than logits, are refused before anything is computed.
        classifier.eval().classify(classifier.example(length / classifier.sample_rate)[..., :frames])
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
        self.require_train(clips)
        if self.early_stopping:
            clips.require_validation("Fit(early_stopping=...)")
        classifier.require_float("Fit")


def _takes(classifier: SceneClassifier, clip_s: float) -> bool:
    """Whether it classifies clips of that length."""
    try:
        with torch.no_grad():
            classifier.classify(classifier.example(clip_s))
    except InputError:
        return False
    return True
