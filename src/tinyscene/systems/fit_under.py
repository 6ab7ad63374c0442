"""From a labelled folder to the best classifier found under a budget."""

import csv
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyscene.accounting import CONVENTIONS
from tinyscene.data import Clips, decode
from tinyscene.deployment.certificate import certificate_path
from tinyscene.errors import InputError
from tinyscene.evaluation.scorecard import Row
from tinyscene.evaluation.scores import Scores
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.pretrained import FLOAT
from tinyscene.progress import say, track
from tinyscene.rules import Budget
from tinyscene.rules.rules import UNITS
from tinyscene.systems import under_budget
from tinyscene.systems.reproduce import FILE, check_data, reproduce
from tinyscene.systems.system import SystemFile
from tinyscene.systems.under_budget import (
    RUNGS,
    Candidate,
    candidates,
    chosen,
    epochs_of,
    minutes_of,
    scale_for,
    seconds_a_clip,
)
from tinyscene.training.batches import training_length
from tinyscene.training.run import Run

MODEL, SEARCH, FINAL, CHOSEN = "model", "search", "final", "minutes.json"


@dataclass(frozen=True)
class Trial:
    """A candidate at one rung, pruned and quantized.

    Attributes:
        rung: from 1 on.
        row: of its last stage: the int8 network's costs, and its scores on the validation part.
        stages: folders of all its stages, including those shared with other rungs.
    """

    rung: int
    candidate: Candidate
    row: Row
    scores: Scores
    stages: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """As a row of pareto.csv."""
        low, high = self.scores.interval()
        ledger = self.row.ledger
        return {
            "rung": self.rung,
            "candidate": self.candidate.name,
            "network": self.candidate.network,
            "epochs": max(1, round(RUNGS[self.rung - 1] * self.candidate.epochs)),
            "validation_clips": len(self.scores.clips),
            "validation_accuracy": self.scores.accuracy,
            "validation_accuracy_low": low,
            "validation_accuracy_high": high,
            "validation_log_loss": self.scores.log_loss,
            "bytes": CONVENTIONS["bn4"](ledger.tensors).bytes,
            "macs": ledger.macs["torchinfo"],
            "parameters": CONVENTIONS["bn2"](ledger.tensors).parameters,
            "peak_ram_bytes": ledger.peak_ram_bytes,
            "clip_s": self.row.rules.clip_s,
        }


@dataclass(frozen=True)
class Found:
    """The result of `fit_under`.

    Attributes:
        classifier: int8, as in `folder`/model.
        row: its scores on the test part, its costs and the verdict of its file.
        tried: every candidate at every rung, scored on the validation part.
        left_out: candidates that can't meet the budget, and why.
        winner: the last of these, which was trained in full.
        folder: model/, scene.onnx, pareto.png, pareto.csv, scorecard and receipt; search/ and final/ hold the runs.
    """

    classifier: SceneClassifier
    row: Row
    tried: tuple[Trial, ...]
    left_out: dict[str, str]
    winner: Trial
    folder: Path


