"""Score calibration by logistic regression on the logits, folded into the layer that computes them."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from tinyscene import metrics
from tinyscene.data import Clips, decode
from tinyscene.errors import InputError, Numbers, check
from tinyscene.metrics import Floats, Labels
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.quantized import Int8Network
from tinyscene.training.batches import features_of_clips, logits_of, refuse_short
from tinyscene.training.run import Run, Stage

Method = Literal["multinomial", "one-vs-rest", "temperature"]

_MOST_STEPS, _TOLERANCE = 10_000, 1e-6
# The factor of a temperature is searched between e to the minus and e to the plus this.
_LOG_FACTOR = 10.0
# Rounding of folding: 32-bit sums of some thousand products, relative to their size.
_FOLDED_ALIKE = 1e-5


@dataclass(frozen=True)
class Calibration(Stage):
    """Fit factors between logits and calibrated logits on the validation part, and fold them into the dense layer.

    All minimise C times the summed log loss plus half the squared factors, without intercept (Byttebier et al., DCASE
    2021 Task 1a, section 2.4; C is scikit-learn's, which the report uses and of which it names no setting). The layer
    becomes M W and M b: same size, same graph. Clips are used whole.

    The validation part is held out of the training of weights. Where early stopping chose the epoch on it too, it is
    slightly better known to the classifier than a new one, and the factors are slightly too confident.

    Args:
        by: "multinomial", classes x classes factors by one regression; "one-vs-rest", a row of factors by each of as
            many binary regressions, whose scores go through the softmax, as in the report (section 4), and not through
            scikit-learn's normalised sigmoids; "temperature", one factor for all (Guo et al., ICML 2017).
        C: above 0; a larger one pulls the factors less towards zero.
    """

    by: Method = "multinomial"
    C: float = 1.0

    def __post_init__(self) -> None:
        check(self, by=get_args(Method), C=Numbers(above=0))

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Sizes stay the same; a network without such a layer is refused."""
        if not isinstance(classifier.network, Int8Network):
            classifier.require_float("Calibration")
        dense_layer(classifier)
        return classifier

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Fit on `clips.validation`.

        `run.metrics` receives log loss and calibration error before and after, on the very clips it was fitted on. An
        int8 layer is requantized, with the range of the calibrated logits for its output, and `run.metrics` reports
        how far its logits are from the factors times the old int8 logits, in steps of the new ones, as maximum and
        mean. Both include what the old range cut off; the factors are fitted on logits neither cut nor rounded.

        Raises:
            InputError: a test clip is among the clips, there is no validation clip, or none of some class, a clip is
                too short, the weights have 16 bits, or the logits don't come from a dense layer.
        """
        clips.require_classes(classifier.classes)
        clips.require_validation("Calibration")
        calibrated = copy.deepcopy(self.shape(classifier))
        waveforms = decode(
            clips.validation.require("validation"), calibrated.sample_rate, calibrated.channel, quiet=run.quiet
        )
        refuse_short(calibrated.shortest_samples, waveforms)
        features = features_of_clips(calibrated, waveforms, run, "validation")
        before, labels = logits_of(calibrated, features).double(), waveforms.clips.labels
        whole = _unrounded_logits(calibrated, features).double()
        factors = torch.from_numpy(self.factors(whole.numpy(), labels))
        wanted = before @ factors.T
        _fold(calibrated, factors, whole @ factors.T)
        after = logits_of(calibrated, features).double()
        run.metrics["fitted_clips"] = len(labels)
        for when, logits in (("before", before), ("after", after)):
            probabilities = logits.softmax(1).numpy()
            run.metrics[f"fitted_log_loss_{when}"] = metrics.log_loss(labels, probabilities)
            run.metrics[f"fitted_ece_{when}"] = metrics.calibration_error(labels, probabilities)
        if isinstance(calibrated.network, Int8Network):
            step = calibrated.network.output_step
            assert step is not None  # a dense layer's, or `shape` would have refused
            steps = (after - wanted).abs() / step
            run.metrics.update(output_steps_largest=float(steps.max()), output_steps_mean=float(steps.mean()))
        else:
            _refuse_other(after, wanted, before.abs() @ factors.abs().T)
        return calibrated

    def factors(self, logits: Floats, labels: Labels) -> Floats:
        """(clips, classes), (clips,) -> (classes, classes); calibrated logits are `logits @ factors.T`."""
        if self.by == "temperature":
            return self._temperature(logits, labels) * np.eye(logits.shape[1])
        if self.by == "multinomial" and logits.shape[1] > 2:
            return self._regression(logits, labels)
        rows = [self._regression(logits, labels == number) for number in range(logits.shape[1])]
        # Two classes have one regression; half its row each gives the same probabilities.
        return np.vstack(rows) / (2 if self.by == "multinomial" else 1)

    def _regression(self, logits: Floats, labels: Any) -> Floats:
        """scikit-learn's factors: (classes, classes), or (1, classes) for two labels."""
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=self.C, fit_intercept=False, tol=_TOLERANCE, max_iter=_MOST_STEPS)
        factors: Floats = fitted.fit(logits, labels).coef_
        return factors

    def _temperature(self, logits: Floats, labels: Labels) -> float:
        """One over the temperature."""
        from scipy.optimize import minimize_scalar
        from scipy.special import log_softmax

        def objective(log_factor: float) -> float:
            factor = np.exp(log_factor)
            losses = -log_softmax(factor * logits, axis=1)[np.arange(len(labels)), labels]
            return float(losses.sum() + logits.shape[1] * factor**2 / (2 * self.C))

        found = minimize_scalar(objective, bounds=(-_LOG_FACTOR, _LOG_FACTOR), options={"xatol": 1e-9})
        return float(np.exp(found.x))


