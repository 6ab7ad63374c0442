"""`tinyscene fit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tinyscene.cli.options import (
    Cache,
    Data,
    Dataset,
    DropShared,
    Json,
    Pieces,
    SkipBad,
    Subset,
    TestFold,
    given,
    load_clips,
    narrow,
    program,
    screen,
    write_json,
)

if TYPE_CHECKING:
    from tinyscene.systems.fit_under import Found


def fit(
    data: Data,
    under: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of all that the int8 file stores of the network, such as 64kB.")
    ] = None,
    macs: Annotated[str | None, typer.Option(metavar="COUNT", help="Multiply-accumulates a clip, such as 10M.")] = None,
    parameters: Annotated[str | None, typer.Option(metavar="COUNT", help="Such as 30k.")] = None,
    ram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Peak of a clip's activations, such as 128kB.")
    ] = None,
    network: Annotated[list[str] | None, typer.Option(help="Only this network; may be given again.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="How long all of it may take here: chooses --epochs-scale, 1 at most.")
    ] = None,
    epochs_scale: Annotated[float | None, typer.Option(help="Multiply all epochs by this  [default: 1].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all randomness.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the result [default: runs/fit-DATASET].")] = None,
    dataset: Dataset = None,
    subset: Subset = None,
    test_fold: TestFold = None,
    drop_shared: DropShared = False,
    pieces: Pieces = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    skip_bad: SkipBad = False,
    cache: Cache = None,
    json_file: Json = None,
) -> None:
    """Find the best int8 classifier under a budget: a labelled folder in, a model and its file out.

    kB are 1000 B, KB 1024 B. Networks of the menu are scaled to the budget, pruned to it and quantized; after each of
    three rungs of training, the better half by log loss on the validation part goes on. The last one is trained anew
    on the training and the validation part, and only then scored on the test part. A file over the budget is never
    delivered. How long it will take is said at the start, from one timed step of each candidate; --minutes shortens it.

    Killed and started again, it goes on. The folder receives model/, scene.onnx, pareto.png and pareto.csv with all
    that was tried, scorecard and receipt.
    """
    from tinyscene.rules import Budget
    from tinyscene.systems.fit_under import fit_under
    from tinyscene.systems.under_budget import NETWORKS, build
    from tinyscene.training import Run

    budget = Budget.typed(under, macs, parameters, ram)
    heard = build(NETWORKS[0].network, NETWORKS[0].arguments(1), ("a", "b"))
    options = given(subset, test_fold, drop_shared)
    clips = load_clips(data, dataset, (heard.sample_rate, heard.channel), options, skip_bad=skip_bad, pieces=pieces)
    own = clips.root.stem if clips.name in ("folder", "csv") else clips.name
    folder = out or Path("runs") / f"fit-{own}"
    try:
        found = fit_under(
            clips,
            budget,
            Run(seed, folder, workers, accelerator),
            networks=tuple(network or ()),
            epochs_scale=epochs_scale,
            minutes=minutes,
        )
    except KeyboardInterrupt:
        Console(stderr=True).print("\ninterrupted; the same command goes on from the last epoch", highlight=False)
        raise
    if json_file:
        tried = [trial.facts | {"winner": trial is found.winner} for trial in found.tried]
        write_json(
            {"folder": str(folder), "row": found.row.to_json(), "tried": tried, "left_out": found.left_out}, json_file
        )
    else:
        _show(found)


def _show(found: "Found") -> None:
    """The winner's figures, what its file costs, and what to type next."""
    from tinyscene.evaluation.tables import legend, score_table

    row, folder = found.row, found.folder
    screen().print(score_table([row], f"{row.variant} on {row.dataset}, test part", compact=narrow()))
    screen().print(legend([row], compact=narrow()), highlight=False)
    screen().print(f"\n{folder}/scene.onnx {row.rules.judge(row.ledger).line}", highlight=False)
    screen().print(
        f"The model is in {folder}/model; what was tried, in {folder}/pareto.png and pareto.csv\n"
        f"Next:  {program()} run {folder}/model RECORDING\n"
        f"       {program()} count {folder}/scene.onnx",
        highlight=False,
    )
