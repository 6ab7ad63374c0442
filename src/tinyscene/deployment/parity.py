"""Whether a file computes what the classifier computes: both are run, and what they say is compared."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tinyscene.deployment.formats import Runner, Values
from tinyscene.deployment.probes import Probe
from tinyscene.deployment.reference import LEAST_PROBABILITY, Reference
from tinyscene.models.quantized import Int8Network

# Of the largest logit: sums of float32 in another order, over as many layers as these networks have.
FLOAT_BOUND = 1e-5
# One rounding at the output may fall on the other side.
STEP_BOUND = 1.0
# Where layers are many, roundings inside do so too, and what they change is carried on. How far that goes is seen by
# running torch itself with its sums in another order, or at 64 bits; a runtime may go as far again.
OWN_ALLOWANCE = 2.0
# In float, logarithms of almost silent bands have long tails.
FLOAT_ALLOWANCE = 4.0
# Clips a step: a large network's maps of more would take gigabytes at 64 bits.
_A_STEP = 16
# Beyond these, a file is refused whatever torch leaves open.
MOST_STEPS, MOST_FLOAT, MOST_ROUNDING = 16.0, 1e-2, 64.0
# Of clips whose second-best class has no probability left that float32 could tell.
MOST_BLIND = 0.5
# Output steps are differences of float32 numbers: 1.0000004 is one.
_ROUNDED = 1 + 1e-3


@dataclass(frozen=True)
class Parity:
    """How far a file is from the classifier, in `unit`s: steps of the int8 output, or shares of the largest logit.

    Attributes:
        clips: compared.
        unit: "output steps" or "of the largest logit".
        step: what one unit is worth in logits.
        exact: largest difference when the runtime runs the file the plainest way that it has.
        largest, p999, mean: of the differences when it runs as users run it.
        own: largest difference of torch from itself, sums in another order; looked at where the file is over the bound.
            Every clip is held to its own.
        rounding: how far 8 bits themselves move the classifier's logits: what its activations' roundings change. Looked
            at where kernels are over the bound that round as no torch does.
        agreement: share of clips with the same decision, ties included.
        ties: clips whose decision differs, but between classes that the classifier has within their bound.
        steps: accepted at 8 bits in any case, as the format's kernels round.
        over, plainest_over: clips beyond their bound, as users run the file, and the plainest way.
        plainest_agreement: as `agreement`, the plainest way.
        blind: share of clips on which probabilities are too sharp to compare anything but the decision.
        integer_layers, float_layers: layers with weights, by the kernels that ran.
        by_kind: the largest difference for each kind of sound, of both ways to run.
        accuracy, file_accuracy: on the clips that were compared, as users run it; None without labelled clips.
    """

    clips: int
    unit: str
    step: float
    exact: float
    largest: float
    p999: float
    mean: float
    own: float
    rounding: float
    agreement: float
    ties: int
    integer_layers: int
    float_layers: int
    by_kind: dict[str, float] = field(default_factory=dict)
    steps: float = STEP_BOUND
    over: int = 0
    plainest_over: int = 0
    plainest_agreement: float = 1.0
    blind: float = 0.0
    accuracy: float | None = None
    file_accuracy: float | None = None

    @property
    def int8(self) -> bool:
        return self.unit == "output steps"

    @property
    def bound(self) -> float:
        """The largest difference that is accepted on any clip, in `unit`s."""
        return float(bound(self.int8, np.float64(self.own), self.steps))

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the file must be refused; empty where it need not be."""
        faults = []
        for how, most, over in (("plainly", self.exact, self.plainest_over), ("as users do", self.largest, self.over)):
            if over:
                faults.append(
                    f"run {how} it differs by up to {most:.3g} {self.unit}, and on {over} of {self.clips} clips by "
                    f"more than is accepted there, at most {self.bound:.3g}"
                )
        if min(self.agreement, self.plainest_agreement) < 1:
            differ = 1 - min(self.agreement, self.plainest_agreement)
            faults.append(f"{differ:.1%} of {self.clips} decisions differ")
        if self.blind > MOST_BLIND:
            faults.append(f"{self.blind:.0%} of its probabilities are too sharp to be compared")
        if self.int8 and not self.integer_layers:
            faults.append("no layer runs on integers")
        return tuple(faults)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {**asdict(self), "bound": self.bound}


def bound(int8: bool, own: Any, steps: float = STEP_BOUND) -> Any:
    """The largest difference that is accepted where torch differs from itself by `own`, of any shape.

    Args:
        steps: accepted at 8 bits in any case.
    """
    if int8:
        return np.clip(OWN_ALLOWANCE * own, steps, MOST_STEPS) * _ROUNDED
    return np.clip(FLOAT_ALLOWANCE * own, FLOAT_BOUND, MOST_FLOAT) * _ROUNDED


