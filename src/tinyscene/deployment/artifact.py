"""The exported file: written only if it computes what the classifier computes, and run on ONNX Runtime."""

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tinyscene import audio
from tinyscene.accounting import Ledger
from tinyscene.data import Clips
from tinyscene.deployment import parity, probes
from tinyscene.deployment.file_ledger import MASKS, ledger_of_file
from tinyscene.deployment.graph import metadata_of, open_file, read
from tinyscene.deployment.parity import Parity
from tinyscene.deployment.runtime import session
from tinyscene.deployment.write import INPUT, onnx_model, traced_example
from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, Standardize
from tinyscene.files import write_whole
from tinyscene.models.classifier import Prediction, SceneClassifier
from tinyscene.models.masks import SUFFIX
from tinyscene.progress import silence

# Keys of the file's metadata, each JSON.
MODEL, PARITY, MEAN, STD = "tinyscene", "parity", "standardize_mean", "standardize_std"


@dataclass(frozen=True)
class Artifact:
    """An exported file: the network alone, with front end and class names in its metadata.

    Attributes:
        path: of the file.
        parity: how far it was from the classifier when it was written.
    """

    path: Path
    parity: Parity

    @classmethod
    def load(cls, path: str | Path) -> "Artifact":
        """Open a file that `export` wrote. Raises InputError for another."""
        metadata = metadata_of(open_file(Path(path)))
        try:
            found = {key: value for key, value in json.loads(metadata[PARITY]).items() if key != "bound"}
            json.loads(metadata[MODEL])
            return cls(Path(path), Parity(**found))
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: no file of tinyscene ({error!r} in its metadata); accepted: one that export wrote"
            ) from error

    @cached_property
    def classifier(self) -> SceneClassifier:
        """Front end in torch, network in ONNX Runtime: it predicts and is evaluated like any other."""
        metadata = metadata_of(open_file(self.path))
        described = json.loads(metadata[MODEL])
        standardize = Standardize(**described["standardize"])
        standardize.mean.copy_(torch.tensor(json.loads(metadata[MEAN])))
        standardize.std.copy_(torch.tensor(json.loads(metadata[STD])))
        standardize.fitted.fill_(True)
        frontend = FRONTENDS[described["frontend"]["name"]](**described["frontend"]["arguments"])
        network = _Runtime(self.path, described["shortest_frames"])
        classifier = SceneClassifier(frontend, network, tuple(described["classes"]), standardize)
        classifier.heard_devices = tuple(described["heard_devices"])
        classifier.heard_recordings = tuple(described["heard_recordings"].split())
        return classifier.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.classifier.classes

    @property
    def frontend(self) -> nn.Module:
        """(batch, samples) -> (batch, channels, bands, frames), as the network was trained with."""
        return self.classifier.frontend

    @property
    def bytes_on_disk(self) -> int:
        """Weights, graph and metadata."""
        return self.path.stat().st_size

    def logits(self, features: Tensor | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Standardized features (batch, channels, bands, frames) -> (batch, classes)"""
        logits: npt.NDArray[np.float32] = self.classifier.network(torch.as_tensor(features)).numpy()
        return logits

    def predict(self, source: str | Path | audio.Waveform, sample_rate: int | None = None) -> Prediction:
        """Name the scene of a sound file or of samples: `SceneClassifier.predict`, the network on ONNX Runtime.

        It never streams: memory grows with the recording, which is heard in one piece.
        """
        return self.classifier.predict(source, sample_rate)

    def ledger(self, clip_s: float) -> Ledger:
        """What the file costs for a clip of `clip_s` seconds, read from the file alone."""
        return ledger_of_file(self.path, tuple(self.classifier.example(clip_s).shape))


class _Runtime(nn.Module):
    """A file on ONNX Runtime, as a network."""

    def __init__(self, path: Path, shortest_frames: int) -> None:
        super().__init__()
        self.path, self.shortest_frames = path, shortest_frames
        self.session = session(path)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Runtime":
        raise InputError(
            f"{self.path}: a file's network can be run, and nothing else; accepted: the model that it was exported from"
        )

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes)"""
        given = np.ascontiguousarray(features.detach().cpu().numpy(), np.float32)
        return torch.from_numpy(self.session.run(None, {INPUT: given})[0])


def export(
    classifier: SceneClassifier,
    path: str | Path,
    *,
    features: Tensor | None = None,
    clips: Clips | None = None,
    clip_s: float = 1.0,
) -> Artifact:
    """Write the network as ONNX, run the file beside the classifier, and keep it only if both say the same.

    One file, float32, float16 or int8 as the weights are stored. Its input is standardized features.

    Args:
        path: ends in .onnx.
        features: standardized features to compare on, (batch, channels, bands, frames), or
        clips: recordings to compare on; at edge cases of sound, `clip_s` seconds long, where neither is given.

    Raises:
        InputError: another suffix, a place or a network that can't be written, or a file that differs; none is left
            then.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise InputError(f"export to {path}; accepted: a name that ends in .onnx")
    if features is not None and clips is not None:
        raise InputError("export was given features and clips; accepted: one of the two, or neither")
    classifier = copy.deepcopy(classifier).cpu().eval()
    if not clip_s > 0 or (features is not None and not len(features)):
        given = f"clip_s={clip_s}" if features is None else "features of no clip"
        raise InputError(f"export was given {given}; accepted: a length above 0 s, or at least one clip")
    if features is not None:
        features = torch.as_tensor(features)
        batches = [features.detach().cpu().float(), features[:1].detach().cpu().float()]
    else:
        batches = probes.of_clips(classifier, clips) if clips is not None else probes.generated(classifier, clip_s)
    try:
        return write_checked(classifier, path, batches)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror or error}); accepted: a name in a folder that can be, with room"
        ) from error


def write_checked(classifier: SceneClassifier, path: Path, batches: list[Tensor]) -> Artifact:
    """Write under another name, compare, and rename. Raises InputError, saying what differs."""
    import onnx

    model = onnx_model(classifier.network, traced_example(classifier.network, batches[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as partial:
        try:
            onnx.save(model, partial)
            parity.check_tensors(classifier.network, partial)
            found = parity.compare(classifier, partial, batches)
        except InputError as error:
            raise InputError(f"{path}: not written: {error}") from error
        if found.faults:
            raise InputError(
                f"{path}: not written, since the file does not compute what the classifier computes: "
                f"{'; '.join(found.faults)}; accepted: a network that ONNX Runtime runs within these bounds"
            )
        onnx.helper.set_model_props(model, _described(classifier, found))
        with silence():
            onnx.checker.check_model(model, full_check=True)
        onnx.save(model, partial)
        read(partial)
    return Artifact(path, found)


def _described(classifier: SceneClassifier, found: Parity) -> dict[str, str]:
    """What the file's metadata says; all values JSON."""
    shortest = int(getattr(classifier.network, "shortest_frames", 1))
    kept = {
        name.removesuffix(SUFFIX): int(mask.sum())
        for name, mask in classifier.network.state_dict().items()
        if name.endswith(SUFFIX)
    }
    described: dict[str, Any] = {
        # What it was trained on is the model's business: names of thousands of recordings would outweigh the weights.
        MODEL: {**classifier.describe(), "heard_recordings": "", "shortest_frames": shortest},
        PARITY: found.to_json(),
        MEAN: _numbers(classifier.standardize.mean),
        STD: _numbers(classifier.standardize.std),
        MASKS: kept,
    }
    return {key: json.dumps(value, separators=(",", ":")) for key, value in described.items()}


def _numbers(tensor: Tensor) -> Any:
    """Nested lists, each number with the digits that tell it from its neighbours in float32."""
    return np.vectorize(lambda value: float(str(np.float32(value))), otypes=[object])(tensor.cpu().numpy()).tolist()
