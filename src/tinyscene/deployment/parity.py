"""Parity of a file and its classifier: both are run on the same sounds, and their outputs compared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tinyscene.deployment.formats import Runner, Values
from tinyscene.deployment.probes import Probe
from tinyscene.deployment.reference import Reference
from tinyscene.models.quantized import Int8Network

# The largest accepted difference. Runtimes sum in another order, and an activation near a rounding edge may
# fall on its other side: the worst files of trained systems (results/RESULTS.md) had 3e-4 and 3 steps.
FLOAT_BOUND, INT8_BOUND = 1e-3, 4.0
# Differences of float32 numbers: 4.000001 steps are four.
_ROUNDED = 1 + 1e-3
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

    @property
    def int8(self) -> bool:
        return self.unit == "output steps"

    @property
    def bound(self) -> float:
        """The largest accepted difference, in `unit`s."""
        return INT8_BOUND if self.int8 else FLOAT_BOUND

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

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {**asdict(self), "bound": self.bound}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Parity":
        """The inverse of `to_json`. Raises TypeError for other values."""
        return cls(**{name: value for name, value in plain.items() if name != "bound"})


def compare(
    reference: Reference, run: Runner, probes: Sequence[Probe], layers: tuple[int | None, int | None]
) -> Parity:
    """Run the classifier and the file on the same inputs.

    Args:
        run: the file, as users run it.
        layers: with weights, on integers and in float.

    Raises:
        InputError: the runtime can't run the file on one of the inputs.
    """
    probes = [probe.part(i, i + _A_STEP) for probe in probes for i in range(0, len(probe.kinds), _A_STEP)]
    inputs = [reference.given(probe) for probe in probes]
    ours = np.concatenate([reference.classifies(given) for given in inputs])
    theirs = np.concatenate([reference.runs(run, given) for given in inputs])
    network = reference.classifier.network
    largest, front_end = float(np.abs(ours).max()) or 1.0, 0.0
    unit, bound, step = "of the largest logit", FLOAT_BOUND, largest
    if isinstance(network, Int8Network):
        if reference.inside:
            front_end = max(float(np.abs(reference.moved_by_front_end(given)).max()) for given in inputs) / largest
        unit, bound, step = "output steps", INT8_BOUND, network.output_step or float(np.ptp(ours)) / 255
    off = np.abs(theirs - ours) / step
    agreement, ties = _decisions(ours, theirs, step * bound)
    kinds = np.array([kind for probe in probes for kind in probe.kinds])
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
        front_end=front_end,
        by_kind={str(kind): float(off[kinds == kind].max()) for kind in dict.fromkeys(kinds)},
        **_accuracies(ours, theirs, probes),
    )


def _accuracies(ours: Values, theirs: Values, probes: Sequence[Probe]) -> dict[str, float]:
    """Accuracies of both, on labelled clips."""
    targets = np.concatenate([np.array(probe.targets or [-1] * len(probe.kinds)) for probe in probes])
    known = targets >= 0
    if not known.any():
        return {}
    right = [float((made.argmax(1) == targets)[known].mean()) for made in (ours, theirs)]
    return {"accuracy": right[0], "file_accuracy": right[1]}


def _decisions(ours: Values, theirs: Values, accepted: float) -> tuple[float, int]:
    """Share of equal decisions, and the number of ties among them: theirs is within `accepted` of our best."""
    chosen = theirs.argmax(1)
    differs = chosen != ours.argmax(1)
    lost = ours.max(1) - np.take_along_axis(ours, chosen[:, None], 1)[:, 0]
    ties = differs & (lost <= accepted)
    return 1 - float((differs & ~ties).mean()), int(ties.sum())
