"""`tinyscene run --stream` and `--listen`: successive decisions, until the sound ends."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from tinyscene.cli.rows import STDIN, open_rows, shown
from tinyscene.progress import bar, say

if TYPE_CHECKING:
    from tinyscene.audio import Waveform
    from tinyscene.listening import Model
    from tinyscene.listening.pcm import Bytes


@dataclass(frozen=True)
class Source:
    """A source of sound.

    Attributes:
        name: in messages.
        blocks: at the model's rate, one channel.
        faults: what went wrong, once it has ended.
        seconds: its length, if known.
        live: whether it continues until it is stopped.
    """

    name: str
    blocks: "Iterator[Waveform]"
    faults: Callable[[], list[str]] = list
    seconds: float = 0.0
    live: bool = False


@dataclass(frozen=True)
class Timing:
    """Options as typed; None where not given."""

    clip_s: float | None
    every: float | None
    smooth: float | None
    mean_of: str | None

    @property
    def every_s(self) -> float:
        return 1.0 if self.every is None else self.every

    def settings(self) -> dict[str, Any]:
        """The arguments of `decisions`."""
        from tinyscene.listening import Smoothing

        given: dict[str, Any] = {"time_s": self.smooth, "of": self.mean_of}
        smoothing = Smoothing(**{name: value for name, value in given.items() if value is not None})
        return {"clip_s": self.clip_s, "every_s": self.every_s, "smoothing": smoothing}


def source(model: "Model", name: str, rate: int | None, channels: int | None, pcm: str | None) -> Source:
    """A sound file, or raw PCM on standard input."""
    from tinyscene import audio
    from tinyscene.listening import Pcm

    if name != STDIN:
        blocks = audio.read_blocks(Path(name), model.sample_rate, model.channel)
        return Source(name, blocks, seconds=audio.probe(Path(name)).duration_s)
    piped = Pcm(
        cast("Bytes", sys.stdin.buffer),
        model.sample_rate if rate is None else rate,
        1 if channels is None else channels,
        pcm or "s16le",
    )

    def faults() -> list[str]:
        frame = f"frame of {piped.channels} channels {piped.encoding}"
        return [f"{piped.NAME}: {piped.left_over} bytes at the end are not a complete {frame}, so left out"] * bool(
            piped.left_over
        )

    return Source(piped.NAME, piped.blocks(model.sample_rate, model.channel), faults)


def microphone(model: "Model", device: str | None) -> Source:
    """The microphone as a source."""
    from tinyscene.listening import Microphone

    opened = Microphone(int(device) if device and device.isdecimal() else device)

    def faults() -> list[str]:
        lost = []
        if opened.lost_blocks:
            lost.append(f"lost {opened.lost_blocks * opened.BLOCK_S:.2f} s: the model is slower than --every asks for")
        if opened.overflows:
            lost.append(f"PortAudio lost sound {opened.overflows} times")
        return lost

    return Source("the microphone", opened.blocks(model.sample_rate, model.channel), faults, live=True)


def follow(model: "Model", source: Source, out: Path | None, form: str | None, timing: Timing) -> None:
    """Write decisions until the source ends or Ctrl-C stops it; then print a summary."""
    from tinyscene.listening.decisions import decisions, real_every_s
    from tinyscene.listening.rows import Rows, row_of_decision

    made = decisions(model, source.blocks, where=source.name, **timing.settings())
    # While a table goes to a file, a terminal still shows the current decision.
    on_screen = source.live and sys.stdout.isatty() and form is None
    live = [Rows(sys.stdout, "live")] if on_screen else []
    counted: Counter[str] = Counter()
    last_s, interrupted = 0.0, False
    with open_rows(model, out, form, streamed=True) as (rows, _):
        writers = live + ([] if live and out is None else [rows])
        every_s = real_every_s(model, timing.every_s)
        if every_s != timing.every_s:
            say(f"a decision every {every_s:g} s, a whole number of the file's steps")
        total = max(1, int(source.seconds / every_s))
        with bar("listening", total, quiet=not source.seconds or shown(out)) as advance:
            try:
                for decision in made:
                    last_s = decision.time_s
                    counted[decision.smoothed] += 1
                    for writer in writers:
                        writer.write(row_of_decision(decision))
                    advance(f"{last_s:.0f} s, {decision.smoothed}")
            except KeyboardInterrupt:
                interrupted = True
    if live:
        print()
    for sentence in [_summary(counted, last_s), *source.faults()]:
        say(sentence)
    if interrupted and not source.live:
        raise typer.Exit(130)


def _summary(counted: Counter[str], last_s: float) -> str:
    """Seconds processed, and the share of every scene."""
    decided = counted.total()
    shares = ", ".join(f"{scene} {count / decided:.0%}" for scene, count in counted.most_common())
    return f"{last_s:.1f} s processed, {decided} decisions{': ' if shares else ''}{shares}"
