"""A scene classifier: front end, standardization, network and class names."""

import copy
import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from tinyscene import audio
from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, FrontEnd, Standardize
from tinyscene.features.spectrogram import require_batch
from tinyscene.files import write_whole
from tinyscene.models import masks
from tinyscene.models.network import locality, shortest_frames
from tinyscene.models.preparation import prepare
from tinyscene.models.provenance import Provenance
from tinyscene.models.quantized import Int8Network
from tinyscene.models.registry import kinds
from tinyscene.models.saved import (
    FORMAT,
    build,
    build_sized,
    describe,
    digest,
    read,
    sizes_beyond,
)
from tinyscene.models.streaming import Waveforms, stream
from tinyscene.models.tensors import laid_out, memory_format, set_memory_format, set_tensor

# torch's name for a module's state beside its tensors.
_EXTRA_STATE = "_extra_state"
# PyTorch's messages where a dense layer, or a map beside another one, has other sizes.
_MISMATCHES = ("shapes cannot be multiplied", "must match the size", "expected input")
# Longer recordings are processed in chunks of this length, where the network can.
_CHUNK_S = 30.0


@dataclass(frozen=True)
class Prediction:
    """A scene, and the probability of every class."""

    label: str
    probabilities: dict[str, float]


class SceneClassifier(nn.Module):
    """Waveform in, logits out.

    Args:
        frontend: (batch, samples) -> (batch, channels, bands, frames).
        network: features -> logits (batch, classes); a `Network` or any such module.
        classes: names, in the order of the logits.
        standardize: fitted by the first stage that trains; made for the front end where None.

    Raises:
        InputError: a class is no name or there twice, or the front end is not a `FrontEnd`, or gives other features or
            frames than it reports.
    """

    def __init__(
        self, frontend: FrontEnd, network: nn.Module, classes: tuple[str, ...], standardize: Standardize | None = None
    ) -> None:
        super().__init__()
        if not classes or len(set(classes)) != len(classes) or not all(isinstance(c, str) and c for c in classes):
            raise InputError(f"classes {tuple(classes)}; accepted: at least one, each a name, and once")
        _refuse_old_norms(network)
        if not isinstance(frontend, FrontEnd):
            raise InputError(
                f"{type(frontend).__name__} is not a front end; accepted: a class that derives from tinyscene.FrontEnd"
            )
        self.frontend = frontend
        silence = _silence(frontend)
        channels, bands = silence.shape[1], frontend.bands
        self.standardize = standardize or Standardize(bands, channels)
        if self.standardize.mean.shape != (channels, bands, 1):
            raise InputError(
                f"standardize of {tuple(self.standardize.mean.shape[:2])} channels and bands; accepted: "
                f"({channels}, {bands}), those of {type(frontend).__name__}"
            )
        set_memory_format(network, torch.cat([silence, silence]))
        self.network = laid_out(network)
        self.classes = tuple(classes)
        self.provenance = Provenance()
        """Its training recordings and devices. Part of its state: `state_dict` holds it, and every stage adds to it."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.frontend.sample_rate

    @property
    def channel(self) -> audio.Channel:
        """The channel of a recording that it takes: an index from 0, or "mean"."""
        return "mean" if self.frontend.channel is None else self.frontend.channel

    @property
    def shortest_samples(self) -> int:
        """Fewest samples that can be classified."""
        need, frames = shortest_frames(self.network), self.frontend.frames
        least = self.frontend.shortest_samples
        most = least + need * self.frontend.hop_length
        while frames(most) < need:
            most *= 2  # a front end may leave out frames
        return least + bisect_left(range(least, most), need, key=frames)

    @property
    def trained_clip_s(self) -> float | None:
        """Length of the clips that it was last trained on, in seconds; None if unknown."""
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
        """Features of one silent clip of a second, or as long as the network needs.

        Where the network takes only the training length, as with a dense layer behind a flatten, of that length.
        """
        short = self.example(max(1.0, self.shortest_samples / self.sample_rate))
        if self.trained_clip_s is None:
            return short
        try:
            with torch.no_grad():
                copy.deepcopy(self).eval().classify(short)
        except InputError:
            return self.example(self.trained_clip_s)
        return short

    @property
    def precision(self) -> Literal["float32", "float16", "int8"]:
        """Of the weights."""
        if isinstance(self.network, Int8Network):
            return "int8"
        half = any(tensor.dtype == torch.float16 for tensor in self.network.parameters())
        return "float16" if half else "float32"

    def require_float(self, stage: str) -> None:
        """Raise InputError where the weights are already rounded."""
        if self.precision != "float32":
            raise InputError(
                f"{stage} was given {self.precision} weights; accepted: float32 ones (stages that round them come last)"
            )

    @property
    def frontend_learns(self) -> bool:
        """Whether the front end has parameters that are trained with the network."""
        return any(parameter.requires_grad for parameter in self.frontend.parameters())

    def features(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, channels, bands, frames), standardized"""
        require_batch(waveforms)
        standardized: Tensor = self.standardize(self.frontend(waveforms))
        return standardized

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SceneClassifier":
        """`half()` and the like round the network; features are still computed at 32 bits, on the same device."""

        def keeping(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            return made if made.dtype == tensor.dtype else tensor.to(made.device)

        self.network._apply(fn, recurse)
        for part in (self.frontend, self.standardize):
            part._apply(keeping, recurse)  # type: ignore[no-untyped-call]
        return self

    def classify(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes). 16-bit weights compute at 32 bits, as runtimes do."""
        features = self.arranged(features)
        held = [*self.network.named_parameters(), *self.network.named_buffers()]
        wide = {name: t.float() for name, t in held if t.is_floating_point() and t.dtype != torch.float32}
        try:
            output = torch.func.functional_call(self.network, wide, (features,)) if wide else self.network(features)
            return self.checked(output, features)
        except RuntimeError as error:
            if not any(mismatch in str(error) for mismatch in _MISMATCHES):
                raise
            raise InputError(
                f"{type(self.network).__name__} can't take features of shape {tuple(features.shape)} "
                f"({str(error).splitlines()[0]}); accepted: clips as long as those it was made for, or a network "
                f"that pools over time before its dense layers"
            ) from error

    @property
    def streams(self) -> bool:
        """Whether it takes long recordings in chunks, in bounded memory: see `models/streaming.py`."""
        return locality(self.network) is not None and self.frontend.reach_samples is not None

    def stream(self, waveforms: Waveforms, most_s: float) -> Tensor:
        """(batch, samples) -> (batch, classes), in chunks of at most `most_s` seconds, where it `streams`."""
        return stream(self, waveforms, self.frontend.frames(round(most_s * self.sample_rate)))

    def arranged(self, features: Tensor) -> Tensor:
        """The same values, in the memory order of the network's maps."""
        return features.contiguous(memory_format=memory_format(self.network))

    def checked(self, output: Any, features: Tensor) -> Tensor:
        """The network's output for features (batch, ...). Raises InputError unless it is logits (batch, classes)."""
        wanted = (features.shape[0], len(self.classes))
        if isinstance(output, Tensor) and output.is_floating_point() and output.shape == wanted:
            return output
        given = (
            f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        )
        raise InputError(
            f"{type(self.network).__name__} gives {given}; accepted: one tensor of logits (batch, classes), "
            f"{wanted} here, for the classes {', '.join(self.classes)}"
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, classes)"""
        return self.classify(self.features(waveforms))

    @torch.inference_mode()
    def predict(self, source: str | Path | audio.Waveform, sample_rate: int | None = None) -> Prediction:
        """Name the scene of a sound file, or of samples of shape (samples,) at `sample_rate` Hz.

        Samples are floats from -1 to 1, or integers as in sound files (`audio.as_waveform`).

        A recording is decoded as a whole. Beyond 30 s, memory other than these samples does not grow with them
        where the classifier `streams` (`models/streaming.py`); elsewhere the recording is processed in one piece.

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
        # A copy only of what torch can't share: a reversed view, read-only memory.
        batch = torch.from_numpy(np.require(waveform, requirements=["C", "W"]))[None]
        whole = not self.streams or len(waveform) <= _CHUNK_S * self.sample_rate
        logits = self(batch.to(device)) if whole else self.stream(batch, _CHUNK_S)
        probabilities = logits.softmax(-1)[0].cpu().tolist()
        best = max(range(len(self.classes)), key=probabilities.__getitem__)
        return Prediction(self.classes[best], dict(zip(self.classes, probabilities, strict=True)))

    def waveform_of(self, source: str | Path | audio.Waveform, sample_rate: int | None) -> tuple[str, audio.Waveform]:
        """A sound file, or samples (samples,) at `sample_rate` Hz, as its input, and their name in errors."""
        if isinstance(source, str | Path):
            return str(source), audio.read(Path(source), self.sample_rate, self.channel)
        if sample_rate is None:
            raise InputError("predict was given samples without sample_rate; accepted: samples with their rate in Hz")
        given = audio.as_waveform(source, "the samples")
        audio.check_waveform(given, sample_rate, "the samples")
        return "the samples", audio.resample(given, sample_rate, self.sample_rate)

    def describe(self) -> dict[str, Any]:
        """All but the network and its weights, as plain values. Raises InputError for a front end on no menu."""
        int8 = self.network.origin if isinstance(self.network, Int8Network) else None
        return {
            "format": FORMAT,
            "classes": self.classes,
            "provenance": self.provenance.to_json(),
            "frontend": describe(self.frontend, FRONTENDS),
            "standardize": self.standardize.arguments,
            "int8": int8 and {"keep_float": int8.keep_float, "example": int8.example},
        }

    def written(self) -> tuple[str, bytes]:
        """The contents of `model.json` and `weights.safetensors`, proved to rebuild the same classifier.

        Raises:
            InputError: they don't: the front end or network is on no menu, or does not
                record everything it was built with.
        """
        origin = self.network.origin.network if isinstance(self.network, Int8Network) else self.network
        network = describe(origin, kinds())
        tensors, tied, names = {}, {}, dict[int, str]()
        for name, tensor in self.state_dict(keep_vars=True).items():
            if name == _EXTRA_STATE:  # in model.json, readable
                continue
            if names.setdefault(id(tensor), name) == name:
                # A clone: safetensors refuses tensors that share memory.
                tensors[name] = tensor.detach().cpu().contiguous().clone()
            else:
                tied[name] = names[id(tensor)]
        weights = save_tensors(tensors)
        described = self.describe() | {"network": network, "sizes": sizes_beyond(origin, build(network, kinds()))}
        described |= {"tied": tied, "weights_sha256": hashlib.sha256(weights).hexdigest()}
        text = json.dumps(described | {"sha256": digest(described)}, indent=1)
        try:
            same = self._equals(self._built(read(text, "model.json"), weights))
        except Exception as error:
            # A constructor may raise anything.
            raise InputError(f"this classifier could not be loaded: {error}") from error
        if not same:
            raise InputError(
                f"{network['name']} built with {network['arguments']} is not the function of the network to be saved; "
                f"accepted: a network whose `arguments` hold everything it was given"
            )
        return text, weights

    @torch.inference_mode()
    def _equals(self, other: "SceneClassifier") -> bool:
        """Whether both give the same logits for noise, where this one takes such a short clip."""
        mine = copy.deepcopy(self).cpu().eval()
        features = torch.randn(mine.short_example().shape, generator=torch.Generator().manual_seed(0))
        try:
            logits = mine.classify(features)
        except InputError:  # not trained yet, and for clips of one, unknown length
            return True
        return torch.allclose(other.classify(features), logits, 1e-4, 1e-5, True)

    def save(self, folder: str | Path) -> Path:
        """Write `weights.safetensors` and `model.json` into `folder`. No pickle.

        Raises:
            InputError: the files would not rebuild the same classifier; see `written`.
        """
        folder, (text, weights) = Path(folder), self.written()
        folder.mkdir(parents=True, exist_ok=True)
        with write_whole(folder / "weights.safetensors") as partial:
            partial.write_bytes(weights)
        with write_whole(folder / "model.json") as partial:
            partial.write_text(text)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "SceneClassifier":
        """Load a saved classifier, pruned ones with their own sizes.

        Raises:
            InputError: the folder lacks a file, one is damaged, or the two do not belong together.
        """
        folder = Path(folder)
        for name in ("model.json", "weights.safetensors"):
            if not (folder / name).is_file():
                below = ", ".join(str(path.parent) for path in sorted(folder.glob("*/seed-*/model.json"))[:5])
                raise InputError(
                    f"{folder}: no {name}; accepted: a folder with model.json and weights.safetensors"
                    + (f", such as {below}" if below else "")
                )
        weights = (folder / "weights.safetensors").read_bytes()
        described = read((folder / "model.json").read_text(errors="replace"), f"{folder}/model.json")
        if described["weights_sha256"] != hashlib.sha256(weights).hexdigest():
            raise InputError(
                f"{folder}: weights.safetensors was not written with model.json; accepted: the two files of one model"
            )
        try:
            return cls._built(described, weights)
        except Exception as error:
            # Other versions of a class may raise anything.
            advice = "" if isinstance(error, InputError) else "; accepted: a model of a version that builds it so"
            raise InputError(f"{folder}/model.json: {error}{advice}") from error

    @classmethod
    def _built(cls, described: dict[str, Any], weights: bytes) -> "SceneClassifier":
        if described["int8"]:
            kind: Any = kinds().get(described["network"]["name"])
            parts = json.dumps({name: described[name] for name in ("network", "sizes", "int8")})
            network: nn.Module = copy.deepcopy(_captured(kind, parts))
        else:
            network = build_sized(described, kinds())
        standardize = Standardize(**described["standardize"])
        classifier = cls(build(described["frontend"], FRONTENDS), network, described["classes"], standardize)
        classifier.provenance = Provenance.from_json(described["provenance"])
        tensors = load_tensors(weights)
        masks.register(classifier, tensors)
        for name, kept in described["tied"].items():
            set_tensor(classifier, name, attrgetter(kept)(classifier))
            tensors[name] = tensors[kept]
        for name, parameter in [*classifier.named_parameters(), *classifier.named_buffers()]:
            if name in tensors:
                parameter.data = parameter.data.to(tensors[name].dtype)
        classifier.load_state_dict({**tensors, _EXTRA_STATE: classifier.get_extra_state()})
        laid_out(classifier.network)
        return classifier.eval()


@lru_cache(maxsize=8)
def _captured(kind: object, parts: str) -> Int8Network:
    """An int8 network, to be copied and filled with weights: a capture takes seconds, and saving reloads a model.

    Args:
        kind: the class of the float network, since another one may take its name.
        parts: what it is built from, as JSON.
    """
    described = json.loads(parts)
    network, example = build_sized(described, kinds()), torch.zeros(described["int8"]["example"])
    set_memory_format(network, torch.cat([example, example]))
    return prepare(network.eval(), example, tuple(described["int8"]["keep_float"])).convert()


def _silence(frontend: FrontEnd) -> Tensor:
    """Features of a second, or of the shortest clip if longer. Raises InputError unless they are as it reports."""
    samples = max(frontend.sample_rate, frontend.shortest_samples)
    with torch.no_grad():
        features: Tensor = frontend(torch.zeros(1, samples))
    shape, reported = tuple(features.shape), (frontend.bands, frontend.frames(samples))
    if len(shape) != 4 or shape[2:] != reported:
        raise InputError(
            f"{type(frontend).__name__} gives {shape} for {samples} samples; accepted: (batch, channels, {reported[0]} "
            f"bands, {reported[1]} frames), by its `bands` and `frames`"
        )
    return features


def _refuse_old_norms(network: nn.Module) -> None:
    for path, module in network.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm | SpectralNorm):
                raise InputError(
                    f"{type(network).__name__}: {path} has torch.nn.utils.weight_norm or spectral_norm, whose networks "
                    f"can't be copied; accepted: those of torch.nn.utils.parametrizations"
                )
