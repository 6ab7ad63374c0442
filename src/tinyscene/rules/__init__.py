"""Challenge editions: what each one counts, how, and its limits."""

from tinyscene.errors import InputError
from tinyscene.rules.budget import Budget
from tinyscene.rules.dcase2020 import dcase2020
from tinyscene.rules.dcase2021 import dcase2021
from tinyscene.rules.dcase2022 import dcase2022
from tinyscene.rules.dcase2023 import dcase2023
from tinyscene.rules.dcase2024 import dcase2024
from tinyscene.rules.dcase2025 import dcase2025
from tinyscene.rules.rules import Finding, Limit, Rules, Verdict

RULES: dict[str, Rules] = {
    "dcase2020": dcase2020,
    "dcase2021": dcase2021,
    "dcase2022": dcase2022,
    "dcase2023": dcase2023,
    "dcase2024": dcase2024,
    "dcase2025": dcase2025,
}

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
