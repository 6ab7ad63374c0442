"""The contents of a saved classifier's `model.json`, checked before anything is built from them."""

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import nn

from tinyscene.errors import InputError

FORMAT = 2
_Module = TypeVar("_Module", bound=nn.Module)
# Sizes that channel surgery and new layers change; a saved model holds those that differ from the built network.
_SIZES = ("in_channels", "out_channels", "groups", "num_features", "in_features", "out_features")
_SHOWN_OTHERWISE = (*_SIZES, "training", "arguments")
# Beyond any front end or network for sound; a loop over a damaged number would never end.
_MOST = 1 << 20


def is_plain(value: Any) -> bool:
    """Whether JSON preserves a value, tuples as lists."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _sane(value: Any) -> Any:
    """Raise ValueError for a number that is not finite, or an integer beyond any setting."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _sane(item)
    if isinstance(value, int | float) and not (math.isfinite(value) and (isinstance(value, float) or value <= _MOST)):
        raise ValueError(f"{value}; accepted: finite numbers, integers up to {_MOST:,}")
    return value


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError(f"{', '.join(names)}; accepted: every class once")
    return names


def _short(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4 or shape[0] != 1 or math.prod(shape) > _MOST:
        raise ValueError(f"{shape}; accepted: (1, channels, bands, frames) of a short clip")
    return shape


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Part(_Strict):
    """A front end or network: its name on the menu, and its arguments."""

    name: str
    arguments: Annotated[dict[str, Any], AfterValidator(_sane)]


class _Standardize(_Strict):
    bands: Annotated[int, Field(gt=0, le=1 << 13)]
    channels: Annotated[int, Field(gt=0, le=1 << 6)]


class Int8(_Strict):
    """How a network was quantized."""

    keep_float: tuple[str, ...]
    example: Annotated[tuple[PositiveInt, ...], AfterValidator(_short)]


class _Provenance(_Strict):
    recordings: str
    devices: tuple[str, ...]
    clip_s: Annotated[float, Field(gt=0)] | None


class Described(_Strict):
    """`model.json`."""

    format: Literal[2]
    classes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), AfterValidator(_distinct)]
    provenance: _Provenance
    frontend: Part
    standardize: _Standardize
    network: Part
    sizes: dict[str, dict[Literal[_SIZES], Annotated[int, Field(gt=0, le=_MOST)]]]  # type: ignore[valid-type]
    int8: Int8 | None
    tied: dict[str, str] = {}
    weights_sha256: str

    @classmethod
    def read(cls, text: str, where: str) -> "Described":
        """Check the text of a `model.json`. Raises InputError, naming `where` and the field."""
        try:
            fields = json.loads(text)
            written = fields.pop("sha256", None)
            if written not in (None, digest(fields)):
                raise InputError(
                    f"{where}: changed since it was written; accepted: the file as saved, or, for a change made "
                    f"on purpose, one without its sha256"
                )
            return cls.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{where}: not a tinyscene model ({field}: {first['msg']}); accepted: one saved by it"
            ) from error
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where}: not a tinyscene model ({error}); accepted: one saved by it") from error


def digest(fields: dict[str, Any]) -> str:
    """The hash of a description, independent of the order of its fields."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def settings_of(module: nn.Module) -> dict[str, Any]:
    """Plain values among a module's own attributes, which are in no tensor."""
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and is_plain(value)}


def arguments_of(module: nn.Module) -> dict[str, Any]:
    """The arguments that rebuild a module. Raises InputError where they are unknown or more than plain values."""
    name, given = type(module).__name__, getattr(module, "arguments", None)
    if given is None:
        raise InputError(
            f"{name} can't be saved: it was built before its class was registered, so that its arguments are unknown; "
            f"accepted: one built after register_network or register_frontend"
        )
    for argument, value in given.items():
        if not is_plain(value):
            raise InputError(
                f"{name} can't be saved: it was built with {argument}={value!r}; accepted: numbers, text, True, False, "
                f"None, and lists and dicts of these"
            )
    return dict(given)


