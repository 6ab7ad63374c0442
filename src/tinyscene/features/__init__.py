"""Front ends: waveform in, features out."""

from torch import nn

from tinyscene.features.gammatone import Gammatone
from tinyscene.features.logmel import LogMel
from tinyscene.features.moments import Moments
from tinyscene.features.raw import Raw
from tinyscene.features.standardize import Standardize

FRONTENDS: dict[str, type[nn.Module]] = {"gammatone": Gammatone, "logmel": LogMel, "raw": Raw}

__all__ = ["FRONTENDS", "Gammatone", "LogMel", "Moments", "Raw", "Standardize"]
