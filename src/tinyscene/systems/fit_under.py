"""A labelled folder in, the best classifier found under a budget out."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyscene.data import Clips, decode
from tinyscene.errors import InputError
from tinyscene.evaluation.scorecard import Row
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Budget, Limit, Rules
from tinyscene.rules.rules import UNITS
from tinyscene.systems import under_budget
from tinyscene.systems.deployed import FILE
from tinyscene.systems.prune_under import smallest
from tinyscene.systems.reproduce import check_data, reproduce
from tinyscene.systems.system import System, SystemFile
from tinyscene.systems.tried import Trial, save_tried
from tinyscene.systems.under_budget import NETWORKS, RUNGS, Candidate, Scaled, build, candidates, epochs_of, minutes_of
from tinyscene.training.batches import training_length

MODEL, SEARCH, FINAL = "model", "search", "final"


@dataclass(frozen=True)
class Found:
    """What `fit_under` delivers.

    Attributes:
        classifier: int8, as it lies in `folder`/model.
        row: its scores on the test part, its costs and the verdict of its file.
        tried: every candidate at every rung, scored on the validation part.
        winner: the last of them, which was trained in full.
        folder: model/, scene.onnx, pareto.png, pareto.csv, scorecard and receipt; search/ and final/ hold the runs.
    """

    classifier: SceneClassifier
    row: Row
    tried: tuple[Trial, ...]
    winner: Trial
    folder: Path


def fit_under(
    clips: Clips,
    budget: Budget,
    folder: str | Path,
    *,
    networks: Sequence[str] = (),
    epochs_scale: float = 1.0,
    seed: int = 0,
    workers: int = 0,
    accelerator: str = "auto",
    quiet: bool = False,
) -> Found:
    """Train networks of the menu, halve them rung by rung, and deliver the best one under the budget.

    Selection looks at validation clips alone; test clips are scored when one classifier is left. What was done is kept
    in `folder`: a killed call that is repeated goes on from its last epoch. Costs are of a clip of the median length.

    Args:
        clips: with train, validation and test clips of every class.
        networks: of `under_budget.NETWORKS`, by name; all where empty.
        epochs_scale: multiplies all epochs.
        seed, workers, accelerator: as `Run`'s.

    Raises:
        InputError: a split lacks a class or two share a recording, a name is unknown, no network can be brought under
            the budget, `folder` holds a run on other data, or the file came out over the budget or differs from its
            classifier; nothing is delivered then.
    """
    clips.require("train", "validation", "test")
    folder, left = Path(folder), _planned(clips, budget, _chosen(networks), epochs_scale, quiet)
    rules = left[0].rules
    options: dict[str, Any] = {"seeds": (seed,), "workers": workers, "accelerator": accelerator, "quiet": quiet}
    _tell(_plan(left, clips, rules), quiet)
    tried = _search(left, clips, folder / SEARCH, options)
    winner = next(trial for trial in tried if trial.rung == len(RUNGS))
    # Until the call ends, what the folder held before is vouched for by nothing.
    (folder / "receipt.json").unlink(missing_ok=True)
    save_tried(tried, winner, f"under {_said(rules)} on {clips.name}", folder)
    _tell(f"{winner.candidate.name} is trained anew, on the training and the validation part, for all epochs", quiet)
    settings = {
        "budget": _said(rules),
        "clip_s": rules.clip_s,
        "epochs_scale": epochs_scale,
        "winner": winner.candidate.name,
    }
    rows = reproduce(
        _file([winner.candidate]), _all_in(clips), folder / FINAL, settings=settings, files="last stage", **options
    )
    return Found(deliver(rows[-1], tried, folder), rows[-1], tuple(tried), winner, folder)


def _planned(
    clips: Clips, budget: Budget, networks: tuple[Scaled, ...], epochs_scale: float, quiet: bool
) -> list[Candidate]:
    """The candidates of the first rung. Raises InputError for data that leak, and for a budget out of reach."""
    first = build(networks[0].network, networks[0].arguments(1), clips.classes)
    check_data(clips, first, quiet)
    heard = decode(clips.development, first.sample_rate, first.channel, quiet=quiet)
    rules = budget.rules(training_length(heard, ()) / first.sample_rate, clips.classes)
    return candidates(_reachable(networks, rules, min(heard.lengths)), rules, epochs_of(clips, epochs_scale))


def _search(left: list[Candidate], clips: Clips, folder: Path, options: dict[str, Any]) -> list[Trial]:
    """Every candidate at every rung that it reached, rung by rung, the best of each first."""
    tried: list[Trial] = []
    for number, share in enumerate(RUNGS):
        said = f"rung {number + 1} of {len(RUNGS)}: {len(left)} candidates to {100 * share:.0f} % of the epochs"
        _tell(said, options["quiet"])
        rows = reproduce(_file(left, number), _judged(clips), folder, files="none", **options)
        ends = {row.variant: row for row in rows}
        ranked = sorted((Trial(number + 1, one, ends[one.name]) for one in left), key=lambda trial: trial.log_loss)
        _tell("\n".join(trial.text for trial in ranked), options["quiet"])
        tried += ranked
        left = [trial.candidate for trial in ranked[: (len(ranked) + 1) // 2]]
    return tried


def _chosen(networks: Sequence[str]) -> tuple[Scaled, ...]:
    known = {one.network: one for one in NETWORKS}
    unknown = [name for name in networks if name not in known]
    if unknown:
        raise InputError(f"no network {unknown[0]!r} to fit under a budget; accepted: {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(networks or known))


def _reachable(networks: tuple[Scaled, ...], rules: Rules, shortest: int) -> tuple[Scaled, ...]:
    """Those that can be brought under the budget, and that hear the shortest clip. Raises InputError where none can."""
    found, least = [], []
    for network in networks:
        classifier = build(network.network, network.arguments(1), rules.classes)
        if classifier.shortest_samples > shortest:
            least.append(f"{network.network} hears {classifier.shortest_samples / classifier.sample_rate:g} s at least")
            continue
        ledger = smallest(classifier, rules)
        if rules.judge(ledger).passed:
            found.append(network)
        costs = ", ".join(_in_words(limit, limit.measure(ledger)) for limit in rules.limits)
        least.append(f"{network.network} comes down to {costs}")
    if not found:
        raise InputError(
            f"under {_said(rules)}: no network can be brought there; with one channel a layer, for a clip of "
            f"{rules.clip_s:g} s, {'; '.join(least)}; accepted: a budget that one of them keeps"
        )
    return tuple(found)


def _said(rules: Rules) -> str:
    return ", ".join(_in_words(limit, limit.at_most) for limit in rules.limits)


def _in_words(limit: Limit, value: int) -> str:
    return f"{value / UNITS[limit.quantity][limit.unit]:,.4g} {limit.unit}" + " of RAM" * (limit.quantity == "ram")


def _plan(left: list[Candidate], clips: Clips, rules: Rules) -> str:
    return (
        f"under {_said(rules)} for a clip of {rules.clip_s:g} s: {len(left)} candidates "
        f"({', '.join(one.name for one in left)}), {left[0].epochs} epochs in full, on {len(clips.train)} training and "
        f"{len(clips.validation)} validation clips; some {minutes_of(left, len(clips.train)):.0f} minutes on this "
        f"machine as busy as it is now, --epochs-scale shortens it"
    )


def _file(left: list[Candidate], rung: int | None = None) -> SystemFile:
    variants: dict[str, System] = {one.name: one.whole if rung is None else one.at_rung(rung) for one in left}
    return SystemFile("under_budget", Path(under_budget.__file__), (under_budget.__doc__ or "").strip(), variants)


def _judged(clips: Clips) -> Clips:
    """The training part, and the validation part in the place of the test part, which is left out."""
    rows = (c._replace(split="test") if c.split == "validation" else c for c in clips.development)
    return replace(clips, name=f"{clips.name}-validation", rows=tuple(rows))


def _all_in(clips: Clips) -> Clips:
    """The validation part goes to the training part: nothing is left to select."""
    return replace(clips, rows=tuple(c._replace(split="train") if c.split == "validation" else c for c in clips))


def deliver(row: Row, tried: Sequence[Trial], folder: Path) -> SceneClassifier:
    """Copy the final run's end to where it is looked for, the receipt last. Raises InputError for an illegal file."""
    if not row.file.get("legal"):
        fault = row.file.get("fault") or f"its file does not keep the budget ({row.file['verdict']})"
        raise InputError(f"{folder}: nothing is delivered, {fault}; accepted: a file within the budget")
    run = folder / FINAL
    classifier = SceneClassifier.load(run / row.model)
    classifier.save(folder / MODEL)
    receipt = json.loads((run / "receipt.json").read_text())
    places = {folder / SEARCH / place for trial in tried for place in [trial.row.model]}
    receipt["minutes"] = round(receipt["minutes"] + sum(map(_seconds, places)) / 60, 3)
    for name, source in (
        (FILE, run / row.model / FILE),
        *(
            (name, run / name)
            for name in ("scorecard.csv", "scorecard.json", "scorecard.md", "system.py", "versions.txt")
        ),
    ):
        with write_whole(folder / name) as partial:
            shutil.copyfile(source, partial)
    with write_whole(folder / "receipt.json") as partial:
        partial.write_text(json.dumps(receipt, indent=1))
    return classifier


def _seconds(stage: Path) -> float:
    return float(json.loads((stage / "history.json").read_text())["seconds"])


def _tell(text: str, quiet: bool) -> None:
    if not quiet:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)
