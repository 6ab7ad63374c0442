"""A labelled folder in, the best classifier found under a budget out."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyscene.data import Clips, decode
from tinyscene.deployment.certificate import certificate_path
from tinyscene.errors import InputError, OutOfReachError
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
from tinyscene.systems.tried import LeftOut, Trial, save_tried
from tinyscene.systems.under_budget import (
    NETWORKS,
    RUNGS,
    Candidate,
    Scaled,
    build,
    candidates,
    epochs_of,
    minutes_of,
    scale_for,
    seconds_a_clip,
)
from tinyscene.training.batches import training_length

MODEL, SEARCH, FINAL, CHOSEN = "model", "search", "final", "minutes.json"


@dataclass(frozen=True)
class Found:
    """What `fit_under` delivers.

    Attributes:
        classifier: int8, as it lies in `folder`/model.
        row: its scores on the test part, its costs and the verdict of its file.
        tried: every candidate at every rung, scored on the validation part.
        left_out: what was not tried to the end, and why.
        winner: the last of them, which was trained in full.
        folder: model/, scene.onnx, pareto.png, pareto.csv, scorecard and receipt; search/ and final/ hold the runs.
    """

    classifier: SceneClassifier
    row: Row
    tried: tuple[Trial, ...]
    left_out: tuple[LeftOut, ...]
    winner: Trial
    folder: Path


def fit_under(
    clips: Clips,
    budget: Budget,
    folder: str | Path,
    *,
    networks: Sequence[str] = (),
    epochs_scale: float | None = None,
    minutes: float | None = None,
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
        epochs_scale: multiplies all epochs; 1 where neither this nor `minutes` is given.
        minutes: chooses it so that everything takes about as long on this machine, from one timed step of each
            candidate. It is kept in `folder`: a call that goes on keeps to what the first one chose.
        seed, workers, accelerator: as `Run`'s.

    Raises:
        InputError: a split lacks a class or two share a recording, a name is unknown, `minutes` are too few or given
            with a scale, no network can be brought under the budget, `folder` holds a run on other data, or the file
            came out over the budget or differs from its classifier; nothing is delivered then.
    """
    clips.require("train", "validation", "test")
    if minutes is not None and epochs_scale is not None:
        raise InputError(f"--minutes {minutes:g} and --epochs-scale {epochs_scale:g}; accepted: one of them")
    scale = 1.0 if epochs_scale is None else epochs_scale
    if not 0 < scale < math.inf:
        raise InputError(f"--epochs-scale {scale:g}; accepted: above 0, such as 0.1")
    left_out: list[LeftOut] = []
    folder, left = Path(folder), _planned(clips, budget, _chosen(networks), scale, left_out, quiet)
    each = [seconds_a_clip(one) for one in left]
    if minutes is not None:
        scale = _scale_in(folder, minutes, left, clips, each)
        left = [replace(one, scale=epochs_of(clips, scale)) for one in left]
    options: dict[str, Any] = {"seeds": (seed,), "workers": workers, "accelerator": accelerator, "quiet": quiet}
    _tell("\n".join([_plan(left, clips, each, scale), *(one.text for one in left_out)]), quiet)
    tried = _search(left, clips, folder / SEARCH, left_out, options)
    # Until the call ends, what the folder held before is vouched for by nothing.
    (folder / "receipt.json").unlink(missing_ok=True)
    options["settings"] = {"epochs_scale": scale, "minutes": minutes}
    winner, row = _final(tried, clips, folder, left_out, options)
    return Found(deliver(row, tried, folder), row, tuple(tried), tuple(left_out), winner, folder)


def _planned(
    clips: Clips,
    budget: Budget,
    networks: tuple[Scaled, ...],
    epochs_scale: float,
    left_out: list[LeftOut],
    quiet: bool,
) -> list[Candidate]:
    """The candidates of the first rung. Raises InputError for data that leak, and for a budget out of reach."""
    first = build(networks[0].network, networks[0].arguments(1), clips.classes)
    check_data(clips, first, quiet)
    heard = decode(clips.development, first.sample_rate, first.channel, quiet=quiet)
    rules = budget.rules(training_length(heard, ()) / first.sample_rate, clips.classes)
    return candidates(_reachable(networks, rules, min(heard.lengths), left_out), rules, epochs_of(clips, epochs_scale))


