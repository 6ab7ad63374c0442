"""Compression, as stages."""

from tinyscene.compression.dense import ReplaceDense
from tinyscene.compression.filters import FilterPruning, geometric_median, l1_norm
from tinyscene.compression.half import HalfPrecision

__all__ = ["FilterPruning", "HalfPrecision", "ReplaceDense", "geometric_median", "l1_norm"]
