"""ADMM: training under a constraint that has a projection but no gradient, such as a number of nonzero weights.

min f(W) subject to W in S becomes training of W with a quadratic pull towards a consensus Z in S (Boyd et al.,
Foundations and Trends in Machine Learning 2011, sections 3.1.1 and 9.1). Z and the scaled dual U are buffers
`<tensor>_consensus` and `<tensor>_dual` beside their parameters, so that a checkpoint holds them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.fit import Fit
from tinyscene.training.run import Run

Tensors = dict[str, Tensor]
"""Values by the path of their parameter."""

Projection = Callable[[Tensors], Tensors]
"""The nearest values in the set S: a function, or a frozen value that can be called."""

Cut = Callable[[SceneClassifier, Tensors], SceneClassifier]
"""The trained classifier and the consensus -> the smaller one."""

SHARE = Numbers(above=0, most=1)
CONSENSUS, DUAL, SCALE = "_consensus", "_dual", "admm_scale"
# Beyond this multiple of the initial norm of the weights, residual or dual can't recover.
_DIVERGED = 1e3


@dataclass(frozen=True)
class ADMM:
    """Move parameters towards a set while they train, in the scaled form of ADMM.

    The loss of every batch gains rho / 2 ||W - Z + U||^2; after every step, Z = projection(W + U) and
    U += dual_rate x (W - Z). At the start Z = W and U = 0: there is no pull before the first projection.

    The dual rate has to stay below 1 - momentum (docs/pruning.md). Rates of the primal are the fit's, and may fall
    while rho and the dual's are constant (Schmidt et al., DCASE 2022 Task 1, section 2.2).

    Args:
        parameters: paths in the network.
        projection: of all of them together, from values by path to values by path.
        rho: above 0.
        dual_rate: above 0, at most 1.
    """

    parameters: tuple[str, ...]
    projection: Projection
    rho: float
    dual_rate: float = 0.03

    def __post_init__(self) -> None:
        check(self, projection=Callable, rho=Numbers(above=0), dual_rate=SHARE)

    def train(self, classifier: SceneClassifier, fit: Fit, clips: Clips, run: Run) -> tuple[SceneClassifier, Tensors]:
        """`classifier` trained by `fit` near the set, not in it, and the last consensus, which is.

        `run.history` holds the residuals of `update` after every epoch's last step.

        Raises:
            InputError: it diverges, or what `Fit` raises.
        """
        started = copy.deepcopy(classifier)
        self.attach(started.network)
        trained = fit.apply(started, clips, run, self.update, self.penalty)
        consensus = self._beside(trained.network, CONSENSUS)
        self.detach(trained.network)
        return trained, consensus

    def train_and_cut(
        self, classifier: SceneClassifier, fits: tuple[Fit, Fit], cut: Cut, clips: Clips, run: Run
    ) -> SceneClassifier:
        """Train by the first of two `phases`, `cut` by the consensus, and tune by the second.

        `run.history` holds both, `run.metrics` the residuals before the cut.
        """
        trained, consensus = self.train(classifier, fits[0], clips, run)
        history = [*run.history]
        tuned = fits[1].apply(cut(trained, consensus), clips, run)
        run.history[:0] = history
        run.metrics.update({name: value for name, value in history[-1].items() if name.endswith("_residual")})
        return tuned

    @torch.no_grad()
    def attach(self, network: nn.Module) -> None:
        """Register Z and U beside the parameters."""
        weights = self._beside(network, "")
        for path, weight in weights.items():
            layer, _, name = path.rpartition(".")
            network.get_submodule(layer).register_buffer(name + CONSENSUS, weight.detach().clone())
            network.get_submodule(layer).register_buffer(name + DUAL, torch.zeros_like(weight))
        start = get_total_norm(weights.values())
        network.register_buffer(SCALE, torch.where(start > 0, start, torch.ones_like(start)))

    def detach(self, network: nn.Module) -> None:
        """Remove Z and U."""
        for path in self.parameters:
            layer, _, name = path.rpartition(".")
            for suffix in (CONSENSUS, DUAL):
                delattr(network.get_submodule(layer), name + suffix)
        delattr(network, SCALE)

    def penalty(self, network: nn.Module) -> Tensor:
        """rho / 2 ||W - Z + U||^2, ()"""
        weights, consensus, dual = (self._beside(network, suffix) for suffix in ("", CONSENSUS, DUAL))
        squares = [(weight - consensus[path] + dual[path]).square().sum() for path, weight in weights.items()]
        return self.rho / 2 * torch.stack(squares).sum()

    @torch.no_grad()
    def update(self, network: nn.Module, progress: float) -> dict[str, float]:
        """One step of consensus and dual. Returns the primal residual ||W - Z|| and the dual one, rho ||Z - Z before||.

        The primal one is relative to the larger of ||W|| and ||Z||, the dual one to rho times that.

        Raises:
            InputError: residual or dual are not finite, or have diverged.
        """
        weights, before, dual = (self._beside(network, suffix) for suffix in ("", CONSENSUS, DUAL))
        consensus = self.projection({path: weight + dual[path] for path, weight in weights.items()})
        apart = {path: weight - consensus[path] for path, weight in weights.items()}
        moved = get_total_norm([consensus[path] - z for path, z in before.items()])
        for path in weights:
            before[path].copy_(consensus[path])
            dual[path].add_(apart[path], alpha=self.dual_rate)
        residual, duals, scale = (
            get_total_norm(apart.values()),
            get_total_norm(dual.values()),
            network.get_buffer(SCALE),
        )
        if not torch.maximum(residual, duals) <= _DIVERGED * scale:  # as of NaN
            raise InputError(
                f"ADMM diverged after {progress:.1%} of the fit at rho={self.rho:g}, dual_rate={self.dual_rate:g}: the "
                f"primal residual is {residual:.3g} and the dual {duals:.3g}, the weights began at {scale:.3g}; "
                f"try a smaller rho, dual rate or learning rate"
            )
        size = torch.maximum(get_total_norm(weights.values()), get_total_norm(consensus.values()))
        size = size.clamp_min(torch.finfo(torch.float32).tiny)
        return {"primal_residual": float(residual / size), "dual_residual": float(moved / size)}

    def _beside(self, network: nn.Module, suffix: str) -> Tensors:
        """The tensors beside the parameters under `suffix`; the parameters themselves without one."""
        known = dict(network.named_buffers() if suffix else network.named_parameters())
        missing = [path for path in self.parameters if path + suffix not in known]
        if missing or not self.parameters:
            raise InputError(f"no parameters {', '.join(missing)}; accepted: some of {', '.join(known)}")
        return {path: known[path + suffix] for path in self.parameters}


def phases(fit: Fit, updates: float) -> tuple[Fit, Fit]:
    """Split a fit in two: the share `updates` of its epochs, at least one, and the rest as fine-tuning.

    Raises:
        InputError: the fit doesn't run from its beginning to its end.
    """
    if fit.early_stopping or fit.stop_after is not None or fit.start_after or fit.init is not None:
        raise InputError(
            "fit=... with early_stopping, stop_after, start_after or init; accepted: one that continues from the "
            "weights that it is given and runs from its beginning to its end"
        )
    last = max(1, round(updates * fit.epochs))
    # A mean of consensuses would be in no set.
    return replace(fit, stop_after=last, average=0.0), replace(fit, start_after=last)


def largest(scores: Tensor, number: int) -> Tensor:
    """(n,) -> (n,), True for the `number` highest; of equal ones, the first."""
    chosen = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    chosen[scores.argsort(descending=True, stable=True)[:number]] = True
    return chosen