def fit_under(
    clips: Clips,
    budget: Budget,
    run: Run,
    *,
    networks: Sequence[str] = (),
    epochs_scale: float | None = None,
    minutes: float | None = None,
) -> Found:
    """Train networks of the menu, halve them rung by rung, and deliver the best one under the budget.

    Selection uses only validation clips; test clips are scored once, for the winner. Results are stored
    in the run's folder: a killed call resumes after its last epoch when repeated. Costs are of a clip of the median
    length.

    Args:
        clips: with train, validation and test clips of every class.
        run: folder, seed and accelerator; one device.
        networks: names in `under_budget.NETWORKS`; all where empty.
        epochs_scale: multiplies all epochs; 1 where neither it nor `minutes` is given.
        minutes: sets it so that everything takes about this long on this machine, from one timed step of each
            candidate. It is stored in the folder: a resumed call uses the first one's choice.

    Raises:
        InputError: a split lacks a class or two share a recording, a name is unknown, `minutes` are too few or given
            with a scale, no network fits the budget, the folder holds a run on other data, or the file
            exceeds the budget or differs from its classifier; nothing is delivered then.
    """
    clips.require("train", "validation", "test")
    if run.devices > 1:
        raise InputError(f"fit under a budget with Run(devices={run.devices}); accepted: 1")
    if minutes is not None and epochs_scale is not None:
        raise InputError(f"--minutes {minutes:g} and --epochs-scale {epochs_scale:g}; accepted: one of them")
    scale = 1.0 if epochs_scale is None else epochs_scale
    if not 0 < scale < math.inf:
        raise InputError(f"--epochs-scale {scale:g}; accepted: above 0, such as 0.1")
    folder = Path(run.folder)
    left, left_out = _planned(clips, budget, networks, scale, run.quiet)
    each = [seconds_a_clip(one, clips) for one in left]
    if minutes is not None:
        scale = _scale_in(folder, minutes, left, clips, each)
        left = [replace(one, scale=epochs_of(clips, scale)) for one in left]
    rules, took = left[0].rules, minutes_of(left[0].epochs, clips, each)
    under = ", ".join(
        f"{limit.at_most / UNITS[limit.quantity][limit.unit]:,.4g} {limit.unit}" + " of RAM" * (limit.quantity == "ram")
        for limit in rules.limits
    )
    plan = (
        f"under {under} for a clip of {rules.clip_s:g} s: {len(left)} candidates "
        f"({', '.join(one.name for one in left)}), {left[0].epochs} epochs in full (--epochs-scale "
        f"{scale:.4g}), on {len(clips.train)} training and {len(clips.validation)} validation clips; about "
        f"{took:.0f} minutes at this machine's current load; --minutes limits them"
    )
    dropped = [f"  {name} is left out: {reason}" for name, reason in left_out.items()]
    say("\n".join([plan, *dropped]), quiet=run.quiet)
    tried = _search(left, clips, replace(run, folder=folder / SEARCH))
    winner = min((trial for trial in tried if trial.rung == len(RUNGS)), key=lambda trial: trial.scores.log_loss)
    # Until the call ends, the folder's earlier contents have no receipt.
    (folder / "receipt.json").unlink(missing_ok=True)
    _save_tried(tried, left_out, winner, f"under {under} on {clips.name}", folder)
    one = winner.candidate
    say(f"retraining {one.name} on the training and validation parts, for all epochs", quiet=run.quiet)
    settings = {"epochs_scale": scale, "minutes": minutes, "budget": under, "clip_s": rules.clip_s, "winner": one.name}
    last = replace(run, folder=folder / FINAL)
    *_, before, row = reproduce(
        _file([one]), clips.with_validation_as("train"), last, settings=settings, files="last stage"
    )
    return Found(deliver(row, tried, folder, before.model), row, tuple(tried), left_out, winner, folder)


def _planned(
    clips: Clips, budget: Budget, networks: Sequence[str], epochs_scale: float, quiet: bool
) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates of the first rung, and those left out with why.

    Raises InputError for leaking data, and for an unreachable budget.
    """
    among = chosen(networks)
    first = under_budget.build(among[0].network, among[0].arguments(1), clips.classes)
    check_data(clips, first, quiet)
    waveforms = decode(clips.development, first.sample_rate, first.channel, quiet=quiet)
    rules = budget.rules(training_length(waveforms, ()) / first.sample_rate, clips.classes)
    left, left_out = [], {}
    found = candidates(among, rules, epochs_of(clips, epochs_scale))
    for one in track(found, "pruning untrained candidates to the budget", len(found), quiet=quiet):
        made = one.build(rules.classes)
        if made.shortest_samples > min(waveforms.lengths):
            left_out[one.name] = f"takes clips of at least {made.shortest_samples / made.sample_rate:g} s"
            continue
        try:
            one.pruning.plan(made)
        except InputError as error:
            left_out[one.name] = str(error)
            continue
        left.append(one)
    if not left:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputError(f"clips of {rules.clip_s:g} s: no network fits ({reasons}); try a larger budget")
    return left, left_out


def _scale_in(folder: Path, minutes: float, left: list[Candidate], clips: Clips, each: list[float]) -> float:
    """The scale from the folder's first call with the same candidates and minutes; otherwise `scale_for`, stored."""
    asked = {"minutes": minutes, "candidates": [one.name for one in left], "clips": len(clips.train)}
    path = folder / CHOSEN
    if path.is_file():
        held = json.loads(path.read_text())
        if {name: held[name] for name in asked} == asked:
            return float(held["epochs_scale"])
    scale = scale_for(minutes, clips, each)
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as partial:
        partial.write_text(json.dumps(asked | {"epochs_scale": scale}, indent=1))
    return scale


