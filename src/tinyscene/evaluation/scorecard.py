"""The scorecard: one row a stage, with the classifier's costs, its scores, and the report's numbers."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from tinyscene.accounting import Convention, Ledger, by_precision, in_unit, layer_table, size_table, work_table
from tinyscene.deployment.parity import Parity
from tinyscene.evaluation.scores import Scores
from tinyscene.rules import Finding, Rules

# Counts MACs where an edition has no limit on them; used by later editions.
USUAL_COUNTER = "torchinfo"


@dataclass(frozen=True)
class Reported:
    """A report's numbers for a system. Each count has its convention, which may differ within one line of a table.

    Attributes:
        parameters: counted by `convention`, what masks remove left out; "127.84k" where the report prints thousands,
            None where it prints only a size.
        kb: in units of 1024 B, with the decimals as printed, counted by `kb_convention`; None where it prints none.
        accuracy: between 0 and 1, on the report's own data set.
        log_loss: likewise.
        truncated: the report truncates its numbers, instead of rounding them.
        mmacs: millions, with the decimals as printed, by torchinfo's count.
    """

    parameters: int | str | None
    convention: Convention
    kb: str | None = None
    kb_convention: Convention | None = None
    accuracy: float | None = None
    log_loss: float | None = None
    truncated: bool = False
    mmacs: str | None = None

    def beside(self, ledger: Ledger) -> dict[str, Any]:
        """The printed numbers beside ours; a count that is not printed is None."""
        kept = self.convention(ledger.tensors).kept
        kb = None if self.kb_convention is None else in_unit(self.kb_convention(ledger.tensors).kept_bytes, "KB")
        macs = ledger.macs[USUAL_COUNTER]
        return {
            "parameters": _number(self.parameters),
            "parameters_convention": self.convention.name,
            "parameters_hit": self._hit(self.parameters, kept),
            "kb": _number(self.kb),
            "kb_convention": self.kb_convention and self.kb_convention.name,
            "kb_ours": kb,
            "kb_hit": self._hit(self.kb, kb),
            "mmacs": _number(self.mmacs),
            "mmacs_ours": macs / 1e6,
            "mmacs_hit": self._hit(self.mmacs, macs / 1e6),
            "accuracy": self.accuracy,
            "log_loss": self.log_loss,
        }

    def _hit(self, printed: int | str | None, ours: float | None) -> bool | None:
        if printed is None or ours is None:
            return None
        if isinstance(printed, int):
            return ours == printed
        thousands = printed.endswith("k")
        return self.as_printed(ours / 1000 if thousands else ours, printed) == printed.removesuffix("k")

    def as_printed(self, ours: float, printed: str) -> str:
        """Our number with the decimals of the printed one."""
        decimals = len(printed.removesuffix("k").partition(".")[2])
        return f"{math.floor(ours * 10**decimals) / 10**decimals if self.truncated else ours:.{decimals}f}"


def _number(printed: int | str | None) -> float | None:
    """A printed value as a number."""
    if not isinstance(printed, str):
        return printed
    return round(1000 * float(printed[:-1])) if printed.endswith("k") else float(printed)


@dataclass(frozen=True)
class StageFile:
    """The exported file of a stage, or in `fault` why there is none.

    Attributes:
        bytes: on disk.
        parity: its difference from the classifier.
    """

    bytes: int = 0
    parity: Parity | None = None
    fault: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "StageFile":
        """The inverse of `to_json`."""
        return cls(**{**plain, "parity": plain["parity"] and Parity(**plain["parity"])})


@dataclass(frozen=True)
class Row:
    """One stage of one variant: its ledger under a convention, and its scores where it was evaluated."""

    system: str
    variant: str
    index: int
    stage: str
    ledger: Ledger = field(repr=False)
    convention: Convention
    rules: Rules
    classes: int
    reported: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    seed: int | None = None
    scores: Scores | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """The stage's own metrics (`Run.metrics`)."""
    file: StageFile | None = None
    model: str = ""
    """Folder of the saved classifier, relative to the run's."""

    @property
    def optimistic(self) -> bool:
        """Whether it was scored on recordings that the classifier was trained, stopped or calibrated on."""
        return self.scores is not None and self.scores.optimistic

    @property
    def marked_stage(self) -> str:
        """The stage, marked where its scores are optimistic."""
        return self.stage if self.scores is None else self.scores.marked(self.stage)

    @property
    def counter(self) -> str:
        """The edition's MAC counter, or the usual one where it has none."""
        return next((limit.counter for limit in self.rules.limits if limit.counter), USUAL_COUNTER)

    @property
    def size_limit(self) -> Finding | None:
        """The edition's limit on bytes and its verdict, by its own convention; None where it has none."""
        return next((f for f in self.rules.judge(self.ledger).findings if f.limit.quantity == "bytes"), None)

    def __str__(self) -> str:
        """Layer by layer, by every convention and counter, and the verdict."""
        console = Console(width=180)
        with console.capture() as text:
            console.print(layer_table(self.ledger, self.convention), size_table(self.ledger), work_table(self.ledger))
        return text.get() + self.rules.judge(self.ledger).text

    def to_json(self) -> dict[str, Any]:
        """The row as plain values; `bytes` and `kb` (1024 B) by `convention`, at the precision of the weights."""
        size = self.convention(self.ledger.tensors)
        verdict = self.rules.judge(self.ledger)
        counted = {
            "variant": self.variant,
            "index": self.index,
            "stage": self.stage,
            "parameters": size.parameters,
            "nonzero": size.kept,
            "bytes": size.kept_bytes,
            "kb": in_unit(size.kept_bytes, "KB"),
            "macs": self.ledger.macs[self.counter],
            "mac_counter": self.counter,
            "clip_s": self.rules.clip_s,
            "classes": self.classes,
            "macs_by_counter": self.ledger.macs,
            "uncounted": [asdict(one) for one in self.ledger.uncounted],
            "bytes_by_precision": by_precision(self.convention.counted(self.ledger.tensors)),
            "peak_ram_bytes": self.ledger.peak_ram_bytes,
            "peak_ram_precision": self.ledger.precision,
            "convention": self.convention.name,
            "rules": self.rules.name,
            "verdict": verdict.line,
            "legal": verdict.passed,
            "reported": self.reported,
        }
        if self.scores is None:
            return counted
        run = {"dataset": self.dataset, "seed": self.seed, "model": self.model, "optimistic": self.optimistic}
        return {
            **counted,
            **run,
            "metrics": self.metrics,
            **self.scores.to_json(),
            "file": self.file and self.file.to_json(),
        }


