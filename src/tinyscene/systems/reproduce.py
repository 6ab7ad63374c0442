"""Run a system on data: every stage of every variant, each evaluated; shared stages run once."""

import json
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from tinyscene.accounting import count_classifier
from tinyscene.compression import Calibration
from tinyscene.data import Clips, decode
from tinyscene.deployment.export import export
from tinyscene.errors import InputError
from tinyscene.evaluation.evaluate import evaluate
from tinyscene.evaluation.scorecard import Row, StageFile
from tinyscene.evaluation.scores import Scores
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier
from tinyscene.progress import say
from tinyscene.systems.count import stage_row
from tinyscene.systems.receipt import installed, receipt
from tinyscene.systems.system import Optimistic, Shaped, System, SystemFile, shapes, stage_label
from tinyscene.training.batches import INITIAL
from tinyscene.training.fit import Fit
from tinyscene.training.keys import describe, key_of
from tinyscene.training.run import Run, Stage

History = list[dict[str, float]]
Files = Literal["every stage", "last stage", "none"]
RECIPE, FILE = "recipe.json", "scene.onnx"


@dataclass(frozen=True)
class Result:
    """The result of one stage: classifier, scores on the test split, history, metrics, file, time and folder."""

    classifier: SceneClassifier
    scores: Scores
    history: History
    metrics: dict[str, float]
    file: StageFile | None
    seconds: float
    folder: Path


def reproduce(
    file: SystemFile,
    clips: Clips,
    run: Run,
    *,
    seeds: tuple[int, ...] = (),
    settings: dict[str, Any] | None = None,
    files: Files = "every stage",
) -> list[Row]:
    """Train, compress and evaluate every variant of `file`; one row for each stage.

    Shared first stages run once, and stored results in the run's folder are reused: the key
    of a result covers the untrained classifier, the data, the seed, the stages so far, and the source and versions of
    the software. The folder receives scorecard, pictures, models, receipt and recipe.

    Args:
        run: folder, devices and seed.
        seeds: several, instead of the run's.
        settings: further contents of the receipt.
        files: stages with an exported file: every one, the last one, or none.

    Raises:
        InputError: the clips lack a class in a split, a recording or a file's content is on both sides of one, or
            the folder holds a run of another system or on other data.
    """
    clips.require("train", "test")
    if not len(clips.validation):
        _refuse_watching(file)
    folder, asked, seeds = Path(run.folder), run, seeds or (run.seed,)
    rows: list[Row] = []
    seconds: dict[Path, float] = {}
    shaped: Shaped = []
    data = ""
    for seed in seeds:
        run = replace(asked, seed=seed, folder=folder / "stages", history=[], metrics={}, initial=None, features={})
        for variant, system in file.variants.items():
            classifier = _untrained(system, clips, run)
            if not data:
                data = check_data(clips, classifier, run.quiet)
                _claim(folder, file, list(seeds), data, write=run.fabric.is_global_zero)
            results = _run_variant(variant, system, classifier, clips, run, files, shaped)
            for index, result in enumerate(results):
                ledger = count_classifier(result.classifier, system.rules.clip_s)
                row = stage_row(file, variant, index, ledger, system.rules, len(clips.classes))
                row = replace(row, dataset=clips.name, seed=seed, scores=result.scores, metrics=result.metrics)
                rows.append(replace(row, file=result.file, model=str(result.folder.relative_to(folder))))
            seconds |= {result.folder: result.seconds for result in results}
            if run.fabric.is_global_zero:
                _present(f"{file.name} {variant}, {clips.name}, seed {seed}", results, system, folder, variant, seed)
    if run.fabric.is_global_zero:
        slip = receipt(sum(seconds.values()) / 60, list(seeds), clips, data, run.place, settings or {})
        slip |= {"departures": file.departures, "guard": _guard(clips, rows)}
        _write_run(file, rows, slip, folder)
    return rows


def _untrained(system: System, clips: Clips, run: Run) -> SceneClassifier:
    """The untrained classifier of this seed. One that could not be saved is refused."""
    run.seed_torch(INITIAL)
    classifier = system.build(clips.classes).eval()
    classifier.written()
    return classifier