def compare(
    reference: Reference,
    runners: Sequence[Runner],
    probes: Sequence[Probe],
    layers: tuple[int, int],
    rounds_otherwise: bool,
    steps: float = STEP_BOUND,
) -> Parity:
    """Run the classifier and the file on the same inputs.

    Args:
        runners: from the plainest way to run the file to the one that users get.
        layers: with weights, run on integers and in float.
        rounds_otherwise: whether the plainest way's integer kernels round as no torch does.
        steps: accepted at 8 bits in any case.

    Raises:
        InputError: the runtime can't run the file on one of the inputs.
    """
    probes = [probe.part(i, i + _A_STEP) for probe in probes for i in range(0, len(probe.kinds), _A_STEP)]
    inputs = [reference.given(probe) for probe in probes]
    ours = np.concatenate([reference.says(given) for given in inputs])
    network = reference.classifier.network
    if int8 := isinstance(network, Int8Network):
        step = network.output_step or float(np.ptp(ours)) / 255
    else:
        step = float(np.abs(ours).max()) or 1.0
    ways = dict.fromkeys((runners[0], runners[-1]))
    made = [np.concatenate([reference.ends(reference.runs(run, given)) for given in inputs]) for run in ways]
    exact, off = (np.abs(theirs - ours).max(1) / step for theirs in (made[0], made[-1]))
    own, rounding = np.zeros(len(ours)), 0.0
    if not max(exact.max(), off.max()) <= bound(int8, 0.0):
        others = zip(*(reference.says_otherwise(given) for given in inputs), strict=True)
        own = np.max([np.abs(np.concatenate(other) - ours).max(1) / step for other in others], 0)
        # Logits differ by whole steps, of which the logarithms of probabilities show a part.
        own = np.ceil(own - 1e-3) if int8 else own
    accepted = bound(int8, own, steps)
    if int8 and rounds_otherwise and not np.all(exact <= accepted):
        unrounded = np.concatenate([reference.says_unrounded(given) for given in inputs])
        rounding = min(float(np.abs(unrounded - ours).max() / step), MOST_ROUNDING)
    plainest = np.maximum(accepted, rounding)
    if len(runners) == 1:
        accepted = plainest  # the plainest way is the one that users have
    agreement, ties = _decisions(ours, made[-1], accepted * step)
    kinds = np.array([kind for probe in probes for kind in probe.kinds])
    each = np.abs(made[-1] - ours) / step
    second = np.sort(ours, 1)[:, -2] if ours.shape[1] > 1 else np.zeros(len(ours))
    return Parity(
        clips=len(ours),
        unit="output steps" if int8 else "of the largest logit",
        step=step,
        exact=float(exact.max()),
        largest=float(off.max()),
        p999=float(np.quantile(each, 0.999)),
        mean=float(each.mean()),
        own=float(own.max()),
        rounding=rounding,
        agreement=agreement,
        ties=ties,
        integer_layers=layers[0],
        float_layers=layers[1],
        by_kind={str(kind): float(np.maximum(exact, off)[kinds == kind].max()) for kind in dict.fromkeys(kinds)},
        steps=steps,
        over=int((~(off <= accepted)).sum()),
        plainest_over=int((~(exact <= plainest)).sum()),
        plainest_agreement=_decisions(ours, made[0], plainest * step)[0],
        blind=float((second <= np.log(LEAST_PROBABILITY)).mean()) if reference.inside else 0.0,
        **_accuracies(ours, made[-1], probes),
    )


def _accuracies(ours: Values, theirs: Values, probes: Sequence[Probe]) -> dict[str, float]:
    """Of both, on the clips whose class is known."""
    targets = np.concatenate([np.array(probe.targets or [-1] * len(probe.kinds)) for probe in probes])
    known = targets >= 0
    if not known.any():
        return {}
    right = [float((made.argmax(1) == targets)[known].mean()) for made in (ours, theirs)]
    return {"accuracy": right[0], "file_accuracy": right[1]}


def _decisions(ours: Values, theirs: Values, accepted: Any) -> tuple[float, int]:
    """Share of equal decisions, and how many of these are ties: theirs is within `accepted` of the best of ours."""
    chosen = theirs.argmax(1)
    differs = chosen != ours.argmax(1)
    lost = ours.max(1) - np.take_along_axis(ours, chosen[:, None], 1)[:, 0]
    ties = differs & (lost <= accepted)
    return 1 - float((differs & ~ties).mean()), int(ties.sum())
