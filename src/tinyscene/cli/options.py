"""Shared by the commands: options, loading of clips, output."""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.progress import say

if TYPE_CHECKING:
    from tinyscene.audio import Channel
    from tinyscene.data import Clips
    from tinyscene.deployment import Artifact
    from tinyscene.evaluation import Row
    from tinyscene.models.classifier import SceneClassifier
    from tinyscene.systems import CrossValidation, SystemFile


def _keep_in(folder: Path | None) -> Path | None:
    if folder:
        os.environ["TINYSCENE_CACHE"] = str(folder)
    return folder


Json = Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="Write the results as JSON; - is stdout.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Set aside and list unusable files.")]
DropShared = Annotated[
    bool, typer.Option("--drop-shared", help="Leave recordings out of training that are also in a later split.")
]
Cache = Annotated[
    Path | None,
    typer.Option(callback=_keep_in, help="Folder for decoded audio [default: $TINYSCENE_CACHE or ~/.cache]."),
]
Subset = Annotated[int | None, typer.Option(help="Percentage of the TAU 2022 training list: 5, 10, 25, 50 or 100.")]
TestFold = Annotated[str | None, typer.Option(help="Fold to test on, where the set has folds [default: the last].")]
Folds = Annotated[
    str | None, typer.Option(metavar="all|FOLD...", help="Test every fold, or these, in turn; one table for all.")
]
Precise = Annotated[
    str, typer.Option("--precision", help="32-true, or bf16-mixed: faster where the processor has bfloat16 products.")
]
SPLITS = ("train", "validation", "test", "all")


@dataclass(frozen=True)
class Recordings:
    """The options of labelled recordings."""

    data: Annotated[Path, typer.Option("--data", help="Folder of the data set, or a .csv of files.")]
    dataset: Annotated[str | None, typer.Option(help="Layout of the data set [default: recognised].")] = None
    subset: Subset = None
    test_fold: TestFold = None
    drop_shared: DropShared = False
    pieces: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Cut every clip into pieces of this length.")
    ] = None
    skip_bad: SkipBad = False
    cache: Cache = None

    def load(self, model: "SceneClassifier | Artifact", split: str = "") -> "Clips":
        """The clips, or those of a split, decoded for the model. Raises InputError for an unknown split."""
        if split and split not in SPLITS:
            raise InputError(f"--split {split}; accepted: {', '.join(SPLITS)}")
        clips = load_clips(
            self.data,
            self.dataset,
            (model.sample_rate, model.channel),
            given(self.subset, self.test_fold, self.drop_shared),
            skip_bad=self.skip_bad,
            pieces=self.pieces,
            whole=split == "all",
        )
        found: Clips = getattr(clips, split) if split not in ("", "all") else clips
        return found

    def folds(self, model: "SceneClassifier | Artifact", wanted: str) -> "dict[str, Clips]":
        """The clips with each of these folds as the test part, or with "all" of them."""
        if self.test_fold is not None:
            raise InputError(f"--test-fold {self.test_fold} with --folds {wanted}; accepted: one of them")
        known = self.load(model).folds
        names = known if wanted == "all" else tuple(wanted.replace(",", " ").split())
        if not names or not set(names) <= set(known):
            accepted = f"all, or of {', '.join(known)}" if known else "a data set with folds"
            raise InputError(f"--folds {wanted}; accepted: {accepted}")
        return {name: replace(self, test_fold=name).load(model) for name in dict.fromkeys(names)}


def with_recordings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its argument `recordings` as options."""
    parameters = inspect.signature(command).parameters
    group = parameters["recordings"].annotation
    options = inspect.signature(group).parameters

    @wraps(command)
    def called(**typed: Any) -> None:
        recordings = group(**{name: typed.pop(name) for name in options})
        command(recordings=recordings, **typed)

    named = [
        other for each in parameters.values() for other in (options.values() if each.annotation is group else [each])
    ]
    by_name = [each.replace(kind=each.KEYWORD_ONLY) for each in named]
    called.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    return called


def load_clips(
    data: Path,
    dataset: str | None,
    sample_rate_and_channel: "tuple[int, Channel]",
    options: dict[str, Any],
    *,
    skip_bad: bool,
    pieces: float | None = None,
    whole: bool = False,
) -> "Clips":
    """Load and decode, whole or in pieces, and report what is left out; with `skip_bad`, set aside unusable clips.

    Args:
        data, dataset: path and layout.
        sample_rate_and_channel: sample rate in Hz and channel.
        options: of `data.load`.
        whole: take all clips, which may be too few to split.
    """
    from tinyscene.data import decode, load

    listed = load(data, dataset, allow_missing=skip_bad, strict=not whole, **options)
    waveforms = decode(listed, *sample_rate_and_channel, skip_bad=skip_bad)
    if options.get("drop_shared"):
        waveforms = waveforms.drop_shared()
    list_skipped([reason for _, reason in waveforms.skipped])
    for note in waveforms.clips.notes:
        Console(stderr=True, soft_wrap=True).print(f"note: {note}", highlight=False, markup=False)
    return waveforms.clips if pieces is None else waveforms.in_pieces(pieces)


def run_folder(out: Path | None, name: str, clips: "Clips") -> Path:
    """The given folder, or one under runs/ by name and data set."""
    own = clips.root.stem if clips.name in ("folder", "csv") else clips.name
    return out or Path("runs") / f"{name}-{own}"


@contextmanager
def resumable(after: str) -> Iterator[None]:
    """On Ctrl-C, report how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"\ninterrupted; the same command resumes after {after}")
        raise


