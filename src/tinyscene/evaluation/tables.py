"""The scorecard for a terminal, for Markdown and on disk."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from tinyscene.accounting import CONVENTIONS, in_unit, uncounted_text
from tinyscene.evaluation.scorecard import FLAT, USUAL_COUNTER, Row, flat, metrics_text
from tinyscene.evaluation.scores import percent
from tinyscene.files import write_whole
from tinyscene.tables import APART, markdown, table

if TYPE_CHECKING:
    from rich.table import Table


# Columns that a table of 80 characters lacks.
_WIDE = ("non-zero", "MMACs", "peak RAM", "95 %", "ECE", "real dev", "seen dev", "unseen dev", "file")


def count_table(rows: Sequence[Row], title: str, *, compact: bool = False) -> "Table":
    """Every stage's costs beside the printed numbers, matches marked; `compact` for 80 columns."""
    lines: list[Mapping[str, str]] = []
    for row, previous in zip(rows, [None, *rows], strict=False):
        begins = previous is None or row.variant != previous.variant
        lines += [APART] if begins and previous else []
        facts = row.to_json()
        line = {
            "variant": row.variant if begins else "",
            "stage": row.stage,
            "parameters": f"{facts['parameters']:,} {row.convention.name}",
            "KB": f"{facts['kb']:.2f}",
            "non-zero": f"{facts['nonzero']:,}",
            f"MMACs ({rows[0].counter})": f"{facts['macs'] / 1e6:.2f}",
            "peak RAM, KB": f"{in_unit(facts['peak_ram_bytes'], 'KB'):,.0f} {row.ledger.precision}",
            **_judged(row, rows[0]),
        }
        lines.append(_narrowed(line, _WIDE) if compact else line)
    return table(title, lines, compact=compact)


def score_table(rows: Sequence[Row], title: str, *, compact: bool = False) -> "Table":
    """Every stage's scores and costs; `compact` for 80 columns."""
    lines = _scored(rows)
    return table(
        title, [_narrowed(line, (*_WIDE, "margin", "report")) for line in lines] if compact else lines, compact=compact
    )


def _narrowed(line: Mapping[str, str], left_out: tuple[str, ...]) -> Mapping[str, str]:
    return {head: cell for head, cell in line.items() if not head.startswith(left_out)}


def _judged(row: Row, first: Row) -> dict[str, str]:
    """The margin to the edition's size limit in KB, negative if exceeded, and the report's numbers."""
    limit, named = row.size_limit, first.size_limit
    head = "margin, KB" if named is None else f"margin, KB ({named.limit.convention})"
    margin = "" if limit is None else f"{in_unit(limit.margin, 'KB'):+.2f}"
    return {head: margin, "report prints": reported_text(row)}


def _scored(rows: Sequence[Row]) -> list[Mapping[str, str]]:
    scored = [(row, row.scores, row.scores.by_device_group()) for row in rows if row.scores]
    groups = dict.fromkeys(group for *_, parts in scored for group in parts)
    seeds, files = len({row.seed for row in rows}) > 1, any(row.file for row in rows)
    lines: list[Mapping[str, str]] = []
    before = None
    for row, scores, parts in scored:
        begins = (row.variant, row.seed) != before
        lines += [APART] if begins and before else []
        size = row.convention(row.ledger.tensors)
        lines.append(
            {
                "variant": row.variant if begins else "",
                "stage": row.marked_stage,
                **({"seed": str(row.seed)} if seeds else {}),
                "accuracy %": f"{100 * scores.accuracy:.1f}",
                "log loss": f"{scores.log_loss:.3f}",
                "95 %": percent(scores.interval()),
                "ECE": f"{scores.calibration_error:.3f}",
                **{f"{g} dev. %": f"{100 * parts[g].accuracy:.1f}" if g in parts else "" for g in groups},
                "parameters": f"{size.kept:,} {row.convention.name}",
                "KB": f"{in_unit(size.kept_bytes, 'KB'):.2f}",
                **(file_texts(row) if files else {}),
                **_judged(row, rows[0]),
            }
        )
        before = row.variant, row.seed
    return lines


def seed_table(rows: Sequence[Row], title: str) -> "Table":
    """Mean and standard deviation over the seeds, of every stage."""
    by_stage: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_stage.setdefault((row.variant, row.index), []).append(row)
    lines = []
    for (variant, _), some in by_stage.items():
        found = [row.scores for row in some if row.scores]
        lines.append(
            {
                "variant": variant,
                "stage": next((row for row in some if row.optimistic), some[0]).marked_stage,
                "seeds": str(len(found)),
                "accuracy %": mean_and_deviation([100 * scores.accuracy for scores in found], 1),
                "log loss": mean_and_deviation([scores.log_loss for scores in found], 3),
                "ECE": mean_and_deviation([scores.calibration_error for scores in found], 3),
            }
        )
    return table(title, lines, compact=True)