def _search(left: list[Candidate], clips: Clips, run: Run) -> list[Trial]:
    """Every candidate at every rung that it reached, rung by rung, best first."""
    judged = replace(clips.development.with_validation_as("test"), name=f"{clips.name}-validation")
    tried: list[Trial] = []
    for number, share in enumerate(RUNGS):
        what = f"rung {number + 1} of {len(RUNGS)}: {len(left)} candidates to {100 * share:.0f} % of the epochs"
        say(what, quiet=run.quiet)
        rows = reproduce(_file(left, number), judged, run, files="none")
        trials = []
        for one in left:
            stages = [row for row in rows if row.variant == one.name]
            last = stages[-1]
            assert last.scores is not None
            trials.append(Trial(number + 1, one, last, last.scores, tuple(row.model for row in stages)))
        trials.sort(key=lambda trial: trial.scores.log_loss)
        for trial in trials:
            facts, accuracy = trial.facts, 100 * trial.scores.accuracy
            say(
                f"  {trial.candidate.name}: log loss {trial.scores.log_loss:.3f}, {accuracy:.1f} % of "
                f"{len(trial.scores.clips)} validation clips, {facts['bytes'] / 1000:.2f} kB, "
                f"{facts['macs'] / 1e6:.2f} MMACs",
                quiet=run.quiet,
            )
        tried += trials
        left = [trial.candidate for trial in trials[: (len(trials) + 1) // 2]]
    return tried


def _file(left: list[Candidate], rung: int | None = None) -> SystemFile:
    variants = {one.name: one.system(rung) for one in left}
    return SystemFile("under_budget", Path(under_budget.__file__), (under_budget.__doc__ or "").strip(), variants)


def _save_tried(tried: Sequence[Trial], left_out: dict[str, str], winner: Trial, title: str, folder: Path) -> None:
    """Write pareto.csv, with the left-out candidates and the reasons at its end, and pareto.png."""
    from tinyscene.evaluation.pictures import draw_pareto

    with write_whole(folder / "pareto.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*winner.facts, "winner", "left_out"], restval="")
        writer.writeheader()
        writer.writerows(trial.facts | {"winner": trial is winner} for trial in tried)
        writer.writerows({"candidate": name, "left_out": reason} for name, reason in left_out.items())
    rows = [(f"rung {trial.rung}", trial.row) for trial in tried]
    draw_pareto(rows, winner.row, title, folder / "pareto.png")


def deliver(row: Row, tried: Sequence[Trial], folder: Path, before: str) -> SceneClassifier:
    """Copy the final run's results into `folder`, the receipt last. Raises InputError for an illegal file.

    `before` is the place of the network before rounding, in the final run.
    """
    verdict, fault = row.rules.judge(row.ledger), row.file.fault if row.file else "no file was written"
    if not verdict.passed:
        fault = f"the file exceeds the budget ({verdict.line}); try a larger budget"
    if fault:
        raise InputError(f"{folder}: nothing is delivered, {fault}")
    run = folder / FINAL
    classifier = SceneClassifier.load(run / row.model)
    classifier.save(folder / MODEL)
    SceneClassifier.load(run / before).save(folder / MODEL / FLOAT)
    receipt = json.loads((run / "receipt.json").read_text())
    places = {folder / SEARCH / place for trial in tried for place in trial.stages}
    receipt["minutes"] = round(receipt["minutes"] + sum(map(_seconds, places)) / 60, 3)
    file, reports = run / row.model / FILE, ("scorecard.csv", "scorecard.json", "scorecard.md", "system.py")
    for source in (file, certificate_path(file), *(run / name for name in (*reports, "versions.txt"))):
        with write_whole(folder / source.name) as partial:
            shutil.copyfile(source, partial)
    with write_whole(folder / "receipt.json") as partial:
        partial.write_text(json.dumps(receipt, indent=1))
    return classifier


def _seconds(stage: Path) -> float:
    return float(json.loads((stage / "history.json").read_text())["seconds"])
