"""Run a system on data: every stage of every variant, each evaluated; what variants share is done once."""

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyscene.data import Clips, decode
from tinyscene.evaluation.evaluate import evaluate
from tinyscene.evaluation.scorecard import Row, save_scorecard
from tinyscene.evaluation.scores import Scores
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier
from tinyscene.systems.count import stage_row
from tinyscene.systems.receipt import installed, receipt
from tinyscene.systems.system import System, SystemFile, slug, stage_label
from tinyscene.training.batches import INITIAL
from tinyscene.training.run import Run, Stage, describe, key_of, weights_fingerprint

History = list[dict[str, float]]


@dataclass(frozen=True)
class Result:
    """What one stage left: the classifier, its scores on the test split, its training history, its folder."""

    classifier: SceneClassifier
    scores: Scores
    history: History
    folder: Path


def reproduce(
    file: SystemFile,
    clips: Clips,
    folder: str | Path,
    *,
    seeds: tuple[int, ...] = (0,),
    workers: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    quiet: bool = False,
    settings: dict[str, Any] | None = None,
) -> list[Row]:
    """Train, compress and evaluate every variant of `file`; a row a stage.

    Stages that begin alike are done once, and a stage whose result lies in `folder` isn't done again: the key of a
    result holds the untrained classifier, the data, the seed, the stages so far, the package's source and torch's
    version. The folder receives scorecard, pictures, models, receipt, and what is needed to run it again.

    Raises:
        InputError: the clips lack a class in a split, or a recording is on both sides of one.
    """
    started = time.monotonic()
    clips.require("train", "test")
    folder = Path(folder)
    rows: list[Row] = []
    for seed in seeds:
        run = Run(seed, folder / "stages", workers, accelerator, devices, quiet)
        for variant, system in file.variants.items():
            results = _run_variant(variant, system, clips, run)
            for index, result in enumerate(results):
                row = stage_row(file, variant, index, result.classifier, system.rules)
                model = str(result.folder.relative_to(folder))
                rows.append(replace(row, dataset=clips.name, seed=seed, scores=result.scores, model=model))
            if run.fabric.is_global_zero:
                _present(f"{file.name} {variant}, {clips.name}, seed {seed}", results, system, folder, variant, seed)
    if run.fabric.is_global_zero:
        rate = results[-1].classifier.sample_rate
        minutes = (time.monotonic() - started) / 60
        data = decode(clips, rate, quiet=True).fingerprint
        slip = receipt(minutes, list(seeds), clips, data, settings or {})
        _write_run(file, rows, slip, folder)
    return rows


def _run_variant(variant: str, system: System, clips: Clips, run: Run) -> list[Result]:
    run.seed_torch(INITIAL)
    classifier = system.build(clips.classes).eval()
    rate = classifier.sample_rate
    data = [decode(part, rate, quiet=run.quiet).fingerprint for part in (clips.development, clips.test)]
    built = [weights_fingerprint(classifier), repr(classifier), classifier.frontend.arguments]
    key = key_of(built, data, run.seed)
    results: list[Result] = []
    for index, stage in enumerate(system.stages):
        key = key_of(key, stage)
        label = stage_label(stage)
        place = Path(run.folder) / f"{index}-{slug(label)}-{key}"
        result = _kept(place, clips, run)
        if result is None:
            _say(f"{variant}, seed {run.seed}: {index + 1}/{len(system.stages)} {label}", run)
            result = _run_stage(stage, classifier, clips, run, place)
        results.append(result)
        classifier = result.classifier
    return results


def _run_stage(stage: Stage, classifier: SceneClassifier, clips: Clips, run: Run, place: Path) -> Result:
    run.history.clear()
    classifier = stage(classifier, clips.development, run)
    scores = evaluate(classifier, clips.test, run)
    history = list(run.history)
    if run.fabric.is_global_zero:
        classifier.save(place)
        with write_whole(place / "history.json") as partial:
            partial.write_text(json.dumps(history))
        # Written last: its presence says that the stage is complete.
        scores.save(place / "predictions.csv")
        shutil.rmtree(Path(run.folder) / "checkpoints", ignore_errors=True)
    run.fabric.barrier()
    return Result(classifier, scores, history, place)


def _kept(place: Path, clips: Clips, run: Run) -> Result | None:
    """The result of an earlier run, if it is complete. One process looks for all: they must agree."""
    if not run.fabric.broadcast((place / "predictions.csv").is_file()):
        return None
    classifier = SceneClassifier.load(place)
    scores = Scores(clips.test, Scores.load(place / "predictions.csv").probabilities, classifier.heard_devices)
    return Result(classifier, scores, json.loads((place / "history.json").read_text()), place)


def _present(title: str, results: list[Result], system: System, folder: Path, variant: str, seed: int) -> None:
    """The variant's own folder: its final model, and the pictures."""
    from tinyscene.evaluation.pictures import draw_confusion, draw_curves, draw_devices

    place = folder / variant / f"seed-{seed}"
    last = results[-1]
    last.classifier.save(place)
    last.scores.save(place / "predictions.csv")
    histories = [(stage_label(s), r.history) for s, r in zip(system.stages, results, strict=True) if r.history]
    draw_curves(histories, title, place / "curves.png")
    draw_confusion(last.scores, f"{title}: {100 * last.scores.accuracy:.1f} %", place / "confusion.png")
    if last.scores.by("device"):
        draw_devices(last.scores, title, place / "devices.png")


def _write_run(file: SystemFile, rows: list[Row], slip: dict[str, Any], folder: Path) -> None:
    from tinyscene.evaluation.pictures import draw_sizes

    title = f"{file.name} on {slip['dataset']}"
    save_scorecard(rows, folder, title)
    draw_sizes(rows, title, folder / "sizes.png")
    recipe = {name: [describe(stage) for stage in system.stages] for name, system in file.variants.items()}
    for name, text in (
        ("receipt.json", json.dumps(slip, indent=1)),
        ("recipe.json", json.dumps(recipe, indent=1)),
        ("system.py", file.path.read_text()),
        ("versions.txt", installed()),
    ):
        with write_whole(folder / name) as partial:
            partial.write_text(text)


def _say(text: str, run: Run) -> None:
    if not run.quiet and run.fabric.is_global_zero:
        from rich.console import Console

        Console(stderr=True).print(text, highlight=False)
