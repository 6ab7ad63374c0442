"""The command line. Each command is one call to the public API; slow imports happen inside."""

import atexit
import gc
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import tinyscene
from tinyscene.cli import bench, data, export, fit, page, run, submission
from tinyscene.cli.options import (
    Folds,
    Json,
    Precise,
    Recordings,
    is_first,
    joined_numbers,
    narrow,
    refuse,
    resumable,
    run_folder,
    screen,
    show,
    show_folds,
    show_run,
    whole_numbers,
    with_recordings,
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
app.command("page")(page.page)


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
    # Nearly everything lives as long as the command, and PyTorch's objects are many to look through again and again.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
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
    what: Annotated[str, typer.Argument(help="systems, networks, models, rules or datasets [default: all].")] = "",
) -> None:
    """List systems, networks, models that come with the package, rules and data sets."""
    from tinyscene.cli import listing

    if what and what not in listing.KINDS:
        raise InputError(f"list {what}; accepted: {', '.join(listing.KINDS)}")
    for kind in [what] if what else listing.KINDS:
        screen().print(listing.KINDS[kind]())


@app.command("show")
def show_(system: Annotated[str, typer.Argument(help="Name of a system, or path to a system's .py file.")]) -> None:
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
    layers, compact, name = layers or not system, narrow(), rows[0].system
    plain = [row.to_json() | ({"ledger": row.ledger.to_json()} if layers else {}) for row in rows]
    table = count_table(rows, f"{name}: every stage, counted without data", compact=compact)
    every_stage = [table, legend(rows, compact=compact)] if system else []
    ledgers = listing.ledgers(rows, layers=layers, named=rules is not None or system)
    show({"system": name, "rows": plain}, json_file, *every_stage, *ledgers)


@app.command()
@with_recordings
def reproduce(
    system: Annotated[str, typer.Argument(help="Name of a system, or path to a system's .py file.")],
    recordings: Recordings,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0 1 2.")] = "0",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="VARIANT.stages.N.field=value", help="Change the recipe.")
    ] = None,
    epochs_scale: Annotated[float, typer.Option(help="Multiply all epochs by this; recorded in the receipt.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the run [default: runs/SYSTEM-DATASET].")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Number of devices; several train by DDP.")] = 1,
    precision: Precise = "32-true",
    folds: Folds = None,
    train_on_all: Annotated[
        bool, typer.Option("--train-on-all", help="Train on the validation part too: nothing is monitored then.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Run a report's system on recordings: train, compress, count and evaluate every stage of every variant.

    A killed run resumes after its last epoch when started again. The run's folder holds scorecard, pictures, models,
    receipt and recipe.
    """
    from tinyscene import systems
    from tinyscene.training import Run

    file = systems.load_system(system)
    file = systems.scale_system(file.only(*variant) if variant else file, epochs_scale)
    file = systems.override(file, set_ or [])
    built = next(iter(file.variants.values())).build(("a", "b"))
    several = recordings.folds(built, folds) if folds else {}
    clips = next(iter(several.values())) if several else recordings.load(built)
    if train_on_all:
        several = {fold: some.with_validation_as("train") for fold, some in several.items()}
        clips = clips.with_validation_as("train")
    name = file.name + "-folds" * bool(several) + "-all" * train_on_all
    folder = run_folder(out, name, clips)
    run = Run(0, folder, workers, accelerator, devices, precision)  # type: ignore[arg-type]  # checked by Run
    how: Any = {
        "seeds": whole_numbers("--seeds", seeds, at_least=0),
        "settings": {"epochs_scale": epochs_scale, "set": set_ or [], "train_on_all": train_on_all},
    }
    with resumable("the last epoch"):
        if several:
            found = systems.cross_validate(file, several, run, **how)
            if is_first():
                show_folds(found, f"{file.name} on {clips.name}, {len(several)} folds", folder, json_file)
            return
        rows = systems.reproduce(file, clips, run, **how)
    if is_first():
        show_run(rows, file, clips, folder, json_file)


@app.command()
@with_recordings
def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Folders with model.json, one a seed, names (`list models`), or files."
        ),
    ],
    recordings: Recordings,
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
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

    scored, plain, shown = [], [], []
    for model in models:
        found = ts.Artifact.load(model) if model.suffix in FORMATS else ts.from_pretrained(model)
        scores = ts.evaluate(found, recordings.load(found, split))
        scored.append(scores)
        plain.append({"model": str(model), **scores.to_json()})
        shown.append(listing.scores(scores, f"{model} on {scores.clips.name}, {split} split"))
        if isinstance(found, ts.Artifact):
            shown.append(listing.how_a_file_was_scored(found))
    show(plain, json_file, *shown, *([listing.mean_and_deviation(scored)] if len(scored) > 1 else []))


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

    found = compare_runs(first, second)
    plain = {
        name: {metric: {part: d.to_json() for part, d in parts.items()} for metric, parts in both.items()}
        for name, both in found.items()
    }
    show(plain, json_file, *(listing.differences(name, both) for name, both in found.items()))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demonstration.")] = Path("runs/demo"),
    epochs_scale: Annotated[float, typer.Option(help="Multiply the recipe's 200 epochs by this.")] = 0.06,
) -> None:
    """Render a synthetic data set and run one system on it end to end, in a few minutes."""
    import tinyscene as ts
    from tinyscene.data.synthetic import render

    place = render(out / "synthetic")
    clips = ts.data.load(place)
    file = ts.scale_system(ts.load_system("singh2021").only("singh_53kb"), epochs_scale)
    rows = ts.reproduce(file, clips, ts.Run(folder=out / "run"), settings={"epochs_scale": epochs_scale})
    recording = place / clips.test.rows[0].path
    heard = ts.SceneClassifier.load(out / "run" / "singh_53kb" / "seed-0").predict(recording)
    screen().print(f"{recording} sounds like {heard.label}", highlight=False)
    show_run(rows, file, clips, out / "run", None)