def describe(module: nn.Module, menu: Mapping[str, type[nn.Module]]) -> dict[str, Any]:
    """Name and arguments. Raises InputError for a module that is not on the menu, or can't be rebuilt."""
    for name, kind in menu.items():
        if type(module) is kind:
            return {"name": name, "arguments": arguments_of(module)}
    raise InputError(
        f"{type(module).__name__} is on no menu and can't be saved as a model; accepted: {', '.join(menu)}, or a class "
        f"given to register_network or register_frontend. Only weights: torch.save(classifier.state_dict(), FILE)"
    )


def build(part: Part, menu: Mapping[str, type[_Module]]) -> _Module:
    """The described module. Raises InputError for one that is not on the menu, or for its arguments."""
    if part.name not in menu:
        raise InputError(
            f"{part.name!r} is not on the menu; accepted: {', '.join(menu)}; for your own, import its file first"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are discarded
            return menu[part.name](**part.arguments)
    except InputError:
        raise
    except Exception as error:
        # Any error of a constructor.
        raise InputError(
            f"{part.name} can't be built with {part.arguments} ({error}); accepted: the saved arguments"
        ) from error


def build_sized(described: Described, menu: Mapping[str, type[nn.Module]], weights: int) -> nn.Module:
    """The float network, layers resized, once its size is known to be that of the weights.

    Args:
        weights: bytes of the weights' file.

    Raises:
        InputError: as `build`, or the network is larger than its weights.
    """
    values = 0
    # A network that reads its own values can't be built without them; any other error recurs below.
    with suppress(InputError), torch.device("meta"):
        empty = _resized(build(described.network, menu), described)
        # At least one byte a value; an int8 network folds away only vectors.
        values = sum(parameter.numel() for parameter in empty.parameters() if parameter.ndim > 1)
    if values > weights:
        raise InputError(
            f"a network of {values:,} weights, but {weights:,} bytes in weights.safetensors; accepted: the two "
            f"files of one model"
        )
    return _resized(build(described.network, menu), described)


def _resized(network: nn.Module, described: Described) -> nn.Module:
    for path, sizes in described.sizes.items():
        try:
            _resize(network.get_submodule(path), sizes)
        except (AttributeError, KeyError, RuntimeError, TypeError, ZeroDivisionError) as error:
            raise InputError(f"sizes: {path}: {sizes} ({error}); accepted: those of a layer of the network") from error
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
            f"{type(network).__name__}({_written(arguments_of(network))}) builds no {added[0]}, which the network to "
            f"be saved has; accepted: a network whose arguments build all of its layers"
        )
    return {
        path: _sizes(module)
        for path, module in network.named_modules()
        if path and path in fresh and _sizes(module) != _sizes(fresh[path])
    }


def differences(network: nn.Module, built: nn.Module) -> str:
    """Plain attributes in which two networks differ, for an error: "conv.dilation (4, 4) and (1, 1)"."""
    fresh = dict(built.named_modules())
    found = [
        f"{path}.{name} is {value} and would be {settings_of(fresh[path])[name]}"
        for path, module in network.named_modules()
        for name, value in settings_of(module).items()
        if path in fresh and name not in _SHOWN_OTHERWISE and settings_of(fresh[path]).get(name, value) != value
    ]
    return "; ".join(found[:3])


def _written(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _resize(layer: nn.Module, sizes: dict[str, int]) -> None:
    """Give `layer` tensors of these sizes, to be filled by load_state_dict."""
    # Zeros, since an int8 network is built from them first, and uninitialised memory may not be finite.
    device = next(layer.parameters()).device
    for name, size in sizes.items():
        setattr(layer, name, size)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
        layer.weight = nn.Parameter(torch.zeros(shape, device=device))
    elif isinstance(layer, nn.Linear):
        layer.weight = nn.Parameter(torch.zeros(layer.out_features, layer.in_features, device=device))
    width = sizes.get("out_channels") or sizes.get("out_features") or sizes["num_features"]
    for tensor in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
        if tensor.ndim == 1:
            tensor.data = torch.zeros(width, dtype=tensor.dtype, device=device)
