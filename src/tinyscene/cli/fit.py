"""`tinyscene fit`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyscene.cli.options import (
    Folds,
    Json,
    Precise,
    Recordings,
    program,
    resumable,
    run_folder,
    scorecard,
    show,
    show_folds,
    with_recordings,
)
from tinyscene.errors import InputError

if TYPE_CHECKING:
    from tinyscene.systems.fine_tune import Tuned
    from tinyscene.systems.fit_under import Found


@with_recordings
def fit(
    recordings: Recordings,
    under: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Limit on the network's bytes in the int8 file, such as 64kB."),
    ] = None,
    macs: Annotated[str | None, typer.Option(metavar="COUNT", help="Limit on MACs a clip, such as 10M.")] = None,
    parameters: Annotated[str | None, typer.Option(metavar="COUNT", help="Limit on parameters, such as 30k.")] = None,
    ram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Limit on the peak of a clip's activations, such as 128kB.")
    ] = None,
    network: Annotated[list[str] | None, typer.Option(help="Only this network; may be repeated.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time limit on this machine, of each fold; sets --epochs-scale, at most 1.")
    ] = None,
    epochs_scale: Annotated[float | None, typer.Option(help="Multiply all epochs by this  [default: 1].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all randomness.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result [default: runs/fit-DATASET].")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    precision: Precise = "32-true",
    folds: Folds = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Fine-tune this model (`list models`) instead.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Find the best int8 classifier under a budget: from a labelled folder to a model and its file.

    kB is 1000 B, KB 1024 B. Networks of the menu are scaled to the budget, pruned to it and quantized; after each of
    three rungs of training, the better half by validation log loss continues. The last one is retrained
    on the training and validation parts, and only then scored on the test part. A file over the budget is never
    delivered. The expected time is printed at the start, from one timed step of each candidate; --minutes limits it.

    With --from, a trained model is fine-tuned to the classes of the data instead; a budget is optional then.

    A killed run resumes when started again. The folder receives model/ (with the network before rounding in float/),
    scene.onnx, pareto.png and pareto.csv with all candidates, scorecard and receipt.
    """
    from tinyscene.data import Clips
    from tinyscene.evaluation import Row
    from tinyscene.models.pretrained import from_pretrained
    from tinyscene.rules import Budget
    from tinyscene.systems.fine_tune import Tuned, fine_tune
    from tinyscene.systems.fit_under import Found, fit_under
    from tinyscene.systems.folds import over_folds
    from tinyscene.systems.under_budget import NETWORKS, build
    from tinyscene.training import Run

    asked = (under, macs, parameters, ram)
    budget = Budget.typed(*asked) if start is None or any(asked) else None
    if start is None:
        model = build(NETWORKS[0].network, NETWORKS[0].arguments(1), ("a", "b"))
    else:
        if network or minutes is not None:
            given = "--network" if network else "--minutes"
            raise InputError(f"{given} with --from; accepted: {given} without --from, which searches nothing")
        model = from_pretrained(start, trainable=True)
    several = recordings.folds(model, folds) if folds else {}
    clips = next(iter(several.values())) if several else recordings.load(model)
    name = "fit" if start is None else f"fit-from-{Path(start).name}"
    folder = run_folder(out, f"{name}-folds" if several else name, clips)
    run = Run(seed, folder, workers, accelerator, precision=precision)  # type: ignore[arg-type]  # checked by Run

    def fitted(clips: Clips, run: Run) -> Found | Tuned:
        if start is not None:
            return fine_tune(
                model, clips, run, budget=budget, epochs_scale=1.0 if epochs_scale is None else epochs_scale
            )
        assert budget is not None
        chosen = tuple(network or ())
        return fit_under(clips, budget, run, networks=chosen, epochs_scale=epochs_scale, minutes=minutes)

    def winner(clips: Clips, run: Run) -> list[Row]:
        variant = "winner" if start is None else "tuned"
        return [replace(fitted(clips, run).row, variant=variant, index=0, stage="int8")]

    with resumable("the last epoch"):
        if several:
            how = f"from {start}" if start else "under a budget, each with its own winner"
            title = f"fit on {clips.name}, {len(several)} folds, {how}"
            show_folds(over_folds(several, run, winner), title, folder, json_file)
            return
        found = fitted(clips, run)
    _show_found(found, json_file)


def _show_found(found: "Found | Tuned", json_file: str | None) -> None:
    """The winner's scores and verdict, and what to type next."""
    from tinyscene.systems.fit_under import Found

    row, folder = found.row, found.folder
    plain: dict[str, Any] = {"folder": str(folder), "row": row.to_json()}
    tried = ""
    size = f"{row.convention(row.ledger.tensors).bytes / 1000:.2f} kB; no budget was given"
    if isinstance(found, Found):
        plain["tried"] = [trial.facts | {"winner": trial is found.winner} for trial in found.tried]
        plain["left_out"] = found.left_out
        tried = f", all candidates in {folder}/pareto.png and pareto.csv"
    show(
        plain,
        json_file,
        *scorecard([row], f"{row.variant} on {row.dataset}, test part"),
        f"\n{folder}/scene.onnx {row.rules.judge(row.ledger).line or size}\n"
        f"The model is in {folder}/model{tried}\n"
        f"Next:  {program()} run {folder}/model RECORDING\n"
        f"       {program()} count {folder}/scene.onnx",
    )
