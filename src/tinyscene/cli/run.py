"""`tinyscene run`: a model or an exported file at work on recordings, on a stream or at the microphone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyscene.cli.options import SkipBad, list_skipped
from tinyscene.cli.rows import STDIN, open_rows, shown
from tinyscene.errors import InputError
from tinyscene.progress import bar, say

if TYPE_CHECKING:
    from tinyscene.listening import Model

# Where an option has an effect.
_PLACES = {
    **dict.fromkeys(("every", "smooth", "mean_of"), "with --stream or --listen"),
    **dict.fromkeys(("rate", "channels", "pcm"), "with --stream -"),
    "device": "with --listen",
}


def run(
    model: Annotated[
        Path, typer.Argument(metavar="FILE", help="An exported file, or a folder with model.json of a saved model.")
    ],
    recordings: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECORDING...", help="Sound files or folders of them; - is raw PCM on standard input."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Table to write, .csv or .jsonl [default: standard output].")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="csv, jsonl or text [default: text on a terminal, else csv].")
    ] = None,
    clip_s: Annotated[float | None, typer.Option(help="Length of the clips to hear, if the model takes any.")] = None,
    skip_bad: SkipBad = False,
    stream: Annotated[bool, typer.Option("--stream", help="A decision a second over the last clip.")] = False,
    listen: Annotated[bool, typer.Option("--listen", help="The same at the microphone; Ctrl-C ends it.")] = False,
    every: Annotated[float | None, typer.Option(help="Seconds from decision to decision [default: 1].")] = None,
    smooth: Annotated[
        float | None, typer.Option(help="Time constant of the exponential mean in s; 0 for none [default: 3].")
    ] = None,
    mean_of: Annotated[str | None, typer.Option(help="What is smoothed: log or probability [default: log].")] = None,
    rate: Annotated[int | None, typer.Option(help="Of raw PCM, in Hz [default: the model's].")] = None,
    channels: Annotated[int | None, typer.Option(help="Of raw PCM, interleaved [default: 1].")] = None,
    pcm: Annotated[str | None, typer.Option(help="Of raw PCM: s16le or f32le [default: s16le].")] = None,
    device: Annotated[str | None, typer.Option(help="Number or name of the microphone.")] = None,
) -> None:
    """Name the scene of recordings of any length, of a stream second by second, or of what the microphone hears.

    With --out, a run that was stopped and is started again goes on behind the last whole row.
    """
    from tinyscene.listening import open_model

    heard = recordings or []
    options = {"every": every, "smooth": smooth, "mean_of": mean_of, "device": device}
    options |= {"rate": rate, "channels": channels, "pcm": pcm}
    _refuse_mixtures(heard, stream, listen, options, skip_bad)
    opened = open_model(model)
    if not (stream or listen):
        _recordings(opened, model, heard, out, form, clip_s, skip_bad)
        return
    from tinyscene.cli import stream as streams

    source = streams.microphone(opened, device) if listen else streams.source(opened, heard[0], rate, channels, pcm)
    streams.follow(opened, source, out, form, streams.Timing(clip_s, every, smooth, mean_of))


def _refuse_mixtures(heard: list[str], stream: bool, listen: bool, options: dict[str, Any], skip_bad: bool) -> None:
    """Options that go with another way to listen would have no effect."""
    if stream and listen:
        raise InputError("--stream with --listen; accepted: one of the two")
    if listen and heard:
        raise InputError(f"--listen with {heard[0]}; accepted: recordings, or the microphone")
    if not listen and not heard:
        raise InputError("nothing to hear; accepted: sound files or folders, --stream with -, or --listen")
    if stream and len(heard) > 1:
        raise InputError(f"--stream with {len(heard)} recordings; accepted: one, or - for standard input")
    if STDIN in heard and not stream:
        raise InputError("- without --stream; accepted: --stream -, or the names of sound files")
    if skip_bad and (stream or listen):
        raise InputError("--skip-bad with a stream; accepted: with recordings heard one by one")
    fits = {"with --stream or --listen": stream or listen, "with --stream -": heard == [STDIN]}
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

    clip_of(model, clip_s)  # what is wrong for every recording is no reason to set each aside
    key = fingerprint(path) + ("" if clip_s is None else f" {clip_s:g} s")
    files, skipped, cut = _files(named), [], 0
    with open_rows(model, out, form, key) as (rows, done), _interruptible(out):
        left = [file for file in files if file not in done]
        with bar("listening", len(files), done=len(files) - len(left), quiet=shown(out)) as advance:
            for file in left:
                try:
                    heard = predict(model, Path(file), clip_s)
                except InputError as error:
                    if not skip:
                        raise
                    skipped.append(str(error))
                else:
                    cut += clip_s is None and model.clip_samples is None and heard.clips > 1
                    rows.write(row_of(file, heard, key))
                advance("")
    if cut:
        say(f"heard as clips of 30 s side by side, being longer: {cut} of {len(left)}; --clip-s chooses the length")
    list_skipped(skipped)


@contextmanager
def _interruptible(out: Path | None) -> "Iterator[None]":
    """Ctrl-C says what to do next."""
    try:
        yield
    except KeyboardInterrupt:
        if out:
            say(f"\ninterrupted; the same command goes on behind the last row of {out}")
        raise


def _files(named: list[str]) -> list[str]:
    """Sound files by name, those of folders at any depth; each once."""
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
