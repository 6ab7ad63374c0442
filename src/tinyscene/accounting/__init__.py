"""The costs of a network: parameters, bytes, multiply-accumulates and memory, each under a named convention."""

from tinyscene.accounting.conventions import CONVENTIONS, Convention, get_convention, in_unit
from tinyscene.accounting.count import count, count_classifier
from tinyscene.accounting.counters import COUNTERS
from tinyscene.accounting.ledger import (
    LayerRow,
    Ledger,
    Precision,
    Size,
    TensorRow,
    Uncounted,
    by_precision,
    precision_of,
    total,
)
from tinyscene.accounting.table import item_table, layer_table, size_table, uncounted_text, work_table

__all__ = [
    "CONVENTIONS",
    "COUNTERS",
    "Convention",
    "LayerRow",
    "Ledger",
    "Precision",
    "Size",
    "TensorRow",
    "Uncounted",
    "by_precision",
    "count",
    "count_classifier",
    "get_convention",
    "in_unit",
    "item_table",
    "layer_table",
    "precision_of",
    "size_table",
    "total",
    "uncounted_text",
    "work_table",
]
