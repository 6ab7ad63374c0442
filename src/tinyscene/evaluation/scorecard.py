"""The scorecard: one row a stage, with what the classifier costs, how well it does, and what the report printed."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from tinyscene.accounting import CONVENTIONS, Convention, Ledger, in_unit
from tinyscene.evaluation.scores import Scores
from tinyscene.files import write_whole
from tinyscene.rules import Rules

# Counts MACs where an edition limits none; it is what the later editions use.
USUAL_COUNTER = "torchinfo"


@dataclass(frozen=True)
class Reported:
    """What a report prints of a system. Each count has its convention, which may differ within one line of a table.

    Attributes:
        parameters: counted by `convention`.
        kb: in units of 1024 B, with the decimals as printed, counted by `kb_convention`.
        accuracy: between 0 and 1, on the report's own data set.
        log_loss: likewise.
    """

    parameters: int
    convention: Convention
    kb: str
    kb_convention: Convention
    accuracy: float | None = None
    log_loss: float | None = None

    def beside(self, ledger: Ledger) -> dict[str, Any]:
        """The printed figures beside ours."""
        size = self.convention(ledger.tensors)
        kb = in_unit(self.kb_convention(ledger.tensors).kept_bytes, "KB")
        decimals = len(self.kb.partition(".")[2])
        return {
            "parameters": self.parameters,
            "parameters_convention": self.convention.name,
            "parameters_hit": size.kept == self.parameters,
            "kb": float(self.kb),
            "kb_convention": self.kb_convention.name,
            "kb_ours": kb,
            "kb_hit": f"{kb:.{decimals}f}" == self.kb,
            "accuracy": self.accuracy,
            "log_loss": self.log_loss,
        }


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
    model: str = ""
    """Folder of the saved classifier, relative to the run's."""

    @property
    def counter(self) -> str:
        """The edition's MAC counter, or the usual one where it has none."""
        return next((limit.counter for limit in self.rules.limits if limit.counter), USUAL_COUNTER)

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
            "peak_ram_bytes": self.ledger.peak_ram_bytes,
            "convention": self.convention.name,
            "rules": self.rules.name,
            "verdict": "; ".join(finding.text for finding in verdict.findings),
            "legal": verdict.passed,
            "reported": self.reported,
        }
        if self.scores is None:
            return counted
        return {**counted, "dataset": self.dataset, "seed": self.seed, "model": self.model, **self.scores.to_json()}


