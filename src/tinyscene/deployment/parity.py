"""Parity of a file and its classifier: both are run on the same sounds, and their outputs compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
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
from tinyscene.models.quantized import Int8Network
from tinyscene.models.tensors import q

# The largest accepted difference. Runtimes sum in another order, and an activation near a rounding edge may
# fall on its other side: the worst files of trained systems (results/RESULTS.md) had 3e-4 and 3 steps.
FLOAT_BOUND, INT8_BOUND = 1e-3, 4.0
# Differences of float32 numbers: 4.000001 steps are four.
_ROUNDED = 1 + 1e-3
# Probabilities are compared by their logarithms, which are logits up to a constant; float32 ends here.
_LEAST_PROBABILITY = 1e-30
# Clips a step: more maps of a large network would take gigabytes.
_A_STEP = 16


@dataclass(frozen=True)
class Parity:
    """A file's difference from the classifier, in `unit`s: steps of the int8 output, or shares of the largest logit.

    Attributes:
        clips: compared.
        unit: "output steps" or "of the largest logit".
        step: one unit in logits.
        largest, p999, mean: of the differences.
        agreement: share of clips with the same decision, including ties.
        ties: clips whose decision differs, but between classes that are within the bound of each other.
        integer_layers, float_layers: layers with weights, by the kernels that ran; None if not reported.
        by_kind: the largest difference for each kind of sound.
        front_end: how much, of the largest logit, a front end inside moves an int8 network's where no activation is
            rounded; 0 where it is outside, and in float, where it shows in `largest`.
        accuracy, file_accuracy: on the compared clips; None without labelled clips.
        bound: the largest accepted difference, in `unit`s.
    """

    clips: int
    unit: str
    step: float
    largest: float
    p999: float
    mean: float
    agreement: float
    ties: int
    integer_layers: int | None
    float_layers: int | None
    by_kind: dict[str, float] = field(default_factory=dict)
    front_end: float = 0.0
    accuracy: float | None = None
    file_accuracy: float | None = None
    bound: float = FLOAT_BOUND

    @property
    def int8(self) -> bool:
        return self.unit == "output steps"

    @property
    def faults(self) -> tuple[str, ...]:
        """Reasons to refuse the file; empty where it passes."""
        faults = []
        if not self.largest <= self.bound * _ROUNDED:
            faults.append(f"it differs by up to {self.largest:.3g} {self.unit} (at most {self.bound:g} is accepted)")
        if not self.front_end <= FLOAT_BOUND:
            faults.append(
                f"its front end moves the logits by up to {self.front_end:.3g} of the largest (at most "
                f"{FLOAT_BOUND:g} is accepted)"
            )
        if self.agreement < 1:
            faults.append(f"{1 - self.agreement:.1%} of {self.clips} decisions differ")
        if self.int8 and self.integer_layers == 0:
            faults.append("no layer runs on integers")
        return tuple(faults)


def compare(
    classifier: SceneClassifier,
    form: Form,
    run: Runner,
    probes: Sequence[Probe],
    layers: tuple[int | None, int | None],
) -> Parity:
    """Run the classifier, and its file of that form, on the same inputs.

    Args:
        run: the file, as users run it.
        layers: with weights, on integers and in float.

    Raises:
        InputError: the runtime can't run the file on one of the inputs.
    """
    reference, network = _Reference(classifier, form), classifier.network
    probes = [probe.part(i, i + _A_STEP) for probe in probes for i in range(0, len(probe.kinds), _A_STEP)]
    inputs = [reference.given(probe) for probe in probes]
    ours = np.concatenate([reference.classifies(given) for given in inputs])
    theirs = np.concatenate([reference.runs(run, given) for given in inputs])
    largest, front_end = float(np.abs(ours).max()) or 1.0, 0.0
    unit, bound, step = "of the largest logit", FLOAT_BOUND, largest
    if isinstance(network, Int8Network):
        if form.front_end == "inside":
            front_end = max(float(np.abs(reference.moved_by_front_end(given)).max()) for given in inputs) / largest
        unit, bound, step = "output steps", INT8_BOUND, network.output_step or float(np.ptp(ours)) / 255
    off = np.abs(theirs - ours) / step
    agreement, ties = _decisions(ours, theirs, step * bound)
    kinds = np.array([kind for probe in probes for kind in probe.kinds])
    targets = np.concatenate([np.array(probe.targets or [-1] * len(probe.kinds)) for probe in probes])
    known = targets >= 0
    right = [float((made.argmax(1) == targets)[known].mean()) if known.any() else None for made in (ours, theirs)]
    return Parity(
        clips=len(ours),
        unit=unit,
        step=step,
        largest=float(off.max()),
        p999=float(np.quantile(off, 0.999)),
        mean=float(off.mean()),
        agreement=agreement,
        ties=ties,
        integer_layers=layers[0],
        float_layers=layers[1],
        by_kind={str(kind): float(off[kinds == kind].max()) for kind in dict.fromkeys(kinds)},
        front_end=front_end,
        accuracy=right[0],
        file_accuracy=right[1],
        bound=bound,
    )


def _decisions(ours: Values, theirs: Values, accepted: float) -> tuple[float, int]:
    """Share of equal decisions, and the number of ties among them: theirs is within `accepted` of our best."""
    chosen = theirs.argmax(1)
    differs = chosen != ours.argmax(1)
    lost = ours.max(1) - np.take_along_axis(ours, chosen[:, None], 1)[:, 0]
    ties = differs & (lost <= accepted)
    return 1 - float((differs & ~ties).mean()), int(ties.sum())


@dataclass(frozen=True)
class _Reference:
    """A classifier in torch, on the input of a file of `form`."""

    classifier: SceneClassifier
    form: Form

    def given(self, probe: Probe) -> Values:
        """The file's input: waveforms (batch, samples), or standardized features (batch, channels, bands, frames)"""
        if self.form.step_samples:
            return in_whole_steps(probe.waveforms, self.form.step_samples)
        if self.form.front_end == "inside":
            return probe.waveforms
        return self._features(probe.waveforms).numpy()

    def runs(self, run: Runner, given: Values) -> Values:
        """The file's logits, or the logarithms of its probabilities, a stream's at the end: (batch, classes)"""
        if self.form.step_samples:
            stream = Stream(run, self.form.step_samples, self.form.examples[1].shape[1], len(given))
            return _logarithms(stream.through(given, f"comparing the file on {len(given)} sounds, step by step"))
        (made,) = run(given)
        return _logarithms(made) if self.form.front_end == "inside" else made

    @torch.inference_mode()
    def classifies(self, given: Values) -> Values:
        """The classifier's logits for the same input, (batch, classes)"""
        if self.form.front_end == "inside":
            return _logarithms(self.classifier.classify(self._features(given)).softmax(-1).numpy())
        return self.classifier.classify(torch.from_numpy(given)).numpy()

    @torch.inference_mode()
    def moved_by_front_end(self, given: Values) -> Values:
        """The shift of an int8 network's logits by the file's front end, in torch, with no activation rounded.

        (batch, samples) -> (batch, classes). Rounding would hide smaller faults.
        """
        network, frontend, waveforms = _Unrounded(self.classifier.network), self.form.module.frontend, _tensor(given)
        assert frontend is not None
        if self.form.step_samples:
            state = torch.zeros(len(given), self.form.examples[1].shape[1])
            for samples in torch.split(waveforms, self.form.step_samples, 1):
                features, state = frontend(samples, state)
        else:
            features = frontend(waveforms)
        ours, theirs = (network.run(one) for one in (self._features(given), self.classifier.standardize(features)))
        moved: Values = (theirs - ours).numpy()
        return moved

    @torch.inference_mode()
    def _features(self, waveforms: Values) -> Tensor:
        """Standardized features by the Fourier transform, a stream in one piece."""
        if not self.form.step_samples:
            return self.classifier.features(_tensor(waveforms))
        frontend: Any = self.classifier.frontend
        features = in_one_piece(frontend, _tensor(waveforms), frontend.frames(self.form.samples))
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


def _tensor(waveforms: Values) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(waveforms, np.float32))


def _logarithms(probabilities: Values) -> Values:
    return np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
