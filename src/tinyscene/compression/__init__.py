"""Compression, as stages."""

from tinyscene.compression.budget import BudgetPruning
from tinyscene.compression.calibrate import Calibration
from tinyscene.compression.filters import (
    FilterPruning,
    ReplaceDense,
    frobenius_norm,
    geometric_median,
    l1_norm,
    max_norm,
)
from tinyscene.compression.linear import LinearFit
from tinyscene.compression.quantize import HalfPrecision, Quantize
from tinyscene.compression.selection import FeatureSelection
from tinyscene.compression.weights import LotteryTicket, MagnitudePruning

__all__ = [
    "BudgetPruning",
    "Calibration",
    "FeatureSelection",
    "FilterPruning",
    "HalfPrecision",
    "LinearFit",
    "LotteryTicket",
    "MagnitudePruning",
    "Quantize",
    "ReplaceDense",
    "frobenius_norm",
    "geometric_median",
    "l1_norm",
    "max_norm",
]
