"""`tinyscene run`: a model or an exported file on recordings, a stream or the microphone."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tinyscene.cli.options import SkipBad, list_skipped, resumable
from tinyscene.errors import InputError
from tinyscene.progress import bar, say

if TYPE_CHECKING:
    from tinyscene.listening import Decision, Microphone, Model, Pcm
    from tinyscene.listening.pcm import Bytes
    from tinyscene.listening.rows import Rows

STDIN = "-"
# Where an option has an effect.
_PLACES = {
    **dict.fromkeys(("every", "smooth", "mean_of"), "with --stream or --listen"),
    **dict.fromkeys(("rate", "channels", "pcm"), "with --stream -"),
    "device": "with --listen",
    "skip_bad": "with recordings",
}


def run(
    context: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An exported file, a folder with model.json, or a name (`list models`)."),
    ],
    recordings: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECORDING...", help="Sound files or folders of them; - is raw PCM on standard input."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Table to write, .csv or .jsonl [default: standard output].")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="csv, jsonl or text [default: text on a terminal, otherwise csv].")
    ] = None,
    clip_s: Annotated[float | None, typer.Option(help="Clip length in seconds, if the model takes any.")] = None,
    skip_bad: SkipBad = False,
    stream: Annotated[bool, typer.Option("--stream", help="Decide every second on the last clip.")] = False,
    listen: Annotated[bool, typer.Option("--listen", help="The same from the microphone; Ctrl-C stops it.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between decisions.")] = 1.0,
    smooth: Annotated[float, typer.Option(help="Time constant of the exponential mean in s; 0 for none.")] = 3.0,
    mean_of: Annotated[str, typer.Option(help="What is smoothed: log or probability.")] = "log",
    rate: Annotated[int | None, typer.Option(help="Sample rate of raw PCM, in Hz [default: the model's].")] = None,
    channels: Annotated[int, typer.Option(help="Channels of raw PCM, interleaved.")] = 1,
    pcm: Annotated[str, typer.Option(help="Encoding of raw PCM: s16le or f32le.")] = "s16le",
    device: Annotated[str | None, typer.Option(help="Number or name of the microphone.")] = None,
) -> None:
    """Classify recordings of any length, or a stream or the microphone second by second.

    With --out, a stopped run resumes after its last complete row when started again.
    """
    from tinyscene import audio, listening
    from tinyscene.models.pretrained import located

    model = located(model)
    given = recordings or []
    _refuse_mixtures(context, given, stream, listen)
    opened = listening.open_model(model)
    if not (stream or listen):
        _recordings(opened, model, given, out, form, clip_s, skip_bad)
        return
    where, seconds = given[0] if given else "the microphone", 0.0
    piped: Pcm | Microphone | None = None
    if listen:
        piped = listening.Microphone(int(device) if device and device.isdecimal() else device)
    elif where == STDIN:
        own, where = opened.sample_rate if rate is None else rate, listening.Pcm.NAME
        piped = listening.Pcm(cast("Bytes", sys.stdin.buffer), own, channels, pcm)
    if piped:
        blocks = piped.blocks(opened.sample_rate, opened.channel)
    else:
        blocks = audio.read_blocks(Path(where), opened.sample_rate, opened.channel)
        seconds = audio.probe(Path(where)).duration_s
    smoothing = listening.Smoothing(smooth, mean_of)  # type: ignore[arg-type]
    decisions = listening.decisions(
        opened, blocks, clip_s=clip_s, every_s=every, smoothing=smoothing, where=where, live=piped is not None
    )
    interrupted = _follow(opened, decisions, every, seconds, out, form, live=listen)
    for sentence in _lost(piped):
        say(sentence)
    if interrupted and not listen:
        raise typer.Exit(130)


def _refuse_mixtures(context: typer.Context, given: list[str], stream: bool, listen: bool) -> None:
    """Raise InputError for options of another mode, which would have no effect."""
    if stream and listen:
        raise InputError("--stream with --listen; accepted: one of them")
    if listen and given:
        raise InputError(f"--listen with {given[0]}; accepted: recordings or the microphone")
    if not listen and not given:
        raise InputError("no input; accepted: sound files or folders, --stream with -, or --listen")
    if stream and len(given) > 1:
        raise InputError(f"--stream with {len(given)} recordings; accepted: one, or - for standard input")
    if STDIN in given and not stream:
        raise InputError("- without --stream; accepted: --stream -, or the names of sound files")
    streamed = stream or listen
    met = dict(zip(dict.fromkeys(_PLACES.values()), (streamed, given == [STDIN], listen, not streamed), strict=True))
    for name, place in _PLACES.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and not met[place]:
            raise InputError(f"--{name.replace('_', '-')} {context.params[name]}; accepted: {place}")


# One by one


def _recordings(
    model: "Model", path: Path, named: list[str], out: Path | None, form: str | None, clip_s: float | None, skip: bool
) -> None:
    from tinyscene.listening import RecordingResult, predict
    from tinyscene.listening.model import at_once, clip_of, fingerprint
    from tinyscene.listening.rows import row_of
    from tinyscene.threads import in_order

    clip_of(model, clip_s)  # a fault of every recording is no reason to set each aside
    key = fingerprint(path) + ("" if clip_s is None else f" {clip_s:g} s")
    files, skipped, cut = _files(named), [], 0

    def found(file: str) -> RecordingResult | InputError:
        try:
            return predict(model, Path(file), clip_s)
        except InputError as error:
            return error

    with (
        _open_rows(model, out, form, key) as (rows, done),
        resumable(f"the last row of {out}") if out else nullcontext(),
    ):
        left = [file for file in files if file not in done]
        with bar("listening", len(files), done=len(files) - len(left), quiet=_shown(out)) as advance:
            # A single recording is itself worked on by all threads.
            results = in_order(found, left, at_once(model)) if len(left) > 1 else map(found, left)
            for file, result in zip(left, results, strict=True):
                if isinstance(result, InputError):
                    if not skip:
                        raise result
                    skipped.append(str(result))
                else:
                    cut += clip_of(model, clip_s) is None and result.clips > 1
                    rows.write(row_of(file, result, key))
                advance("")
    if cut:
        say(f"{cut} of {len(left)} were longer than 30 s and split into clips of 30 s; --clip-s sets the length")
    list_skipped(skipped)


def _files(named: list[str]) -> list[str]:
    """Sound files by name, from folders at any depth; each once."""
    from tinyscene.audio import SUFFIXES
    from tinyscene.data.folder import sound_files

    files: dict[str, None] = {}
    for name in named:
        folder = Path(name).is_dir()
        found = [str(file) for file in sound_files(Path(name))] if folder else [name]
        if not found:
            raise InputError(f"{name}: a folder without a sound file; accepted: {', '.join(SUFFIXES)} at any depth")
        files |= dict.fromkeys(found)
    return list(files)


# Streams


def _follow(
    model: "Model",
    decisions: "Iterator[Decision]",
    every: float,
    seconds: float,
    out: Path | None,
    form: str | None,
    *,
    live: bool,
) -> bool:
    """Write decisions until the source ends, after `seconds` if known, or Ctrl-C stops it; whether it did."""
    from tinyscene.listening.decisions import real_every_s
    from tinyscene.listening.rows import Rows, row_of_decision

    # While a table goes to a file, a terminal still shows the current decision.
    line = [Rows(sys.stdout, "live")] if live and sys.stdout.isatty() and form is None else []
    counted: Counter[str] = Counter()
    last_s, interrupted = 0.0, False
    with _open_rows(model, out, form, streamed=True) as (rows, _):
        writers = line + ([] if line and out is None else [rows])
        every_s = real_every_s(model, every)
        if every_s != every:
            say(f"a decision every {every_s:g} s, a whole number of the file's steps")
        total = max(1, int(seconds / every_s))
        with bar("listening", total, quiet=not seconds or _shown(out)) as advance:
            try:
                for decision in decisions:
                    last_s = decision.time_s
                    counted[decision.smoothed] += 1
                    for writer in writers:
                        writer.write(row_of_decision(decision))
                    advance(f"{last_s:.0f} s, {decision.smoothed}")
            except KeyboardInterrupt:
                interrupted = True
    if line:
        print()
    decided = counted.total()
    shares = ", ".join(f"{scene} {count / decided:.0%}" for scene, count in counted.most_common())
    say(f"{last_s:.1f} s processed, {decided} decisions{': ' if shares else ''}{shares}")
    return interrupted


def _lost(piped: "Pcm | Microphone | None") -> Iterator[str]:
    """What was lost of a pipe or the microphone."""
    from tinyscene.listening import Microphone, Pcm

    if isinstance(piped, Pcm) and piped.left_over:
        frame = f"frame of {piped.channels} channels {piped.encoding}"
        yield f"{piped.NAME}: {piped.left_over} bytes at the end are not a complete {frame}, so left out"
    if isinstance(piped, Microphone) and piped.lost_blocks:
        yield f"lost {piped.lost_blocks * piped.BLOCK_S:.2f} s: the model is slower than --every asks for"
    if isinstance(piped, Microphone) and piped.overflows:
        yield f"PortAudio lost sound {piped.overflows} times"


# The output


@contextmanager
def _open_rows(
    model: "Model", out: Path | None, form: str | None, key: str = "", *, streamed: bool = False
) -> "Iterator[tuple[Rows, set[str]]]":
    """The destination of rows, and the recordings that it already has."""
    from tinyscene.listening.rows import FORMS, Rows, form_of, resumed

    if form not in (None, "text", *FORMS) or (out and form not in (None, form_of(out))):
        accepted = f"only .{form_of(out)} of {out}" if out else f"{', '.join(FORMS)} or text"
        raise InputError(f"--format {form}; accepted: {accepted}")
    if out is None:
        yield Rows(sys.stdout, form or ("text" if sys.stdout.isatty() else "csv")), set()
    elif not streamed:
        with resumed(out, model.classes, key) as opened:
            yield opened
    else:
        if out.exists() and out.stat().st_size:
            raise InputError(f"{out}: already exists, and a stream cannot be resumed; try another name")
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8", newline="") as file:
            yield Rows(file, form_of(out)), set()


def _shown(out: Path | None) -> bool:
    """Whether rows appear on a terminal, where they also show progress."""
    return out is None and sys.stdout.isatty()
