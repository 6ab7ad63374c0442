"""The published systems, and the code that runs them."""

from tinyscene.systems.count import count_system
from tinyscene.systems.edit import override, scale_system
from tinyscene.systems.folds import CrossValidation, cross_validate
from tinyscene.systems.reproduce import reproduce
from tinyscene.systems.system import SYSTEMS, Optimistic, System, SystemFile, load_system

__all__ = [
    "SYSTEMS",
    "CrossValidation",
    "Optimistic",
    "System",
    "SystemFile",
    "count_system",
    "cross_validate",
    "load_system",
    "override",
    "reproduce",
    "scale_system",
]
