"""Compare two runs: matching predictions and their differences."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tinyscene.errors import InputError
from tinyscene.evaluation.evaluate import Difference, compare_by_device
from tinyscene.evaluation.scores import Scores

TABLE = "predictions.csv"
METRICS: tuple[Literal["accuracy", "log_loss"], ...] = ("accuracy", "log_loss")


def compare_runs(first: str | Path, second: str | Path) -> dict[str, dict[str, dict[str, Difference]]]:
    """Second minus first, by variant and seed, then metric ("accuracy", "log_loss"), then device ("all" comes first).

    Args:
        first, second: folders of models, with predictions.csv, or of runs with common variants.
    """
    return {
        name: {metric: compare_by_device(one, other, metric) for metric in METRICS}
        for name, one, other in pairs_of(Path(first), Path(second))
    }


def pairs_of(first: Path, second: Path) -> Iterator[tuple[str, Scores, Scores]]:
    """Title and scores of two model folders, or of every common variant and seed of two runs.

    Raises:
        InputError: a folder holds no predictions, or the runs have no common variant.
    """
    if (first / TABLE).is_file() and (second / TABLE).is_file():
        yield f"{first} → {second}", _scores(first / TABLE), _scores(second / TABLE)
        return
    here, there = _variants(first), _variants(second)
    common = [name for name in here if name in there]
    if not common:
        raise InputError(
            f"{first} has {', '.join(here)}, {second} has {', '.join(there)}, nothing in common; "
            f"accepted: two runs of one system, or two folders with {TABLE}"
        )
    for name in common:
        yield name, _scores(here[name]), _scores(there[name])


def _scores(table: Path) -> Scores:
    """The scores of a table, with the training recordings of the model beside it."""
    scores, model = Scores.load(table), table.with_name("model.json")
    try:
        recordings = json.loads(model.read_text())["provenance"]["recordings"].split() if model.is_file() else ()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{model}: not a tinyscene model ({error!r}); accepted: one saved by it") from error
    return replace(scores, training_recordings=frozenset(recordings))


def _variants(run: Path) -> dict[str, Path]:
    """predictions.csv of a model's folder, or of every variant and seed of a run."""
    if (run / TABLE).is_file():
        return {".": run / TABLE}
    found = {str(path.parent.relative_to(run)): path for path in sorted(run.glob(f"*/seed-*/{TABLE}"))}
    if not found:
        raise InputError(f"{run}: no {TABLE} in it; accepted: a folder that `reproduce` wrote, or one of its models")
    return found
