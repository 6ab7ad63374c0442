"""The exported file: proved equal to its classifier, described by its metadata, and run on its own runtime."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tinyscene import audio
from tinyscene.deployment.certificate import Certificate, certificate_path
from tinyscene.deployment.formats import Format, Runner, Values
from tinyscene.deployment.forms import Form
from tinyscene.deployment.menu import format_of
from tinyscene.deployment.parity import Parity
from tinyscene.deployment.stream import Stream, in_whole_steps
from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, FrontEnd, Standardize
from tinyscene.models.classifier import Prediction, SceneClassifier
from tinyscene.models.network import shortest_frames
from tinyscene.models.provenance import Provenance

MODEL, MEAN, STD = "tinyscene", "standardize_mean", "standardize_std"
# A file for any length splits longer recordings into clips of this length.
WHOLE_S = 30.0


def describe(classifier: SceneClassifier, form: Form) -> dict[str, str]:
    """The metadata of a file: front end, standardization, classes and form, each as JSON."""
    described: dict[str, Any] = {
        MODEL: {
            **classifier.describe(),
            # Without training recordings: the names of thousands would outweigh the weights.
            "provenance": replace(classifier.provenance, recordings=()).to_json(),
            "shortest_frames": shortest_frames(classifier.network),
            "shortest_samples": classifier.shortest_samples,
            "front_end": form.front_end,
            "samples": None if form.any_length else form.samples,
            "step_samples": form.step_samples or None,
            "state_size": form.examples[-1].shape[1] if form.step_samples else None,
        },
        MEAN: _numbers(classifier.standardize.mean),
        STD: _numbers(classifier.standardize.std),
    }
    return {key: json.dumps(value, separators=(",", ":")) for key, value in described.items()}


def _numbers(tensor: Tensor) -> Any:
    """Nested lists, each number with the digits that identify it in float32."""
    return np.vectorize(lambda value: float(str(np.float32(value))), otypes=[object])(tensor.cpu().numpy()).tolist()


@dataclass(frozen=True)
class Artifact:
    """An exported file with its metadata.

    Attributes:
        path: of the file.
        described: its metadata.
        threads: for its runtime; 0 leaves it to the runtime.
    """

    path: Path
    described: dict[str, str]
    threads: int = 0

    @classmethod
    def load(cls, path: str | Path, threads: int = 0) -> "Artifact":
        """Open a file that `export` wrote. Raises InputError for any other."""
        path = Path(path)
        format_ = format_of(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; accepted: one that export wrote")
        loaded = cls(path, format_.metadata(path), threads)
        try:
            loaded.facts["front_end"]
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: not a file of tinyscene ({error!r} in its metadata); accepted: one that export wrote"
            ) from error
        return loaded

    @property
    def format(self) -> Format:
        """The kind of file and its runtime."""
        return format_of(self.path)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The classifier, as in `SceneClassifier.describe`, and the form that was written."""
        facts: dict[str, Any] = json.loads(self.described[MODEL])
        return facts

    @property
    def inside(self) -> bool:
        """Whether it maps waveforms to probabilities, rather than standardized features to logits."""
        return bool(self.facts["front_end"] == "inside")

    @property
    def clip_samples(self) -> int | None:
        """The length of the clips that it takes; None where it takes any."""
        samples: int | None = self.facts["samples"]
        return samples

    @property
    def step_samples(self) -> int | None:
        """Samples in a step of a stream; None for a file that takes clips."""
        samples: int | None = self.facts.get("step_samples")
        return samples

    @property
    def shortest_samples(self) -> int:
        """Fewest samples that can be classified."""
        return self.clip_samples or int(self.facts["shortest_samples"])

    @property
    def certificate_path(self) -> Path:
        """The certificate's file."""
        return certificate_path(self.path)

    @cached_property
    def certificate(self) -> Certificate:
        """The results of the check at export. Raises InputError where they are missing, or are another file's."""
        return Certificate.load(self.path)

    @property
    def parity(self) -> Parity:
        """Its difference from the classifier at export."""
        return self.certificate.parity

    @property
    def bytes_on_disk(self) -> int:
        """Size of weights, graph and metadata."""
        return self.path.stat().st_size

    @cached_property
    def run(self) -> Runner:
        """From its inputs to its outputs, each (batch, ...)"""
        return self.format.runner(self.path, self.threads)

    @cached_property
    def _classifier(self) -> SceneClassifier:
        """The classifier that it was made from; with the front end inside, only its front end can be run."""
        standardize = Standardize(**self.facts["standardize"])
        standardize.mean.copy_(torch.tensor(json.loads(self.described[MEAN])))
        standardize.std.copy_(torch.tensor(json.loads(self.described[STD])))
        standardize.fitted.fill_(True)
        frontend = FRONTENDS[self.facts["frontend"]["name"]](**self.facts["frontend"]["arguments"])
        classifier = SceneClassifier(frontend, _Runtime(self), tuple(self.facts["classes"]), standardize)
        classifier.provenance = Provenance.from_json(self.facts["provenance"])
        return classifier.eval()

    @property
    def classifier(self) -> SceneClassifier:
        """Front end in torch, network on the file's runtime: it predicts and is evaluated like any other.

        Raises:
            InputError: the front end is inside, which leaves `probabilities`, `predict` and `evaluate`.
        """
        if self.inside:
            raise InputError(
                f"{self.path}: its front end is inside, and its network can't be run separately; accepted: predict, "
                f"evaluate of the file itself, or one written with the front end outside"
            )
        return self._classifier

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self._classifier.classes

    @property
    def frontend(self) -> FrontEnd:
        """(batch, samples) -> (batch, channels, bands, frames), as in training."""
        return self._classifier.frontend

    @property
    def sample_rate(self) -> int:
        """Sample rate of its input, in Hz."""
        return self._classifier.sample_rate

    @property
    def channel(self) -> audio.Channel:
        """The channel of a recording that it takes: an index from 0, or "mean"."""
        return self._classifier.channel

    @property
    def trained_clip_s(self) -> float | None:
        """Length of the clips that the classifier was trained on, in seconds; None if unknown."""
        return self._classifier.trained_clip_s

    def stream(self, recordings: int = 1) -> Stream:
        """Start a stream of this many recordings at once. Raises InputError for a file that takes clips."""
        if self.step_samples is None:
            raise InputError(f"{self.path}: takes whole clips; accepted: a file exported with step_s")
        return Stream(self.run, self.step_samples, self.facts["state_size"], recordings)

    def logits(self, features: Tensor | Values) -> Values:
        """Standardized features (batch, channels, bands, frames) -> (batch, classes); the front end is outside."""
        logits: Values = self.classifier.network(torch.as_tensor(features)).numpy()
        return logits

    @torch.inference_mode()
    def probabilities(self, waveforms: Values) -> Values:
        """(batch, samples) -> (batch, classes); `clip_samples` samples, if not None.

        A stream takes each clip after silence, step by step to its end.
        """
        if self.clip_samples is not None and waveforms.shape[-1] != self.clip_samples:
            raise InputError(
                f"{self.path}: given {waveforms.shape[-1]} samples; accepted: {self.clip_samples}, for which the file "
                f"was made"
            )
        if self.step_samples:
            return self.stream(len(waveforms)).through(in_whole_steps(waveforms, self.step_samples))
        if self.inside:
            (made,) = self.run(waveforms)
            return made
        given = torch.from_numpy(np.require(waveforms, np.float32, ["C", "W"]))
        return self._classifier(given).softmax(-1).numpy()  # type: ignore[no-any-return]

    def predict(self, source: str | Path | audio.Waveform, sample_rate: int | None = None) -> Prediction:
        """Name the scene of a sound file or of samples of shape (samples,) at `sample_rate` Hz.

        A longer recording is split as in `classify_recording`.

        Raises:
            InputError: the file or the samples can't be used, or are too short.
        """
        where, waveform = self._classifier.waveform_of(source, sample_rate)
        if len(waveform) < self.shortest_samples:
            raise InputError(
                f"{where}: {len(waveform) / self.sample_rate:.2f} s; accepted: at least "
                f"{self.shortest_samples / self.sample_rate:.2f} s"
            )
        found = dict(zip(self.classes, self.classify_recording(waveform).tolist(), strict=True))
        return Prediction(max(found, key=found.__getitem__), found)

    def classify_recording(self, waveform: audio.Waveform) -> npt.NDArray[np.float64]:
        """(samples,) at its rate -> probabilities (classes,)

        A file for clips of one length splits a longer recording into clips, the last one up to its end, and
        the mean of their probabilities counts. One for any length does so beyond 30 s, with clips of 30 s.
        """
        clip = self.clip_samples or min(len(waveform), round(WHOLE_S * self.sample_rate))
        clips = [waveform[start : start + clip] for start in clip_starts(len(waveform), clip)]
        mean: npt.NDArray[np.float64] = np.mean([self.probabilities(one[None])[0] for one in clips], 0, np.float64)
        return mean


def clip_starts(length: int, samples: int) -> list[int]:
    """Starts of successive clips, the last one up to the end, so that it may overlap."""
    clips = ceil(length / samples)
    step = (length - samples) / max(1, clips - 1)
    return [round(clip * step) for clip in range(clips)]


class _Runtime(nn.Module):
    """A file on its runtime, as a network."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        self.artifact, self.shortest_frames = artifact, artifact.facts["shortest_frames"]

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Runtime":
        raise InputError(
            f"{self.artifact.path}: a file's network can only be run; accepted: the model that it was exported from"
        )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes)"""
        (made,) = self.artifact.run(features.detach().cpu().numpy())
        return torch.from_numpy(made)
