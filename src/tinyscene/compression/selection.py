"""Feature selection: mel bands are weighted during training, and the least important are no longer computed."""

import copy
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from tinyscene.compression.admm import ADMM, SHARE, Tensors, largest, phases
from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.fit import Fit
from tinyscene.training.optimizers import SGD
from tinyscene.training.run import Run, Stage
from tinyscene.training.schedules import Linear

BAND_WEIGHTS = "band_weights"


@dataclass(frozen=True)
class HardThreshold:
    """Set all but the `keep` values of largest magnitude to zero; of equal ones, the first stay.

    The projection onto card(w) <= keep, over all tensors together (Parikh and Boyd, Foundations and Trends in
    Optimization 2014, section 6.1.2).
    """

    keep: int

    def __post_init__(self) -> None:
        check(self, keep=Numbers(least=1, whole=True))

    def __call__(self, values: Tensors) -> Tensors:
        """Values by path, the same paths and shapes back."""
        flat = torch.cat([value.flatten() for value in values.values()])
        kept = flat.masked_fill(~largest(flat.abs(), self.keep), 0.0)
        parts = torch.split(kept, [value.numel() for value in values.values()])
        return {path: part.view(values[path].shape) for path, part in zip(values, parts, strict=True)}


@dataclass(frozen=True)
class FeatureSelection(Stage):
    """Keep the most important mel bands, so that the others need not be computed.

    min f(w * X) subject to card(w) <= keep: w weights the bands in front of the whole network, starts at 1 and trains
    with the rest (Schmidt et al., DCASE 2022 Task 1, section 2.2, equation 1). Over the share `updates` of the fit,
    ADMM moves all but `keep` weights towards zero; then the bands that its consensus has at zero are removed, the
    weights of the others go into the standardization, and the rest of the same fit fine-tunes.

    Zero rows and missing rows are the same to a linear model, but not to convolutions, where others become neighbours.

    Args:
        keep: number of bands, as the network accepts.
        rho, dual_rate: as `ADMM`'s; the report gives none (docs/pruning.md).
        mask_rate: the learning rate of w, relative to the fit's.
        fit: update and fine-tuning epochs together.
        updates: share of its epochs, rounded to the nearest, at least one.
    """

    keep: int = 192
    rho: float = 0.1
    dual_rate: float = 0.03
    mask_rate: float = 1.0
    fit: Fit = field(default_factory=lambda: Fit(epochs=7, batch_size=64, optimizer=SGD(lr=1e-3), schedule=Linear(0.1)))
    updates: float = 5 / 7

    def __post_init__(self) -> None:
        check(self, keep=Numbers(least=1, whole=True), mask_rate=Numbers(above=0, most=1000), fit=Fit, updates=SHARE)
        self._admm()
        self._phases()

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Structure only: evenly spread bands stay."""
        self._check(classifier)
        bands = classifier.frontend.bands
        return _select(classifier, [i * bands // self.keep for i in range(self.keep)], None)

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Train, cut and fine-tune; the kept bands are in the front end's `arguments`.

        `run.history` holds both phases, residuals with the first; `run.metrics` the residuals at its end, the
        smallest kept weight and the largest removed one.

        Raises:
            InputError: a test clip is among the clips, `keep` doesn't fit the front end or the network, these can't
                leave out bands, ADMM diverges, or what `Fit` raises.
        """
        self.shape(classifier)
        cut = partial(self._cut, classifier, run)
        return self._admm().train_and_cut(_weighed(classifier), self._phases(), cut, clips, run)

    def _admm(self) -> ADMM:
        return ADMM((BAND_WEIGHTS,), HardThreshold(self.keep), self.rho, self.dual_rate)

    def _phases(self) -> tuple[Fit, Fit]:
        updates, tuning = phases(self.fit, self.updates)
        rates = ((BAND_WEIGHTS, self.mask_rate), *self.fit.optimizer.rates)
        return replace(updates, optimizer=replace(self.fit.optimizer, rates=rates)), tuning

    def _check(self, classifier: SceneClassifier) -> None:
        classifier.require_float("FeatureSelection")
        frontend, network = classifier.frontend, classifier.network
        if "kept" not in getattr(frontend, "arguments", {}):
            raise InputError(f"FeatureSelection: {type(frontend).__name__} computes all bands; accepted: LogMel")
        if not hasattr(network, "select_bands"):
            raise InputError(
                f"FeatureSelection: {type(network).__name__} has no select_bands(kept); accepted: a network with it, "
                f"such as Tandem"
            )
        if self.keep > frontend.bands:
            raise InputError(
                f"FeatureSelection(keep={self.keep}); accepted: 1 to the front end's {frontend.bands} bands"
            )

    def _cut(
        self, classifier: SceneClassifier, run: Run, trained: SceneClassifier, consensus: Tensors
    ) -> SceneClassifier:
        """`classifier` with the learned values and only the bands of the consensus."""
        state = trained.state_dict()
        weights = state.pop(f"network.{BAND_WEIGHTS}")
        learned = copy.deepcopy(classifier).to(weights.device)
        learned.load_state_dict(state)
        stays = largest(consensus[BAND_WEIGHTS].abs(), self.keep)
        run.metrics["smallest_weight_kept"] = float(weights[stays].abs().min())
        run.metrics["largest_weight_removed"] = max(weights[~stays].abs().tolist(), default=0.0)
        return _select(learned, stays.nonzero()[:, 0].tolist(), weights[stays])


def _weighed(classifier: SceneClassifier) -> SceneClassifier:
    """A copy whose network multiplies every band by a parameter of its own first, (bands,)."""
    weighed = copy.deepcopy(classifier)
    network = weighed.network
    network.register_parameter(BAND_WEIGHTS, nn.Parameter(torch.ones(weighed.frontend.bands)))
    # A hook instead of a module around the network, so that its paths stay the same.
    network.register_forward_pre_hook(_weigh)
    return weighed


def _weigh(network: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """(batch, channels, bands, frames) -> the same shape"""
    return inputs[0] * network.get_parameter(BAND_WEIGHTS)[:, None]


def _select(classifier: SceneClassifier, kept: list[int], factors: Tensor | None) -> SceneClassifier:
    """A copy that computes only the bands `kept`, times `factors`."""
    selected = copy.deepcopy(classifier)
    frontend = selected.frontend
    arguments = frontend.arguments
    earlier = arguments["kept"] or range(int(arguments["n_mels"]))
    selected.frontend = type(frontend)(**{**arguments, "kept": tuple(earlier[band] for band in kept)})
    selected.frontend.to(selected.standardize.mean.device)
    selected.standardize.select(kept, factors)
    selected.network.select_bands(kept)
    return selected