def _scale_in(folder: Path, minutes: float, left: list[Candidate], clips: Clips, each: list[float]) -> float:
    """What the folder's first call chose for the same candidates and minutes; otherwise `scale_for`, which is kept."""
    asked = {"minutes": minutes, "candidates": [one.name for one in left], "clips": len(clips.train)}
    path = folder / CHOSEN
    if path.is_file():
        held = json.loads(path.read_text())
        if {name: held[name] for name in asked} == asked:
            return float(held["epochs_scale"])
    scale = scale_for(minutes, left, clips, each)
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as partial:
        partial.write_text(json.dumps(asked | {"epochs_scale": scale}, indent=1))
    return scale


def _search(
    left: list[Candidate], clips: Clips, folder: Path, left_out: list[LeftOut], options: dict[str, Any]
) -> list[Trial]:
    """Every candidate at every rung that it reached, rung by rung, the best of each first.

    Where none of a rung's candidates can be pruned under the budget, the best of those that were not to go on does.
    """
    tried: list[Trial] = []
    waiting: list[Candidate] = []
    for number, share in enumerate(RUNGS):
        ranked: list[Trial] = []
        while left and not ranked:
            said = f"rung {number + 1} of {len(RUNGS)}: {len(left)} candidates to {100 * share:.0f} % of the epochs"
            _tell(said, options["quiet"])
            reasons: dict[str, str] = {}
            rows = reproduce(_file(left, number), _judged(clips), folder, files="none", left_out=reasons, **options)
            ranked = _ranked(number + 1, left, rows)
            out = [LeftOut(number + 1, one.name, one.network, reasons[one.name]) for one in left if one.name in reasons]
            _tell("\n".join([*(one.text for one in ranked), *(one.text for one in out)]), options["quiet"])
            left_out += out
            left, waiting = (left, waiting) if ranked else (waiting[:1], waiting[1:])
        if not ranked:
            raise _none_left(left_out)
        tried += ranked
        half = (len(ranked) + 1) // 2
        left, further = [one.candidate for one in ranked[:half]], [one.candidate for one in ranked[half:]]
        waiting = further + waiting
    return tried


def _final(
    tried: list[Trial], clips: Clips, folder: Path, left_out: list[LeftOut], options: dict[str, Any]
) -> tuple[Trial, Row]:
    """The winner, and the last stage of its training on all but the test clips.

    Where its pruning fails now, the next one by validation clips is in its place: test clips have no say in that.
    """
    for winner in _in_order(tried):
        one, rules = winner.candidate, winner.candidate.rules
        save_tried(tried, left_out, winner, f"under {_said(rules)} on {clips.name}", folder)
        _tell(f"{one.name} is trained anew, on the training and the validation part, for all epochs", options["quiet"])
        options["settings"] |= {"budget": _said(rules), "clip_s": rules.clip_s, "winner": one.name}
        try:
            rows = reproduce(_file([one]), _all_in(clips), folder / FINAL, files="last stage", **options)
        except OutOfReachError as error:
            left_out.append(LeftOut(len(RUNGS) + 1, one.name, one.network, str(error)))
            _tell(left_out[-1].text, options["quiet"])
            continue
        return winner, rows[-1]
    raise _none_left(left_out)


def _ranked(rung: int, left: list[Candidate], rows: list[Row]) -> list[Trial]:
    """Those that reached the end of the rung, the best first."""
    stages: dict[str, list[Row]] = {}
    for row in rows:
        stages.setdefault(row.variant, []).append(row)
    trials = [
        Trial(rung, one, stages[one.name][-1], tuple(row.model for row in stages[one.name]))
        for one in left
        if one.name in stages
    ]
    return sorted(trials, key=lambda trial: trial.log_loss)


