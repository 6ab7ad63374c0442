"""Listeners: exported files and saved models."""

import hashlib
from contextlib import suppress
from math import inf
from pathlib import Path

import numpy as np
import torch

from tinyscene.deployment import FORMATS, Artifact
from tinyscene.deployment.formats import Values
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.folding import fold_batch_norm
from tinyscene.models.pretrained import located, names
from tinyscene.models.tensors import laid_out

Model = SceneClassifier | Artifact
# Of clips in one batch: short enough for the cache.
BATCH_S = 8.0


def open_model(path: str | Path) -> Model:
    """An exported file, a folder from `SceneClassifier.save`, or the name of a model that comes along.

    Batch norms are folded, which is faster. Raises InputError for anything else.
    """
    path = located(path)
    if path.is_dir():
        classifier = SceneClassifier.load(path)
        # Of clips that may be too short for the network where their length is unknown.
        with suppress(InputError):
            if classifier.precision == "float32":
                classifier.network = laid_out(fold_batch_norm(classifier.network, classifier.short_example()))
        return classifier
    if path.suffix in FORMATS:
        return Artifact.load(path, threads=1 if FORMATS[path.suffix].concurrent else 0)
    raise InputError(
        f"{path}: {'no model' if path.exists() else 'no such file or folder'}; accepted: a folder with model.json and "
        f"weights.safetensors, an exported file ({', '.join(FORMATS)}), or {', '.join(names())}"
    )


def fingerprint(path: Path) -> str:
    """The first 12 digits of the SHA-256 of an exported file, or of the model.json of a folder (which holds that of its
    weights)."""
    with (path / "model.json" if path.is_dir() else path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def step_of(model: Model) -> int:
    """Samples in a step of a stream; 0 for a model that takes clips."""
    return 0 if isinstance(model, SceneClassifier) else model.step_samples or 0


def at_once(model: Model) -> int | None:
    """Calls of `probabilities` at a time: None for any number."""
    return 1 if isinstance(model, Artifact) and not model.format.concurrent else None


@torch.inference_mode()
def probabilities(model: Model, waveforms: Values) -> Values:
    """(batch, samples) -> (batch, classes)"""
    if not isinstance(model, SceneClassifier):
        return model.probabilities(waveforms)
    batch = torch.from_numpy(np.require(waveforms, np.float32, ["C", "W"])).to(model.standardize.mean.device)
    found: Values = model.eval()(batch).softmax(-1).cpu().numpy()
    return found


def clip_of(model: Model, clip_s: float | None) -> int | None:
    """The length of clips in samples; None for any, where `clip_s` is None.

    Raises:
        InputError: `clip_s` is not the length that the model takes, or too short for it.
    """
    rate, own = model.sample_rate, None if isinstance(model, SceneClassifier) else model.clip_samples
    if clip_s is None:
        return own
    if not 0 < clip_s < inf:
        raise InputError(f"clips of {clip_s:g} s; accepted: a length above 0 s")
    samples = round(clip_s * rate)
    if own not in (None, samples):
        own_s = (own or 0) / rate
        raise InputError(
            f"clips of {clip_s:g} s for a file made for {own_s:g} s; accepted: {own_s:g}, or no clip length"
        )
    if samples < model.shortest_samples:
        least = model.shortest_samples / rate
        raise InputError(f"clips of {clip_s:g} s; accepted: at least {least:.3g} s, the shortest that the model takes")
    return samples
