"""Front end, standardization, network and class names: what hears a recording and names its scene."""

import hashlib
import json
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from tinyscene import audio
from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, Standardize
from tinyscene.files import write_whole
from tinyscene.models import masks
from tinyscene.models.menu import NETWORKS
from tinyscene.models.preparation import prepare
from tinyscene.models.provenance import Provenance
from tinyscene.models.quantized import Int8Network
from tinyscene.models.streaming import stream, streams

_FORMAT = 2
# What torch calls a module's own state beside its tensors.
_EXTRA_STATE = "_extra_state"
# Longer recordings are heard in chunks of this length, where the network can.
_CHUNK_S = 30.0
# What channel surgery and fresh layers change; a saved model holds those that differ from the network as built.
_SIZES = ("in_channels", "out_channels", "groups", "num_features", "in_features", "out_features")


@dataclass(frozen=True)
class Prediction:
    """A scene, and the probability of every class."""

    label: str
    probabilities: dict[str, float]


class SceneClassifier(nn.Module):
    """Waveform in, logits out.

    Args:
        frontend: (batch, samples) -> (batch, channels, bands, frames); knows its `sample_rate`.
        network: features -> logits (batch, classes).
        classes: names, in the order of the logits.
        standardize: fitted by the first stage that trains; made for the front end where None.
    """

    def __init__(
        self, frontend: nn.Module, network: nn.Module, classes: tuple[str, ...], standardize: Standardize | None = None
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.standardize = standardize or Standardize(int(frontend.bands))  # type: ignore[arg-type]
        # Channels last halves the time of a convolution on CPUs; the same order everywhere keeps rounding the same.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes = tuple(classes)
        self.provenance = Provenance()
        """What it was trained on. Part of its state: `state_dict` holds it, and every stage adds to it."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self.frontend.sample_rate)  # type: ignore[arg-type]

    @property
    def channel(self) -> audio.Channel:
        """Which channel of a recording it hears: an index from 0, or "mean"."""
        channel = getattr(self.frontend, "channel", None)
        return "mean" if channel is None else int(channel)

    @property
    def shortest_samples(self) -> int:
        """Fewest samples that can be classified."""
        need = int(getattr(self.network, "shortest_frames", 1))
        least = int(self.frontend.shortest_samples)  # type: ignore[arg-type]
        most = least + need * int(self.frontend.hop_length)  # type: ignore[arg-type]
        while self.frontend.frames(most) < need:  # type: ignore[operator]
            most *= 2  # a front end may leave out frames
        return least + bisect_left(range(least, most), need, key=self.frontend.frames)  # type: ignore[arg-type]

    @property
    def trained_clip_s(self) -> float | None:
        """Length of the clips that it was last trained on, in seconds; None where that is not known."""
        return self.provenance.clip_s

    def get_extra_state(self) -> Tensor:
        return self.provenance.to_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        self.provenance = Provenance.from_tensor(state)

    def example(self, clip_s: float) -> Tensor:
        """Features of one silent clip, shape (1, channels, bands, frames): what counting runs the network on."""
        samples = round(clip_s * self.sample_rate)
        with torch.no_grad():
            return torch.zeros_like(self.features(torch.zeros(1, samples, device=self.standardize.mean.device)))

    def short_example(self) -> Tensor:
        """Features of one silent clip of a second, or as long as the network needs."""
        return self.example(max(1.0, self.shortest_samples / self.sample_rate))

    @property
    def precision(self) -> Literal["float32", "float16", "int8"]:
        """Of the weights."""
        if isinstance(self.network, Int8Network):
            return "int8"
        half = any(tensor.dtype == torch.float16 for tensor in self.network.parameters())
        return "float16" if half else "float32"

    def require_float(self, stage: str) -> None:
        """Raise InputError where the weights are rounded already."""
        if self.precision != "float32":
            raise InputError(
                f"{stage} was handed {self.precision} weights; accepted: float32 ones (what rounds them comes last)"
            )

    def features(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, channels, bands, frames), standardized"""
        standardized: Tensor = self.standardize(self.frontend(waveforms))
        return standardized

    def classify(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes). 16-bit weights compute at 32 bits, as runtimes do."""
        features = features.contiguous(memory_format=torch.channels_last)
        state = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        if all(tensor.dtype != torch.float16 for tensor in state.values()):
            logits: Tensor = self.network(features)
            return logits
        wide = {name: t.float() if t.dtype == torch.float16 else t for name, t in state.items()}
        logits = torch.func.functional_call(self.network, wide, (features,))
        return logits

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, classes)"""
        return self.classify(self.features(waveforms))

    @torch.inference_mode()
    def predict(self, source: str | Path | audio.Waveform, sample_rate: int | None = None) -> Prediction:
        """Name the scene of a sound file, or of samples of shape (samples,) at `sample_rate` Hz.

        A recording is decoded as a whole. Beyond 30 s, what it takes besides these samples does not grow with them
        where the classifier `streams` (`models/streaming.py`); elsewhere the recording is heard in one piece.

        Raises:
            InputError: the file or the samples can't be used, or are too short for the network.
        """
        where, waveform = self.waveform_of(source, sample_rate)
        if len(waveform) < self.shortest_samples:
            raise InputError(
                f"{where}: {len(waveform) / self.sample_rate:.2f} s; accepted: at least "
                f"{self.shortest_samples / self.sample_rate:.2f} s"
            )
        self.eval()
        device = self.standardize.mean.device
        # A copy only of what torch can't share: a view backwards, memory that can't be written.
        batch = torch.from_numpy(np.require(waveform, requirements=["C", "W"]))[None]
        if len(waveform) > _CHUNK_S * self.sample_rate and streams(self):
            logits = stream(self, batch, int(self.frontend.frames(round(_CHUNK_S * self.sample_rate))))  # type: ignore[operator]
        else:
            logits = self(batch.to(device))
        probabilities = logits.softmax(-1)[0].cpu().tolist()
        best = max(range(len(self.classes)), key=probabilities.__getitem__)
        return Prediction(self.classes[best], dict(zip(self.classes, probabilities, strict=True)))

    def waveform_of(self, source: str | Path | audio.Waveform, sample_rate: int | None) -> tuple[str, audio.Waveform]:
        """A sound file, or samples (samples,) at `sample_rate` Hz, as it hears them, and their name in errors."""
        if isinstance(source, str | Path):
            return str(source), audio.read(Path(source), self.sample_rate, self.channel)
        if sample_rate is None:
            raise InputError("predict was given samples without sample_rate; accepted: samples and their rate in Hz")
        given = np.asarray(source, np.float32)
        audio.check_waveform(given, sample_rate, "the samples")
        return "the samples", audio.resample(given, sample_rate, self.sample_rate)

    def describe(self) -> dict[str, Any]:
        """All but the weights, as plain values. Raises InputError for a front end or network that is on no menu."""
        int8 = self.network.origin if isinstance(self.network, Int8Network) else None
        origin = int8.network if int8 else self.network
        network = _describe(origin, NETWORKS)
        return {
            "format": _FORMAT,
            "classes": self.classes,
            "provenance": self.provenance.to_json(),
            "frontend": _describe(self.frontend, FRONTENDS),
            "standardize": self.standardize.arguments,
            "network": network,
            "sizes": _sizes_beyond(origin, _build(network, NETWORKS)),
            "int8": int8 and {"keep_float": int8.keep_float, "example": int8.example},
        }

    def save(self, folder: str | Path) -> Path:
        """Write `weights.safetensors` and `model.json` into `folder`. No pickle."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        # Stands in model.json, for people to read.
        del tensors[_EXTRA_STATE]
        weights = save_tensors(tensors)
        described = {**self.describe(), "weights_sha256": hashlib.sha256(weights).hexdigest()}
        with write_whole(folder / "weights.safetensors") as partial:
            partial.write_bytes(weights)
        with write_whole(folder / "model.json") as partial:
            partial.write_text(json.dumps(described, indent=1))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "SceneClassifier":
        """Rebuild a saved classifier, pruned ones with their own sizes.

        Raises:
            InputError: the folder lacks a file, or its two files do not belong together.
        """
        folder = Path(folder)
        for name in ("model.json", "weights.safetensors"):
            if not (folder / name).is_file():
                below = ", ".join(str(path.parent) for path in sorted(folder.glob("*/seed-*/model.json"))[:5])
                raise InputError(
                    f"{folder}: has no {name}; accepted: a folder with model.json and weights.safetensors"
                    + (f", such as {below}" if below else "")
                )
        weights = (folder / "weights.safetensors").read_bytes()
        try:
            described = json.loads((folder / "model.json").read_text())
            if described["format"] != _FORMAT:
                raise InputError(f"{folder}/model.json: format {described['format']}; accepted: {_FORMAT}")
            if described["weights_sha256"] != hashlib.sha256(weights).hexdigest():
                raise InputError(
                    f"{folder}: weights.safetensors is not the file that model.json was written with; "
                    f"accepted: the two files of one model"
                )
            network = _build(described["network"], NETWORKS)
            for path, sizes in described["sizes"].items():
                _resize(network.get_submodule(path), sizes)
            if int8 := described.get("int8"):
                network = prepare(network.eval(), torch.zeros(int8["example"]), tuple(int8["keep_float"])).convert()
            frontend, standardize = _build(described["frontend"], FRONTENDS), Standardize(**described["standardize"])
            classifier = cls(frontend, network, tuple(described["classes"]), standardize)
            classifier.provenance = Provenance.from_json(described["provenance"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{folder}/model.json: not a tinyscene model ({error!r}); accepted: one saved by it"
            ) from error
        tensors = load_tensors(weights)
        masks.register(classifier, tensors)
        try:
            for name, parameter in [*classifier.named_parameters(), *classifier.named_buffers()]:
                if name in tensors:
                    parameter.data = parameter.data.to(tensors[name].dtype)
            classifier.load_state_dict({**tensors, _EXTRA_STATE: classifier.get_extra_state()})
        except RuntimeError as error:
            raise InputError(
                f"{folder}: model.json and weights.safetensors do not belong together ({error}); "
                f"accepted: the two files of one model, saved by a version of tinyscene that builds it alike"
            ) from error
        classifier.network.to(memory_format=torch.channels_last)
        return classifier.eval()


def _describe(module: nn.Module, menu: dict[str, type[nn.Module]]) -> dict[str, Any]:
    for name, kind in menu.items():
        if type(module) is kind:
            return {"name": name, "arguments": module.arguments}
    raise InputError(
        f"{type(module).__name__} is not on the menu and can't be saved; accepted: {', '.join(menu)}, or one that your "
        f"file adds to NETWORKS or FRONTENDS"
    )


def _build(described: dict[str, Any], menu: dict[str, type[nn.Module]]) -> nn.Module:
    if described["name"] not in menu:
        raise InputError(f"{described['name']!r} is not on the menu; accepted: {', '.join(menu)}")
    return menu[described["name"]](**described["arguments"])


def _sizes(module: nn.Module) -> dict[str, int]:
    return {name: getattr(module, name) for name in _SIZES if hasattr(module, name)}


def _sizes_beyond(network: nn.Module, built: nn.Module) -> dict[str, dict[str, int]]:
    """Sizes of the layers in which `network` differs from the one its arguments build."""
    fresh = dict(built.named_modules())
    return {path: _sizes(m) for path, m in network.named_modules() if path and _sizes(m) != _sizes(fresh[path])}


def _resize(layer: nn.Module, sizes: dict[str, int]) -> None:
    """Give `layer` tensors of these sizes, to be filled by load_state_dict."""
    # Zeros, since an int8 network is built from them before: what memory happens to hold may not be finite.
    for name, size in sizes.items():
        setattr(layer, name, size)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
        layer.weight = nn.Parameter(torch.zeros(shape))
    elif isinstance(layer, nn.Linear):
        layer.weight = nn.Parameter(torch.zeros(layer.out_features, layer.in_features))
    width = sizes.get("out_channels") or sizes.get("out_features") or sizes["num_features"]
    for tensor in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
        if tensor.ndim == 1:
            tensor.data = torch.zeros(width, dtype=tensor.dtype)
