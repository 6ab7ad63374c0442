"""Training: `Fit` and its parts."""

from tinyscene.training.fit import Fit
from tinyscene.training.losses import CrossEntropy, KLDivergence
from tinyscene.training.optimizers import SGD, Adam, AdamW
from tinyscene.training.run import Run, Stage
from tinyscene.training.schedules import Constant, Cosine, InverseTime, Linear, Step, Triangular2
from tinyscene.training.settings import EarlyStopping

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "EarlyStopping",
    "Fit",
    "InverseTime",
    "KLDivergence",
    "Linear",
    "Run",
    "Stage",
    "Step",
    "Triangular2",
]
