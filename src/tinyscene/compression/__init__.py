"""Compression, as stages."""

from tinyscene.compression.calibrate import Calibration
from tinyscene.compression.dense import ReplaceDense
from tinyscene.compression.filters import FilterPruning, geometric_median, l1_norm
from tinyscene.compression.half import HalfPrecision
from tinyscene.compression.lottery import LotteryTicket
from tinyscene.compression.quantize import Quantize
from tinyscene.compression.weights import MagnitudePruning

__all__ = [
    "Calibration",
    "FilterPruning",
    "HalfPrecision",
    "LotteryTicket",
    "MagnitudePruning",
    "Quantize",
    "ReplaceDense",
    "geometric_median",
    "l1_norm",
]
