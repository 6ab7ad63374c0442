"""The menu of networks by name, registered ones included."""

import inspect
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import nn

from tinyscene.errors import InputError
from tinyscene.features import FrontEnd
from tinyscene.features.front_end import record_arguments, refuse_taken


class Entry(NamedTuple):
    """A network of the menu, and its default front end."""

    network: type[nn.Module]
    frontend: Callable[[], FrontEnd] | None
    standardized: bool


NETWORKS: dict[str, Entry] = {}


def register_network(
    name: str,
    network: type[nn.Module],
    *,
    frontend: Callable[[], FrontEnd] | None = None,
    standardized: bool = True,
) -> None:
    """Put a network on the menu, so that it can be built by name, saved and loaded; call it where it is defined.

    Args:
        name: on the menu.
        network: its class; `classes`, the number of scenes, is one of its arguments.
        frontend: makes the front end that `create_classifier` puts before it.
        standardized: whether features are standardized per band.

    Raises:
        InputError: the name is taken.
    """
    refuse_taken(name, network, kinds().get(name))
    record_arguments(network)
    NETWORKS[name] = Entry(network, frontend, standardized)


def kinds() -> dict[str, type[nn.Module]]:
    """The classes of the menu, by name."""
    return {name: entry.network for name, entry in NETWORKS.items()}


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` accepts, in alphabetical order; those that match, as "*mobile*"."""
    return sorted(name for name in NETWORKS if fnmatchcase(name, pattern))


def entry(name: str) -> Entry:
    """The entry of a name. Raises InputError for an unknown one."""
    if name not in NETWORKS:
        raise InputError(f"no network {name!r}; accepted: {', '.join(list_models())}")
    return NETWORKS[name]


def create_model(name: str, *, seed: int | None = None, **arguments: Any) -> nn.Module:
    """A network with fresh weights: (batch, channels, bands, frames) -> (batch, classes), logits.

    They are drawn from `seed`, or where None from torch's own generator: that of the run, where `reproduce` and `fit`
    build the network (`Run.seed_torch`). `num_classes` is accepted for `classes`.

    Raises:
        InputError: no such network or argument, or a value that it can't be built with.
    """
    network = entry(name).network
    signature = inspect.signature(network)
    if "num_classes" in arguments and "num_classes" not in signature.parameters and "classes" not in arguments:
        arguments["classes"] = arguments.pop("num_classes")
    builtin = network.__module__.startswith("tinyscene.")
    for argument, value in arguments.items():
        if builtin and any(number < 1 for number in _whole(value)):
            raise InputError(f"network {name!r}: {argument}={value!r}; accepted: whole numbers of at least 1")
    try:
        signature.bind(**arguments)
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return network(**arguments)
    except InputError:
        raise
    except Exception as error:
        if not builtin:
            raise  # its author needs the line
        accepted = ", ".join(
            p.name if p.default is p.empty else f"{p.name}={p.default}" for p in signature.parameters.values()
        )
        raise InputError(f"network {name!r}: {error}; accepted: {accepted}") from error


def _whole(value: Any) -> Iterator[int]:
    """The whole numbers in a value, at any depth."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _whole(item)
    elif isinstance(value, int):
        yield value