def check_data(clips: Clips, classifier: SceneClassifier, quiet: bool) -> str:
    """The data's fingerprint. Raises InputError where a recording or a sound is on both sides of a split."""
    waveforms = decode(clips, classifier.sample_rate, classifier.channel, quiet=quiet)
    clips.refuse_leaks(waveforms.sounds)
    return waveforms.fingerprint


def _refuse_watching(file: SystemFile) -> None:
    """Raise InputError, before anything is trained, for a stage that needs validation clips."""
    for variant, system in file.variants.items():
        for number, stage in enumerate(system.stages):
            fit = stage if isinstance(stage, Fit) else getattr(stage, "fit", None)
            watching = isinstance(fit, Fit) and fit.early_stopping is not None
            if watching or isinstance(stage, Calibration):
                path = f"{variant}.stages.{number}"
                mend = (
                    f"--set {path}{'' if fit is stage else '.fit'}.early_stopping=None"
                    if watching
                    else "another --variant"
                )
                raise InputError(
                    f"{path}, {stage_label(stage)}, needs validation clips, and there are none; accepted: a validation "
                    f"part, or {mend}"
                )


def _guard(clips: Clips, rows: list[Row]) -> dict[str, int]:
    """For the receipt: test recordings that a stage learned from, by its model's provenance, of all.

    Training, selection, calibration and ranges are given no test clip, so that only a published split that shares
    recordings, a model from elsewhere (a start, a teacher), or an `Optimistic` stage has any.
    """
    test = set(clips.test.recording_hashes)
    learned = {one for row in rows if row.scores is not None for one in row.scores.training_recordings or ()}
    return {
        "development_clips": len(clips.development),
        "test_clips": len(clips.test),
        "test_recordings": len(test),
        "test_recordings_learned_from": len(test & learned),
    }


def _claim(folder: Path, file: SystemFile, seeds: list[int], data: str, *, write: bool) -> None:
    """Write recipe.json. Raises InputError where the folder holds a run of another system or on other data."""
    variants = {name: [describe(stage) for stage in system.stages] for name, system in file.variants.items()}
    recipe = {"system": file.name, "data": data, "seeds": seeds, "variants": variants}
    path = folder / RECIPE
    if path.is_file():
        there = json.loads(path.read_text())
        if (there["system"], there["data"]) != (file.name, data):
            which = "the same" if there["data"] == data else "other"
            raise InputError(
                f"{folder}: holds a run of {there['system']} on {which} data; "
                f"accepted: another folder (--out), or the same system and data, whose recipe may change"
            )
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        # Until this run ends, a receipt would describe another recipe.
        (folder / "receipt.json").unlink(missing_ok=True)
        with write_whole(path) as partial:
            partial.write_text(json.dumps(recipe, indent=1))


def _run_variant(
    variant: str, system: System, classifier: SceneClassifier, clips: Clips, run: Run, files: Files, shaped: Shaped
) -> list[Result]:
    """The results of all stages; `shaped` holds the shapes of variants before."""
    run.initial = classifier
    parts = (clips.development, clips.test)
    data = [decode(part, classifier.sample_rate, classifier.channel, quiet=run.quiet).fingerprint for part in parts]
    key = key_of(classifier, data, run.seed, run.place, system.rules)
    results: list[Result] = []
    for index, stage in enumerate(system.stages):
        exported = files == "every stage" or (files == "last stage" and index == len(system.stages) - 1)
        key = key_of(key, stage, exported)
        label = stage_label(stage)
        slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")
        place = Path(run.folder) / f"{index}-{slug}-{key}"
        result = _kept(place, clips, run)
        step = f"{variant}, seed {run.seed}: {index + 1}/{len(system.stages)} {label}"
        quiet = run.quiet or not run.fabric.is_global_zero
        say(step if result is None else f"{step}, reused", quiet=quiet)
        if result is None:
            # A network that a later stage refuses is refused before anything is trained.
            with torch.random.fork_rng(devices=[]):
                shapes(system, run.initial, shaped)
            result = _run_stage(stage, classifier, clips, run, exported, place)
        results.append(result)
        classifier = result.classifier
    return results


