"""Training: `Fit`, and what it is made of."""

from tinyscene.training.fit import EarlyStopping, Fit
from tinyscene.training.losses import CrossEntropy
from tinyscene.training.optimizers import SGD, Adam, AdamW
from tinyscene.training.run import Run, Stage
from tinyscene.training.schedules import Constant, Cosine, Step, Triangular2

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "EarlyStopping",
    "Fit",
    "Run",
    "Stage",
    "Step",
    "Triangular2",
]
