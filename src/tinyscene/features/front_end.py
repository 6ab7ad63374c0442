"""What every front end is: waveforms in, features out."""

import inspect
from functools import wraps
from typing import Any

from torch import nn

from tinyscene.errors import InputError


class FrontEnd(nn.Module):
    """Waveforms (batch, samples) -> features (batch, channels, bands, frames).

    A front end of one's own derives from it, sets the first three attributes and defines `forward`; its parameters, if
    it has any, are trained with the network. `register_frontend` makes it one that is saved and loaded.

    Attributes:
        sample_rate: of the waveforms, in Hz.
        bands: of the features.
        hop_length: samples from one frame to the next.
        shortest_samples: fewest samples that give a frame.
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
    """What it was built with: recorded for what is registered."""

    def frames(self, samples: int) -> int:
        """Frames that a waveform of so many samples gives."""
        return 1 + (samples - self.shortest_samples) // self.hop_length


def record_arguments(kind: type[nn.Module]) -> None:
    """From now on, whatever is made of this class holds in `arguments` what it was built with, defaults included."""
    init = kind.__init__

    @wraps(init)
    def recording(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self) is not kind:  # one that derives from it takes arguments of its own
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
        self.__dict__["arguments"] = held

    kind.__init__ = recording  # type: ignore[method-assign]


def refuse_taken(name: str, kind: type[nn.Module], there: type[nn.Module] | None) -> None:
    """Raise InputError where another class has this name on its menu; a file that is run again replaces its own."""
    if there is None or there is kind:
        return
    if there.__module__.startswith("tinyscene.") or there.__qualname__ != kind.__qualname__:
        raise InputError(f"{name!r} is {there.__module__}.{there.__qualname__} already; accepted: another name")
