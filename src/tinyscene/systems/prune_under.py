"""Pruning to what the int8 file will cost, where `BudgetPruning` counts the float network that it prunes."""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from tinyscene.accounting import Ledger, count
from tinyscene.compression import BudgetPruning, Quantize
from tinyscene.compression.channels import remove
from tinyscene.compression.coupling import coupled_channels
from tinyscene.data import Clips
from tinyscene.errors import InputError, OutOfReachError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Rules
from tinyscene.training.run import Run, Stage

# What `BudgetPruning` calls the quantities of a limit.
_ASKED = {"bytes": "bytes", "macs": "macs", "parameters": "parameters", "ram": "peak_ram_bytes"}
# An int8 network's cost over that of its float one, before one was counted.
_FIRST_RATES = {"bytes": 0.27, "macs": 1.02, "parameters": 0.98, "ram": 0.5}
_TRIES = 8
# As much of the tightest limit has to be used, or another pruning is tried.
_USED = 0.97
# Asked for a little less than an exchange rate promises, since that moves with the widths.
_CAUTION = 0.997


@dataclass(frozen=True)
class PruneUnder(Stage):
    """`BudgetPruning` until the int8 network that comes out of it keeps all limits, and nearly uses one of them up.

    Folding batch norm, a scale a channel and zero points make what an int8 file costs another figure than a share of
    the float network's. Each pruning is quantized without data and counted, and the next one is asked for as much more
    or less as the rate between the two says.

    Args:
        rules: the limits, and the length of the clip that they are for.

    Raises:
        OutOfReachError: when applied, limits that this network can't be pruned to.
    """

    rules: Rules

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Prune by the weights as they are, and count the int8 network."""
        return self._pruned(classifier)[0]

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Pruning looks at the weights alone; `run.figures` receives what the int8 network will cost."""
        pruned, used = self._pruned(classifier)
        run.figures.update({f"int8 {name}": float(value) for name, value in used.items()})
        return pruned

    def _pruned(self, classifier: SceneClassifier) -> tuple[SceneClassifier, dict[str, int]]:
        rates, caution = dict(_FIRST_RATES), 1.0
        best: tuple[float, SceneClassifier, dict[str, int]] | None = None
        for attempt in range(_TRIES):
            asked = {x.quantity: max(1, int(caution * x.at_most / rates[x.quantity])) for x in self.rules.limits}
            budget: dict[str, Any] = {_ASKED[quantity]: value for quantity, value in asked.items()}
            try:
                pruned = BudgetPruning(**budget, clip_s=self.rules.clip_s).shape(classifier)
            except InputError as error:
                # A later try may ask for less than one channel a layer costs.
                if best is None:
                    raise OutOfReachError(str(error)) from error
                break
            before = count(pruned.network, pruned.example(self.rules.clip_s))
            after = deployed_ledger(pruned, self.rules.clip_s)
            cost: dict[str, int] = {x.quantity: x.measure(after) for x in self.rules.limits}
            used = max(cost[x.quantity] / x.at_most for x in self.rules.limits)
            if used <= 1 and (best is None or used > best[0]):
                best = used, pruned, cost
            # A small network has few widths to choose from: what is near is taken after three tries.
            if best is not None and (best[0] >= _USED or attempt > 1 or _widths(pruned) == _widths(classifier)):
                return best[1], best[2]
            rates = {x.quantity: cost[x.quantity] / max(1, x.measure(before)) for x in self.rules.limits}
            caution *= _CAUTION
        if best is not None:
            return best[1], best[2]
        short = "; ".join(x.text for x in self.rules.judge(after).findings if not x.passed)
        raise OutOfReachError(
            f"{type(classifier.network).__name__} can't be pruned to the budget, the nearest {short}; accepted: a "
            f"larger budget, or another network"
        )


def deployed_ledger(classifier: SceneClassifier, clip_s: float) -> Ledger:
    """What a float classifier will cost at int8, for a clip of `clip_s` seconds; no data is needed."""
    int8 = Quantize().shape(classifier)
    return count(int8.network, int8.example(clip_s))


def smallest(classifier: SceneClassifier, rules: Rules) -> Ledger:
    """What is left to pay with one channel in every layer that can be pruned."""
    least = copy.deepcopy(classifier)
    found = [group for group in coupled_channels(least.network, least.short_example()) if not group.exempt]
    remove(least.network, [(group, torch.arange(group.units) < 1) for group in found])
    return deployed_ledger(least, rules.clip_s)


def _widths(classifier: SceneClassifier) -> list[torch.Size]:
    return [tensor.shape for tensor in classifier.network.parameters()]
