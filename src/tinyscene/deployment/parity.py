"""Whether a file computes what the classifier computes: both are run, and their logits compared."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tinyscene.deployment.runtime import layers_by_kernel, refusals, session
from tinyscene.deployment.write import INPUT
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.quantized import Int8Network

Logits = npt.NDArray[np.float32]

# Of the largest logit: sums of float32 in another order, over as many layers as these networks have.
FLOAT_BOUND = 1e-5
# One rounding at the output may fall on the other side.
STEP_BOUND = 1.0
# Where layers are many, roundings inside do so too, and what they change is carried on. How far that goes is seen by
# running torch itself with its sums in another order; the integer kernels, which round once more, may go as far again.
OWN_ALLOWANCE = 2.0


@dataclass(frozen=True)
class Parity:
    """How far a file is from the classifier, in `unit`s: steps of the int8 output, or shares of the largest logit.

    Attributes:
        clips: compared.
        unit: "output steps" or "of the largest logit".
        step: what one unit is worth in logits.
        exact: largest difference when ONNX Runtime runs the file node by node.
        largest, p999, mean: of the differences when it runs with all its optimisations, int8 on integers.
        own: largest difference of torch from itself, sums in another order; looked at where int8 is over one step.
        agreement: share of clips with the same decision, ties included.
        ties: clips whose decision differs, but between classes that the classifier has within `bound`.
        integer_layers, float_layers: layers with weights, by the kernels that ran.
    """

    clips: int
    unit: str
    step: float
    exact: float
    largest: float
    p999: float
    mean: float
    own: float
    agreement: float
    ties: int
    integer_layers: int
    float_layers: int

    @property
    def int8(self) -> bool:
        return self.unit == "output steps"

    @property
    def bound(self) -> float:
        """The largest difference that is accepted, in `unit`s."""
        return max(STEP_BOUND, OWN_ALLOWANCE * self.own) if self.int8 else FLOAT_BOUND

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the file must be refused; empty where it need not be."""
        # Output steps are differences of float32 numbers: 1.0000004 is one.
        most = self.bound * (1 + 1e-3)
        faults = []
        if not self.exact <= most:
            faults.append(f"node by node it differs by {self.exact:.3g} {self.unit}, {self.bound:.3g} are allowed")
        if not self.largest <= most:
            faults.append(f"optimised it differs by {self.largest:.3g} {self.unit}, {self.bound:.3g} are allowed")
        if self.agreement < 1:
            faults.append(f"{1 - self.agreement:.1%} of {self.clips} decisions differ")
        if self.int8 and not self.integer_layers:
            faults.append("no layer runs on integers")
        return tuple(faults)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings."""
        return {**asdict(self), "bound": self.bound}


def compare(classifier: SceneClassifier, path: Path, batches: Sequence[Tensor]) -> Parity:
    """Run the classifier and the file on standardized features, each (batch, channels, bands, frames).

    Raises:
        InputError: ONNX Runtime can't run the file on one of the batches.
    """
    ours = torch_logits(classifier, batches)
    network = classifier.network
    if int8 := isinstance(network, Int8Network):
        step = network.output_step or float(np.ptp(ours)) / 255
    else:
        step = float(np.abs(ours).max()) or 1.0
    exact, fast = (_file_logits(path, batches, optimized) for optimized in (False, True))
    largest_exact, off = float(np.abs(exact - ours).max() / step), np.abs(fast - ours) / step
    own = 0.0
    if int8 and max(largest_exact, off.max()) > STEP_BOUND:
        own = float(np.abs(_otherwise_summed(classifier, batches) - ours).max() / step)
    integer, in_float = layers_by_kernel(path)
    parity = Parity(
        clips=len(ours),
        unit="output steps" if int8 else "of the largest logit",
        step=step,
        exact=largest_exact,
        largest=float(off.max()),
        p999=float(np.quantile(off, 0.999)),
        mean=float(off.mean()),
        own=own,
        agreement=1.0,
        ties=0,
        integer_layers=integer,
        float_layers=in_float,
    )
    agreement, ties = _decisions(ours, fast, parity.bound * step)
    return replace(parity, agreement=agreement, ties=ties)


def check_tensors(network: nn.Module, path: Path) -> None:
    """Raise InputError unless every tensor that the file shares with the network is the same, bit for bit."""
    import onnx

    held = network.state_dict()
    for stored in onnx.load(path, load_external_data=False).graph.initializer:
        if stored.name not in held:
            continue
        ours, theirs = held[stored.name].cpu().numpy(), onnx.numpy_helper.to_array(stored)
        if ours.dtype != theirs.dtype or not np.array_equal(ours, theirs, equal_nan=True):
            raise InputError(
                f"{stored.name} in the file is not the classifier's; accepted: a file that holds its weights unchanged"
            )


def _otherwise_summed(classifier: SceneClassifier, batches: Sequence[Tensor]) -> Logits:
    """torch's logits without oneDNN, whose convolutions add in another order."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return torch_logits(classifier, batches)
    finally:
        torch._C._set_mkldnn_enabled(before)


def _decisions(ours: Logits, theirs: Logits, bound: float) -> tuple[float, int]:
    """Share of equal decisions, and how many of these are ties: theirs is within `bound` of the best of ours."""
    chosen = theirs.argmax(1)
    differs = chosen != ours.argmax(1)
    lost = ours.max(1) - np.take_along_axis(ours, chosen[:, None], 1)[:, 0]
    ties = differs & (lost <= bound * (1 + 1e-3))
    return 1 - float((differs & ~ties).mean()), int(ties.sum())


@torch.inference_mode()
def torch_logits(classifier: SceneClassifier, batches: Sequence[Tensor]) -> Logits:
    """(clips, classes)"""
    classifier.eval()
    return np.concatenate([classifier.classify(batch).numpy() for batch in batches])


def _file_logits(path: Path, batches: Sequence[Tensor], optimized: bool) -> Logits:
    try:
        # One thread: how a sum is split must not depend on the machine.
        runs = session(path, optimized=optimized, threads=1)
        return np.concatenate([runs.run(None, {INPUT: batch.numpy()})[0] for batch in batches])
    except refusals() as error:
        shapes = ", ".join(str(tuple(batch.shape)) for batch in batches)
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"ONNX Runtime can't run the file on {shapes} ({reason}); accepted: a network that runs on any "
            f"batch and on the lengths of the clips given"
        ) from error
