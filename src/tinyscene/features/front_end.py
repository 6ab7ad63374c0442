"""The base class of front ends: from waveforms to features."""

import inspect
from functools import wraps
from typing import Any

from torch import nn

from tinyscene.errors import InputError


class FrontEnd(nn.Module):
    """Waveforms (batch, samples) -> features (batch, channels, bands, frames).

    Your own front end derives from it, sets the first three attributes and defines `forward`; its parameters, if
    any, are trained with the network. With `register_frontend` it can be saved and loaded.

    Attributes:
        sample_rate: of the waveforms, in Hz.
        bands: of the features.
        hop_length: samples from one frame to the next.
        shortest_samples: the fewest samples that give a frame.
        reach_samples: samples on either side of its place that a frame depends on at most; None where it depends on
            the whole clip, so that long recordings can't be taken in chunks.
        channel: which channel of a recording it takes, counted from 0; the mean of all where None.
    """

    sample_rate: int
    bands: int
    hop_length: int
    shortest_samples: int = 1
    reach_samples: int | None = None
    channel: int | None = None
    arguments: dict[str, Any]
    """The arguments it was built with: recorded for registered classes."""

    def frames(self, samples: int) -> int:
        """Frames of a waveform of that many samples."""
        return 1 + (samples - self.shortest_samples) // self.hop_length


def record_arguments(kind: type[nn.Module]) -> None:
    """From now on, instances of this class record in `arguments` what they are built with, defaults included."""
    init = kind.__init__

    @wraps(init)
    def recording(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self) is not kind:  # a subclass has arguments of its own
            return
        signature = inspect.signature(kind)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        held = dict(bound.arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                held |= held.pop(name)
            elif parameter.kind is parameter.VAR_POSITIONAL and not held[name]:
                del held[name]
        self.__dict__["arguments"] = {n: list(v) if isinstance(v, range) else v for n, v in held.items()}

    kind.__init__ = recording  # type: ignore[method-assign]


def refuse_taken(name: str, kind: type[nn.Module], there: type[nn.Module] | None) -> None:
    """Raise InputError where another class has this name on its menu; a file that is run again replaces its class."""
    if there is None or there is kind:
        return
    if there.__module__.startswith("tinyscene.") or there.__qualname__ != kind.__qualname__:
        raise InputError(f"{name!r} is already {there.__module__}.{there.__qualname__}; try another name")
