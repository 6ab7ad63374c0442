"""The commands of `tinyscene data`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tinyscene.cli.options import DropShared, Json, Subset, TestFold, given, screen, show

app = typer.Typer(no_args_is_help=True, help="Check, render or download a data set.")


@app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="Data set; see `tinyscene list datasets`.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    subset: Subset = None,
    test_fold: TestFold = None,
    drop_shared: DropShared = False,
    json_file: Json = None,
) -> None:
    """Report what is present, missing, unreadable or odd, and whether the splits leak. Status 1 if it can't be used."""
    from tinyscene import data
    from tinyscene.data.check import tables

    options = given(subset, test_fold, drop_shared)
    clips = data.load(folder, name, strict=False, allow_missing=False, **options)
    report = data.check(clips, drop_shared=drop_shared)
    show(json.loads(report.to_json()), json_file, tables(report))
    if not report.ok:
        raise typer.Exit(1)


@app.command("make")
def data_make(
    name: Annotated[str, typer.Argument(help='"synthetic", or a set to download (see `tinyscene list datasets`).')],
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    seed: Annotated[int, typer.Option(help="Seed of the synthetic set.")] = 0,
) -> None:
    """Render the synthetic data set, or download a public one (needs the extra `download`)."""
    from tinyscene import data
    from tinyscene.data.synthetic import Synthetic, render

    place = render(folder, Synthetic(seed=seed)) if name == "synthetic" else data.download(name, folder)
    screen().print(f"{name} is at {place}; `tinyscene data check {name} {place}` checks it", highlight=False)
