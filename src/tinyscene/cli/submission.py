"""The commands of `tinyscene submission`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyscene.cli.options import Json, screen, show

if TYPE_CHECKING:
    from tinyscene.submission import Report

app = typer.Typer(
    no_args_is_help=True,
    help="Build a challenge submission from trained models, or check anyone's.\n\n"
    "`docs/submission.md` describes each edition's requirements and their sources.",
)
_Edition = Annotated[str, typer.Option(help="Edition of the challenge's task 1: 2024 or 2025.")]
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
            help="One to four systems: a model's folder, or a run with one variant and seed. For 2024, a folder with "
            "one of these in each of split_5 ... split_100; for 2025, models of single devices are in its devices/ID.",
        ),
    ],
    edition: _Edition,
    audio: Annotated[Path, typer.Option(metavar="DIR", help="The evaluation set's folder, which contains audio/.")],
    authors: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Authors and systems, as YAML; if missing, an example is written."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the systems' folders, their zip and the inference package.")],
    evaluation: _Evaluation = None,
    report: Annotated[Path | None, typer.Option(metavar="PDF", help="The technical report, for the zip.")] = None,
) -> None:
    """Classify the evaluation set and write what the edition requires: outputs, meta files, zip, inference package.

    Complexity is counted from the models by the edition's own convention. At the end `check` examines what was
    written; status 1 if it finds a problem.
    """
    from tinyscene import submission

    asked = submission.get_edition(edition)
    clips = submission.evaluation_clips(audio, asked, evaluation)
    place = submission.build(runs, asked, clips, authors=authors, out=out, report=report)
    screen().print(f"The submission is in {place}", highlight=False)
    _print(submission.check(place, asked, clips=clips, inference=place / "inference" if asked.package else None))


@app.command("check")
def submission_check(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="The zip, or a folder with the same content.")],
    edition: _Edition,
    evaluation: _Evaluation = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The evaluation set, of which a 2025 package predicts some.")
    ] = None,
    inference: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The inference package of 2025, to run; it is someone else's code."),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python of the environment to run it in [default: this one].")
    ] = None,
    json_file: Json = None,
) -> None:
    """Report every problem of a submission: layout, labels, rows, probabilities, fields, complexity.

    A 2025 package that `--inference` names is run in its own process, in the environment of `--python`. Status 1 if
    there is a problem.
    """
    from tinyscene import submission
    from tinyscene.data.tables import read_table

    asked = submission.get_edition(edition)
    found = submission.check(
        package,
        asked,
        clips=submission.evaluation_clips(audio, asked, evaluation) if audio else None,
        listed=[row.cells["filename"] for row in read_table(evaluation, ["filename"])] if evaluation else None,
        inference=inference if asked.package else None,
        python=python,
    )
    _print(found, json_file)


def _print(found: "Report", json_file: str | None = None) -> None:
    """One line for each problem; status 1 if there is any."""
    verdict = f"{', '.join(found.systems) or 'no system'}: "
    verdict += f"{len(found.problems)} problems" if found.problems else "no problems found"
    show(found._asdict(), json_file, *found.problems, *(f"note: {note}" for note in found.notes), verdict)
    if found.problems:
        raise typer.Exit(1)
