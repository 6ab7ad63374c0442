"""`tinyscene run`: a model or an exported file on recordings, a stream or the microphone."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyscene.cli.options import SkipBad, list_skipped, resumable
from tinyscene.cli.rows import STDIN, open_rows, shown
from tinyscene.errors import InputError
from tinyscene.progress import bar, say

if TYPE_CHECKING:
    from tinyscene.listening import Model

# Modes in which an option has an effect.
_PLACES = {
    **dict.fromkeys(("every", "smooth", "mean_of"), "with --stream or --listen"),
    **dict.fromkeys(("rate", "channels", "pcm"), "with --stream -"),
    "device": "with --listen",
}


def run(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="An exported file, or a folder with model.json.")],
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
    every: Annotated[float | None, typer.Option(help="Seconds between decisions [default: 1].")] = None,
    smooth: Annotated[
        float | None, typer.Option(help="Time constant of the exponential mean in s; 0 for none [default: 3].")
    ] = None,
    mean_of: Annotated[str | None, typer.Option(help="What is smoothed: log or probability [default: log].")] = None,
    rate: Annotated[int | None, typer.Option(help="Sample rate of raw PCM, in Hz [default: the model's].")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of raw PCM, interleaved [default: 1].")] = None,
    pcm: Annotated[str | None, typer.Option(help="Encoding of raw PCM: s16le or f32le [default: s16le].")] = None,
    device: Annotated[str | None, typer.Option(help="Number or name of the microphone.")] = None,
) -> None:
    """Classify recordings of any length, or a stream or the microphone second by second.

    With --out, a stopped run resumes after its last complete row when started again.
    """
    from tinyscene.listening import open_model

    given = recordings or []
    options = {"every": every, "smooth": smooth, "mean_of": mean_of, "device": device}
    options |= {"rate": rate, "channels": channels, "pcm": pcm}
    _refuse_mixtures(given, stream, listen, options, skip_bad)
    opened = open_model(model)
    if not (stream or listen):
        _recordings(opened, model, given, out, form, clip_s, skip_bad)
        return
    from tinyscene.cli import stream as streams

    source = streams.microphone(opened, device) if listen else streams.source(opened, given[0], rate, channels, pcm)
    streams.follow(opened, source, out, form, streams.Timing(clip_s, every, smooth, mean_of))


def _refuse_mixtures(given: list[str], stream: bool, listen: bool, options: dict[str, Any], skip_bad: bool) -> None:
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
    if skip_bad and (stream or listen):
        raise InputError("--skip-bad with a stream; accepted: with recordings")
    fits = {"with --stream or --listen": stream or listen, "with --stream -": given == [STDIN]}
    fits["with --listen"] = listen
    for name, value in options.items():
        place = _PLACES[name]
        if value is not None and not fits[place]:
            raise InputError(f"--{name.replace('_', '-')} {value}; accepted: {place}")


# One by one


def _recordings(
    model: "Model", path: Path, named: list[str], out: Path | None, form: str | None, clip_s: float | None, skip: bool
) -> None:
    from tinyscene.listening import predict
    from tinyscene.listening.model import clip_of, fingerprint
    from tinyscene.listening.rows import row_of

    clip_of(model, clip_s)  # a fault of every recording is no reason to set each aside
    key = fingerprint(path) + ("" if clip_s is None else f" {clip_s:g} s")
    files, skipped, cut = _files(named), [], 0
    with (
        open_rows(model, out, form, key) as (rows, done),
        resumable(f"the last row of {out}") if out else nullcontext(),
    ):
        left = [file for file in files if file not in done]
        with bar("listening", len(files), done=len(files) - len(left), quiet=shown(out)) as advance:
            for file in left:
                try:
                    result = predict(model, Path(file), clip_s)
                except InputError as error:
                    if not skip:
                        raise
                    skipped.append(str(error))
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
        if not Path(name).is_dir():
            files[name] = None
            continue
        found = dict.fromkeys(map(str, sound_files(Path(name))))
        if not found:
            raise InputError(f"{name}: a folder without a sound file; accepted: {', '.join(SUFFIXES)} at any depth")
        files |= found
    return list(files)
