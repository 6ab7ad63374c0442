"""What the classifier makes of a file's input, in torch: what a file is compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyscene.deployment.formats import Runner, Values
from tinyscene.deployment.forms import Form
from tinyscene.deployment.probes import Probe
from tinyscene.deployment.stream import Stream, in_whole_steps
from tinyscene.features.streaming import in_one_piece
from tinyscene.models.classifier import SceneClassifier

# Probabilities are compared by their logarithms, which are logits but for a constant; float32 ends here.
_LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Reference:
    """A classifier, on what a file of `form` takes."""

    classifier: SceneClassifier
    form: Form

    @property
    def inside(self) -> bool:
        """Whether the file takes waveforms and gives probabilities, not features and logits."""
        return self.form.front_end == "inside"

    def given(self, probe: Probe) -> Values:
        """The file's input: waveforms (batch, samples), or standardized features (batch, channels, bands, frames)"""
        if self.form.step_samples:
            return in_whole_steps(probe.waveforms, self.form.step_samples)
        return probe.waveforms if self.inside else self._features(probe.waveforms).numpy()

    def runs(self, run: Runner, given: Values) -> Values:
        """The file's logits, or the logarithms of its probabilities, a stream's at the end: (batch, classes)"""
        if self.form.step_samples:
            stream = Stream(run, self.form.step_samples, self.form.examples[1].shape[1], len(given))
            return _logarithms(stream.through(given))
        (made,) = run(given)
        return _logarithms(made) if self.inside else made

    @torch.inference_mode()
    def classifies(self, given: Values) -> Values:
        """The classifier's, of the same."""
        features = self._features(given) if self.inside else torch.from_numpy(given)
        logits = self.classifier.classify(features)
        return _logarithms(logits.softmax(-1).numpy()) if self.inside else logits.numpy()

    @torch.inference_mode()
    def _features(self, waveforms: Values) -> Tensor:
        """By the Fourier transform, a stream in one piece."""
        frontend: Any = self.classifier.frontend
        given = torch.from_numpy(np.ascontiguousarray(waveforms, np.float32))
        if self.form.step_samples:
            features = in_one_piece(frontend, given, frontend.frames(self.form.samples))
        else:
            features = frontend(given)
        standardized: Tensor = self.classifier.standardize(features)
        return standardized


def _logarithms(probabilities: Values) -> Values:
    return np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
