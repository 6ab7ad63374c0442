"""Listeners: exported files and saved models, with one interface."""

import hashlib
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from tinyscene.audio import Channel
from tinyscene.deployment import FORMATS, Artifact
from tinyscene.deployment.formats import Values
from tinyscene.deployment.stream import Stream
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier


class Model(Protocol):
    """A classifier of waveforms; an `Artifact` is one.

    Attributes:
        sample_rate: of its input, in Hz.
        channel: the channel of a recording that it takes: an index from 0, or "mean".
        classes: in the order of its probabilities.
        clip_samples: the length of the clips that it takes; None where it takes any.
        shortest_samples: the fewest samples that it takes.
        step_samples: in a step of a stream; None for a model that takes clips.
        trained_clip_s: length of the clips that it was trained on, in seconds; None if unknown.
    """

    @property
    def sample_rate(self) -> int: ...
    @property
    def channel(self) -> Channel: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def clip_samples(self) -> int | None: ...
    @property
    def shortest_samples(self) -> int: ...
    @property
    def trained_clip_s(self) -> float | None: ...
    @property
    def step_samples(self) -> int | None: ...

    def stream(self) -> Stream:
        """Start a stream of a recording, step by step."""
        ...

    def probabilities(self, waveforms: Values) -> Values:
        """(batch, samples) -> (batch, classes)"""
        ...


@dataclass(frozen=True)
class SavedModel:
    """A classifier that takes clips of any length, as a `Model`."""

    classifier: SceneClassifier

    clip_samples = None
    step_samples = None

    def stream(self) -> Stream:
        """Raise InputError: a saved model takes clips."""
        raise InputError("a saved model takes whole clips; accepted: a file exported with step_s")

    @property
    def sample_rate(self) -> int:
        return self.classifier.sample_rate

    @property
    def channel(self) -> Channel:
        return self.classifier.channel

    @property
    def classes(self) -> tuple[str, ...]:
        return self.classifier.classes

    @property
    def shortest_samples(self) -> int:
        return self.classifier.shortest_samples

    @property
    def trained_clip_s(self) -> float | None:
        return self.classifier.trained_clip_s

    @torch.inference_mode()
    def probabilities(self, waveforms: Values) -> Values:
        """(batch, samples) -> (batch, classes)"""
        batch = torch.from_numpy(np.require(waveforms, np.float32, ["C", "W"]))
        found: Values = self.classifier(batch.to(self.classifier.standardize.mean.device)).softmax(-1).cpu().numpy()
        return found


def open_model(path: str | Path) -> Model:
    """An exported file, or a folder from `SceneClassifier.save`. Raises InputError for anything else."""
    path = Path(path)
    if path.is_dir():
        return SavedModel(SceneClassifier.load(path).eval())
    if path.suffix in FORMATS:
        return Artifact.load(path)
    raise InputError(
        f"{path}: {'no model' if path.exists() else 'no such file or folder'}; accepted: a folder with model.json and "
        f"weights.safetensors, or an exported file ({', '.join(FORMATS)})"
    )


def fingerprint(path: Path) -> str:
    """The first 12 digits of the SHA-256 of an exported file, or of the model.json of a folder (which holds that of its
    weights)."""
    with (path / "model.json" if path.is_dir() else path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def clip_of(model: Model, clip_s: float | None) -> int | None:
    """The length of clips in samples; None for any, where `clip_s` is None.

    Raises:
        InputError: `clip_s` is not the length that the model takes, or too short for it.
    """
    rate = model.sample_rate
    if clip_s is None:
        return model.clip_samples
    if not 0 < clip_s < inf:
        raise InputError(f"clips of {clip_s:g} s; accepted: a length above 0 s")
    samples = round(clip_s * rate)
    if model.clip_samples not in (None, samples):
        own = (model.clip_samples or 0) / rate
        raise InputError(f"clips of {clip_s:g} s for a file made for {own:g} s; accepted: {own:g}, or no clip length")
    if samples < model.shortest_samples:
        least = model.shortest_samples / rate
        raise InputError(f"clips of {clip_s:g} s; accepted: at least {least:.3g} s, the shortest that the model takes")
    return samples
