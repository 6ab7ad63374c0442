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
from tinyscene.evaluation.teacher import Teacher

__all__ = [
    "Difference",
    "Reported",
    "Row",
    "Scores",
    "Teacher",
    "compare",
    "compare_by_device",
    "compare_runs",
    "evaluate",
    "probabilities_of",
]