def fold_table(facts: Sequence[Mapping[str, Any]], title: str) -> "Table":
    """Every stage over all folds (`CrossValidation`)."""
    lines = []
    for fact in facts:
        folds = {f"fold {name[5:]}": f"{100 * fact[name]:.1f}" for name in fact if name.startswith("fold_")}
        lines.append(
            {
                "variant": fact["variant"],
                "stage": fact["stage"] + ", *optimistic*" * fact["optimistic"],
                "seeds": str(fact["seeds"]),
                **folds,
                "accuracy %": f"{100 * fact['accuracy']:.1f} ± {100 * fact['deviation']:.1f}",
                "log loss": f"{fact['log_loss']:.3f}",
                "ECE": f"{fact['ece']:.3f}",
            }
        )
    return table(title, lines, compact=True)


def mean_and_deviation(values: Sequence[float], decimals: int) -> str:
    """Mean ± standard deviation."""
    return f"{mean(values):.{decimals}f} ± {stdev(values):.{decimals}f}"


def file_texts(row: Row) -> dict[str, str]:
    """Size of the exported file in KB; its largest difference from the classifier, and the share of equal decisions."""
    size, difference = "none", "refused" if row.file else ""
    if row.file and (parity := row.file.parity):
        size = f"{in_unit(row.file.bytes, 'KB'):.2f}"
        steps = f"{parity.largest:.1f} steps" if parity.int8 else f"{parity.largest:.0e}"
        difference = f"{steps}, {100 * parity.agreement:.0f} %"
    return {"file, KB": size, "file's difference": difference}


def reported_text(row: Row) -> str:
    """The printed counts, each with its convention and a mark where ours is equal."""
    if not (printed := row.reported):
        return ""
    mark = {True: "✓", False: "✗"}
    counts = []
    if printed["parameters"] is not None:
        counts += [f"{printed['parameters']:,} {printed['parameters_convention']} {mark[printed['parameters_hit']]}"]
    for name, unit in (("kb", f"KB {printed['kb_convention']}"), ("mmacs", f"MMACs {USUAL_COUNTER}")):
        if printed[name] is not None:
            decimals = len(f"{printed[name]:g}".partition(".")[2])
            ours = "" if printed[f"{name}_hit"] else f", ours {printed[f'{name}_ours']:.{decimals}f}"
            counts += [f"{printed[name]:g} {unit} {mark[printed[f'{name}_hit']]}{ours}"]
    scores = [f"{100 * printed['accuracy']:.2f} %"] if printed["accuracy"] is not None else []
    scores += [f"{printed['log_loss']:.3f}"] if printed["log_loss"] is not None else []
    return "  ".join([*counts, " / ".join(scores)] if row.scores and scores else counts)


def save_scorecard(rows: Sequence[Row], folder: Path, title: str) -> None:
    """Write scorecard.csv, scorecard.json and scorecard.md."""
    with write_whole(folder / "scorecard.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, FLAT)
        writer.writeheader()
        writer.writerows(flat(row) for row in rows)
    with write_whole(folder / "scorecard.json") as partial:
        partial.write_text(json.dumps({"system": rows[0].system, "rows": [row.to_json() for row in rows]}, indent=1))
    with write_whole(folder / "scorecard.md") as partial:
        lines = [f"# {title}", "", *markdown(_scored(rows)), "", *legend(rows).splitlines()]
        partial.write_text("\n".join([*lines, ""]))


def legend(rows: Sequence[Row], *, compact: bool = False) -> str:
    """The meaning of the conventions, the margin and the marks."""
    names = [row.convention.name for row in rows] + [row.reported["kb_convention"] for row in rows if row.reported]
    lines = [f"{name}: {CONVENTIONS[name].description}" for name in dict.fromkeys(names) if name in CONVENTIONS]
    for edition in {row.rules.name: row.rules for row in rows}.values():
        limits = "; ".join(f"{limit.quantity} by {limit.counted_by}" for limit in edition.limits)
        lines.append(
            f"margin: KB left of the size limit of {edition.name} ({limits}), negative if exceeded; MACs and RAM for a "
            f"clip of {edition.clip_s:g} s"
        )
    kept = "parameters and KB are those that masks keep; " if any(row.scores for row in rows) else ""
    lines.append(f"{kept}KB = 1024 B; counted for {rows[0].classes} classes")
    for row in rows:
        if missed := row.ledger.missed_by(row.counter):
            lines.append(f"{row.variant} {row.stage}, uncounted by {row.counter}: {uncounted_text(missed)}")
    if any(row.file for row in rows):
        lines.append(
            "file: ONNX, on disk; its difference on ONNX Runtime from the classifier is the largest over up to 64 test "
            "clips, in steps of an int8 output or as a share of the largest logit; beside it, equal decisions, "
            "including ties within the accepted difference"
        )
    lines += dict.fromkeys(f"{row.stage}, seed {row.seed}: {metrics_text(row)}" for row in rows if row.metrics)
    for fault in dict.fromkeys(row.file.fault for row in rows if row.file and row.file.fault):
        lines.append(f"refused: {fault}")
    if any(row.reported for row in rows):
        lines.append("ticks compare counts; printed accuracies are on the report's own data set")
    if any(row.optimistic for row in rows):
        lines.append("optimistic: scored on recordings that the model was trained, stopped or calibrated on")
    if compact:
        lines.append("some columns are left out at this width; use a wider terminal or --json")
    return "\n".join(lines)
