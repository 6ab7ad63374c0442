"""Pictures: training curves, confusion matrix, accuracy by device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tinyscene.accounting import in_unit
from tinyscene.evaluation.scorecard import Row
from tinyscene.evaluation.scores import Scores
from tinyscene.files import write_whole
from tinyscene.rules import Limit
from tinyscene.rules.rules import UNITS


def draw_curves(histories: list[tuple[str, list[dict[str, float]]]], title: str, path: Path) -> None:
    """Losses and validation accuracy over the epochs of successive fits; no picture without training."""
    histories = [(stage, history) for stage, history in histories if history]
    if not histories:
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    losses, accuracies = figure.subplots(2, 1, sharex=True)
    start = 0
    for i, (stage, history) in enumerate(histories):
        watched = [row for row in history if "validation_log_loss" in row]
        epochs, places = ([start + row["epoch"] + 1 for row in rows] for rows in (history, watched))
        named = (None, None) if i else ("train", "validation")
        losses.plot(epochs, [row["train_loss"] for row in history], "C0", label=named[0])
        losses.plot(places, [row["validation_log_loss"] for row in watched], "C1", label=named[1])
        accuracies.plot(places, [100 * row["validation_accuracy"] for row in watched], "C1")
        for axes in (losses, accuracies):
            axes.axvline(start + 0.5, color="0.7", linewidth=0.8)
        losses.annotate(stage, (start + 0.7, 1.01), xycoords=("data", "axes fraction"), va="bottom", fontsize=8)
        start += len(history)
    losses.set(ylabel="log loss")
    figure.suptitle(title)
    accuracies.set(ylabel="validation accuracy (%)", xlabel="epoch")
    losses.legend(loc="upper right")
    _save(figure, path)


def draw_confusion(scores: Scores, title: str, path: Path) -> None:
    """Share of every true class (rows) by predicted class (columns), in percent."""
    counts = scores.confusion
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(1.5 + 0.6 * len(counts), 1.2 + 0.55 * len(counts)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, vmin=0, vmax=100, cmap="Blues")
    names = scores.clips.classes
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for (row, column), value in np.ndenumerate(share):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black")
    _save(figure, path)


def draw_devices(scores: Scores, title: str, path: Path) -> None:
    """Accuracy of every device with its 95 % interval; the line is the overall accuracy."""
    colours = {"real": "C0", "seen": "C1", "unseen": "C3"}
    figure = Figure(figsize=(2.5 + 0.7 * len(scores.by("device")), 3.5), layout="constrained")
    axes = figure.subplots()
    for group, of_group in scores.by_device_group().items():
        parts = of_group.by("device")
        shares, errors = [100 * part.accuracy for part in parts.values()], np.hstack([*map(_error, parts.values())])
        axes.bar([*parts], shares, yerr=errors, color=colours[group], capsize=3, label=group)
    axes.axhline(100 * scores.accuracy, color="0.4", linewidth=1)
    axes.set(xlabel="device", ylabel="accuracy (%)", ylim=(0, 100), title=title)
    figure.legend(loc="outside right upper")
    _save(figure, path)


def draw_sizes(rows: Sequence[Row], title: str, path: Path) -> None:
    """Accuracy, with its 95 % interval, against the size of every variant's last stage, and the limit."""
    last = {(row.variant, row.seed): row for row in rows if row.scores}
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    colours = {variant: f"C{i}" for i, variant in enumerate(dict.fromkeys(variant for variant, _ in last))}
    for (variant, seed), row in last.items():
        assert row.scores is not None
        kb = in_unit(row.size_limit.value if row.size_limit else row.convention(row.ledger.tensors).kept_bytes, "KB")
        middle = 100 * row.scores.accuracy
        label = row.scores.marked(f"{variant}, {kb:.2f} KB") if seed == rows[0].seed else None
        axes.errorbar(kb, middle, yerr=_error(row.scores), fmt="o", capsize=3, color=colours[variant], label=label)
    limit = next((x for x in rows[0].rules.limits if x.quantity == "bytes"), None)
    if limit is not None:
        axes.axvline(in_unit(limit.at_most, "KB"), color="0.4", linestyle="--", label=f"limit of {rows[0].rules.name}")
    counted = f" by {limit.convention}" if limit else ""
    axes.set(xlabel=f"size{counted} (KB of 1024 B)", ylabel="test accuracy (%)", title=title)
    axes.set_xlim(left=0)
    figure.legend(loc="outside right upper")
    _save(figure, path)


def draw_pareto(tried: Sequence[tuple[str, Row]], winner: Row, title: str, path: Path) -> None:
    """Accuracy of all candidates against their costs: bytes and the other limited quantities, one panel each.

    Args:
        tried: each one's name in the legend's second half, such as its rung, and its row.
        winner: one of those rows; it gets a ring.
    """
    limits = {limit.quantity: limit for limit in winner.rules.limits}
    shown = [limits.get("bytes", Limit("bytes", 1, "kB", convention="bn4"))]
    shown += [limit for limit in winner.rules.limits if limit.quantity != "bytes"]
    figure = Figure(figsize=(3.5 + 4 * len(shown), 4.5), layout="constrained")
    parts = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(row.variant for _, row in tried))}
    markers = dict(zip(dict.fromkeys(rung for rung, _ in tried), "osD^vP*X", strict=False))
    for axes, limit in zip(parts, shown, strict=True):
        unit = UNITS[limit.quantity][limit.unit]
        places = [(limit.measure(row.ledger) / unit, 100 * row.scores.accuracy) for _, row in tried if row.scores]
        for (rung, row), place in zip(tried, places, strict=True):
            if row is winner:
                axes.plot(*place, "o", markersize=16, markerfacecolor="none", color="black", label="winner")
            axes.plot(*place, markers[rung], color=colours[row.variant], alpha=0.8)
        if limit.quantity in limits:
            axes.axvline(limit.at_most / unit, color="0.4", linestyle="--", label="budget")
        costs, best = zip(*sorted(places), strict=True)
        axes.step(costs, np.maximum.accumulate(best), "k", where="post", alpha=0.3)
        axes.set(xlabel=f"{limit.quantity} ({limit.unit}, {limit.counted_by})", xlim=(0, None))
    parts[0].set(ylabel="validation accuracy (%)")
    handles, labels = parts[0].get_legend_handles_labels()
    handles += [Line2D([], [], marker="o", linestyle="", color=colour) for colour in colours.values()]
    handles += [Line2D([], [], marker=marker, linestyle="", color="0.4") for marker in markers.values()]
    figure.legend(handles, [*labels, *colours, *markers], loc="outside right upper", fontsize=8)
    figure.suptitle(title)
    _save(figure, path)


def _error(scores: Scores) -> list[list[float]]:
    """The 95 % interval as distances below and above, in points."""
    low, high = scores.interval()
    return [[100 * max(scores.accuracy - low, 0)], [100 * max(high - scores.accuracy, 0)]]


def _save(figure: Figure, path: Path) -> None:
    options: dict[str, Any] = {"format": "png", "dpi": 120}
    with write_whole(path) as partial:
        figure.savefig(partial, **options)
