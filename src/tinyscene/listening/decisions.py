"""A decision every second over the last clip of a continuing recording, and their exponential mean."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from math import ceil, exp, isfinite
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tinyscene.audio import Waveform
from tinyscene.deployment.formats import Values
from tinyscene.errors import InputError, Numbers, check
from tinyscene.listening.model import BATCH_S, Model, at_once, clip_of, probabilities, step_of
from tinyscene.listening.tape import Tape
from tinyscene.threads import in_order

Probabilities = npt.NDArray[np.float64]
MeanOf = Literal["log", "probability"]
# The least probability, so that a single zero does not rule out a class permanently.
FLOOR = 1e-6


@dataclass(frozen=True)
class Smoothing:
    """The exponential mean of decisions.

    With x the probabilities p, or log(max(p, 1e-6)), a = 1 - exp(-every_s / time_s), and k counting decisions from 0:
    s[0] = x[0], s[k] = s[k-1] + a (x[k] - s[k-1]). Smoothed probabilities are s, or softmax(s). A decision `time_s`
    ago has 1/e of the current weight.

    Attributes:
        time_s: time constant in seconds; 0 for no smoothing.
        of: "log" averages logarithms, which one confident decision moves further; "probability"
            probabilities.
    """

    time_s: float = 3.0
    of: MeanOf = "log"

    def __post_init__(self) -> None:
        check(self, time_s=Numbers(least=0), of=get_args(MeanOf))

    def every(self, every_s: float) -> Callable[[Probabilities], Probabilities]:
        """A function to call every `every_s` seconds: probabilities (classes,) -> smoothed ones (classes,)"""
        if not self.time_s:
            return lambda found: found
        weight = 1 - exp(-every_s / self.time_s)
        state: Probabilities | None = None

        def smooth(found: Probabilities) -> Probabilities:
            nonlocal state
            value = np.log(np.maximum(found, FLOOR)) if self.of == "log" else found
            state = value if state is None else state + weight * (value - state)
            if self.of == "probability":
                return state
            shares: Probabilities = np.exp(state - state.max())
            shares /= shares.sum()
            return shares

        return smooth


@dataclass(frozen=True)
class Decision:
    """The decision on one clip, alone and smoothed with earlier ones.

    Attributes:
        time_s: end of the clip, from the beginning of the recording.
        probabilities, smoothed_probabilities: of every class.
        label, smoothed: the most probable class of each.
    """

    time_s: float
    probabilities: dict[str, float]
    smoothed_probabilities: dict[str, float]

    @property
    def label(self) -> str:
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def smoothed(self) -> str:
        return max(self.smoothed_probabilities, key=self.smoothed_probabilities.__getitem__)


def decisions(
    model: Model,
    blocks: Iterable[Waveform],
    *,
    clip_s: float | None = None,
    every_s: float = 1.0,
    smoothing: Smoothing | None = None,
    where: str = "the recording",
    live: bool = True,
) -> Iterator[Decision]:
    """A decision over every clip that ends `every_s` after the previous one, the first as soon as one is full.

    Each is the model's result for these samples only. One clip and one block of the recording are kept. A file
    exported with `step_s` keeps its state instead, and takes every sample once: its decisions come after whole steps,
    of the number nearest to `every_s`, and its frames are not padded at the ends of a clip.

    Args:
        model: the listener.
        blocks: the recording at the model's rate, each block of shape (samples,).
        clip_s: length of the clips, where the model takes any; the training clips' where None.
        every_s: from one decision to the next.
        smoothing: `Smoothing()` where None.
        where: the recording's name in errors.
        live: decide as soon as a clip is full. Otherwise several at once, which is faster for a file.

    Raises:
        InputError: no clip is full when the recording ends, or the lengths can't be used.
    """
    rate, clip = model.sample_rate, clip_of(model, clip_s) or clip_of(model, model.trained_clip_s)
    if clip is None:
        raise InputError(
            "the model takes clips of any length, and its training length is unknown; accepted: --clip-s "
            "SECONDS, preferably the training clips' length"
        )
    if not (isfinite(every_s) and every_s * rate >= 1):
        raise InputError(f"a decision every {every_s} s; accepted: above 0, such as 1")
    tape, every_s, size = Tape(blocks), real_every_s(model, every_s), step_of(model)
    if size:
        clip, where = ceil(clip / size) * size, f"{where}, in steps of {size / rate:g} s"
    found = _step_by_step(model, tape, clip, every_s) if size else _clip_by_clip(model, tape, clip, every_s, live)
    smooth = (smoothing or Smoothing()).every(every_s)

    def made() -> Iterator[Decision]:
        for end, one in found:
            alone = one.astype(np.float64)
            named, smoothed = (dict(zip(model.classes, p.tolist(), strict=True)) for p in (alone, smooth(alone)))
            yield Decision(end / rate, named, smoothed)
        if tape.length < clip:
            raise InputError(f"{where}: {tape.length / rate:.2f} s; accepted: at least {clip / rate:.2f} s, one clip")

    return made()


def real_every_s(model: Model, every_s: float) -> float:
    """Seconds between decisions: as requested, or the nearest whole number of a stream's steps."""
    step_s = step_of(model) / model.sample_rate
    return max(1, round(every_s / step_s)) * step_s if step_s else every_s


def _clip_by_clip(model: Model, tape: Tape, clip: int, every_s: float, live: bool) -> Iterator[tuple[int, Values]]:
    """The end of each clip in samples, and its probabilities (classes,)"""

    def cut() -> Iterator[tuple[int, Waveform]]:
        for step in count():
            start = round(step * every_s * model.sample_rate)
            waveform = tape.cut(start, start + clip)
            if len(waveform) < clip:
                return
            yield start + clip, waveform

    def classify(some: list[tuple[int, Waveform]]) -> list[tuple[int, Values]]:
        ends, clips = zip(*some, strict=True)
        return [*zip(ends, probabilities(model, np.stack(clips)), strict=True)]

    clips, each = cut(), 1 if live else max(1, round(BATCH_S * model.sample_rate) // clip)
    batches = iter(lambda: [*islice(clips, each)], [])
    for found in map(classify, batches) if live else in_order(classify, batches, at_once(model)):
        yield from found


def _step_by_step(model: Any, tape: Tape, clip: int, every_s: float) -> Iterator[tuple[int, Values]]:
    stream, size, every = model.stream(), model.step_samples, round(every_s * model.sample_rate)
    for end in count(size, size):
        samples = tape.cut(end - size, end)
        if len(samples) < size:
            return
        alone = stream(samples[None])[0]
        if end >= clip and (end - clip) % every == 0:
            yield end, alone
