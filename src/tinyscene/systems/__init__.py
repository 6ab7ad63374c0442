"""The published systems, and the code that runs them."""

from tinyscene.systems.count import count_system
from tinyscene.systems.edit import override, scale_system
from tinyscene.systems.reproduce import reproduce
from tinyscene.systems.system import SYSTEMS, Optimistic, System, SystemFile, load_system

__all__ = [
    "SYSTEMS",
    "Optimistic",
    "System",
    "SystemFile",
    "count_system",
    "load_system",
    "override",
    "reproduce",
    "scale_system",
]
