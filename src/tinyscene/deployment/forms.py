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


class FormModule(nn.Module):
    """A network, with its front end (as products, or in steps) and standardization where they are inside, as one graph.

    16-bit weights are computed at 32 bits: see `SceneClassifier.classify`.
    """

    def __init__(
        self, network: nn.Module, frontend: nn.Module | None = None, standardize: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network, self.frontend, self.standardize = network, frontend, standardize

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Features -> logits; or waveforms, or samples and a state -> probabilities, and the next state"""
        if self.frontend is None or self.standardize is None:
            return self._logits(*given)
        made = self.frontend(*given)
        features, *after = made if isinstance(made, tuple) else (made,)
        probabilities = self._logits(self.standardize(features)).softmax(-1)
        return (probabilities, *after) if after else probabilities

    def _logits(self, features: Tensor) -> Tensor:
        state = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        wide = {name: tensor.float() for name, tensor in state.items() if tensor.dtype == torch.float16}
        logits: Tensor = torch.func.functional_call(self.network, wide, (features,))
        return logits


@dataclass(frozen=True)
class Form:
    """A module to be written, with its inputs.

    Attributes:
        module: on the CPU, contiguous, in evaluation mode.
        examples: inputs of one clip: standardized features (1, channels, bands, frames) where the front end is outside,
            a waveform (1, samples) where it is inside; or of one step: samples (1, step_samples) and a state.
        samples: length of the clips, if fixed.
        any_length: takes clips of any number of frames.
    """

    module: FormModule
    examples: tuple[Tensor, ...]
    samples: int
    any_length: bool = False

    @property
    def front_end(self) -> Place:
        return "outside" if self.module.frontend is None else "inside"

    @property
    def step_samples(self) -> int:
        """Samples in a step; 0 for whole clips."""
        return self.examples[0].shape[1] if len(self.examples) == 2 else 0

    @property
    def int8(self) -> bool:
        return isinstance(self.module.network, Int8Network)


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
    examples = [torch.zeros(1, samples)]
    frontend: nn.Module | None = None
    if step_samples:
        frontend = stream = StreamingFrontEnd(own.frontend, own.frontend.frames(samples), step_samples)
        examples = [torch.zeros(1, step_samples), torch.zeros(1, stream.state_size)]
    elif front_end == "inside":
        frontend = as_products(own.frontend)
    else:
        with torch.no_grad():
            examples = [torch.zeros_like(own.features(*examples))]
    module = FormModule(own.network, frontend, frontend and own.standardize)
    return Form(module.eval(), tuple(examples), samples, any_length)
