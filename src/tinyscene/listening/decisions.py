"""A decision every second over the last clip of a continuing recording, and their exponential mean."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from math import ceil, exp, isfinite
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tinyscene.audio import Waveform
from tinyscene.errors import InputError
from tinyscene.listening.model import Model, clip_of
from tinyscene.listening.tape import Tape

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
        if not (isfinite(self.time_s) and self.time_s >= 0):
            raise InputError(f"smoothing over {self.time_s} s; accepted: 0 (none) or more")
        if self.of not in get_args(MeanOf):
            raise InputError(f"smoothing of {self.of!r}; accepted: {', '.join(get_args(MeanOf))}")

    def every(self, every_s: float) -> Callable[[Probabilities], Probabilities]:
        """A function to call every `every_s` seconds: probabilities (classes,) -> smoothed ones (classes,)"""
        weight = 1 - exp(-every_s / self.time_s) if self.time_s else 1.0
        state: Probabilities | None = None

        def smooth(found: Probabilities) -> Probabilities:
            nonlocal state
            if not self.time_s:
                return found
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
        label: of this clip.
        smoothed: of the smoothed probabilities.
        probabilities: of every class, for this clip.
        smoothed_probabilities: of every class.
    """

    time_s: float
    label: str
    smoothed: str
    probabilities: dict[str, float]
    smoothed_probabilities: dict[str, float]


def decisions(
    model: Model,
    blocks: Iterable[Waveform],
    *,
    clip_s: float | None = None,
    every_s: float = 1.0,
    smoothing: Smoothing | None = None,
    where: str = "the recording",
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
    each = _step_by_step if model.step_samples else _clip_by_clip
    return each(model, Tape(blocks), clip, every_s, smoothing or Smoothing(), where)


def real_every_s(model: Model, every_s: float) -> float:
    """Seconds between decisions: as requested, or the nearest whole number of a stream's steps."""
    if model.step_samples is None:
        return every_s
    step_s = model.step_samples / model.sample_rate
    return max(1, round(every_s / step_s)) * step_s


def _clip_by_clip(
    model: Model, tape: Tape, clip: int, every_s: float, smoothing: Smoothing, where: str
) -> Iterator[Decision]:
    smooth, rate = smoothing.every(every_s), model.sample_rate
    for step in count():
        start = round(step * every_s * rate)
        waveform = tape.cut(start, start + clip)
        if len(waveform) < clip:
            break
        alone = model.probabilities(waveform[None])[0].astype(np.float64)
        yield _decision(model.classes, (start + clip) / rate, alone, smooth(alone))
    _check_length(tape, clip, rate, where)


def _step_by_step(
    model: Model, tape: Tape, clip: int, every_s: float, smoothing: Smoothing, where: str
) -> Iterator[Decision]:
    rate, size = model.sample_rate, model.step_samples or 1
    steps = round(real_every_s(model, every_s) * rate / size)
    smooth, stream = smoothing.every(steps * size / rate), model.stream()
    for step in count(1):
        end = step * size
        samples = tape.cut(end - size, end)
        if len(samples) < size:
            break
        alone = stream(samples[None])[0].astype(np.float64)
        if end >= clip and (step - ceil(clip / size)) % steps == 0:
            yield _decision(model.classes, end / rate, alone, smooth(alone))
    _check_length(tape, ceil(clip / size) * size, rate, f"{where}, in steps of {size / rate:g} s")


def _check_length(tape: Tape, clip: int, rate: int, where: str) -> None:
    if tape.length < clip:
        raise InputError(f"{where}: {tape.length / rate:.2f} s; accepted: at least {clip / rate:.2f} s, one clip")


def _decision(classes: tuple[str, ...], time_s: float, alone: Probabilities, smooth: Probabilities) -> Decision:
    return Decision(
        time_s,
        classes[int(alone.argmax())],
        classes[int(smooth.argmax())],
        dict(zip(classes, alone.tolist(), strict=True)),
        dict(zip(classes, smooth.tolist(), strict=True)),
    )
