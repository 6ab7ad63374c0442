"""The best classifier under a budget: networks of the menu, scaled to it, pruned to it and quantized (`tinyscene fit`).

Every candidate is a network of the menu behind one small log-mel front end, about as large as the budget, or twice as
large. It is trained on short excerpts by `recipe`, pruned to what its int8 file may cost, tuned, and quantized. All
candidates begin; after each rung the better half resumes where it stopped (successive halving: Jamieson and
Talwalkar, AISTATS 2016), by the log loss on the validation part. The winner is retrained on the training
and the validation part together, for all epochs, ending with quantization-aware training.

    tinyscene fit --data $ESC10 --under 64kB --macs 10M --minutes 60

No report: the recipe is our own. `se_resnet` is left out: pruning may leave fewer than 16 channels before its 1x1
convolutions of stride 2, whose backward pass torch 2.13 gets wrong on a CPU (docs/what-did-not-work.md); `aemnet`,
`baseline2021` and `tandem` cost too many MACs for their accuracy at small widths.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tinyscene.accounting import CONVENTIONS, Ledger, count
from tinyscene.augment import Excerpt
from tinyscene.compression import BudgetPruning, Quantize
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import create_model
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Rules
from tinyscene.systems.edit import scale_epochs
from tinyscene.systems.system import System
from tinyscene.training import AdamW, Cosine, Fit

BANDS = 64
EPOCHS, BATCH = 150, 32
# Length of what is trained on.
EXCERPT_S = 2.0
# Excerpts that a candidate trains on over all epochs, and the fewest epochs: small sets are repeated more often.
HEARD, FEWEST_EPOCHS = 36_000, 10
# The fewest in full, with which every rung has one more epoch than the last.
LEAST_EPOCHS = 6
# The share of the epochs at which each rung ends, and of the candidates in it, halved from rung to rung.
RUNGS = (1 / 6, 1 / 3, 2 / 3)
# `BudgetPruning`'s names for the quantities of a limit.
_ASKED = {"bytes": "bytes", "macs": "macs", "parameters": "parameters", "ram": "peak_ram_bytes"}
# The largest width of a candidate at any budget.
WIDEST = 32


@dataclass(frozen=True)
class Scaled:
    """A network of the menu by one number.

    Attributes:
        network: its name on the menu.
        arguments: of the network, for a width from 1 on.
        factors: the candidates' initial sizes, in multiples of the budget.
    """

    network: str
    arguments: Callable[[int], dict[str, Any]]
    factors: tuple[float, ...] = (1.0, 2.0)


NETWORKS = (
    Scaled("cp_mobile", lambda w: {"base_channels": 8 * w}),
    # Its maps are large: at twice the budget it takes longer than all others together.
    Scaled("bc_resnet_mod", lambda w: {"width": w}, factors=(1.0,)),
    Scaled("baseline2020", lambda w: {"filters": (4 * w, 8 * w), "dense": 50, "bands": BANDS}),
    Scaled("plain_cnn", lambda w: {"width": w}),
    Scaled("pham_cnn", lambda w: {"channels": (4 * w, 8 * w, 16 * w, 32 * w)}),
)


def chosen(names: Sequence[str]) -> tuple[Scaled, ...]:
    """The networks of these names; all where none is given. Raises InputError for an unknown name."""
    known = {one.network: one for one in NETWORKS}
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"no network {unknown[0]!r} to fit under a budget; accepted: {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names or known))


def build(network: str, arguments: dict[str, Any], classes: tuple[str, ...]) -> SceneClassifier:
    """64 log-mel bands at 32 kHz, 50 frames a second."""
    frontend = LogMel(sample_rate=32_000, n_fft=2048, hop_length=640, n_mels=BANDS, floor=1e-5)
    return SceneClassifier(frontend, create_model(network, classes=len(classes), **arguments), classes)


def recipe(clip_s: float) -> tuple[Fit, Fit, Quantize]:
    """Training, tuning after pruning, and rounding to int8, for clips of that many seconds.

    On excerpts at another speed and pitch, which take less time than whole clips. What was tried besides, masks,
    mixtures, averages, is in results/ablation.csv.
    """
    augment = (Excerpt(min(1.0, EXCERPT_S / clip_s), speed=0.2, shift=0.03),)
    train = Fit(EPOCHS, BATCH, AdamW(lr=4e-3, weight_decay=0.02), Cosine(warmup_epochs=EPOCHS // 20), augment=augment)
    tune = replace(train, epochs=EPOCHS // 10, optimizer=AdamW(lr=1e-3, weight_decay=0.02), schedule=Cosine())
    return train, tune, Quantize(fit=replace(tune, optimizer=AdamW(lr=2e-4, weight_decay=0.02)))


@dataclass(frozen=True)
class Candidate:
    """One network at one width, and the stages that bring it under the budget; `scale` multiplies their epochs."""

    network: str
    arguments: dict[str, Any]
    rules: Rules
    scale: float

    @property
    def name(self) -> str:
        """The variant's name, such as cp_mobile_24."""
        values = (value if isinstance(value, tuple) else (value,) for value in self.arguments.values())
        return "_".join(map(str, (self.network, *itertools.chain(*values))))

    @property
    def epochs(self) -> int:
        """Epochs in full."""
        return max(1, round(EPOCHS * self.scale))

    def build(self, classes: tuple[str, ...]) -> SceneClassifier:
        """The untrained classifier."""
        return build(self.network, self.arguments, classes)

    @property
    def pruning(self) -> BudgetPruning:
        """Pruning to the budget, by the int8 network's costs."""
        limits: dict[str, Any] = {_ASKED[limit.quantity]: limit.at_most for limit in self.rules.limits}
        return BudgetPruning(**limits, at="int8", clip_s=self.rules.clip_s)

    def system(self, rung: int | None = None) -> System:
        """Stages: trained to the end of a rung, or in full, pruned, tuned and quantized; at the end by training."""
        fit, tune, quantize = scale_epochs(recipe(self.rules.clip_s), self.scale)
        fits = [fit]
        if rung is not None:
            ends = [0, *(max(1, round(share * fit.epochs)) for share in RUNGS[: rung + 1])]
            fits = [replace(fit, start_after=a, stop_after=b) for a, b in itertools.pairwise(ends)]
        rounded = quantize if rung in (None, len(RUNGS) - 1) else Quantize()
        stages = (*fits, self.pruning, tune, rounded)
        return System(self.rules, self.build, stages, counted_by=CONVENTIONS["bn4"])


