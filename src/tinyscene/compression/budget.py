"""Filter pruning to a joint budget (Schmidt et al., DCASE 2022 Task 1, section 2.3)."""

import copy
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tinyscene.accounting import count_classifier
from tinyscene.compression.admm import ADMM, SHARE, Tensors, largest, phases
from tinyscene.compression.channels import Coupled, cut, remove
from tinyscene.compression.coupling import coupled_channels
from tinyscene.compression.filters import Criterion, frobenius_norm
from tinyscene.compression.importance import Importance, Kept, Narrow, makers_parameters
from tinyscene.compression.quantize import Quantize
from tinyscene.compression.widths import fill, quadratic_costs, value
from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.folding import fold_batch_norm
from tinyscene.training.fit import Fit
from tinyscene.training.run import Run, Stage

BUDGETS = ("parameters", "macs", "bytes", "peak_ram_bytes")


@dataclass(frozen=True, eq=False)
class Plan:
    """The channels that a pruning keeps, (units,) of each set that can be pruned, and what the network then costs.

    `threshold` is the importance of the last filters to go; 0 where the budgets hold without pruning.
    """

    coupled: tuple[Coupled, ...]
    kept: Kept
    threshold: float
    costs: dict[str, int]


@dataclass(frozen=True)
class BudgetPruning(Stage):
    """Remove the least important filters of the whole network until every budget holds.

    A binary search over the importance of all filters finds a threshold that meets the budgets where the next lower one
    does not; one channel of every layer stays. The budgets' unused part is then filled by exchanging some channels of
    one layer for some of another. With `fit`, ADMM first trains the network towards these widths, and the rest of the
    fit fine-tunes what is cut (docs/pruning.md).

    Args:
        parameters: all of them, zeros included, by the convention "bn2" (PyTorch's `parameters()`).
        macs: multiply-accumulates of a clip of `clip_s`, by torchinfo's count.
        bytes: of everything stored, by the convention "bn4".
        peak_ram_bytes: of the activations, for a clip of `clip_s`.
        at: "float32" counts the network as it is; "int8" as stored and run by `Quantize`, with folded batch norms,
            scales and zero points.
        by: importance of a filter, (filters, ...) -> (filters,).
        normalise: compare filters by their importance over the mean of their layer, since a norm over more inputs is
            larger (`Importance`); without it, as in the report.
        fill: the share of a layer's channels by which its width may leave the threshold's to use up the budgets; 0
            keeps to the threshold. Widths are then chosen by what they cost.
        clip_s: length of the clip that MACs and RAM are counted for, in seconds; more where the network needs it.
        fit: update and fine-tuning epochs together; without it, one shot and no training.
        rho, dual_rate: as `ADMM`'s.
        updates: share of the fit's epochs before the cut, rounded to the nearest, at least one.

    Raises:
        InputError: no budget, or a number out of range; when applied, rounded weights, a network without anything that
            could be pruned, or a budget below what one channel a layer costs.
    """

    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    peak_ram_bytes: int | None = None
    at: Literal["float32", "int8"] = "float32"
    by: Criterion = frobenius_norm
    normalise: bool = True
    fill: float = 0.25
    clip_s: float = 1.0
    fit: Fit | None = None
    rho: float = 0.01
    dual_rate: float = 0.03
    updates: float = 5 / 7

    def __post_init__(self) -> None:
        if not self.limits:
            raise InputError(f"BudgetPruning() has no budget; accepted: one or more of {', '.join(BUDGETS)}")
        check(self, **dict.fromkeys(self.limits, Numbers(least=1)))
        check(self, at=("float32", "int8"))
        check(self, by=Callable, fill=Numbers(least=0, most=1), clip_s=Numbers(above=0, most=3600), fit=Fit | None)
        check(self, rho=Numbers(above=0), dual_rate=SHARE, updates=SHARE)
        if self.fit is not None:
            phases(self.fit, self.updates)

    @property
    def limits(self) -> dict[str, int]:
        """The budgets that were given."""
        return {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Prune by the current weights."""
        return self._cut(classifier, self.plan(classifier))

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Prune by the weights only; with `fit`, by those that it trains.

        Raises:
            InputError: a test clip is among the clips, ADMM diverges, what `Fit` raises, or as listed in the class.
        """
        plan = self.plan(classifier)
        run.metrics.update(threshold=plan.threshold, **plan.costs)
        if self.fit is None:
            return self._cut(classifier, plan)
        narrow = self.projection(classifier, plan)
        admm = ADMM(makers_parameters(classifier.network, plan.coupled), narrow, self.rho, self.dual_rate)

        def cut(trained: SceneClassifier, consensus: Tensors) -> SceneClassifier:
            return self._cut(trained, replace(plan, kept=narrow.kept(consensus)))

        return admm.train_and_cut(classifier, phases(self.fit, self.updates), cut, clips, run)

    def projection(self, classifier: SceneClassifier, plan: Plan) -> Narrow:
        """The target of ADMM: the values that a network of the plan's widths could hold."""
        widths = tuple(int(units.sum()) for units in plan.kept)
        importance = Importance(copy.deepcopy(classifier.network).cpu(), plan.coupled, self.by, self.normalise)
        return Narrow(widths, self.by, self.normalise, importance)

    def plan(self, classifier: SceneClassifier) -> Plan:
        """The channels that stay: all of a network within the budgets."""
        classifier.require_float("BudgetPruning")
        masks.refuse_computed_weights(classifier.network, "BudgetPruning")
        candidates = _Candidates(self, classifier)
        importance = Importance(classifier.network, candidates.coupled, self.by, self.normalise)
        everything = importance.everything
        if candidates.over(everything) is None:
            return Plan(candidates.coupled, everything, 0.0, candidates.costs(everything))
        if not everything:
            raise InputError(
                f"BudgetPruning: {type(classifier.network).__name__} has no channels that can be pruned: "
                f"{candidates.reasons()}; accepted: a network with channels between features and logits that can go "
                f"one by one"
            )
        thresholds = np.unique(torch.cat(importance(everything)).numpy()).tolist()
        first = bisect_left(
            range(len(thresholds)), True, key=lambda i: candidates.over(importance.survivors(thresholds[i])) is None
        )
        if first == len(thresholds):
            least = importance.survivors(thresholds[-1])
            name = candidates.over(least)
            raise InputError(
                f"BudgetPruning({name}={getattr(self, str(name)):,}): with one channel a layer "
                f"{type(classifier.network).__name__} has {candidates.costs(least)[str(name)]:,}; accepted: at least "
                f"that. Channels that stay: {candidates.reasons()}"
            )
        kept = importance.survivors(thresholds[first])
        kept = candidates.filled(kept, importance(kept))
        return Plan(candidates.coupled, kept, thresholds[first], candidates.costs(kept))

    def _cut(self, classifier: SceneClassifier, plan: Plan) -> SceneClassifier:
        pruned = copy.deepcopy(classifier)
        cut(pruned.network, zip(plan.coupled, plan.kept, strict=True), classifier.short_example())
        return pruned


class _Candidates:
    """The networks that can be cut out of one, and their costs."""

    def __init__(self, budget: BudgetPruning, classifier: SceneClassifier) -> None:
        self.budget, self.classifier = budget, classifier
        self.clip_s = max(budget.clip_s, classifier.shortest_samples / classifier.sample_rate)
        found = coupled_channels(classifier.network, classifier.short_example())
        self.coupled = tuple(group for group in found if not group.exempt)
        self.exempt = {group.name: group.exempt for group in found if group.exempt}
        counted = Quantize().shape(classifier) if budget.at == "int8" else classifier
        ledger = count_classifier(counted, self.clip_s)
        self.matrices = quadratic_costs(ledger, classifier.network, self.coupled)

    def costs(self, kept: Kept) -> dict[str, int]:
        widths = _widths(kept)
        costs = {name: int(value(matrix, widths)) for name, matrix in self.matrices.items()}
        if self.budget.peak_ram_bytes is not None:
            costs["peak_ram_bytes"] = self._peak_ram_bytes(kept)
        return costs

    def _peak_ram_bytes(self, kept: Kept) -> int:
        """As `count_classifier` finds it: of an int8 network, that of the folded one."""
        candidate = copy.deepcopy(self.classifier).cpu()
        remove(candidate.network, zip(self.coupled, kept, strict=True))
        if self.budget.at == "int8":
            candidate.network = fold_batch_norm(candidate.network.eval(), candidate.short_example())
        return count_classifier(candidate, self.clip_s, precision=self.budget.at).peak_ram_bytes

    def reasons(self) -> str:
        """Why channels stay: each reason with the first layer that it applies to."""
        first = {reason: name for name, reason in reversed(self.exempt.items())}
        return ", ".join(f"those of {name}, since {reason}" for reason, name in reversed(first.items()))

    def over(self, kept: Kept) -> str | None:
        """The first budget that is exceeded."""
        costs = self.costs(kept)
        return next((name for name, limit in self.budget.limits.items() if costs[name] > limit), None)

    def filled(self, kept: Kept, scores: Sequence[Tensor]) -> Kept:
        """The most important units of each set that use up the budgets; `kept` where RAM does not suffice."""
        limits = {name: limit for name, limit in self.budget.limits.items() if name in self.matrices}
        if not limits or not self.budget.fill:
            return kept
        units = np.array([group.units for group in self.coupled])
        matrices = [self.matrices[name] for name in limits]
        widths = fill(matrices, [*limits.values()], _widths(kept), units, self.budget.fill)
        filled = tuple(largest(each, int(width)) for each, width in zip(scores, widths, strict=True))
        return kept if self.over(filled) else filled


def _widths(kept: Kept) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array([int(units.sum()) for units in kept], np.int64)