def count_table(rows: Sequence[Row], title: str) -> Table:
    """What every stage costs, with the printed figures beside it and the hits marked."""
    table = Table(title=title, caption=_legend(rows), caption_justify="left")
    for heading, justify in (("variant", "left"), ("stage", "left"), ("parameters", "right"), ("non-zero", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("convention", "KB", f"MMACs ({rows[0].counter})", "peak RAM, KB", "margin, KB", "report prints"):
        table.add_column(heading, justify="left" if heading in ("convention", "report prints") else "right")
    variant = ""
    for row in rows:
        if variant and row.variant != variant:
            table.add_section()
        facts = row.to_json()
        table.add_row(
            row.variant if row.variant != variant else "",
            row.stage,
            f"{facts['parameters']:,}",
            f"{facts['nonzero']:,}",
            row.convention.name,
            f"{facts['kb']:.2f}",
            f"{facts['macs'] / 1e6:.2f}",
            f"{in_unit(facts['peak_ram_bytes'], 'KB'):,.0f}",
            margin_text(row),
            reported_text(row),
        )
        variant = row.variant
    return table


def score_table(rows: Sequence[Row], title: str) -> Table:
    """How well every stage does and what it costs."""
    table = Table(title=title, caption=_legend(rows), caption_justify="left")
    groups = list(dict.fromkeys(group for row in rows if row.scores for group in row.scores.by_device_group()))
    for heading in ("variant", "stage", *(["seed"] if len({row.seed for row in rows}) > 1 else [])):
        table.add_column(heading)
    for heading in ("accuracy % (95 %)", "log loss", "ECE", *(f"{g} dev. %" for g in groups), "parameters", "KB"):
        table.add_column(heading, justify="right")
    table.add_column("margin, KB", justify="right")
    table.add_column("report prints")
    previous: tuple[str, int | None] = ("", None)
    for row in rows:
        if row.scores is None:
            continue
        if previous[0] and (row.variant, row.seed) != previous:
            table.add_section()
        table.add_row(*_score_cells(row, groups, row.variant if (row.variant, row.seed) != previous else "", table))
        previous = (row.variant, row.seed)
    return table


def _score_cells(row: Row, groups: list[str], variant: str, table: Table) -> list[str]:
    scores = row.scores
    assert scores is not None
    low, high = scores.interval()
    parts = scores.by_device_group()
    size = row.convention(row.ledger.tensors)
    seed = [str(row.seed)] if any(column.header == "seed" for column in table.columns) else []
    return [
        variant,
        row.stage,
        *seed,
        f"{100 * scores.accuracy:.1f} ({100 * low:.1f}-{100 * high:.1f})",
        f"{scores.log_loss:.3f}",
        f"{scores.calibration_error:.3f}",
        *(f"{100 * parts[g].accuracy:.1f}" if g in parts else "" for g in groups),
        f"{size.kept:,} {row.convention.name}",
        f"{in_unit(size.kept_bytes, 'KB'):.2f}",
        margin_text(row),
        reported_text(row),
    ]


def margin_text(row: Row) -> str:
    """What the edition's size limit leaves, or the excess as a negative number, in KB."""
    finding = next((f for f in row.rules.judge(row.ledger).findings if f.limit.quantity == "bytes"), None)
    return "" if finding is None else f"{in_unit(finding.margin, 'KB'):+.2f}"


def reported_text(row: Row) -> str:
    """The printed counts, each with its convention and a mark where ours is the same."""
    if not (printed := row.reported):
        return ""
    mark = {True: "✓", False: "✗"}
    counts = (
        f"{printed['parameters']:,} {printed['parameters_convention']} {mark[printed['parameters_hit']]}  "
        f"{printed['kb']:g} KB {printed['kb_convention']} {mark[printed['kb_hit']]}"
    )
    scores = [f"{100 * printed['accuracy']:.2f} %"] if printed["accuracy"] is not None else []
    scores += [f"{printed['log_loss']:.3f}"] if printed["log_loss"] is not None else []
    return counts + (f"  {' / '.join(scores)}" if row.scores and scores else "")


def _legend(rows: Sequence[Row]) -> str:
    used = {row.convention.name: row.convention.description for row in rows}
    used |= {name: "" for row in rows for name in [row.reported.get("kb_convention", "")] if name and name not in used}
    lines = [f"{name}: {CONVENTIONS[name].description}" for name in used]
    edition = rows[0].rules
    limits = "; ".join(f"{limit.quantity} by {limit.counted_by}" for limit in edition.limits)
    lines.append(
        f"margin: to the limit of {edition.name} ({limits}); KB = 1024 B; "
        f"MACs and RAM for a clip of {edition.clip_s:g} s and {rows[0].classes} classes"
    )
    lines.append("ticks compare counts; printed accuracies are of the report's own data set")
    return "\n".join(lines)


FLAT = (  # noqa: SIM905 - thirty quoted names read worse
    "system variant index stage dataset seed accuracy accuracy_low accuracy_high macro_accuracy log_loss ece "
    "accuracy_real accuracy_seen accuracy_unseen parameters nonzero convention bytes kb macs mac_counter "
    "clip_s classes peak_ram_bytes rules legal reported_parameters reported_kb reported_accuracy reported_log_loss"
).split()


def flat(row: Row) -> dict[str, Any]:
    """A row of the CSV scorecard: one value a column of `FLAT`."""
    facts = {"system": row.system, **row.to_json()}
    if row.scores:
        facts["accuracy_low"], facts["accuracy_high"] = facts["accuracy_interval"]
        facts |= {f"accuracy_{group}": part["accuracy"] for group, part in facts["by_device_group"].items()}
    facts |= {f"reported_{name}": value for name, value in row.reported.items()}
    return {name: "" if facts.get(name) is None else facts[name] for name in FLAT}


def save_scorecard(rows: Sequence[Row], folder: Path, title: str) -> None:
    """Write scorecard.csv, scorecard.json and scorecard.md."""
    table = [flat(row) for row in rows]
    with write_whole(folder / "scorecard.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, FLAT)
        writer.writeheader()
        writer.writerows(table)
    with write_whole(folder / "scorecard.json") as partial:
        partial.write_text(json.dumps({"system": rows[0].system, "rows": [row.to_json() for row in rows]}, indent=1))
    with write_whole(folder / "scorecard.md") as partial:
        partial.write_text(markdown(rows, title))


def markdown(rows: Sequence[Row], title: str) -> str:
    """The score table as Markdown."""
    lines = [
        f"# {title}",
        "",
        "| variant | stage | seed | accuracy % (95 %) | log loss | ECE | parameters | KB | report prints |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.scores is None:
            continue
        low, high = row.scores.interval()
        size = row.convention(row.ledger.tensors)
        cells = (
            row.variant,
            row.stage,
            row.seed,
            f"{100 * row.scores.accuracy:.1f} ({100 * low:.1f}-{100 * high:.1f})",
            f"{row.scores.log_loss:.3f}",
            f"{row.scores.calibration_error:.3f}",
            f"{size.kept:,} ({row.convention.name})",
            f"{in_unit(size.kept_bytes, 'KB'):.2f}",
            reported_text(row),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", *_legend(rows).splitlines(), ""])
