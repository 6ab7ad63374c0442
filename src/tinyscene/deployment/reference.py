"""The classifier in torch on a file's input: the reference for the file."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from tinyscene.deployment.formats import Runner, Values
from tinyscene.deployment.forms import Form
from tinyscene.deployment.probes import Probe
from tinyscene.deployment.stream import Stream, in_whole_steps
from tinyscene.features.streaming import in_one_piece
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.tensors import q

# Probabilities are compared by their logarithms, which are logits up to a constant; float32 ends here.
_LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Reference:
    """A classifier on the input of a file of `form`."""

    classifier: SceneClassifier
    form: Form

    @property
    def inside(self) -> bool:
        """Whether the file maps waveforms to probabilities, rather than features to logits."""
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
        """The classifier's logits for the same input."""
        features = self._features(given) if self.inside else torch.from_numpy(given)
        logits = self.classifier.classify(features)
        return _logarithms(logits.softmax(-1).numpy()) if self.inside else logits.numpy()

    @torch.inference_mode()
    def moved_by_front_end(self, given: Values) -> Values:
        """The shift of an int8 network's logits by the file's front end, in torch, with no activation rounded.

        (batch, samples) -> (batch, classes). Rounding would hide smaller faults.
        """
        network = _Unrounded(self.classifier.network)
        frontend: Any = self.form.frontend
        waveforms = torch.from_numpy(given)
        if self.form.step_samples:
            state = torch.zeros(self.form.examples[1].shape).repeat(len(given), 1)
            for samples in torch.split(waveforms, self.form.step_samples, 1):
                features, state = frontend(samples, state)
        else:
            features = frontend(waveforms)
        ours, theirs = (network.run(one) for one in (self._features(given), self.classifier.standardize(features)))
        moved: Values = (theirs - ours).numpy()
        return moved

    @torch.inference_mode()
    def _features(self, waveforms: Values) -> Tensor:
        """Features by the Fourier transform, a stream in one piece."""
        frontend: Any = self.classifier.frontend
        given = torch.from_numpy(np.ascontiguousarray(waveforms, np.float32))
        if self.form.step_samples:
            features = in_one_piece(frontend, given, frontend.frames(self.form.samples))
        else:
            features = frontend(given)
        standardized: Tensor = self.classifier.standardize(features)
        return standardized


class _Unrounded(fx.Interpreter):
    """An int8 network's graph: activations are clipped to their range, but not rounded."""

    def __init__(self, network: Any) -> None:
        super().__init__(network, graph=network.graph)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target == q.quantize_per_tensor.tensor:
            given, scale, zero_point, low, high, _ = args
            return given.clamp((low - zero_point.float()) * scale, (high - zero_point.float()) * scale)
        if target == q.dequantize_per_tensor.tensor:
            return args[0]
        return super().call_function(target, args, kwargs)


def _logarithms(probabilities: Values) -> Values:
    return np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
