from . import accounting, augment, compression, data, evaluation, features, models, rules, systems, training
from .augment import Crop, DeviceImpulseResponse, FreqMixStyle, Gain, Mixup, Noise, SpecAugment, Speed, TimeRoll
from .compression import (
    Calibration,
    FilterPruning,
    HalfPrecision,
    MagnitudePruning,
    Quantize,
    ReplaceDense,
    geometric_median,
    l1_norm,
)
from .deployment import Artifact, export
from .errors import InputError
from .evaluation import Reported, Scores, compare, compare_by_device, compare_runs, evaluate
from .features import LogMel, Standardize
from .models import create_model, list_models
from .models.classifier import Prediction, SceneClassifier
from .models.published import create_classifier
from .systems import Optimistic, System, count_system, load_system, override, reproduce, scale_system
from .systems.count import count, count_model
from .training import SGD, Adam, AdamW, Constant, Cosine, CrossEntropy, EarlyStopping, Fit, Run, Step, Triangular2

__version__: str
__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Artifact",
    "Calibration",
    "Constant",
    "Cosine",
    "Crop",
    "CrossEntropy",
    "DeviceImpulseResponse",
    "EarlyStopping",
    "FilterPruning",
    "Fit",
    "FreqMixStyle",
    "Gain",
    "HalfPrecision",
    "InputError",
    "LogMel",
    "MagnitudePruning",
    "Mixup",
    "Noise",
    "Optimistic",
    "Prediction",
    "Quantize",
    "ReplaceDense",
    "Reported",
    "Run",
    "SceneClassifier",
    "Scores",
    "SpecAugment",
    "Speed",
    "Standardize",
    "Step",
    "System",
    "TimeRoll",
    "Triangular2",
    "accounting",
    "augment",
    "compare",
    "compare_by_device",
    "compare_runs",
    "compression",
    "count",
    "count_model",
    "count_system",
    "create_classifier",
    "create_model",
    "data",
    "evaluate",
    "evaluation",
    "export",
    "features",
    "geometric_median",
    "l1_norm",
    "list_models",
    "load_system",
    "models",
    "override",
    "reproduce",
    "rules",
    "scale_system",
    "systems",
    "training",
]
