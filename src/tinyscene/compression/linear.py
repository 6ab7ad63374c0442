"""The linear model on moments, trained under an l1 norm that leaves some of its inputs unused."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinyscene.data import Clips, Waveforms, decode
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.moments_linear import MomentsLinear
from tinyscene.models.provenance import Provenance
from tinyscene.progress import bar
from tinyscene.training.batches import (
    features_of_clips,
    fit_standardization,
    refuse_short,
    training_length,
)
from tinyscene.training.run import Run, Stage

# The share of kept inputs is met to half a percent, or the nearest of this many strengths is used.
_CLOSE, _STRENGTHS = 0.005, 20
# Below this share of the loss without weights every margin is met, and weaker strengths use no more inputs.
_MET = 1e-3
# The most proximal gradient steps.
_STEPS = 3000
_CLIPS_A_STEP = 256


@dataclass(frozen=True)
class LinearFit(Stage):
    """Train the linear branch under l1 sparsity, so that the share `keep` of its inputs stays.

    Minimises the mean multi-class squared hinge loss of the training clips (`torch.nn.functional.multi_margin_loss`,
    p=2, margin 1) plus strength x sum |W|, over standardized moments, the bias unpenalised. Proximal gradient steps
    set weights to true zeros; an input stays where any class has a weight for it. Bisection finds the strength.

    Schmidt et al., DCASE 2022 Task 1, section 2.1: "pre-trained with l_1 sparsity and selects approximately half of the
    input features". They call it a support vector classifier and name no loss: the squared hinge is our choice.

    Args:
        keep: share of the 5 x bands inputs that stay, above 0 and at most 1. Where few inputs separate all training
            clips, fewer stay, and no strength keeps more.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        check(self, keep=Numbers(above=0, most=1))

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Structure stays the same; a network without the linear branch is refused."""
        classifier.require_float("LinearFit")
        linear_branch(classifier.network)
        return classifier

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Train on `clips.train`, every clip of the length that `Fit` trains on; other branches are unchanged.

        `run.metrics` receives the share of kept inputs, the strength, the objective, and the remaining
        imbalance: about a hundredth, or more where the steps ran out. Weights masked earlier are zeroed after the
        solution was found; share and objective are of the rest, the imbalance is the solution's.

        Raises:
            InputError: a test clip is among the clips, the train split lacks a class, a clip is too short, the weights
                have 16 bits, or there is no `MomentsLinear`.
        """
        clips.require_classes(self.shape(classifier).classes)
        clips.train.require("train")
        classifier = copy.deepcopy(classifier).to(run.fabric.device)
        branch = linear_branch(classifier.network)
        waveforms = decode(clips.train, classifier.sample_rate, classifier.channel, quiet=run.quiet)
        refuse_short(classifier.shortest_samples, waveforms)
        fit_standardization(classifier, waveforms, run)
        moments = torch.cat(list(_moments(classifier, branch, waveforms, run)))
        variance, mean = torch.var_mean(moments, 0, correction=0)
        # A moment that is constant over clips is centred to 0, so that it needs no weight.
        scale = torch.where(variance > 0, variance, 1.0).sqrt()
        problem = SparseHinge(((moments - mean) / scale).float(), torch.from_numpy(clips.train.labels).to(mean.device))
        weight, bias, strength = problem.search(self.keep, quiet=run.quiet)
        kept_weight, kept_bias = _write(branch, weight, bias, mean, scale)
        run.metrics.update(
            inputs_kept=kept_share(kept_weight),
            l1_strength=strength,
            l1_objective=problem.objective(kept_weight, kept_bias, strength),
            l1_imbalance=problem.imbalance(weight, bias, strength),
        )
        classifier.provenance = Provenance(clip_s=training_length(waveforms, ()) / classifier.sample_rate)
        return classifier.eval()


