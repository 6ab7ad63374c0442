"""One decision for a whole recording, in memory that does not grow with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tinyscene import audio
from tinyscene.deployment.artifact import WHOLE_S, clip_starts
from tinyscene.errors import InputError
from tinyscene.listening.model import Model, SavedModel, clip_of
from tinyscene.listening.tape import Tape
from tinyscene.models.classifier import Prediction

Mean = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RecordingResult:
    """The result for a recording.

    Attributes:
        prediction: the scene and the probability of every class.
        seconds: length of the recording.
        clips: number of clips it was split into; 1 for a recording in one piece.
    """

    prediction: Prediction
    seconds: float
    clips: int


def predict(model: Model, path: Path, clip_s: float | None = None) -> RecordingResult:
    """Classify a sound file of any length, as `Artifact.predict` and `SceneClassifier.predict` do.

    A model for clips of one length takes successive clips, the last one up to the recording's end, and the mean of
    their probabilities counts. One for any length takes the recording in one piece; beyond 30 s chunk by chunk, to the
    same result, where it is a saved model that streams (`models/streaming.py`), and otherwise as clips of 30 s,
    which `SceneClassifier.predict` does not do.

    Args:
        model: the classifier.
        path: a sound file of any rate and channel count.
        clip_s: split into clips of this many seconds, where the model takes any length and the recording is
            longer.

    Raises:
        InputError: the file can't be used, or is too short; or the model does not take such clips.
    """
    clip = clip_of(model, clip_s)
    info = audio.probe(path)
    length = audio.resampled_length(info.frames, info.sample_rate, model.sample_rate)
    try:
        return _predict(model, path, clip, length)
    except _OtherLengthError as other:  # an MP3's header is an estimate
        length = other.length
    try:
        return _predict(model, path, clip, length)
    except _OtherLengthError as other:
        raise InputError(
            f"{path}: {length / model.sample_rate:.2f} s at first, then {other.length / model.sample_rate:.2f} s; "
            f"accepted: a file that is not being written"
        ) from None


class _OtherLengthError(Exception):
    """A recording has another length than assumed, on which the clips' starts depend."""

    def __init__(self, length: int) -> None:
        self.length = length


def _predict(model: Model, path: Path, clip: int | None, length: int) -> RecordingResult:
    rate = model.sample_rate
    tape = Tape(audio.read_blocks(path, rate, model.channel))
    least = max(model.shortest_samples, round(audio.SHORTEST_S * rate))
    found, clips = (None, 0) if length < least else _probabilities(model, tape, clip, length)
    if tape.run_out() != length:
        raise _OtherLengthError(tape.length)
    if found is None:
        raise InputError(f"{path}: {length / rate:.2f} s; accepted: at least {least / rate:.2f} s")
    audio.check_sound(tape.sounding, str(path))
    best = model.classes[int(found.argmax())]
    return RecordingResult(
        Prediction(best, dict(zip(model.classes, found.tolist(), strict=True))), length / rate, clips
    )


def _probabilities(model: Model, tape: Tape, clip: int | None, length: int) -> tuple[Mean | None, int]:
    """(classes,), and the number of clips; None where the recording is shorter than `length`."""
    most = round(WHOLE_S * model.sample_rate)
    if clip is None and length > most and isinstance(model, SavedModel) and model.classifier.streams:
        return _chunk_by_chunk(model, tape, length), 1
    clip = min(clip or most, length) if model.clip_samples is None else model.clip_samples
    total, clips = np.zeros(len(model.classes)), 0
    for start in clip_starts(length, clip):
        waveform = tape.cut(start, start + clip)
        if len(waveform) < clip:
            return None, 0
        total += model.probabilities(waveform[None])[0]
        clips += 1
    return total / clips, clips


def _chunk_by_chunk(model: SavedModel, tape: Tape, length: int) -> Mean | None:
    logits = model.classifier.stream(_AsTensor(tape, length), WHOLE_S)
    found: Mean = logits.double().softmax(-1)[0].cpu().numpy()
    return found


class _AsTensor:
    """A tape as waveforms of shape (1, length), read in order."""

    def __init__(self, tape: Tape, length: int) -> None:
        self._tape, self._length = tape, length

    @property
    def shape(self) -> Sequence[int]:
        return (1, self._length)

    def __getitem__(self, part: tuple[slice, slice], /) -> Tensor:
        start, end = part[1].start, min(part[1].stop, self._length)
        waveform = self._tape.cut(start, end)
        if len(waveform) < end - start:
            raise _OtherLengthError(self._tape.run_out())
        return torch.from_numpy(np.require(waveform, requirements=["C", "W"]))[None]
