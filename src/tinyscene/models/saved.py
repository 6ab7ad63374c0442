"""The contents of a saved classifier's `model.json`: how a front end or network is rebuilt."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from tinyscene.errors import InputError

FORMAT = 2
_Module = TypeVar("_Module", bound=nn.Module)
# Sizes that channel surgery and new layers change; a saved model holds those that differ from the built network.
_SIZES = ("in_channels", "out_channels", "groups", "num_features", "in_features", "out_features")


def is_plain(value: Any) -> bool:
    """Whether JSON preserves a value, tuples as lists."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def read(text: str, where: str) -> dict[str, Any]:
    """The fields of a `model.json`. Raises InputError, naming `where`, unless they are as they were written."""
    try:
        fields: dict[str, Any] = json.loads(text)
        written, form = fields.pop("sha256"), fields["format"]
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{where}: not a tinyscene model ({error!r}); accepted: one saved by it") from error
    if form != FORMAT:
        raise InputError(f"{where}: a tinyscene model of format {form!r}; accepted: format {FORMAT}")
    if written != digest(fields):
        raise InputError(f"{where}: changed since it was written; accepted: the file as saved")
    return fields


def digest(fields: dict[str, Any]) -> str:
    """The hash of a description, independent of the order of its fields."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def describe(module: nn.Module, menu: Mapping[str, type[nn.Module]]) -> dict[str, Any]:
    """Name and arguments. Raises InputError for a module that is not on the menu, or can't be rebuilt."""
    kind = type(module).__name__
    name = next((name for name, listed in menu.items() if type(module) is listed), None)
    if name is None:
        raise InputError(
            f"{kind} is on no menu and can't be saved as a model; accepted: {', '.join(menu)}, or a class given to "
            f"register_network or register_frontend. Only weights: torch.save(classifier.state_dict(), FILE)"
        )
    arguments = getattr(module, "arguments", None)
    if arguments is None:
        raise InputError(
            f"{kind} can't be saved: it was built before its class was registered, so that its arguments are unknown; "
            f"accepted: one built after register_network or register_frontend"
        )
    for argument, value in arguments.items():
        if not is_plain(value):
            raise InputError(
                f"{kind} can't be saved: it was built with {argument}={value!r}; accepted: numbers, text, True, False, "
                f"None, and lists and dicts of these"
            )
    return {"name": name, "arguments": dict(arguments)}


def build(part: dict[str, Any], menu: Mapping[str, type[_Module]]) -> _Module:
    """The described module. Raises InputError for one that is not on the menu, or for its arguments."""
    name, arguments = part["name"], part["arguments"]
    if name not in menu:
        raise InputError(
            f"{name!r} is not on the menu; accepted: {', '.join(menu)}; for your own, import its file first"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are discarded
            return menu[name](**arguments)
    except InputError:
        raise
    except Exception as error:
        # Any error of a constructor.
        raise InputError(f"{name} can't be built with {arguments} ({error}); accepted: the saved arguments") from error


def build_sized(described: dict[str, Any], menu: Mapping[str, type[nn.Module]]) -> nn.Module:
    """The float network of a model, its layers resized. Raises InputError as `build`."""
    network = build(described["network"], menu)
    for path, sizes in described["sizes"].items():
        _resize(network.get_submodule(path), sizes)
    return network


def _sizes(module: nn.Module) -> dict[str, int]:
    return {name: getattr(module, name) for name in _SIZES if hasattr(module, name)}


def sizes_beyond(network: nn.Module, built: nn.Module) -> dict[str, dict[str, int]]:
    """Sizes of the layers in which `network` differs from the one its arguments build.

    Raises:
        InputError: it has layers that its arguments don't build.
    """
    fresh = dict(built.named_modules())
    if added := [path for path, module in network.named_modules() if path not in fresh and _sizes(module)]:
        raise InputError(
            f"{type(network).__name__} built from its arguments has no {added[0]}, which the network to be saved has; "
            f"accepted: a network whose arguments build all of its layers"
        )
    return {
        path: _sizes(module)
        for path, module in network.named_modules()
        if path and path in fresh and _sizes(module) != _sizes(fresh[path])
    }


def _resize(layer: nn.Module, sizes: dict[str, int]) -> None:
    """Give `layer` tensors of these sizes, to be filled by load_state_dict."""
    # Zeros, since an int8 network is built from them first, and uninitialised memory may not be finite.
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
