"""Front ends: waveform in, features out."""

from torch import nn

from tinyscene.features.logmel import LogMel
from tinyscene.features.standardize import Standardize

FRONTENDS: dict[str, type[nn.Module]] = {"logmel": LogMel}

__all__ = ["FRONTENDS", "LogMel", "Standardize"]
