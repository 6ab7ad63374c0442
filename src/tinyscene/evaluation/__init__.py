"""Scores of classifiers, and the scorecard."""

from tinyscene.evaluation.evaluate import (
    Difference,
    compare,
    compare_by_device,
    compare_runs,
    evaluate,
    probabilities_of,
)
from tinyscene.evaluation.scorecard import Reported, Row
from tinyscene.evaluation.scores import Scores

__all__ = [
    "Difference",
    "Reported",
    "Row",
    "Scores",
    "compare",
    "compare_by_device",
    "compare_runs",
    "evaluate",
    "probabilities_of",
]
