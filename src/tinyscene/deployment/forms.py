"""The function of a file: from features to logits, or from a waveform or its next samples to probabilities."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tinyscene.features.products import as_products
from tinyscene.features.streaming import StreamingFrontEnd
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.quantized import Int8Network

Place = Literal["inside", "outside"]
"""Where the front end is: in the file or with the caller."""
STREAM_INPUTS, STREAM_OUTPUTS = ("samples", "state"), ("probabilities", "next_state")


class WaveformClassifier(nn.Module):
    """Front end, standardization, network and softmax as one graph that needs no Fourier transform."""

    def __init__(self, classifier: SceneClassifier) -> None:
        super().__init__()
        self.frontend = as_products(classifier.frontend)
        self.standardize, self.network = classifier.standardize, classifier.network

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> probabilities (batch, classes)"""
        probabilities: Tensor = self.network(self.standardize(self.frontend(waveforms))).softmax(-1)
        return probabilities


class StreamingClassifier(nn.Module):
    """From the next samples and the state to the probabilities of the clip that ends with them, and the next state.

    Args:
        frames, step_samples: see `StreamingFrontEnd`.
    """

    def __init__(self, classifier: SceneClassifier, frames: int, step_samples: int) -> None:
        super().__init__()
        self.frontend = StreamingFrontEnd(classifier.frontend, frames, step_samples)
        self.standardize, self.network = classifier.standardize, classifier.network

    def forward(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, step_samples), (batch, state_size) -> (batch, classes), (batch, state_size)"""
        features, after = self.frontend(samples, state)
        return self.network(self.standardize(features)).softmax(-1), after


class _Wide(nn.Module):
    """The same module, with 16-bit weights computed at 32 bits: see `SceneClassifier.classify`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        state = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        wide = {name: tensor.float() for name, tensor in state.items() if tensor.dtype == torch.float16}
        made: Tensor | tuple[Tensor, ...] = torch.func.functional_call(self.module, wide, given)
        return made


@dataclass(frozen=True)
class Form:
    """A module to be written, with its inputs.

    Attributes:
        module: on the CPU, contiguous, in evaluation mode; its tensors are under `PREFIX`.
        examples: inputs of one clip, or of one step.
        front_end: inside takes waveforms (batch, samples) and gives probabilities; outside takes standardized features
            (batch, channels, bands, frames) and gives logits.
        samples: length of the clips, if fixed.
        step_samples: takes this many samples (batch, step_samples) at a time, with a state; 0 takes whole clips.
        any_length: takes clips of any number of frames.
    """

    module: nn.Module
    examples: tuple[Tensor, ...]
    front_end: Place
    samples: int
    step_samples: int = 0
    any_length: bool = False

    PREFIX = "module."

    @property
    def example(self) -> Tensor:
        """Its first input."""
        return self.examples[0]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Their names."""
        if self.step_samples:
            return STREAM_INPUTS
        return ("waveforms",) if self.front_end == "inside" else ("features",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Their names."""
        if self.step_samples:
            return STREAM_OUTPUTS
        return ("probabilities",) if self.front_end == "inside" else ("logits",)

    @property
    def network(self) -> nn.Module:
        """Only the network."""
        held: nn.Module = self.module.module  # type: ignore[assignment]
        return held.network if self.front_end == "inside" else held  # type: ignore[return-value]

    @property
    def frontend(self) -> nn.Module | None:
        """The front end inside; None where it is outside."""
        held: nn.Module = self.module.module  # type: ignore[assignment]
        return held.frontend if self.front_end == "inside" else None  # type: ignore[return-value]

    @property
    def int8(self) -> bool:
        return isinstance(self.network, Int8Network)


def form_of(
    classifier: SceneClassifier,
    front_end: Place,
    samples: int,
    step_samples: int = 0,
    *,
    any_length: bool = False,
) -> Form:
    """The form of a classifier for clips of this many samples, or any; the classifier is left unchanged."""
    # A pooling of channels-last tensors would be written as a gather of strides.
    own = copy.deepcopy(classifier).cpu().eval()
    own.network.to(memory_format=torch.contiguous_format)
    # Unused, but ExecuTorch would store them.
    masks.drop(own.network)
    waveforms = torch.zeros(1, samples)
    if step_samples:
        stream = StreamingClassifier(own, own.frontend.frames(samples), step_samples)
        examples = torch.zeros(1, step_samples), torch.zeros(1, stream.frontend.state_size)
        return Form(_Wide(stream).eval(), examples, front_end, samples, step_samples)
    if front_end == "inside":
        return Form(_Wide(WaveformClassifier(own)).eval(), (waveforms,), front_end, samples)
    with torch.no_grad():
        features = torch.zeros_like(own.features(waveforms))
    return Form(_Wide(own.network).eval(), (features,), front_end, samples, any_length=any_length)
