"""Challenge editions: what each one counts, how, and its limits."""

from tinyscene.errors import InputError
from tinyscene.rules.budget import Budget
from tinyscene.rules.editions import RULES, dcase2020, dcase2021, dcase2022, dcase2023, dcase2024, dcase2025
from tinyscene.rules.rules import Finding, Limit, Rules, Verdict

__all__ = [
    "RULES",
    "Budget",
    "Finding",
    "Limit",
    "Rules",
    "Verdict",
    "dcase2020",
    "dcase2021",
    "dcase2022",
    "dcase2023",
    "dcase2024",
    "dcase2025",
    "get_rules",
]


def get_rules(name: str) -> Rules:
    """The edition called `name`. Raises InputError for an unknown one."""
    if name not in RULES:
        raise InputError(f"no rules {name!r}; accepted: {', '.join(RULES)}")
    return RULES[name]
