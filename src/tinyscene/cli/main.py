"""The command line. Each command is one call to the public API; slow imports happen inside."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import tinyscene
from tinyscene.cli import bench, data, export, fit, run, submission
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
    check_split,
    given,
    joined_numbers,
    load_clips,
    narrow,
    print_run,
    recipe,
    refuse,
    resumable,
    run_folder,
    screen,
    seeds_of,
    write_json,
)
from tinyscene.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Low-complexity acoustic scene classification: train, compress, count, judge.\n\n"
    "Start with `tinyscene demo` or `tinyscene list`.",
)
app.add_typer(data.app, name="data")
app.add_typer(submission.app, name="submission")
app.command("fit")(fit.fit)
app.command("export")(export.export)
app.command("run")(run.run)
app.command("bench")(bench.bench)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tinyscene {tinyscene.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command; the general help is the app's."""


def main() -> None:
    """Run a command; wrong input gives one sentence and status 2."""
    try:
        app(joined_numbers(sys.argv[1:]), prog_name="tinyscene")
    except InputError as error:
        refuse(str(error))
    except OSError as error:
        # A read-only folder or a full disk, where a traceback adds nothing.
        if not error.filename:
            raise
        refuse(f"{error.filename}: {error.strerror}; accepted: a place that can be read and written")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="systems, networks, rules or datasets [default: all].")] = "",
) -> None:
    """List systems, networks, rules and data sets."""
    from tinyscene.cli import listing

    kinds = {
        "systems": listing.systems,
        "networks": listing.networks,
        "rules": listing.rules,
        "datasets": listing.datasets,
    }
    if what and what not in kinds:
        raise InputError(f"list {what}; accepted: {', '.join(kinds)}")
    for kind in [what] if what else kinds:
        screen().print(kinds[kind]())


@app.command()
def show(system: Annotated[str, typer.Argument(help="Name of a system, or path to a system's .py file.")]) -> None:
    """Show a system's recipe as it is in the code, with the report's numbers."""
    from rich.syntax import Syntax

    from tinyscene.cli import listing
    from tinyscene.systems import load_system

    file = load_system(system)
    screen().print(Syntax(file.path.read_text(), "python", theme="ansi_light", background_color="default"))
    screen().print(listing.reported(file))


@app.command()
def count(
    target: Annotated[
        str, typer.Argument(metavar="SYSTEM|MODEL", help="A system, a network, a model or its exported file.")
    ],
    rules: Annotated[str | None, typer.Option(help="Edition to judge by, such as dcase2024.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Count a network or model with 16-bit weights.")] = False,
    precision: Annotated[str | None, typer.Option(help="Of activations, for RAM [default: the network's].")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also layer by layer.")] = False,
    json_file: Json = None,
) -> None:
    """Count parameters, bytes, MACs and RAM, and judge them by an edition's rules. Needs no data.

    For a system, every stage of every variant is counted beside the report's numbers. For a network or a saved
    model, every convention and every MAC counter is shown.
    """
    from tinyscene.accounting import precision_of
    from tinyscene.cli import listing
    from tinyscene.evaluation.tables import count_table, legend
    from tinyscene.rules import get_rules
    from tinyscene.systems import load_system
    from tinyscene.systems.count import count_model, count_system, is_system

    edition, held_as = get_rules(rules) if rules else None, precision_of(precision) if precision else None
    system = is_system(target)
    if system and half:
        raise InputError(
            f"--half with the system {target}; accepted: with a network or a model; a recipe sets its own precision"
        )
    if system:
        rows = count_system(load_system(target), edition, precision=held_as)
    else:
        rows = [count_model(target, edition, half=half, precision=held_as)]
    if json_file:
        extra = {"ledger": True} if layers or not system else {}
        found = [row.to_json() | ({"ledger": row.ledger.to_json()} if extra else {}) for row in rows]
        write_json({"system": rows[0].system, "rows": found}, json_file)
        return
    if system:
        screen().print(count_table(rows, f"{rows[0].system}: every stage, counted without data", compact=narrow()))
        screen().print(legend(rows, compact=narrow()), highlight=False)
    for table in listing.ledgers(rows, layers=layers or not system, named=rules is not None or system):
        screen().print(table, highlight=not isinstance(table, str))


@app.command()
def reproduce(
    system: Annotated[str, typer.Argument(help="Name of a system, or path to a system's .py file.")],
    data: Data,
    dataset: Dataset = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0 1 2.")] = "0",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="VARIANT.stages.N.field=value", help="Change the recipe.")
    ] = None,
    epochs_scale: Annotated[float, typer.Option(help="Multiply all epochs by this; recorded in the receipt.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the run [default: runs/SYSTEM-DATASET].")] = None,
    subset: Subset = None,
    test_fold: TestFold = None,
    drop_shared: DropShared = False,
    pieces: Pieces = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Number of devices; several train by DDP.")] = 1,
    skip_bad: SkipBad = False,
    cache: Cache = None,
    json_file: Json = None,
) -> None:
    """Run a report's system on recordings: train, compress, count and evaluate every stage of every variant.

    A killed run resumes after its last epoch when started again. The run's folder holds scorecard, pictures, models,
    receipt and recipe.
    """
    from tinyscene import systems
    from tinyscene.training import Run

    file = recipe(system, variant, set_, epochs_scale)
    built = next(iter(file.variants.values())).build(("a", "b"))
    options = given(subset, test_fold, drop_shared)
    clips = load_clips(data, dataset, (built.sample_rate, built.channel), options, skip_bad=skip_bad, pieces=pieces)
    folder = run_folder(out, file.name, clips)
    with resumable("the last epoch"):
        rows = systems.reproduce(
            file,
            clips,
            Run(folder=folder, workers=workers, accelerator=accelerator, devices=devices),
            seeds=seeds_of(seeds),
            settings={"epochs_scale": epochs_scale, "set": set_ or []},
        )
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        print_run(rows, file, clips, folder, json_file)


