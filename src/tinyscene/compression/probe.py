"""Channels followed through a network: one is set to NaN, and everything computed from it becomes NaN."""

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from tinyscene.compression.channels import along_channels, depthwise, known, size_of
from tinyscene.models.tracing import tensors_in

# The network's input and output among the layers.
INPUT, OUTPUT = "<input>", "<output>"
# A split dimension must be split the same way after removals.
PARTED = ("view", "reshape", "unflatten", "chunk", "split", "tensor_split", "stack", "channel_shuffle")

Place = tuple[str, int]


class Probe(TorchFunctionMode):
    """Runs a network whose convolutions and dense layers, except depthwise ones, give prescribed outputs.

    Attributes:
        makers: these layers, the input first, with the number of channels that each makes.
        origins: by place, a layer's input or a split tensor, and by maker: the channel that made each value,
            -1 for none or several. At a layer the channels come first.
    """

    def __init__(self, twin: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.twin, self.example = twin, torch.zeros(example.shape)
        layers = {path: layer for path, layer in twin.named_modules() if known(layer)}
        mixing = [path for path, layer in layers.items() if not depthwise(layer) and not isinstance(layer, _BatchNorm)]
        self.makers = {INPUT: example.shape[1], **{path: size_of(layers[path], "out") for path in mixing}}
        self.layers = layers
        self._outputs: dict[str, list[Tensor]] = defaultdict(list)
        self._gone: dict[str, Tensor] = {}
        self._times: Counter[str] = Counter()
        self._seen: dict[Place, Tensor] = {}
        self.origins: dict[Place, dict[str, Tensor]] = defaultdict(dict)
        for path, layer in layers.items():
            if path in mixing:
                layer.forward = partial(self._made, path, layer.forward)
            else:
                layer.register_forward_pre_hook(lambda m, args, path=path: self._see(path, along_channels(m, args[0])))
        self._run({})
        self._find()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (name := getattr(func, "__name__", "")) in PARTED:
            parts = tensors_in(args[0] if name == "stack" else result)
            if name == "channel_shuffle":
                groups = kwargs["groups"] if kwargs and "groups" in kwargs else args[1]
                parts = [args[0].unflatten(1, (groups, -1))]
            self._see(name, torch.stack(parts) if len({part.shape for part in parts}) == 1 else parts[0])
        return result

    def _made(self, path: str, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The output of the first run, of which only the shape matters."""
        layer, outputs, time = self.layers[path], self._outputs[path], self._times[path]
        self._see(path, along_channels(layer, x))
        if time == len(outputs):
            outputs.append(forward(x))
        output = outputs[time].clone()
        if path in self._gone:
            along_channels(layer, output)[self._gone[path]] = torch.nan
        return output

    def _see(self, name: str, values: Tensor) -> None:
        self._seen[name, self._times[name]] = values.isnan()
        self._times[name] += 1

    @torch.no_grad()
    def _run(self, gone: dict[str, Tensor]) -> dict[Place, Tensor]:
        """Removed channels of each maker, (channels,) -> at every place, True where a value depends on them."""
        self._gone, self._seen = gone, {}
        self._times.clear()
        example = self.example.clone()
        if INPUT in gone:
            example[:, gone[INPUT]] = torch.nan
        with self:
            output = self.twin(example)
        self._see(OUTPUT, output.movedim(-1, 0))
        return self._seen

    def _find(self) -> None:
        """By the bits of the channels' numbers, and at once for makers that never meet."""
        reached = {}
        for maker, channels in self.makers.items():
            seen = self._run({maker: torch.ones(channels, dtype=torch.bool)})
            reached[maker] = {place for place, values in seen.items() if values.any()}
        apart: list[list[str]] = []
        for maker, places in reached.items():
            free = (one for one in apart if not any(places & reached[other] for other in one))
            if (together := next(free, None)) is None:
                apart.append(together := [])
            together.append(maker)
        for together in apart:
            numbers = self._numbers(together)
            for maker in together:
                for place in reached[maker]:
                    self.origins[place][maker] = numbers[place]

    def _numbers(self, makers: list[str]) -> dict[Place, Tensor]:
        numbers: dict[Place, Tensor] = {}
        several: dict[Place, Tensor] = {}
        for bit in range(max(1, max((self.makers[maker] - 1).bit_length() for maker in makers))):
            bits = {maker: (torch.arange(self.makers[maker]) >> bit & 1).bool() for maker in makers}
            off, on = self._run({maker: ~is_on for maker, is_on in bits.items()}), self._run(bits)
            for place in on:
                number = (on[place].int() << bit) - (bit == 0) * (~on[place] & ~off[place]).int()
                numbers[place] = numbers.get(place, 0) + number
                several[place] = several.get(place, torch.tensor(False)) | (on[place] & off[place])
        return {place: number.masked_fill(several[place], -1) for place, number in numbers.items()}
