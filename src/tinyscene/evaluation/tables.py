"""The scorecard for a terminal, for Markdown and on disk."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.table import Table

from tinyscene.accounting import CONVENTIONS, in_unit, uncounted_text
from tinyscene.evaluation.scorecard import FLAT, USUAL_COUNTER, Row, figures_text, flat
from tinyscene.evaluation.scores import percent
from tinyscene.files import write_whole

TEXT = ("variant", "stage", "report prints")


def count_table(rows: Sequence[Row], title: str, *, compact: bool = False) -> Table:
    """What every stage costs, with the printed figures beside it and the hits marked; `compact` for 80 columns."""
    first = rows[0]
    heads = ["variant", "stage", "parameters", "KB", f"margin, KB{_limit(first)}", "report prints"]
    wide = ["non-zero", f"MMACs ({first.counter})", "peak RAM, KB"]
    table = _table(title, heads if compact else [*heads[:4], *wide, *heads[4:]], compact)
    previous = ""
    for row in rows:
        if previous and row.variant != previous:
            table.add_section()
        facts = row.to_json()
        costs = [
            f"{facts['nonzero']:,}",
            f"{facts['macs'] / 1e6:.2f}",
            f"{in_unit(facts['peak_ram_bytes'], 'KB'):,.0f} {row.ledger.precision}",
        ]
        table.add_row(
            row.variant if row.variant != previous else "",
            row.stage,
            f"{facts['parameters']:,} {row.convention.name}",
            f"{facts['kb']:.2f}",
            *([] if compact else costs),
            margin_text(row),
            reported_text(row),
        )
        previous = row.variant
    return table


def score_table(rows: Sequence[Row], title: str, *, compact: bool = False) -> Table:
    """How well every stage does and what it costs; `compact` for 80 columns."""
    groups = [] if compact else _groups(rows)
    seeds = ["seed"] if len({row.seed for row in rows}) > 1 else []
    heads = ["variant", "stage", *seeds, "accuracy %", "log loss", *([] if compact else ["95 %", "ECE"])]
    heads += [*(f"{group} dev. %" for group in groups), "parameters", "KB"]
    files = [] if compact or not any(row.file for row in rows) else ["file, KB", "file's difference"]
    tail = [] if compact else [*files, f"margin, KB{_limit(rows[0])}", "report prints"]
    table = _table(title, [*heads, *tail], compact)
    previous: tuple[str, int | None] = ("", None)
    for row in rows:
        if row.scores is None:
            continue
        if previous[0] and (row.variant, row.seed) != previous:
            table.add_section()
        parts = row.scores.by_device_group()
        size = row.convention(row.ledger.tensors)
        spread = [percent(row.scores.interval()), f"{row.scores.calibration_error:.3f}"]
        table.add_row(
            row.variant if (row.variant, row.seed) != previous else "",
            row.marked_stage,
            *([str(row.seed)] if seeds else []),
            f"{100 * row.scores.accuracy:.1f}",
            f"{row.scores.log_loss:.3f}",
            *([] if compact else spread),
            *(f"{100 * parts[group].accuracy:.1f}" if group in parts else "" for group in groups),
            f"{size.kept:,} {row.convention.name}",
            f"{in_unit(size.kept_bytes, 'KB'):.2f}",
            *(file_texts(row) if files else []),
            *([] if compact else [margin_text(row), reported_text(row)]),
        )
        previous = (row.variant, row.seed)
    return table


def seed_table(rows: Sequence[Row], title: str) -> Table:
    """Mean and standard deviation over the seeds, of every stage."""
    table = Table(title=title, box=SIMPLE_HEAD)
    for heading in ("variant", "stage", "seeds", "accuracy %", "log loss", "ECE"):
        table.add_column(heading, justify="left" if heading in TEXT else "right")
    by_stage: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_stage.setdefault((row.variant, row.index), []).append(row)
    for (variant, _), some in by_stage.items():
        found = [row.scores for row in some if row.scores]
        table.add_row(
            variant,
            next((row for row in some if row.optimistic), some[0]).marked_stage,
            str(len(found)),
            mean_and_deviation([100 * scores.accuracy for scores in found], 1),
            mean_and_deviation([scores.log_loss for scores in found], 3),
            mean_and_deviation([scores.calibration_error for scores in found], 3),
        )
    return table


def mean_and_deviation(values: Sequence[float], decimals: int) -> str:
    """Mean ± standard deviation."""
    return f"{mean(values):.{decimals}f} ± {stdev(values):.{decimals}f}"


def margin_text(row: Row) -> str:
    """What the edition's size limit leaves, or the excess as a negative number, in KB."""
    return "" if row.size_limit is None else f"{in_unit(row.size_limit.margin, 'KB'):+.2f}"


