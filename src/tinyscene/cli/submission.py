"""The verbs of `tinyscene submission`."""

from pathlib import Path
from typing import Annotated

import typer

from tinyscene.cli.options import Cache, Json, program, screen, write_json

app = typer.Typer(
    no_args_is_help=True,
    help="Build a challenge submission from trained models, or check one, whoever built it.\n\n"
    "`docs/submission.md` says what each edition asks, and where that is taken from.",
)
_Edition = Annotated[
    str, typer.Option(help="Of the challenge: 2020 (task 1b), 2021 (task 1a), 2022, 2023, 2024 or 2025.")
]
_Evaluation = Annotated[
    Path | None,
    typer.Option(metavar="LIST", help="The evaluation list [default: evaluation_setup/fold1_test.csv in --audio]."),
]


@app.command("build")
def submission_build(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="One to four systems: a model's folder, or a run with one variant and seed. For 2024 a folder with "
            "split_5 ... split_100, each of these; for 2025 models of single devices lie in devices/ID of the model's.",
        ),
    ],
    edition: _Edition,
    audio: Annotated[Path, typer.Option(metavar="DIR", help="The evaluation set's folder, with audio/ in it.")],
    authors: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Authors and systems, as YAML; an example is written where there is none."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write: the systems' folders, their zip, the inference package.")],
    evaluation: _Evaluation = None,
    report: Annotated[Path | None, typer.Option(metavar="PDF", help="The technical report, for the zip.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it is there already.")] = False,
    cache: Cache = None,
) -> None:
    """Classify the evaluation set and write what the edition asks for: outputs, meta files, zip, inference package.

    Complexity is counted from the models by the edition's own convention. Status 1 where there is anything to
    mend: what `check` finds is said at the end.
    """
    from tinyscene import submission

    asked = submission.get_edition(edition)
    place = submission.build(
        runs, asked, audio=audio, authors=authors, out=out, evaluation=evaluation, report=report, overwrite=overwrite
    )
    found = submission.check(place, asked, audio=audio, evaluation=evaluation, models=runs)
    screen().print(f"The submission is in {place}", highlight=False)
    screen().print(found.text, highlight=False)
    screen().print(f"Next:  {program()} submission check {place} --edition {edition}", highlight=False)
    if not found.ok:
        raise typer.Exit(1)


@app.command("check")
def submission_check(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="The zip, or a folder with the same content.")],
    edition: _Edition,
    evaluation: _Evaluation = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The evaluation set; a package of 2025 predicts some of it.")
    ] = None,
    model: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Count this system's model anew; one for each, in order.")
    ] = None,
    inference: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The package of 2025 [default: inference/ in or beside PACKAGE].")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python of the environment to run a package of 2025 in [default: this one].")
    ] = None,
    run: Annotated[bool, typer.Option(help="Whether to run a package of 2025, which is somebody's code.")] = True,
    json_file: Json = None,
) -> None:
    """Say everything that is wrong with a submission: layout, labels, rows, probabilities, fields, complexity, limits.

    A package of 2025 is code, and is run: in a process of its own, in the environment of `--python`. Status 1 where
    there is anything to mend.
    """
    from tinyscene import submission

    asked = submission.get_edition(edition)
    found = submission.check(
        package,
        asked,
        evaluation=evaluation,
        audio=audio,
        models=tuple(model or ()),
        inference=inference,
        python=python,
        run=run,
    )
    if json_file:
        write_json(found.to_json(), json_file)
    else:
        screen().print(found.text, highlight=False)
    if not found.ok:
        raise typer.Exit(1)
