"""A dense layer of another size, newly initialised."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.batches import INITIAL
from tinyscene.training.run import Run, Stage


@dataclass(frozen=True)
class ReplaceDense(Stage):
    """Replace a dense layer by one of `units`, and the one that reads it; everything else is unchanged.

    Both are newly initialised: the third level of Singh et al. (DCASE 2021, section 4) keeps only the convolutions.

    Args:
        units: outputs of the new layer.
        layer, reader: paths of the layer and of the one that reads it.
    """

    units: int
    layer: str = "dense"
    reader: str = "output"

    def __post_init__(self) -> None:
        check(self, units=Numbers(least=1, whole=True))

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Replace with values from torch's generator."""
        classifier.require_float("ReplaceDense")
        replaced = copy.deepcopy(classifier)
        network = replaced.network
        old, old_reader = _linear(network, self.layer), _linear(network, self.reader)
        if self.layer == self.reader or old_reader.in_features != old.out_features:
            raise InputError(
                f"{self.reader!r} takes {old_reader.in_features} inputs and does not read the "
                f"{old.out_features} outputs of {self.layer!r}; accepted: the dense layer that does"
            )
        _set(network, self.layer, nn.Linear(old.in_features, self.units, bias=old.bias is not None))
        _set(network, self.reader, nn.Linear(self.units, old_reader.out_features, bias=old_reader.bias is not None))
        return replaced.to(old.weight.device)

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Replace with values from the run's seed."""
        with torch.random.fork_rng(devices=[]):
            run.seed_torch(INITIAL, self.units)
            return self.shape(classifier)


def _linear(network: nn.Module, path: str) -> nn.Linear:
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    if path not in layers:
        raise InputError(f"no dense layer {path!r}; accepted: {', '.join(layers)}")
    return layers[path]


def _set(network: nn.Module, path: str, layer: nn.Linear) -> None:
    initialise = getattr(network, "initialise", None)
    if initialise is not None:
        initialise(layer)
    network.set_submodule(path, layer)