@app.command()
def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Folders with model.json, one a seed, or exported files."),
    ],
    data: Data,
    dataset: Dataset = None,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
    subset: Subset = None,
    test_fold: TestFold = None,
    drop_shared: DropShared = False,
    pieces: Pieces = None,
    skip_bad: SkipBad = False,
    cache: Cache = None,
    json_file: Json = None,
) -> None:
    """Evaluate saved models or exported files: overall, by class, device and city. Several give mean and deviation.

    The splits are those of training, if the data set and its options are the same. A folder without splits is
    cut as in training; `--split all` takes all of it, for recordings outside training. A file for clips of one
    length splits longer ones, and the mean of the probabilities counts.
    """
    import tinyscene as ts
    from tinyscene.cli import listing
    from tinyscene.deployment import FORMATS

    check_split(split)
    scored, options = [], given(subset, test_fold, drop_shared)
    for model in models:
        found = ts.Artifact.load(model) if model.suffix in FORMATS else ts.SceneClassifier.load(model)
        sample_rate_and_channel, whole = (found.sample_rate, found.channel), split == "all"
        clips = load_clips(
            data, dataset, sample_rate_and_channel, options, skip_bad=skip_bad, pieces=pieces, whole=whole
        )
        scored.append(ts.evaluate(found, clips if whole else getattr(clips, split)))
    if json_file:
        write_json([{"model": str(m), **s.to_json()} for m, s in zip(models, scored, strict=True)], json_file)
        return
    for model, scores in zip(models, scored, strict=True):
        screen().print(listing.scores(scores, f"{model} on {scores.clips.name}, {split} split"))
        if model.suffix in FORMATS:
            screen().print(listing.how_a_file_was_scored(ts.Artifact.load(model)), highlight=False)
    if len(scored) > 1:
        screen().print(listing.mean_and_deviation(scored))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a model's folder (with predictions.csv).")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another one, scored on the same clips.")],
    json_file: Json = None,
) -> None:
    """Compare two runs clip by clip: differences with paired bootstrap intervals, overall and by device.

    The folder of a `reproduce` run means all its variants; those that both have are compared.
    """
    from tinyscene.cli import listing
    from tinyscene.evaluation import compare_runs

    differences = compare_runs(first, second)
    if json_file:
        plain = {
            name: {metric: {part: d.to_json() for part, d in parts.items()} for metric, parts in both.items()}
            for name, both in differences.items()
        }
        write_json(plain, json_file)
        return
    for name, both in differences.items():
        screen().print(listing.differences(name, both))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demonstration.")] = Path("runs/demo"),
    epochs_scale: Annotated[float, typer.Option(help="Multiply the recipe's 200 epochs by this.")] = 0.06,
) -> None:
    """Render a synthetic data set and run one system on it end to end, in a few minutes."""
    import tinyscene as ts
    from tinyscene.cli import listing
    from tinyscene.data.synthetic import render

    place = render(out / "synthetic")
    clips = ts.data.load(place)
    file = recipe("singh2021", ["singh_53kb"], None, epochs_scale)
    rows = ts.reproduce(file, clips, ts.Run(folder=out / "run"), settings={"epochs_scale": epochs_scale})
    model = out / "run" / "singh_53kb" / "seed-0"
    recording = place / clips.test.rows[0].path
    screen().print(listing.predictions({str(recording): ts.SceneClassifier.load(model).predict(recording)}))
    print_run(rows, file, clips, out / "run", None)
