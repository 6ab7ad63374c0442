"""The lottery ticket: the weights that matter after training, reset to their values before it."""

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

BY, RANKS = ("magnitude", "random"), ("normalised", "weights", "all")


@dataclass(frozen=True)
class LotteryTicket(Stage):
    """Mask the share `ratio` of all trainable values, those of least magnitude after training, and reset the others
    to their values before it, bit for bit (Frankle and Carbin, ICLR 2019). A `Fit` trains the ticket.

    The number removed is rounded to the nearest and holds for all trainable values, biases and batch norm included;
    of equal magnitudes the first go, and values masked before stay masked and count. The values before training
    are those of `Run.initial`, batch norm's statistics and a front end that learns with them; standardization stays
    as fitted.

    Args:
        ratio: between 0 and 1.
        by: "magnitude", or "random" for a control: a mask drawn from the run's seed over the same values.
        ranks: the values that are ranked, over the whole network. "normalised": weights of convolutions and dense
            layers, divided by the root mean square of their tensor, which differs with its fan-in; biases and batch
            norm all stay. "weights": the same, not divided: little trained, the dense layer would lose nearly all.
            "all": every trainable value as it is; of batch norm, folding for int8 fills masked shifts again. With
            none of them a small layer is safe from losing everything where nine tenths go.
        fit: the training of a round; for more than one round, and for late rewinding.
        rounds: of pruning, rewinding and training in between, each removing the same share of the rest
            (Frankle and Carbin, section 2). One is the one-shot ticket.
        rewind_epoch: rewind to the values after this many epochs of `fit`, from `Run.initial` on, instead of those
            before the first (Frankle et al., ICML 2020). The next `Fit` then trains all its epochs.
    """

    ratio: float
    by: Literal["magnitude", "random"] = "magnitude"
    ranks: Literal["normalised", "weights", "all"] = "normalised"
    fit: Fit | None = None
    rounds: int = 1
    rewind_epoch: int = 0

    def __post_init__(self) -> None:
        check(self, ratio=Numbers(above=0, below=1), by=BY, ranks=RANKS, fit=Fit | None)
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
        if run.initial is None or _shapes(run.initial.network) != _shapes(classifier.network):
            held = "not set" if run.initial is None else "of another network"
            raise InputError(
                f"LotteryTicket rewinds to Run.initial, which is {held}; "
                f"accepted: the classifier before its training, as in Run(initial=classifier)"
            )
        start = run.initial
        if self.rewind_epoch:
            assert self.fit is not None
            start = replace(self.fit, stop_after=self.rewind_epoch, early_stopping=None).apply(start, clips, run)
        return start

    def _ticket(
        self, classifier: SceneClassifier, start: SceneClassifier, ratio: float, generator: torch.Generator
    ) -> SceneClassifier:
        """The values of `start` under the masks from `classifier`."""
        classifier.require_float("LotteryTicket")
        masks.refuse_computed_weights(classifier.network, "LotteryTicket")
        kept = self._kept(classifier.network, ratio, generator)
        ticket = copy.deepcopy(classifier)
        before = {
            name: tensor for name, tensor in start.network.state_dict().items() if not name.endswith(masks.SUFFIX)
        }
        ticket.network.load_state_dict(before, strict=False)
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
        earlier = {name: mask.cpu() for name, mask in masks.masks_of(network).items()}
        competing = masks.prunable(network, "LotteryTicket", self.ranks != "all")
        ranked = {name: tensor for name, tensor in trainable.items() if name in competing}
        scores = []
        for name, tensor in ranked.items():
            kept = earlier.get(name, torch.ones_like(tensor, dtype=torch.bool))
            score = torch.rand(tensor.shape, generator=generator) if self.by == "random" else tensor.abs()
            if self.by == "magnitude" and self.ranks == "normalised":
                score = score / tensor[kept].square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
            # Below every score, so that masked values stay masked.
            scores.append(score.masked_fill(~kept, -1.0).flatten())
        flat = torch.cat(scores)
        values = sum(tensor.numel() for tensor in trainable.values())
        elsewhere = sum(int((~earlier[name]).sum()) for name in (earlier.keys() & trainable.keys()) - ranked.keys())
        number = max(round(ratio * values) - elsewhere, int((flat < 0).sum()))
        if not 0 < number < len(flat):
            raise InputError(
                f"LotteryTicket(ratio={self.ratio}): {number:,} of {values:,} values to remove, of which {len(flat):,} "
                f"are ranked; accepted: a ratio that removes some of these and leaves some"
            )
        mask = torch.ones(len(flat), dtype=torch.bool)
        mask[torch.argsort(flat, stable=True)[:number]] = False
        parts = torch.split(mask, [tensor.numel() for tensor in ranked.values()])
        return {name: part.view(ranked[name].shape) for name, part in zip(ranked, parts, strict=True)}


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in network.named_parameters()}
