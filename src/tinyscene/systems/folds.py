"""Cross-validation: every fold tested once, by a run of its own."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.evaluation.evaluate import TABLE
from tinyscene.evaluation.scorecard import Row
from tinyscene.evaluation.scores import Scores
from tinyscene.files import write_whole
from tinyscene.progress import say
from tinyscene.systems.reproduce import reproduce
from tinyscene.systems.system import SystemFile
from tinyscene.training.run import Run


@dataclass(frozen=True)
class Line:
    """One stage of one variant over all folds and seeds.

    Attributes:
        scores: of every seed, over the test clips of all folds.
        accuracies: by fold, one a seed.
    """

    variant: str
    stage: str
    scores: dict[int, Scores]
    accuracies: dict[str, list[float]]

    @property
    def facts(self) -> dict[str, Any]:
        """As a row of folds.csv: accuracies as shares, with the deviation over folds and seeds."""
        every = [accuracy for some in self.accuracies.values() for accuracy in some]
        return {
            "variant": self.variant,
            "stage": self.stage,
            "seeds": len(self.scores),
            "clips": len(next(iter(self.scores.values())).clips),
            "optimistic": any(one.optimistic for one in self.scores.values()),
            **{f"fold_{fold}": mean(some) for fold, some in self.accuracies.items()},
            "accuracy": mean(one.accuracy for one in self.scores.values()),
            "deviation": stdev(every) if len(every) > 1 else 0.0,
            "log_loss": mean(one.log_loss for one in self.scores.values()),
            "ece": mean(one.calibration_error for one in self.scores.values()),
        }


@dataclass(frozen=True)
class CrossValidation:
    """The rows of every fold's run."""

    rows: Mapping[str, Sequence[Row]]

    @property
    def lines(self) -> list[Line]:
        """Every stage of every variant, in the order of the first fold."""
        first = next(iter(self.rows.values()))
        return [self._line(*key) for key in dict.fromkeys((row.variant, row.index, row.stage) for row in first)]

    def _line(self, variant: str, index: int, stage: str) -> Line:
        by_seed: dict[int, list[Scores]] = {}
        accuracies: dict[str, list[float]] = {fold: [] for fold in self.rows}
        for fold, rows in self.rows.items():
            for row in rows:
                if (row.variant, row.index) == (variant, index):
                    assert row.scores is not None
                    by_seed.setdefault(row.seed or 0, []).append(row.scores)
                    accuracies[fold].append(row.scores.accuracy)
        return Line(variant, stage, {seed: _pooled(some) for seed, some in by_seed.items()}, accuracies)

    def save(self, folder: Path) -> None:
        """Write folds.csv, and of the last stage of every variant and seed the predictions for all folds' test clips.

        `compare` takes two such folders.
        """
        lines = self.lines
        with write_whole(folder / "folds.csv") as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*lines[0].facts])
            writer.writeheader()
            writer.writerows(line.facts for line in lines)
        for line in {line.variant: line for line in lines}.values():
            for seed, scores in line.scores.items():
                place = folder / line.variant / f"seed-{seed}"
                place.mkdir(parents=True, exist_ok=True)
                scores.save(place / TABLE)


def cross_validate(
    file: SystemFile,
    folds: Mapping[str, Clips],
    run: Run,
    *,
    seeds: tuple[int, ...] = (),
    settings: dict[str, Any] | None = None,
) -> CrossValidation:
    """`reproduce` a system on every fold, each in its own folder below the run's; resumable as it is.

    Args:
        folds: the clips with each fold as the test part, by its name: `{"1": load(root, test_fold=1), ...}`.
        run, seeds, settings: as of `reproduce`.

    Raises:
        InputError: a clip is tested twice, or what `reproduce` raises.
    """
    return over_folds(folds, run, partial(reproduce, file, seeds=seeds, settings=settings, files="last stage"))


def over_folds(folds: Mapping[str, Clips], run: Run, each: Callable[[Clips, Run], Sequence[Row]]) -> CrossValidation:
    """`each` on every fold, whose folder is below the run's, and a table of all. Errors as of `cross_validate`."""
    tested: dict[tuple[str, float], str] = {}
    first = next(iter(folds.values()))
    for fold, clips in folds.items():
        clips.require_classes(first.classes)
        for clip in clips.test:
            if (other := tested.setdefault((clip.path, clip.start_s), fold)) != fold:
                raise InputError(
                    f"{clip.path} {clip.row} is a test clip of the folds {other} and {fold}; accepted: every clip "
                    f"tested once"
                )
    folder, rows = Path(run.folder), dict[str, Sequence[Row]]()
    for number, (fold, clips) in enumerate(folds.items(), 1):
        say(f"fold {fold}, {number} of {len(folds)}", quiet=run.quiet)
        rows[fold] = each(clips, replace(run, folder=folder / f"fold-{fold}", features={}))
    found = CrossValidation(rows)
    if run.fabric.is_global_zero:
        found.save(folder)
    return found


def _pooled(scores: Sequence[Scores]) -> Scores:
    """Of the test clips of all folds together, each heard in training or not by the classifier of its fold."""
    rows = tuple(clip for one in scores for clip in one.clips)
    known = [(one.training_recordings or frozenset()).intersection(one.clips.recording_hashes) for one in scores]
    return Scores(
        replace(scores[0].clips, rows=rows),
        np.concatenate([one.probabilities for one in scores]),
        tuple(dict.fromkeys(device for one in scores for device in one.training_devices)),
        frozenset[str]().union(*known),
    )
