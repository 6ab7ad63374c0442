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

if TYPE_CHECKING:
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
    json_file: Json = None,
) -> None:
    """Find the best int8 classifier under a budget: from a labelled folder to a model and its file.

    kB is 1000 B, KB 1024 B. Networks of the menu are scaled to the budget, pruned to it and quantized; after each of
    three rungs of training, the better half by validation log loss continues. The last one is retrained
    on the training and validation parts, and only then scored on the test part. A file over the budget is never
    delivered. The expected time is printed at the start, from one timed step of each candidate; --minutes limits it.

    A killed run resumes when started again. The folder receives model/, scene.onnx, pareto.png and pareto.csv with
    all candidates, scorecard and receipt.
    """
    from tinyscene.data import Clips
    from tinyscene.evaluation import Row
    from tinyscene.rules import Budget
    from tinyscene.systems.fit_under import fit_under
    from tinyscene.systems.folds import over_folds
    from tinyscene.systems.under_budget import NETWORKS, build
    from tinyscene.training import Run

    budget = Budget.typed(under, macs, parameters, ram)
    first = build(NETWORKS[0].network, NETWORKS[0].arguments(1), ("a", "b"))
    several = recordings.folds(first, folds) if folds else {}
    clips = next(iter(several.values())) if several else recordings.load(first)
    folder = run_folder(out, "fit-folds" if several else "fit", clips)
    run = Run(seed, folder, workers, accelerator, precision=precision)  # type: ignore[arg-type]  # checked by Run
    how: Any = {"networks": tuple(network or ()), "epochs_scale": epochs_scale, "minutes": minutes}
    with resumable("the last epoch"):
        if several:

            def winner(clips: Clips, run: Run) -> list[Row]:
                return [replace(fit_under(clips, budget, run, **how).row, variant="winner", index=0, stage="int8")]

            title = f"fit under a budget on {clips.name}, {len(several)} folds, each with its own winner"
            show_folds(over_folds(several, run, winner), title, folder, json_file)
            return
        found = fit_under(clips, budget, run, **how)
    _show_found(found, folder, json_file)


def _show_found(found: "Found", folder: Path, json_file: str | None) -> None:
    """The winner's scores and verdict, and what to type next."""
    row = found.row
    tried = [trial.facts | {"winner": trial is found.winner} for trial in found.tried]
    show(
        {"folder": str(folder), "row": row.to_json(), "tried": tried, "left_out": found.left_out},
        json_file,
        *scorecard([row], f"{row.variant} on {row.dataset}, test part"),
        f"\n{folder}/scene.onnx {row.rules.judge(row.ledger).line}\n"
        f"The model is in {folder}/model, all candidates in {folder}/pareto.png and pareto.csv\n"
        f"Next:  {program()} run {folder}/model RECORDING\n"
        f"       {program()} count {folder}/scene.onnx",
    )