def _in_order(tried: Sequence[Trial]) -> list[Trial]:
    """Every candidate at the last rung that it reached: the winner, and then those that would be in its place."""
    last: dict[str, Trial] = {}
    for trial in sorted(tried, key=lambda one: (-one.rung, one.log_loss)):
        last.setdefault(trial.candidate.name, trial)
    return list(last.values())


def _none_left(left_out: Sequence[LeftOut]) -> InputError:
    reasons = "; ".join(f"{one.name}: {one.reason}" for one in left_out if one.rung)
    return InputError(f"no candidate could be pruned to the budget ({reasons}); accepted: a larger budget")


def _chosen(networks: Sequence[str]) -> tuple[Scaled, ...]:
    known = {one.network: one for one in NETWORKS}
    unknown = [name for name in networks if name not in known]
    if unknown:
        raise InputError(f"no network {unknown[0]!r} to fit under a budget; accepted: {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(networks or known))


def _reachable(
    networks: tuple[Scaled, ...], rules: Rules, shortest: int, left_out: list[LeftOut]
) -> tuple[Scaled, ...]:
    """Those that can be brought under the budget, and that hear the shortest clip. Raises InputError where none can."""
    found: list[Scaled] = []
    least: list[LeftOut] = []
    for network in networks:
        classifier = build(network.network, network.arguments(1), rules.classes)
        if classifier.shortest_samples > shortest:
            said = f"hears {classifier.shortest_samples / classifier.sample_rate:g} s at least"
        else:
            ledger = smallest(classifier, rules)
            if rules.judge(ledger).passed:
                found.append(network)
                continue
            said = "comes down to " + ", ".join(_in_words(limit, limit.measure(ledger)) for limit in rules.limits)
        least.append(LeftOut(0, network.network, network.network, said))
    if not found:
        said = "; ".join(f"{one.name} {one.reason}" for one in least)
        raise InputError(
            f"under {_said(rules)}: no network can be brought there; with one channel a layer, for a clip of "
            f"{rules.clip_s:g} s, {said}; accepted: a budget that one of them keeps"
        )
    left_out += least
    return tuple(found)


def _said(rules: Rules) -> str:
    return ", ".join(_in_words(limit, limit.at_most) for limit in rules.limits)


def _in_words(limit: Limit, value: int) -> str:
    return f"{value / UNITS[limit.quantity][limit.unit]:,.4g} {limit.unit}" + " of RAM" * (limit.quantity == "ram")


def _plan(left: list[Candidate], clips: Clips, each: list[float], scale: float) -> str:
    rules = left[0].rules
    took = minutes_of(left, len(clips.train), each)
    return (
        f"under {_said(rules)} for a clip of {rules.clip_s:g} s: {len(left)} candidates "
        f"({', '.join(one.name for one in left)}), {left[0].epochs} epochs in full (--epochs-scale "
        f"{scale:.4g}), on {len(clips.train)} training and {len(clips.validation)} validation clips; some "
        f"{took:.0f} minutes on this machine as busy as it is now, --minutes sets them"
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
    verdict, fault = row.rules.judge(row.ledger), row.file.fault if row.file else "there is no file"
    if not verdict.passed:
        fault = f"it does not keep the budget ({verdict.line})"
    if fault:
        raise InputError(f"{folder}: nothing is delivered, {fault}; accepted: a file within the budget")
    run = folder / FINAL
    classifier = SceneClassifier.load(run / row.model)
    classifier.save(folder / MODEL)
    receipt = json.loads((run / "receipt.json").read_text())
    places = {folder / SEARCH / place for trial in tried for place in trial.stages}
    receipt["minutes"] = round(receipt["minutes"] + sum(map(_seconds, places)) / 60, 3)
    for name, source in (
        (FILE, run / row.model / FILE),
        (certificate_path(Path(FILE)).name, certificate_path(run / row.model / FILE)),
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
