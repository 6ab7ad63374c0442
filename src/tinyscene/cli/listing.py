"""Tables of menus and results for the command line."""

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from tinyscene.tables import APART, table

if TYPE_CHECKING:
    from tinyscene.deployment import Artifact
    from tinyscene.evaluation import Difference, Row, Scores
    from tinyscene.systems import SystemFile


def systems() -> RenderableType:
    """Systems, and the variants of each."""
    from tinyscene.systems import SYSTEMS, load_system

    files = {name: load_system(name) for name in SYSTEMS}
    rows = [
        {"name": name, "report": file.about.splitlines()[0], "variants": ", ".join(file.variants)}
        for name, file in files.items()
    ]
    return table("systems", rows)


def networks() -> RenderableType:
    """Networks of the menu with their arguments."""
    from tinyscene.models import NETWORKS

    rows = []
    for name, (network, *_) in NETWORKS.items():
        arguments = ", ".join(f"{p.name}={p.default}" for p in inspect.signature(network).parameters.values())
        about = next(iter((network.__doc__ or "").strip().splitlines()), "")
        rows.append({"name": name, "arguments": arguments, "description": about})
    return table("networks", rows)


def models() -> RenderableType:
    """Trained models that come with the package."""
    from tinyscene.models import pretrained

    return table("models", [{"name": name, "description": pretrained.summary(name)} for name in pretrained.names()])


def rules() -> RenderableType:
    """Challenge editions with their limits."""
    from tinyscene.rules import RULES
    from tinyscene.rules.rules import UNITS

    rows = []
    for name, edition in RULES.items():
        limits = "\n".join(
            f"{limit.at_most / UNITS[limit.quantity][limit.unit]:,g} {limit.unit} by {limit.counted_by}"
            for limit in edition.limits
        )
        rows.append({"name": name, "edition": edition.title, "limits": limits, "ranked by": edition.ranked_by})
    return table("rules", rows)


def datasets() -> RenderableType:
    """Readable data sets, by the first sentence of their loader's documentation."""
    from tinyscene.data import DATASETS
    from tinyscene.data.tau import DOWNLOADS

    rows = []
    for name, loader in DATASETS.items():
        layout = (inspect.getdoc(loader) or name).splitlines()[0].partition(". ")[0].rstrip(".")
        rows.append({"name": name, "layout": layout + " (downloadable)" * (name in DOWNLOADS)})
    return table("data sets", rows)


def reported(file: "SystemFile") -> RenderableType:
    """The report's numbers for every variant."""
    rows = []
    for name, system in file.variants.items():
        printed = system.reported
        if printed is None:
            continue
        parameters = f"{printed.parameters:,}" if isinstance(printed.parameters, int) else printed.parameters or ""
        rows.append(
            {
                "variant": name,
                "parameters": parameters,
                "convention": printed.convention.name,
                "KB": printed.kb or "",
                "MMACs": printed.mmacs or "",
                "accuracy %": "" if printed.accuracy is None else f"{100 * printed.accuracy:.2f}",
                "log loss": "" if printed.log_loss is None else f"{printed.log_loss:.3f}",
            }
        )
    return table(f"{file.name}: as printed in the report", rows)


def ledgers(rows: list["Row"], *, layers: bool, named: bool) -> list[RenderableType]:
    """The cost of the last stage of every variant: by every convention and counter, on request layer by layer.

    A report's own bookkeeping, the convention of its name, is always itemised.

    Args:
        named: whether the edition was chosen, rather than the default.
    """
    from tinyscene.accounting import item_table, layer_table, size_table, work_table
    from tinyscene.cli.options import narrow

    last = [row for row, after in zip(rows, [*rows[1:], None], strict=True) if after is None or not after.index]
    shown: list[RenderableType] = []
    itemised: dict[Any, str] = {}
    for row in last:
        if layers:
            counters = (row.counter,) if narrow() else tuple(row.ledger.macs)
            shown += [layer_table(row.ledger, row.convention, counters), size_table(row.ledger)]
        counted = row.convention.counted(row.ledger.tensors)
        own = row.system in (row.convention.name, row.reported.get("kb_convention"))
        if layers or (own and counted not in itemised):
            shown += [f"{row.variant}:", item_table(row.ledger, row.convention)]
            shown += _as_stored(row)
        itemised.setdefault(counted, row.variant)
        if layers:
            by = f"by {row.rules.name}" + ("" if named else ", the default; --rules changes it")
            shown += [work_table(row.ledger), f"{row.variant}, a clip of {row.rules.clip_s:g} s, {by}"]
            shown.append(row.rules.judge(row.ledger).text)
    return shown