def dense_layer(classifier: SceneClassifier) -> tuple[str, dict[str, Tensor]]:
    """Path, weight (classes, inputs) and, where it has one, bias (classes,) of the last dense layer of such a size.

    Raises:
        InputError: there is none.
    """
    network, wanted = classifier.network, len(classifier.classes)
    if isinstance(network, Int8Network):
        path, weight, bias = network.dense_layer()
        return path, {"weight": weight, "bias": bias}
    layers = {p: m for p, m in network.named_modules() if isinstance(m, nn.Linear) and m.out_features == wanted}
    if not layers:
        raise InputError(
            f"{type(network).__name__} has no dense layer of {wanted} outputs; accepted: a network whose "
            f"logits come from an nn.Linear, into which a calibration can be folded"
        )
    path, layer = layers.popitem()
    return path, {name: parameter.detach() for name, parameter in layer.named_parameters()}


def _unrounded_logits(classifier: SceneClassifier, features: Iterable[Tensor]) -> Tensor:
    """The dense layer's sums, (clips, classes): int8 logits may be cut off at the ends of their range."""
    if not isinstance(classifier.network, Int8Network):
        return logits_of(classifier, features)
    classifier = copy.deepcopy(classifier)
    graph = classifier.network.graph
    *_, restored, output = graph.nodes
    output.replace_input_with(restored, restored.args[0].args[0])
    return logits_of(classifier, features)


@torch.no_grad()
def _fold(classifier: SceneClassifier, factors: Tensor, logits: Tensor) -> None:
    """Multiply the dense layer from the left, in place; the int8 range of its output becomes that of `logits`.

    Raises:
        InputError: that would fill in pruned weights.
    """
    network = classifier.network
    path, held = dense_layer(classifier)
    mixed = {name: (factors.to(one.device) @ one.double()).to(one.dtype) for name, one in held.items()}
    for name, values in mixed.items():
        kept = getattr(network.get_submodule(path), name + masks.SUFFIX, None)
        if kept is not None and values[~kept].any():
            raise InputError(
                "Calibration would fill in pruned weights of the dense layer, since it mixes the classes; accepted: "
                'by="temperature", which keeps zeros, or a dense layer without a mask'
            )
    if isinstance(network, Int8Network):
        network.replace_dense(**mixed, logits=logits)
        return
    for name, values in mixed.items():
        held[name].copy_(values)


def _refuse_other(after: Tensor, wanted: Tensor, size: Tensor) -> None:
    """Raise InputError where the folded logits differ from those of the two steps; `size` scales rounding."""
    apart = float((after - wanted).abs().max())
    if apart > _FOLDED_ALIKE * max(1.0, float(size.max())):
        raise InputError(
            f"the factors, folded into the last dense layer, give logits that are {apart:.3g} off; accepted: a network "
            f"whose logits are that layer's outputs, with nothing behind it"
        )