def file_texts(row: Row) -> tuple[str, str]:
    """Size of the exported file in KB; its largest difference from the classifier, and how many decisions agree."""
    if "parity" not in row.file:
        return "none", "refused" if row.file else ""
    parity = row.file["parity"]
    steps = f"{parity['largest']:.1f} steps" if parity["unit"] == "output steps" else f"{parity['largest']:.0e}"
    return f"{in_unit(row.file['bytes'], 'KB'):.2f}", f"{steps}, {100 * parity['agreement']:.0f} %"


def reported_text(row: Row) -> str:
    """The printed counts, each with its convention and a mark where ours is the same."""
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
        partial.write_text(markdown(rows, title))


def markdown(rows: Sequence[Row], title: str) -> str:
    """The score table as Markdown."""
    table = score_table(rows, title)
    cells = [list(column.cells) for column in table.columns]
    lines = [f"# {title}", "", "| " + " | ".join(str(column.header) for column in table.columns) + " |"]
    lines.append("|" + "---|" * len(cells))
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in zip(*cells, strict=True)]
    return "\n".join([*lines, "", *legend(rows).splitlines(), ""])


def legend(rows: Sequence[Row], *, compact: bool = False) -> str:
    """What the conventions, the margin and the marks mean."""
    names = [row.convention.name for row in rows] + [row.reported["kb_convention"] for row in rows if row.reported]
    lines = [f"{name}: {CONVENTIONS[name].description}" for name in dict.fromkeys(names) if name in CONVENTIONS]
    for edition in {row.rules.name: row.rules for row in rows}.values():
        limits = "; ".join(f"{limit.quantity} by {limit.counted_by}" for limit in edition.limits)
        lines.append(
            f"margin: to the limit of {edition.name} ({limits}); MACs and RAM for a clip of {edition.clip_s:g} s"
        )
    lines.append(f"KB = 1024 B; counted for {rows[0].classes} classes")
    for row in rows:
        if missed := row.ledger.missed_by(row.counter):
            lines.append(f"{row.variant} {row.stage}, uncounted by {row.counter}: {uncounted_text(missed)}")
    if any(row.file for row in rows):
        lines.append(
            "file: ONNX, on disk; its difference on ONNX Runtime from the classifier is the largest over up to 64 test "
            "clips, in steps of an int8 output or as a share of the largest logit; beside it, decisions that agree, "
            "ties within the accepted difference included"
        )
    lines += dict.fromkeys(f"{row.stage}, seed {row.seed}: {figures_text(row)}" for row in rows if row.figures)
    for fault in dict.fromkeys(row.file["fault"] for row in rows if "fault" in row.file):
        lines.append(f"refused: {fault}")
    if any(row.reported for row in rows):
        lines.append("ticks compare counts; printed accuracies are of the report's own data set")
    if any(row.optimistic for row in rows):
        lines.append("optimistic: scored on recordings that the model was trained, stopped or calibrated on")
    if compact:
        lines.append("some columns are left out at this width; a wider terminal and --json have them")
    return "\n".join(lines)


def _table(title: str, heads: Sequence[str], compact: bool) -> Table:
    """What is short of room is the text."""
    table = Table(title=title, box=SIMPLE_HEAD if compact else HEAVY_HEAD)
    for heading in heads:
        text = heading in TEXT
        # Stages are named by one long word each; figures never fold.
        least = 13 if heading == "stage" else max(map(len, heading.split()))
        whole = not text or heading == "variant"
        table.add_column(heading, justify="left" if text else "right", no_wrap=whole, overflow="fold", min_width=least)
    return table


def _groups(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(group for row in rows if row.scores for group in row.scores.by_device_group()))


def _limit(row: Row) -> str:
    return "" if row.size_limit is None else f" ({row.size_limit.limit.convention})"
