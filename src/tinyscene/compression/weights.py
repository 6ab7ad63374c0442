"""Unstructured pruning: single weights are masked, and stay zero in training; the lottery ticket."""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.batches import TICKET
from tinyscene.training.fit import Fit
from tinyscene.training.run import Run, Stage

# A growing sparsity moves in this many steps over a fit of any length, and is constant in its last quarter.
_LEVELS, _END = 100, 0.75


@dataclass(frozen=True)
class MagnitudePruning(Stage):
    """Set the share `ratio` of all trainable values to zero, those of least magnitude, and mask them.

    The number is rounded to the nearest, half to even, and kept exactly: of equal magnitudes the first go. What an
    earlier pruning masked stays masked and counts.

    With `fit`, the share grows during training to ratio x (1 - (1 - t)^3), t from 0 at its beginning to 1 at three
    quarters (Zhu and Gupta 2017, equation 1), by the progress of the fit alone: a killed run resumes with equal masks.

    Args:
        ratio: between 0 and 1, of the included values.
        scope: "global" ranks all values together (Byttebier et al., DCASE 2021, section 3.3), "layer" takes the share
            from every tensor.
        what: "all" values, with biases and batch norm's scales and shifts, or "weights", those of convolutions and
            dense layers.
        fit: training during which the share grows; without it, one shot and no training.
    """

    ratio: float
    scope: Literal["global", "layer"] = "global"
    what: Literal["all", "weights"] = "all"
    fit: Fit | None = None

    def __post_init__(self) -> None:
        check(self, ratio=Numbers(above=0, below=1), scope=("global", "layer"), what=("all", "weights"), fit=Fit | None)
        if self.fit and (self.fit.early_stopping or self.fit.stop_after is not None or self.fit.init is not None):
            raise InputError(
                "MagnitudePruning(fit=...) with early_stopping, stop_after or init; accepted: a fit that continues "
                "from the trained weights to its end, since an earlier epoch is less sparse"
            )

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Mask the whole share by the current weights."""
        classifier.require_float("MagnitudePruning")
        masks.refuse_computed_weights(classifier.network, "MagnitudePruning")
        pruned = copy.deepcopy(classifier)
        self.mask(pruned.network, self.ratio)
        kept = masks.masks_of(pruned.network).values()
        if all(bool(mask.all()) for mask in kept):
            raise InputError(
                f"{self}: removes none of {sum(mask.numel() for mask in kept):,} values; try a larger ratio"
            )
        return pruned

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Prune by the weights only; with `fit`, by those that it trains.

        Raises:
            InputError: a test clip is among the clips, the weights are not float32, the share is not a single value, or
                what `Fit` raises.
        """
        pruned = self.shape(classifier)
        if self.fit is None:
            return pruned
        started = copy.deepcopy(classifier)
        # From the first step on, so that checkpoints include them.
        self.mask(started.network, 0.0)
        return self.fit.apply(started, clips, run, self.grow)

    def sparsity(self, progress: float) -> float:
        """The masked share at this progress of the fit, both from 0 to 1."""
        share: float = self.ratio * (1 - (1 - min(progress / _END, 1.0)) ** 3)
        return share

    def grow(self, network: nn.Module, progress: float) -> None:
        """Mask as much as belongs to this progress. Most calls change nothing, since sorting all weights is slow."""
        level = progress if progress >= _END else int(progress * _LEVELS) / _LEVELS
        self.mask(network, self.sparsity(level))

    @torch.no_grad()
    def mask(self, network: nn.Module, ratio: float) -> None:
        """Mask the share `ratio` in place. Masked values stay masked, even where that is more."""
        magnitudes = {
            name: parameter.abs()
            for name, parameter in masks.prunable(network, "MagnitudePruning", self.what == "weights").items()
        }
        earlier = masks.masks_of(network)
        kept = {name: earlier.get(name, torch.ones_like(one, dtype=torch.bool)) for name, one in magnitudes.items()}
        changed = {name: mask for name, mask in kept.items() if name not in earlier}
        for names in [list(kept)] if self.scope == "global" else [[name] for name in kept]:
            number = round(ratio * sum(kept[name].numel() for name in names))
            if number > sum(int((~kept[name]).sum()) for name in names):
                changed |= without_lowest({name: magnitudes[name] for name in names}, kept, number)
        for name, mask in changed.items():
            masks.attach(network, name, mask)


