"""Your own pruning criterion and augmentation: a function, and a callable frozen value.

python examples/your_own_augmentation_or_criterion.py DATA [EPOCHS [FOLDER]]
"""

import sys
from dataclasses import dataclass

import numpy as np
from torch import Tensor

import tinyscene as ts


def spread(filters: Tensor) -> Tensor:
    """(filters, ...) -> (filters,): filters with the least variance are removed first."""
    return filters.flatten(1).std(1)


@dataclass(frozen=True)
class Reverse(ts.augment.OnClip):
    """Reverse a clip, every other time."""

    def __call__(self, waveform: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        """(samples,) -> (samples,); all randomness comes from `rng`."""
        return waveform[::-1] if rng.random() < 0.5 else waveform


data, epochs, folder = sys.argv[1], int((sys.argv[2:] or ["100"])[0]), (sys.argv[3:] or ["runs/mine"])[0]
clips = ts.data.load(data)
classifier, run = ts.create_classifier("baseline2021", clips.classes), ts.Run(folder=folder)
fit = ts.Fit(epochs=epochs, augment=(Reverse(), ts.SpecAugment()))
for stage in (fit, ts.FilterPruning("L3", ratio=0.5, by=spread), fit):
    classifier = stage(classifier, clips.development, run)
    print(f"{type(stage).__name__:14} {100 * ts.evaluate(classifier, clips.test, run).accuracy:5.1f} %")
