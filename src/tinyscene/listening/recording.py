"""One decision for a whole recording, in memory that does not grow with it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tinyscene import audio
from tinyscene.deployment.artifact import WHOLE_S, clip_starts
from tinyscene.deployment.probes import at_least
from tinyscene.errors import InputError
from tinyscene.listening.model import BATCH_S, Model, at_once, clip_of, probabilities
from tinyscene.listening.tape import Tape
from tinyscene.models.classifier import Prediction, SceneClassifier
from tinyscene.threads import in_order


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
    clip, rate, info = clip_of(model, clip_s), model.sample_rate, audio.probe(path)
    least = max(model.shortest_samples, round(audio.SHORTEST_S * rate))
    length, found, clips = audio.resampled_length(info.frames, info.sample_rate, rate), np.zeros(0), 0
    for _ in range(2):  # an MP3's header is an estimate, on which the clips' starts depend
        tape = Tape(audio.read_blocks(path, rate, model.channel))
        if length >= least:
            found, clips = _classify(model, tape, clip, length)
        if tape.run_out() == length:
            break
        length = tape.length
    else:
        raise InputError(f"{path}: another length on every reading; accepted: a file that is not being written")
    if length < least:
        raise InputError(f"{path}: {length / rate:.2f} s; accepted: at least {least / rate:.2f} s")
    audio.check_sound(tape.sounding, str(path))
    named = dict(zip(model.classes, found.tolist(), strict=True))
    return RecordingResult(Prediction(max(named, key=named.__getitem__), named), length / rate, clips)


def _classify(model: Model, tape: Tape, clip: int | None, length: int) -> tuple[npt.NDArray[np.float64], int]:
    """Probabilities (classes,), and the number of clips; zeros follow a recording shorter than `length`."""
    most = round(WHOLE_S * model.sample_rate)
    if clip is None and length > most and isinstance(model, SceneClassifier) and model.streams:
        logits = model.eval().stream(_AsTensor(tape, length), WHOLE_S)
        return logits.double().softmax(-1)[0].cpu().numpy(), 1
    clip = clip_of(model, None) or min(clip or most, length)
    starts = clip_starts(length, clip)
    each = max(1, round(BATCH_S * model.sample_rate) // clip)
    batches = (
        np.stack([at_least(tape.cut(start, start + clip), clip) for start in starts[first : first + each]])
        for first in range(0, len(starts), each)
    )
    total = sum(found.sum(0, np.float64) for found in in_order(partial(probabilities, model), batches, at_once(model)))
    return total / len(starts), len(starts)


class _AsTensor:
    """A tape as waveforms of shape (1, length), read in order."""

    def __init__(self, tape: Tape, length: int) -> None:
        self._tape, self.shape = tape, (1, length)

    def __getitem__(self, part: tuple[slice, slice], /) -> Tensor:
        start, end = part[1].start, min(part[1].stop, self.shape[1])
        return torch.from_numpy(at_least(self._tape.cut(start, end), end - start))[None]