@dataclass(frozen=True)
class LotteryTicket(Stage):
    """Mask the share `ratio` of all trainable values, those of least magnitude after training, and reset the others
    to their values before it, bit for bit (Frankle and Carbin, ICLR 2019). A `Fit` trains the ticket.

    Weights of convolutions and dense layers are ranked over the whole network, each divided by the root mean square
    of its tensor, which differs with its fan-in; biases and batch norm stay, but the number removed, rounded to the
    nearest, is that of all trainable values. Of equal magnitudes the first go; what was masked before stays masked
    and counts. The values before training are those of `Run.initial`, batch norm's statistics and a front end that
    learns with them; standardization stays as fitted.

    Args:
        ratio: between 0 and 1.
        by: "magnitude", or "random" for a control: a mask drawn from the run's seed over the same values.
        fit: the training of a round; for more than one round, and for late rewinding.
        rounds: of pruning, rewinding and training in between, each removing the same share of the rest
            (Frankle and Carbin, section 2). One is the one-shot ticket.
        rewind_epoch: rewind to the values after this many epochs of `fit`, from `Run.initial` on, instead of those
            before the first (Frankle et al., ICML 2020). The next `Fit` then trains all its epochs.
    """

    ratio: float
    by: Literal["magnitude", "random"] = "magnitude"
    fit: Fit | None = None
    rounds: int = 1
    rewind_epoch: int = 0

    def __post_init__(self) -> None:
        check(self, ratio=Numbers(above=0, below=1), by=("magnitude", "random"), fit=Fit | None)
        check(self, rounds=Numbers(least=1, whole=True), rewind_epoch=Numbers(least=0, whole=True))
        if self.rounds > 1 and (self.fit is None or self.by == "random"):
            raise InputError(f"LotteryTicket(rounds={self.rounds}); accepted: 1, or more with fit= and by magnitude")
        if self.rewind_epoch and (self.fit is None or self.rewind_epoch > self.fit.epochs):
            raise InputError(
                f"LotteryTicket(rewind_epoch={self.rewind_epoch}); accepted: 0, or with fit= up to its epochs"
            )

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Mask by the current values, which stay."""
        return self._ticket(classifier, classifier, self.ratio, torch.Generator().manual_seed(0))

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """From the trained `classifier` to the untrained ticket.

        Raises:
            InputError: a test clip is among the clips, the run's `initial` is not this classifier before training, or
                the weights are not float32.
        """
        start = self._start(classifier, clips, run)
        generator = torch.Generator().manual_seed(int(run.rng(TICKET).integers(2**62)))
        for left in range(self.rounds - 1, -1, -1):
            ratio = 1 - (1 - self.ratio) ** (1 - left / self.rounds) if left else self.ratio
            ticket = self._ticket(classifier, start, ratio, generator)
            if left:
                assert self.fit is not None
                # Published weights are where the first training began, but not where a ticket does.
                classifier = replace(self.fit, init=None).apply(ticket, clips, run)
        if self.fit is not None:
            # The history of its rounds, or of late rewinding: the ticket is untrained.
            run.history.clear()
        return ticket

    def _start(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """The classifier with the values to rewind to."""
        shapes = [
            one and {name: parameter.shape for name, parameter in one.network.named_parameters()}
            for one in (run.initial, classifier)
        ]
        if run.initial is None or shapes[0] != shapes[1]:
            held = "not set" if run.initial is None else "of another network"
            raise InputError(
                f"LotteryTicket rewinds to Run.initial, which is {held}; "
                f"accepted: the classifier before its training, as in Run(initial=classifier)"
            )
        if self.fit is None or not self.rewind_epoch:
            return run.initial
        return replace(self.fit, stop_after=self.rewind_epoch, early_stopping=None).apply(run.initial, clips, run)

    def _ticket(
        self, classifier: SceneClassifier, start: SceneClassifier, ratio: float, generator: torch.Generator
    ) -> SceneClassifier:
        """The values of `start` under the masks from `classifier`."""
        classifier.require_float("LotteryTicket")
        kept = self._kept(classifier.network, ratio, generator)
        ticket = copy.deepcopy(classifier)
        before = start.network.state_dict().items()
        ticket.network.load_state_dict({n: one for n, one in before if not n.endswith(masks.SUFFIX)}, strict=False)
        ticket.frontend.load_state_dict(start.frontend.state_dict())
        # Unranked tensors keep an earlier pruning's masks.
        masks.apply(masks.removed(ticket.network))
        for name, mask in kept.items():
            masks.attach(ticket.network, name, mask)
        return ticket

    @torch.no_grad()
    def _kept(self, network: nn.Module, ratio: float, generator: torch.Generator) -> dict[str, Tensor]:
        """A mask for every tensor whose values are ranked."""
        trainable = {name: p.detach().cpu() for name, p in network.named_parameters() if p.requires_grad}
        ranked = {name: trainable[name] for name in masks.prunable(network, "LotteryTicket", weights_only=True)}
        kept = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in trainable.items()}
        kept |= {name: mask.cpu() for name, mask in masks.masks_of(network).items() if name in trainable}
        if self.by == "random":
            scores = {name: torch.rand(tensor.shape, generator=generator) for name, tensor in ranked.items()}
        else:
            least = torch.finfo(torch.float32).tiny
            scores = {
                name: tensor.abs() / tensor[kept[name]].square().mean().sqrt().clamp_min(least)
                for name, tensor in ranked.items()
            }
        values, among = (sum(tensor.numel() for tensor in some.values()) for some in (trainable, ranked))
        masked = {name: int((~mask).sum()) for name, mask in kept.items()}
        before = sum(masked[name] for name in ranked)
        number = max(round(ratio * values) - sum(masked.values()) + before, before)
        if not 0 < number < among:
            raise InputError(
                f"LotteryTicket(ratio={self.ratio}): {number:,} of {values:,} values to remove, of which {among:,} "
                f"are ranked; accepted: a ratio that removes some of these and leaves some"
            )
        return without_lowest(scores, kept, number)


def without_lowest(scores: dict[str, Tensor], kept: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """Masks without the `number` lowest of all scores together: first what `kept` lacks; of equal ones, the first."""
    # Below every score, so that masked values stay masked.
    flat = torch.cat([score.masked_fill(~kept[name], -1.0).flatten() for name, score in scores.items()])
    mask = torch.ones_like(flat, dtype=torch.bool)
    mask[flat.argsort(stable=True)[:number]] = False
    parts = torch.split(mask, [score.numel() for score in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}