FLAT = (  # noqa: SIM905 - so many quoted names read worse
    "system variant index stage dataset seed optimistic accuracy accuracy_low accuracy_high macro_accuracy log_loss "
    "ece accuracy_real accuracy_seen accuracy_unseen parameters nonzero convention bytes kb macs mac_counter "
    "clip_s classes peak_ram_bytes rules legal file_bytes file_unit "
    "file_largest file_p999 file_agreement file_fault metrics "
    "reported_parameters reported_kb reported_mmacs reported_accuracy reported_log_loss"
).split()


def metrics_text(row: Row) -> str:
    """The stage's own metrics in one line; empty if there are none."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.metrics.items())


def flat(row: Row) -> dict[str, Any]:
    """A row of the CSV scorecard: one value a column of `FLAT`."""
    facts = {"system": row.system, **row.to_json(), "classes": row.classes}
    if row.scores:
        facts["accuracy_low"], facts["accuracy_high"] = facts["accuracy_interval"] or (None, None)
        facts |= {f"accuracy_{group}": part["accuracy"] for group, part in facts["by_device_group"].items()}
    if row.file and row.file.fault:
        facts["file_fault"] = row.file.fault
    elif row.file and row.file.parity:
        facts["file_bytes"] = row.file.bytes
        facts |= {f"file_{name}": getattr(row.file.parity, name) for name in ("unit", "largest", "p999", "agreement")}
    facts |= {f"reported_{name}": value for name, value in row.reported.items()}
    facts["metrics"] = metrics_text(row)
    return {name: "" if facts.get(name) is None else facts[name] for name in FLAT}
