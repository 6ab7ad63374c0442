"""16-bit floating point weights."""

import copy
from dataclasses import dataclass

import torch

from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.run import Run, Stage


@dataclass(frozen=True)
class HalfPrecision(Stage):
    """Round every weight and batch norm statistic to IEEE 754 binary16; two bytes a value in memory and file.

    Arithmetic stays at 32 bits, as in the runtimes that take such files.
    """

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Round the current weights."""
        if classifier.precision != "float16":
            classifier.require_float("HalfPrecision")
        halved = copy.deepcopy(classifier)
        for name, tensor in [*halved.network.named_parameters(), *halved.network.named_buffers()]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.half()
                if not torch.isfinite(tensor).all():
                    raise InputError(
                        f"{name} holds values beyond ±65,504, the limit of 16 bits; accepted: smaller weights"
                    )
        return halved

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Rounding needs no data."""
        return self.shape(classifier)