def _as_stored(row: "Row") -> list[RenderableType]:
    """The full contents of an int8 network, where a report's arithmetic leaves some out."""
    from tinyscene.accounting import get_convention, item_table

    limit = row.size_limit.limit if row.size_limit else None
    held, counted = (
        {t.role for t in rows} for rows in (row.ledger.tensors, row.convention.counted(row.ledger.tensors))
    )
    if limit is None or "scale" not in held - counted:
        return []
    edition = get_convention(limit.convention)
    return [f"as {row.rules.name} counts it:", item_table(row.ledger, edition)]


def scores(found: "Scores", title: str) -> RenderableType:
    """Metrics overall, and by class, device and city."""
    from tinyscene.evaluation.scores import percent

    rows: list[Mapping[str, str]] = []
    for kind, members in ({"": {"overall": found}} | found.parts()).items():
        for name, part in members.items():
            rows.append(
                {
                    "part": part.marked(f"{kind.replace('_group', 's')} {name}".strip()),
                    "clips": f"{len(part.clips):,}",
                    "accuracy %": f"{100 * part.accuracy:.1f}",
                    "95 %": percent(part.interval()),
                    "log loss": f"{part.log_loss:.3f}",
                    "ECE": f"{part.calibration_error:.3f}",
                }
            )
        rows.append(APART)
    macro = f"mean over the classes: {100 * found.macro_accuracy:.1f} %, log loss {found.macro_log_loss:.3f}"
    if not found.training_clips:
        return Group(table(title, rows), macro)
    optimistic = (
        f"optimistic: {found.training_clips:,} of {len(found.clips):,} clips are of recordings that, by their "
        f"names, this model was trained, stopped or calibrated on"
    )
    return Group(table(title, rows), macro, optimistic)


def how_a_file_was_scored(file: "Artifact") -> str:
    """A note on how an exported file was scored."""
    unknown = "A file does not store its training recordings: make sure that these were not among them."
    if file.clip_samples is None:
        return unknown
    clip_s = file.clip_samples / file.sample_rate
    if file.step_samples:
        unknown = f"Each clip was streamed in steps, after silence and without padding at its end. {unknown}"
    return (
        f"Made for clips of {clip_s:g} s: a longer one was split into several, and the mean of their "
        f"probabilities counts; a shorter one was repeated. {unknown}"
    )


def mean_and_deviation(found: list["Scores"]) -> str:
    """Over several seeds."""
    from tinyscene.evaluation.tables import mean_and_deviation

    accuracies, losses = [100 * one.accuracy for one in found], [one.log_loss for one in found]
    mark = ", *optimistic*" if any(one.optimistic for one in found) else ""
    return (
        f"{len(found)} models{mark}: accuracy {mean_and_deviation(accuracies, 2)} %, log loss "
        f"{mean_and_deviation(losses, 3)} (mean ± standard deviation)"
    )


def differences(title: str, both: dict[str, dict[str, "Difference"]]) -> RenderableType:
    """Second minus first, with paired intervals; significant ones are marked."""
    rows = [
        {
            "device": part,
            "clips": f"{accuracy.clips:,}",
            "accuracy, points": _signed(accuracy, 100, 1),
            "log loss": _signed(both["log_loss"][part], 1, 3),
        }
        for part, accuracy in both["accuracy"].items()
    ]
    notes = ["* significant: the interval excludes zero"]
    if both["accuracy"]["all"].optimistic:
        notes.append("optimistic: one of the two was trained, stopped or calibrated on recordings among these")
    return Group(table(f"{title} (second minus first, 95 % paired bootstrap over recordings)", rows), *notes)


def _signed(difference: "Difference", factor: float, decimals: int) -> str:
    shown = (difference.mean * factor, difference.low * factor, difference.high * factor)
    if math.isnan(difference.low):
        return f"{shown[0]:+.{decimals}f} (one recording)  "
    text = "{:+.{d}f} ({:+.{d}f} ... {:+.{d}f})".format(*shown, d=decimals)
    return text + (" *" if difference.significant else "  ")


KINDS = {"systems": systems, "networks": networks, "models": models, "rules": rules, "datasets": datasets}
