"""The complexity block of a meta file, from the ledger and by the edition's own convention."""

from collections.abc import Iterable

from tinyscene.accounting import Ledger, count, get_convention
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Limit
from tinyscene.submission.edition import Edition, Measure
from tinyscene.submission.problems import Problem

# A size in KB may be rounded to two decimals.
_ROUNDED_KB = 0.005
_NAMES: dict[Measure, str] = {"KB": "KB of 1024 B", "bytes": "B", "macs": "MACs"}


def ledgers_of(edition: Edition, classifiers: Iterable[SceneClassifier]) -> list[Ledger]:
    """Of every network, for a clip of the edition's length."""
    return [count(one.network, one.example(edition.rules.clip_s)) for one in classifiers]


def figures(edition: Edition, ledgers: Iterable[Ledger]) -> dict[str, float]:
    """The fields of system.complexity; of several networks (splits, devices) the largest figure."""
    counted = list(ledgers)
    return {name: max(_measured(edition, one, what) for one in counted) for name, what in edition.complexity.items()}


def over_limits(edition: Edition, name: str, ledger: Ledger, file: str) -> list[Problem]:
    """A problem for every limit that a network, called `name`, exceeds."""
    findings = edition.rules.judge(ledger).findings
    accepted = f"the limits of {edition.rules.name}"
    return [Problem(file, name, finding.text, accepted) for finding in findings if not finding.passed]


def stated_over_limits(edition: Edition, stated: dict[str, float], file: str) -> list[Problem]:
    """A problem for every stated figure that exceeds the limit on its quantity."""
    found = []
    for limit in edition.rules.limits:
        for name, what in edition.complexity.items():
            if name not in stated or not _limited(what, limit):
                continue
            value = stated[name] * (1024 if what == "KB" else 1)
            if value > limit.at_most:
                given = f"{_shown(stated[name])} is over the limit of {edition.rules.name}"
                at_most = limit.at_most / (1024 if what == "KB" else 1)
                accepted = f"at most {_shown(at_most)} {_NAMES.get(what, what)} ({limit.counted_by})"
                found.append(Problem(file, f"system.complexity.{name}", given, accepted))
    return found


def misstated(
    edition: Edition, stated: dict[str, float], counted: dict[str, float], file: str, by: str
) -> list[Problem]:
    """A problem for every stated figure that is not the counted one."""
    found = []
    for name, value in stated.items():
        if name not in counted:
            continue
        slack = _ROUNDED_KB if edition.complexity[name] == "KB" else 0
        if abs(value - counted[name]) > slack:
            given = f"{_shown(value)} is stated"
            accepted = f"{_shown(counted[name])}, as counted from {by}"
            found.append(Problem(file, f"system.complexity.{name}", given, accepted))
    return found


def _measured(edition: Edition, ledger: Ledger, what: Measure) -> float:
    limits = edition.rules.limits
    if what == "macs":
        return next(limit for limit in limits if limit.quantity == "macs").measure(ledger)
    limit = next(limit for limit in limits if limit.convention)
    size = get_convention(limit.convention)(ledger.tensors)
    if what == "parameters":
        return size.parameters
    if what == "nonzero":
        return size.kept
    stored = size.bytes if limit.zeros else size.kept_bytes
    return stored / 1024 if what == "KB" else stored


def _limited(what: Measure, limit: Limit) -> bool:
    return limit.quantity == ("bytes" if what in ("KB", "bytes") else what)


def _shown(value: float) -> str:
    return f"{value:,.10g}"
