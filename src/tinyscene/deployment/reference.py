"""What the classifier says to what a file is given, in torch, and what it would say with its sums in another order."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from tinyscene.deployment.formats import Runner, Values
from tinyscene.deployment.forms import Form
from tinyscene.deployment.probes import Probe
from tinyscene.deployment.stream import Stream, in_whole_steps
from tinyscene.features.products import rounding
from tinyscene.features.spectrogram import BandSpectrogram
from tinyscene.features.streaming import in_one_piece
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.quantized import Int8Network

# What float32 and other libraries' exponential functions leave open before a rounding.
_UP = 1 + 2.0**-20
# Probabilities are compared by their logarithms, which are logits but for a constant; float32 ends here.
LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Reference:
    """What the classifier says to what a file of `form` is given."""

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
        """What the file says to it: its one output, or a stream's probabilities at the end, after silence."""
        if self.form.step_samples:
            return Stream(run, self.form.step_samples, self.form.examples[1].shape[1], len(given)).through(given)
        (made,) = run(given)
        return made

    @torch.inference_mode()
    def says(self, given: Values) -> Values:
        """Logits, or logarithms of probabilities: (batch, classes)"""
        features = self._features(given) if self.inside else torch.from_numpy(given)
        return self._ends(self.classifier.classify(features))

    @torch.inference_mode()
    def says_otherwise(self, given: Values) -> list[Values]:
        """The same with other sums: at 64 bits, as running means, without oneDNN, a breath to either side.

        The front end too: at 64 bits, and by products.
        """
        network, said = self.classifier.network, []
        for features in self._features_otherwise(given) if self.inside else [torch.from_numpy(given)]:
            if isinstance(network, Int8Network):
                said += [self._ends(self.classifier.classify(features)), self._ends(self._without_onednn(features))]
                said += [self._ends(_Rounded(network, by).run(features)) for by in (_UP, 1 / _UP)]
            else:
                said.append(self._ends(copy.deepcopy(network).double()(features.double()).float()))
            # Within inference mode, and on what was made there, poolings don't come as means.
            with torch.inference_mode(False), torch.no_grad(), _RunningMeans():  # type: ignore[no-untyped-call]
                said.append(self._ends(self.classifier.classify(features.clone())))
        return said

    @torch.inference_mode()
    def says_unrounded(self, given: Values) -> Values:
        """What an int8 classifier would say if no activation were rounded."""
        features = self._features(given) if self.inside else torch.from_numpy(given)
        network: Any = self.classifier.network
        return self._ends(_Rounded(network, None).run(features))

    def _features_otherwise(self, waveforms: Values) -> list[Tensor]:
        frontend, standardize = self.classifier.frontend, self.classifier.standardize
        given = torch.from_numpy(waveforms)
        heard = self._heard(copy.deepcopy(frontend).double(), given.double())
        otherwise = [copy.deepcopy(standardize).double()(heard).float()]
        if isinstance(frontend, BandSpectrogram):
            # The file's own products, but no further off than rounding takes them: a fault of theirs is no excuse.
            far = rounding(frontend, lambda one: self._heard(one, given.double()))
            near = self._by_products(given).double().clamp(heard - far, heard + far)
            otherwise.append(standardize(near.float()))
        return otherwise

    def _by_products(self, waveforms: Tensor) -> Tensor:
        """As the file hears them, but in torch."""
        hears: Any = self.form.module.module
        if not self.form.step_samples:
            heard: Tensor = hears.frontend(waveforms)
            return heard
        state = torch.zeros(len(waveforms), hears.frontend.state_size)
        for samples in torch.split(waveforms, self.form.step_samples, 1):
            heard, state = hears.frontend(samples, state)
        return heard

    def _without_onednn(self, features: Tensor) -> Tensor:
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            return self.classifier.classify(features)
        finally:
            torch._C._set_mkldnn_enabled(before)

    def ends(self, made: Values) -> Values:
        """What a file gave, to be compared: probabilities become logarithms."""
        return np.log(np.maximum(made, LEAST_PROBABILITY)) if self.inside else made

    def _ends(self, logits: Tensor) -> Values:
        return self.ends(logits.softmax(-1).numpy()) if self.inside else logits.numpy()

    @torch.inference_mode()
    def _features(self, waveforms: Values) -> Tensor:
        given = torch.from_numpy(np.ascontiguousarray(waveforms, np.float32))
        features: Tensor = self.classifier.standardize(self._heard(self.classifier.frontend, given))
        return features

    def _heard(self, frontend: Any, waveforms: Tensor) -> Tensor:
        """By the Fourier transform, a stream in one piece."""
        if self.form.step_samples:
            return in_one_piece(frontend, waveforms, frontend.frames(self.form.samples))
        heard: Tensor = frontend(waveforms)
        return heard


class _Rounded(fx.Interpreter):
    """An int8 network's graph, activations multiplied by a number before they are rounded, or cut and not rounded."""

    def __init__(self, network: Any, by: float | None) -> None:
        super().__init__(network, graph=network.graph)
        self.by = by

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rounds = torch.ops.quantized_decomposed
        if target == rounds.quantize_per_tensor.tensor:
            given, scale, zero_point, low, high, _ = args
            if self.by is None:
                return given.clamp((low - zero_point.float()) * scale, (high - zero_point.float()) * scale)
            args = (given * self.by, *args[1:])
        elif self.by is None and target == rounds.dequantize_per_tensor.tensor:
            return args[0]
        return super().call_function(target, args, kwargs)


class _RunningMeans(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Means as plain kernels take them: a running sum, whose roundings don't average out where values are alike."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        aten, options = torch.ops.aten, kwargs or {}
        if func == aten.mean.dim and args[1]:
            return _running_mean(args[0], args[1], len(args) > 2 and args[2])
        if func == aten.var_mean.correction and options.get("correction") == 0:
            mean = _running_mean(args[0], args[1], keep=True)
            variance = _running_mean((args[0] - mean).square(), args[1], options.get("keepdim", False))
            return variance, mean.reshape(variance.shape)
        return func(*args, **options)


def _running_mean(given: Tensor, axes: list[int], keep: bool) -> Tensor:
    axes = sorted(axis % given.ndim for axis in axes)
    values = given.movedim(axes, list(range(-len(axes), 0))).flatten(-len(axes)).numpy()
    mean = torch.from_numpy(np.cumsum(values, -1, dtype=np.float32)[..., -1] / np.float32(values.shape[-1]))
    return mean.reshape([1 if axis in axes else size for axis, size in enumerate(given.shape)]) if keep else mean