def candidates(networks: tuple[Scaled, ...], rules: Rules, scale: float) -> list[Candidate]:
    """Each network at the smallest widths that cost its factors times the budget; equal ones once."""
    found: dict[str, Candidate] = {}
    for network in networks:
        costs = [0.0]
        for factor in network.factors:
            while costs[-1] < factor and len(costs) <= WIDEST:
                classifier = build(network.network, network.arguments(len(costs)), rules.classes)
                costs.append(_share(count(classifier.network, classifier.example(rules.clip_s)), rules))
            width = next((w for w, cost in enumerate(costs) if cost >= factor), len(costs) - 1)
            one = Candidate(network.network, network.arguments(width), rules, scale)
            found[one.name] = one
    return list(found.values())


def epochs_of(clips: Clips, epochs_scale: float) -> float:
    """The factor on the recipe's epochs for these training clips."""
    return epochs_scale * max(FEWEST_EPOCHS, HEARD / len(clips.train)) / EPOCHS


def seconds_a_clip(one: Candidate, clips: Clips) -> float:
    """Time that a training clip takes an epoch, from one timed step on excerpts, with its share of the validation.

    A rough estimate. Where the features of whole clips are too many to be kept, it is far too low.
    """
    classifier = one.build(one.rules.classes)
    network = classifier.network.train().to(memory_format=torch.channels_last)

    def timed(clip_s: float, batch: int, *, learning: bool) -> float:
        features = classifier.example(clip_s).expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        network.train(learning)
        with torch.set_grad_enabled(learning):
            for _ in range(2):
                started = time.monotonic()
                found = network(features)
                if learning:
                    found.square().mean().backward()
        return (time.monotonic() - started) / batch

    watched = timed(one.rules.clip_s, 4, learning=False) * len(clips.validation) / len(clips.train)
    return timed(min(EXCERPT_S, one.rules.clip_s), BATCH, learning=True) + watched


def minutes_of(epochs: int, clips: Clips, seconds_each: Sequence[float]) -> float:
    """Minutes that all rungs and the final training will take; a rough estimate.

    Args:
        epochs: in full.
        seconds_each: `seconds_a_clip` of every candidate, of which half, of medium speed, are assumed to continue.
    """
    seconds = [epochs * len(clips.train) * each for each in seconds_each]
    total = 0.0
    for begun, ended in itertools.pairwise((0.0, *RUNGS)):
        # Pruning, tuning and counting: a tenth of the epochs, at the last rung with quantization two, and some seconds.
        tuned = 0.2 if ended == RUNGS[-1] else 0.1
        total += sum((ended - begun + tuned) * one + 10 for one in seconds)
        seconds = sorted(seconds)[len(seconds) // 4 :][: (len(seconds) + 1) // 2]
    return (total + 1.3 * max(seconds) + 60) / 60


def scale_for(minutes: float, clips: Clips, seconds_each: Sequence[float]) -> float:
    """The `epochs_scale`, at most 1, at which everything takes this many minutes here.

    Raises:
        InputError: not above 0, or too few for `LEAST_EPOCHS`.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"--minutes {minutes:g}; accepted: a number above 0, such as 30")
    full = max(LEAST_EPOCHS, round(epochs_of(clips, 1.0) * EPOCHS))
    for epochs in range(full, LEAST_EPOCHS - 1, -1):
        if minutes_of(epochs, clips, seconds_each) <= minutes:
            return epochs / EPOCHS / epochs_of(clips, 1.0)
    least = math.ceil(minutes_of(LEAST_EPOCHS, clips, seconds_each))
    raise InputError(
        f"--minutes {minutes:g}: at this machine's current load, {LEAST_EPOCHS} epochs in full of "
        f"{len(seconds_each)} candidates, the fewest, take about {least} minutes; accepted: --minutes "
        f"{least} or more, or fewer networks (--network)"
    )


def _share(ledger: Ledger, rules: Rules) -> float:
    """The tightest limit's share that a float network will take at int8, roughly, without scales and zero points."""
    measured = {
        "bytes": CONVENTIONS["int8_folded"](ledger.tensors).bytes,
        "parameters": CONVENTIONS["bn2"](ledger.tensors).parameters,
        "macs": ledger.macs["torchinfo"],
        "ram": ledger.peak_ram_bytes / 2,
    }
    return max(measured[limit.quantity] / limit.at_most for limit in rules.limits)