def given(subset: int | None = None, test_fold: str | None = None, drop_shared: bool = False) -> dict[str, Any]:
    """The given options of a loader."""
    options = {"subset": subset, "test_fold": test_fold, "drop_shared": drop_shared or None}
    return {key: value for key, value in options.items() if value is not None}


def list_skipped(reasons: list[str]) -> None:
    if reasons:
        lines = "\n".join([f"set aside {len(reasons)}:", *reasons])
        Console(stderr=True, soft_wrap=True).print(escape(lines), highlight=False)


def whole_numbers(option: str, text: str, at_least: int) -> tuple[int, ...]:
    """An option's numbers as typed. Raises InputError for a wrong or too small one."""
    try:
        numbers = tuple(int(number) for number in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < at_least:
        example = " ".join(str(at_least + i) for i in range(3))
        raise InputError(f'{option} "{text}"; accepted: whole numbers from {at_least}, such as "{example}"')
    return numbers


def screen() -> Console:
    """Tables keep their width when written to a file; brackets in names are not markup."""
    return Console(width=None if sys.stdout.isatty() else 180, markup=False)


def narrow() -> bool:
    """Whether the terminal is too narrow for a whole scorecard."""
    return screen().width < 150


def program() -> str:
    """The name of this program, for suggested commands."""
    return sys.argv[0] if Path(sys.argv[0]).stem == "tinyscene" else "tinyscene"


def show(plain: Any, json_file: str | None, *shown: Any) -> None:
    """What a command found: as JSON where a file is given, otherwise as tables and sentences."""
    if json_file is None:
        for each in shown:
            screen().print(each, highlight=not isinstance(each, str))
    elif json_file == "-":
        print(json.dumps(plain, indent=1))
    else:
        with write_whole(Path(json_file)) as partial:
            partial.write_text(json.dumps(plain, indent=1) + "\n")


def joined_numbers(arguments: list[str]) -> list[str]:
    """Join `--seeds 0 1 2`, `--threads 1 2` and `--folds 1 2` into one value, since the parser can't take several."""
    for option in ("--seeds", "--threads", "--folds"):
        if option in arguments:
            first = arguments.index(option) + 1
            numbers = list(takewhile(str.isdigit, arguments[first:]))
            if numbers:
                arguments = [*arguments[:first], " ".join(numbers), *arguments[first + len(numbers) :]]
    return arguments


def scorecard(rows: "list[Row]", title: str) -> list[Any]:
    """The table of scores, and what its words mean."""
    from tinyscene.evaluation.tables import legend, score_table

    compact = narrow()
    return [score_table(rows, title, compact=compact), legend(rows, compact=compact)]


def show_run(rows: "list[Row]", file: "SystemFile", clips: "Clips", folder: Path, json_file: str | None) -> None:
    """The scorecard, the run's folder, and what to type next."""
    from tinyscene.evaluation.tables import seed_table
    from tinyscene.systems import SYSTEMS

    title = f"{file.name} on {clips.name} ({len(clips.test)} test clips)"
    several = len({row.seed for row in rows}) > 1
    me, name = program(), file.name if file.name in SYSTEMS else file.path
    model = folder / rows[-1].variant / f"seed-{rows[-1].seed}"
    show(
        {"system": file.name, "rows": [row.to_json() for row in rows]},
        json_file,
        *scorecard(rows, title),
        *([seed_table(rows, f"{title}: mean ± standard deviation over the seeds")] if several else []),
        f"\nThe run is in {folder}: scorecard, receipt, recipe; pictures and model in {model}\n"
        f"Next:  {me} run {model} RECORDING\n"
        f"       {me} count {model} --rules {rows[-1].rules.name}\n"
        f"       {me} show {name}\n"
        f"       {me} reproduce {name} --data ANOTHER_FOLDER",
    )


def is_first() -> bool:
    """Whether this process is the one that prints, where several train together."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def show_folds(found: "CrossValidation", title: str, folder: Path, json_file: str | None) -> None:
    """One line for every stage of every variant, over all folds."""
    from tinyscene.evaluation.tables import fold_table

    facts = [line.facts for line in found.lines]
    show(
        {"folder": str(folder), "rows": facts},
        json_file,
        fold_table(facts, title),
        f"\nEvery fold's run is in {folder}: the table in folds.csv, and for each variant and seed the predictions for "
        f"all folds' test clips\nNext:  {program()} compare {folder} ANOTHER_FOLDER",
    )


def refuse(message: str) -> None:
    """One sentence on stderr, and status 2."""
    Console(stderr=True, soft_wrap=True).print(f"[red]tinyscene:[/red] {escape(message)}", highlight=False)
    sys.exit(2)