class SparseHinge:
    """Mean multi-class squared hinge loss plus an l1 norm, minimised by accelerated proximal gradient steps.

    FISTA (Beck and Teboulle, SIAM Journal on Imaging Sciences 2009) with the restart of O'Donoghue and Candes (2015).

    Args:
        inputs: (clips, inputs), standardized.
        labels: (clips,)
    """

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.classes = int(labels.max()) + 1
        self.labels = labels
        # The bias is the weight of one more input, unpenalised.
        self.inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        gram = self.inputs.T @ self.inputs / len(inputs)
        # The loss's curvature by scores is at most 2: 2 / classes x the largest eigenvalue, classes, of margins' star.
        self.step = 1 / (2 * float(torch.linalg.eigvalsh(gram)[-1]))

    def objective(self, weight: Tensor, bias: Tensor, strength: float) -> float:
        """The objective of weight (classes, inputs) and bias (classes,)."""
        return float(self._loss(torch.cat([weight, bias[:, None]], 1)) + strength * weight.abs().sum())

    def imbalance(self, weight: Tensor, bias: Tensor, strength: float) -> float:
        """The gradient's distance from balance, relative to the strength; 0 at the minimum."""
        now = torch.cat([weight, bias[:, None]], 1)
        following = self._proximal(now - self.step * self.gradient(now), strength)
        # With constant inputs no strength is above 0.
        return float((following - now).abs().max()) / (self.step * strength or 1.0)

    def solve(self, strength: float, start: Tensor | None = None, tolerance: float = 1e-3) -> Tensor:
        """The minimum, (classes, inputs + 1), the bias last; starting from `start` or zero.

        At the end the `imbalance` is about `tolerance`, unless the steps run out first.
        """
        now = self._zeros() if start is None else start
        ahead, momentum = now, 1.0
        for _ in range(_STEPS):
            following = self._proximal(ahead - self.step * self.gradient(ahead), strength)
            moved = following - now
            if bool(((ahead - following) * moved).sum() > 0):
                momentum = 1.0
            if float((following - ahead).abs().max()) <= tolerance * self.step * strength:
                return following
            faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead, now, momentum = following + (momentum - 1) / faster * moved, following, faster
        return now

    def search(self, keep: float, *, quiet: bool = False) -> tuple[Tensor, Tensor, float]:
        """Weight, bias and the strength whose share of kept inputs is nearest to `keep`."""
        # From no inputs downwards, each from the previous one: weak strengths take the most steps.
        solution = self._zeros()
        high = float(self.gradient(solution)[:, :-1].abs().max())
        best, low = (solution, high), 0.0
        with bar("linear model, strengths of its l1 norm", _STRENGTHS, quiet=quiet) as advance:
            for _ in range(_STRENGTHS):
                strength = math.sqrt(low * high) if low else high / 2
                solution = self.solve(strength, solution, tolerance=1e-2)
                share = kept_share(solution[:, :-1])
                if abs(share - keep) < abs(kept_share(best[0][:, :-1]) - keep):
                    best = solution, strength
                met = share < keep and self._loss(solution) < _MET * self._loss(self._zeros())
                if abs(share - keep) <= _CLOSE or met:
                    break
                low, high = (strength, high) if share > keep else (low, strength)
                advance(f"{share:.1%} of the inputs stay")
        return best[0][:, :-1], best[0][:, -1], best[1]

    def gradient(self, weights: Tensor) -> Tensor:
        """The loss's gradient, (classes, inputs + 1)."""
        margins = self._margins(weights)
        slopes = 2 * margins / (self.classes * len(margins))
        slopes[self._rows, self.labels] = -slopes.sum(1)
        return slopes.T @ self.inputs

    def _loss(self, weights: Tensor) -> Tensor:
        return self._margins(weights).square().sum() / (self.classes * len(self.labels))

    def _margins(self, weights: Tensor) -> Tensor:
        """Margin violations of every wrong class, (clips, classes)"""
        scores = self.inputs @ weights.T
        margins = (1 - scores[self._rows, self.labels][:, None] + scores).clamp_min(0)
        margins[self._rows, self.labels] = 0
        return margins

    @property
    def _rows(self) -> Tensor:
        return torch.arange(len(self.labels), device=self.labels.device)

    def _proximal(self, weights: Tensor, strength: float) -> Tensor:
        """Soft threshold of all but the bias."""
        shrunk = weights.sign() * (weights.abs() - self.step * strength).clamp_min(0)
        return torch.cat([shrunk[:, :-1], weights[:, -1:]], 1)

    def _zeros(self) -> Tensor:
        return self.inputs.new_zeros(self.classes, self.inputs.shape[1])


def kept_share(weight: Tensor) -> float:
    """Share of the inputs for which any class has a weight, of (classes, inputs)."""
    return float((weight != 0).any(0).double().mean())


def linear_branch(network: nn.Module) -> MomentsLinear:
    """The linear model: the network or a part of it. Raises InputError where there is none."""
    for module in network.modules():
        if isinstance(module, MomentsLinear):
            return module
    raise InputError(
        f"LinearFit: {type(network).__name__} has no linear model on moments; accepted: MomentsLinear, or a network "
        f"with one in it, such as Tandem"
    )


@torch.no_grad()
def _moments(classifier: SceneClassifier, branch: MomentsLinear, waveforms: Waveforms, run: Run) -> Iterator[Tensor]:
    """The layers' inputs, (clips, 5 x bands), float64, some clips at a time."""
    length = training_length(waveforms, ())
    some: list[Tensor] = []
    for i, features in enumerate(features_of_clips(classifier, waveforms, run, "train", length), 1):
        some.append(features)
        if len(some) == _CLIPS_A_STEP or i == len(waveforms):
            yield branch.moments(classifier.standardize(torch.cat(some))).flatten(1).double()
            some = []


@torch.no_grad()
def _write(branch: MomentsLinear, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (classes, 5 x bands) into the layers, a moment each, and bias (classes,) into the first.

    Both are for standardized moments, by mean and scale (5 x bands,). Returns them under the layers' masks.
    """
    layers = [layer for layer in branch.layers if isinstance(layer, nn.Linear)]
    removed = masks.removed(branch)
    for layer, part in zip(layers, torch.split(weight / scale, [one.in_features for one in layers], 1), strict=True):
        layer.weight.copy_(part)
    masks.apply(removed)
    folded = torch.cat([layer.weight for layer in layers], 1).double()
    # The input of a masked weight is missing from the bias too.
    layers[0].bias.copy_(bias - folded @ mean)
    masks.apply(removed)
    return (folded * scale).to(weight), (layers[0].bias + folded @ mean).to(bias)