def _run_stage(
    stage: Stage, classifier: SceneClassifier, clips: Clips, run: Run, exported: bool, place: Path
) -> Result:
    """Run, score and store a stage, with a file where it is `exported`."""
    started = time.monotonic()
    classifier = stage(classifier, clips if isinstance(stage, Optimistic) else clips.development, run)
    scores = evaluate(classifier, clips.test, run)
    history, metrics, seconds = list(run.history), dict(run.metrics), time.monotonic() - started
    # A resumed fit includes its earlier epochs.
    seconds = max(seconds, sum(row["seconds"] for row in history))
    file: StageFile | None = None
    if run.fabric.is_global_zero:
        classifier.save(place)
        file = deploy(classifier, clips, place) if exported else None
        facts = {"seconds": seconds, "metrics": metrics, "file": file and file.to_json(), "epochs": history}
        with write_whole(place / "history.json") as partial:
            partial.write_text(json.dumps(facts))
        # Written last, which marks the stage as complete.
        scores.save(place / "predictions.csv")
        shutil.rmtree(Path(run.folder) / "checkpoints", ignore_errors=True)
    run.fabric.barrier()
    return Result(classifier, scores, history, metrics, file, seconds, place)


def deploy(classifier: SceneClassifier, clips: Clips, folder: Path) -> StageFile:
    """Write `scene.onnx` into `folder`; return its size and difference from the classifier on test clips.

    A file that fails its check is not written: only its fault is returned, and the run continues.
    """
    try:
        artifact = export(classifier, folder / FILE, clips=clips.test)
    except InputError as error:
        return StageFile(fault=str(error))
    return StageFile(artifact.bytes_on_disk, artifact.parity)


def _kept(place: Path, clips: Clips, run: Run) -> Result | None:
    """The result of an earlier run, if complete. One process looks for all, so that they agree."""
    if not run.fabric.broadcast((place / "predictions.csv").is_file()):
        return None
    classifier = SceneClassifier.load(place)
    probabilities, known = Scores.load(place / "predictions.csv").probabilities, classifier.provenance
    scores = Scores(clips.test, probabilities, known.devices, frozenset(known.recordings))
    held = json.loads((place / "history.json").read_text())
    file = held["file"] and StageFile.from_json(held["file"])
    return Result(classifier, scores, held["epochs"], held["metrics"], file, held["seconds"], place)


def _present(title: str, results: list[Result], system: System, folder: Path, variant: str, seed: int) -> None:
    """The variant's own folder: its final model, and the pictures."""
    from tinyscene.evaluation.pictures import draw_confusion, draw_curves, draw_devices

    place = folder / variant / f"seed-{seed}"
    last = results[-1]
    title += ", optimistic" if last.scores.optimistic else ""
    last.classifier.save(place)
    last.scores.save(place / "predictions.csv")
    for written in last.folder.glob(f"{FILE}*"):  # the file and its certificate
        shutil.copyfile(written, place / written.name)
    histories = [(stage_label(s), r.history) for s, r in zip(system.stages, results, strict=True)]
    draw_curves(histories, title, place / "curves.png")
    draw_confusion(last.scores, f"{title}: {100 * last.scores.accuracy:.1f} %", place / "confusion.png")
    if last.scores.by("device"):
        draw_devices(last.scores, title, place / "devices.png")


def _write_run(file: SystemFile, rows: list[Row], slip: dict[str, Any], folder: Path) -> None:
    from tinyscene.evaluation.pictures import draw_sizes
    from tinyscene.evaluation.tables import save_scorecard

    title = f"{file.name} on {slip['dataset']}"
    save_scorecard(rows, folder, title)
    draw_sizes(rows, title, folder / "sizes.png")
    for name, text in (
        ("receipt.json", json.dumps(slip, indent=1)),
        ("system.py", file.path.read_text()),
        ("versions.txt", installed()),
    ):
        with write_whole(folder / name) as partial:
            partial.write_text(text)
