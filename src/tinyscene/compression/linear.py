"""The linear model on moments, trained under an l1 norm that leaves some of its inputs unused."""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyscene.data import Clips, decode
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.moments_linear import MomentsLinear
from tinyscene.models.provenance import Provenance
from tinyscene.progress import bar
from tinyscene.training.batches import features_of_clips, fit_standardization, refuse_short, training_length
from tinyscene.training.run import Run, Stage

# The share of kept inputs is met to half a percent, or the nearest of this many strengths is used.
_CLOSE, _STRENGTHS = 0.005, 20
# Below this share of the loss without weights every margin is met, and weaker strengths use no more inputs.
_MET = 1e-3
# The most proximal gradient steps.
_STEPS = 3000


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

    @torch.no_grad()
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
        length = training_length(waveforms, ())
        features = features_of_clips(classifier, waveforms, run, "train", length)
        moments = torch.cat([branch.moments(classifier.standardize(one)).flatten(1).double() for one in features])
        variance, mean = torch.var_mean(moments, 0, correction=0)
        # A moment that is constant over clips is centred to 0, so that it needs no weight.
        scale = torch.where(variance > 0, variance, 1.0).sqrt()
        problem = SparseHinge(((moments - mean) / scale).float(), torch.from_numpy(clips.train.labels).to(mean.device))
        solution, strength = problem.search(self.keep, quiet=run.quiet)
        kept = _write(branch, solution, mean, scale)
        run.metrics.update(
            inputs_kept=kept_share(kept),
            l1_strength=strength,
            l1_objective=float(problem.loss(kept) + strength * kept[:, :-1].abs().sum()),
            l1_imbalance=problem.imbalance(solution, strength),
        )
        classifier.provenance = Provenance(clip_s=length / classifier.sample_rate)
        return classifier.eval()


class SparseHinge:
    """Mean multi-class squared hinge loss plus an l1 norm, minimised by accelerated proximal gradient steps.

    FISTA (Beck and Teboulle, SIAM Journal on Imaging Sciences 2009) with the restart of O'Donoghue and Candes (2015).
    All weights are (classes, inputs + 1), the last column is the bias, without penalty.

    Args:
        inputs: (clips, inputs), standardized.
        labels: (clips,)
    """

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1), labels
        self.zeros = inputs.new_zeros(int(labels.max()) + 1, self.inputs.shape[1])
        self.gradient = torch.func.grad(self.loss)
        # The loss's curvature by scores is at most 2: 2 / classes x the largest eigenvalue, classes, of margins' star.
        self.step = 1 / (2 * float(torch.linalg.eigvalsh(self.inputs.T @ self.inputs / len(inputs))[-1]))

    def loss(self, weights: Tensor) -> Tensor:
        """The mean loss, ()."""
        return F.multi_margin_loss(self.inputs @ weights.T, self.labels, p=2)

    def imbalance(self, weights: Tensor, strength: float) -> float:
        """The gradient's distance from balance, relative to the strength; 0 at the minimum."""
        # With constant inputs no strength is above 0.
        return float((self._stepped(weights, strength) - weights).abs().max()) / (self.step * strength or 1.0)

    def solve(self, strength: float, start: Tensor, tolerance: float = 1e-2) -> Tensor:
        """The minimum, from `start` on, with an `imbalance` of about `tolerance`, unless the steps run out first."""
        now = ahead = start
        momentum = 1.0
        for _ in range(_STEPS):
            following = self._stepped(ahead, strength)
            moved = following - now
            if bool(((ahead - following) * moved).sum() > 0):
                momentum = 1.0
            if float((following - ahead).abs().max()) <= tolerance * self.step * strength:
                return following
            faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead, now, momentum = following + (momentum - 1) / faster * moved, following, faster
        return now

    def search(self, keep: float, *, quiet: bool = False) -> tuple[Tensor, float]:
        """The weights whose share of kept inputs is nearest to `keep`, and their strength."""
        # From no inputs downwards, each from the previous one: weak strengths take the most steps.
        solution, low, high = self.zeros, 0.0, float(self.gradient(self.zeros)[:, :-1].abs().max())
        best = solution, high
        with bar("linear model, strengths of its l1 norm", _STRENGTHS, quiet=quiet) as advance:
            for _ in range(_STRENGTHS):
                strength = math.sqrt(low * high) if low else high / 2
                solution = self.solve(strength, solution)
                share = kept_share(solution)
                best = min(best, (solution, strength), key=lambda one: abs(kept_share(one[0]) - keep))
                met = share < keep and self.loss(solution) < _MET * self.loss(self.zeros)
                if abs(share - keep) <= _CLOSE or met:
                    break
                low, high = (strength, high) if share > keep else (low, strength)
                advance(f"{share:.1%} of the inputs stay")
        return best

    def _stepped(self, weights: Tensor, strength: float) -> Tensor:
        """One proximal gradient step: the soft threshold leaves out the bias."""
        moved = weights - self.step * self.gradient(weights)
        return torch.cat([F.softshrink(moved[:, :-1], self.step * strength), moved[:, -1:]], 1)


def kept_share(weights: Tensor) -> float:
    """Share of the inputs for which any class has a weight, of (classes, inputs + 1)."""
    return float((weights[:, :-1] != 0).any(0).double().mean())


def linear_branch(network: nn.Module) -> MomentsLinear:
    """The linear model: the network or a part of it. Raises InputError where there is none."""
    for module in network.modules():
        if isinstance(module, MomentsLinear):
            return module
    raise InputError(
        f"LinearFit: {type(network).__name__} has no linear model on moments; accepted: MomentsLinear, or a network "
        f"with one in it, such as Tandem"
    )


def _write(branch: MomentsLinear, weights: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Weights (classes, 5 x bands + 1) for moments standardized by mean and scale (5 x bands,) into the layers.

    Each has the weights of one moment, the first also the bias. Returns them under the layers' masks.
    """
    layers = [layer for layer in branch.layers if isinstance(layer, nn.Linear)]
    removed = masks.removed(branch)
    for layer, part in zip(layers, (weights[:, :-1] / scale).chunk(len(layers), 1), strict=True):
        layer.weight.copy_(part)
    masks.apply(removed)
    folded = torch.cat([layer.weight for layer in layers], 1).double()
    # The input of a masked weight is missing from the bias too.
    layers[0].bias.copy_(weights[:, -1] - folded @ mean)
    masks.apply(removed)
    return torch.cat([folded * scale, (layers[0].bias + folded @ mean)[:, None]], 1).to(weights)
