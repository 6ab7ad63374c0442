"""Keys of stored results: everything that made a result is part of its key, or is refused."""

import dataclasses
import hashlib
import inspect
import json
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tinyscene.errors import InputError

PACKAGE = Path(__file__).parents[1]
COMPUTING = (
    "torch",
    "numpy",
    "scipy",
    "soxr",
    "lightning",
    "scikit-learn",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
# Their versions are part of every key, as is our own source.
_KNOWN = {"tinyscene", "torch", "numpy", "scipy", "sklearn", "lightning", *sys.stdlib_module_names}
_PLAIN = (type(None), bool, int, float, str)
_NAMED = (
    complex,
    types.EllipsisType,
    torch.dtype,
    torch.device,
    torch.qscheme,
    torch.memory_format,
    torch.layout,
    np.dtype,
    types.ModuleType,
)
_BUILTIN = types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType
# torch's state of every module; of this, only hooks change the result.
_OF_MODULES, _HOOKS = set(vars(nn.Module())), ("_forward_pre_hooks", "_forward_hooks")


def describe(value: Any) -> Any:
    """A stage, a classifier, or any nested values and callables as JSON: equal text for equal meaning.

    Objects are described by their class and all that they hold, functions by their code, their defaults and what they
    close over. Definitions outside the package are followed by a hash of their source.

    Raises:
        InputError: something, named by its place, can't be distinguished from another of its kind.
    """
    return _describe(value, type(value).__name__, ())


def key_of(*parts: Any) -> str:
    """A short name for a result that depends on `parts`, on the package's source and on versions."""
    versions = [version(name) for name in COMPUTING]
    text = json.dumps([source_fingerprint(), versions, *map(describe, parts)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _describe(value: Any, place: str, above: tuple[int, ...]) -> Any:
    """`above` are the objects that this one is part of, so that one that holds itself does not recur endlessly."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (Path, *_NAMED)):
        return str(value)
    if isinstance(value, Tensor | np.ndarray | np.generic | bytes):
        return _hash_values(value)
    if id(value) in above:
        return "itself"
    above = (*above, id(value))

    def inside(part: Any, name: object) -> Any:
        return _describe(part, f"{place}.{name}", above)

    if isinstance(value, list | tuple | set | frozenset | Mapping) and _known(type(value)):
        return _items(value, inside)
    if isinstance(value, partial):
        return {"type": "partial", "of": inside(value.func, "of"), "with": inside([value.args, value.keywords], "with")}
    if isinstance(value, weakref.ref):
        return inside(value(), "referent")  # as recurrent layers hold their weights
    if isinstance(value, types.MethodType):
        return {"type": "method", "of": inside(value.__self__, "self"), "function": inside(value.__func__, "function")}
    if isinstance(value, type | types.FunctionType | _BUILTIN):
        return _definition(value, inside)
    return _object(value, inside, place)


def _items(value: Any, inside: Callable[[Any, object], Any]) -> list[Any]:
    if isinstance(value, Mapping):
        return [[inside(key, "key"), inside(item, key)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [inside(item, i) for i, item in enumerate(value)]
    return sorted(json.dumps(inside(item, "item"), sort_keys=True) for item in value)


def _object(value: Any, inside: Callable[[Any, object], Any], place: str) -> dict[str, Any]:
    """Its class and contents."""
    kind = type(value)
    slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ()) if hasattr(value, name)]
    contains = isinstance(value, list | tuple | set | frozenset | Mapping)
    if not (hasattr(value, "__dict__") or slots or contains):
        raise InputError(
            f"{place} is a {kind.__module__}.{kind.__name__}, which can't be distinguished from another; its "
            f"result can't be stored; accepted: numbers, text, tensors, arrays, functions, and objects that hold such"
        )
    held = {name: item for name, item in getattr(value, "__dict__", {}).items() if not _cached(kind, name)}
    held |= {name: getattr(value, name) for name in slots}
    described: dict[str, Any] = {"type": kind.__name__ + _source(kind, inside)}
    if contains:  # such as a user's subclass of tuple
        described["items"] = _items(value, inside)
    if isinstance(value, fx.GraphModule):
        described["code"], held = value.code, {}
    if isinstance(value, nn.Module):
        tensors = [*value.named_parameters(recurse=False), *value.named_buffers(recurse=False)]
        described["tensors"] = {name: f"{_hash_values(tensor)} {tensor.requires_grad}" for name, tensor in tensors}
        described["modules"] = [[name, inside(part, name)] for name, part in value.named_children()]
        hooks = {name: [*held[name].values()] for name in _HOOKS if held.get(name)}
        held = hooks | {name: item for name, item in held.items() if name not in _OF_MODULES}
    elif dataclasses.is_dataclass(value) and _known(kind):
        # Fields outside the repr follow from the others.
        held = {field.name: held[field.name] for field in dataclasses.fields(value) if field.repr}
    described |= {name: inside(item, name) for name, item in held.items()}
    if hasattr(kind, "content"):
        described["content"] = value.content()
    return described


def _definition(value: Any, inside: Callable[[Any, object], Any]) -> str:
    """Name of a class or function, and what distinguishes it from others of that name."""
    name = f"{value.__module__}.{getattr(value, '__qualname__', value.__name__)}{_source(value, inside)}"
    # Our own nested functions are also described with what they close over.
    cells = getattr(value, "__closure__", None) if _known(value) else None
    return name + (json.dumps([inside(cell.cell_contents, "closure") for cell in cells]) if cells else "")


def _source(definition: Any, inside: Callable[[Any, object], Any]) -> str:
    """A hash of the definition of a function, or a class with its bases; empty where versions cover it."""
    found = []
    for one in definition.__mro__ if isinstance(definition, type) else (definition,):
        if not _known(one):
            members = vars(one).values() if isinstance(one, type) else (one,)
            functions = [getattr(member, "__func__", getattr(member, "fget", member)) for member in members]
            codes = [_code(member) for member in functions if isinstance(member, types.FunctionType)]
            found.append([one.__qualname__, _file(one), inside(codes, "code")])
    return f" {hashlib.sha256(json.dumps(found).encode()).hexdigest()[:8]}" if found else ""


def _file(definition: Any) -> str:
    """A hash of the defining file, where what it calls may have been edited."""
    try:
        return hashlib.sha256(Path(inspect.getsourcefile(definition) or "").read_bytes()).hexdigest()
    except (OSError, TypeError):  # typed at a prompt, or not written in Python
        return ""


def _code(function: types.FunctionType) -> list[Any]:
    """The contents of a function: instructions, closed-over values, defaults, and the globals that it reads."""
    code = function.__code__
    if code.co_filename == "<string>" and function.__name__.startswith("__"):  # a dataclass's own
        return [function.__name__]
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell.cell_contents is not function]
    kinds = (*_PLAIN, Tensor, np.ndarray, types.FunctionType)
    read = [function.__globals__.get(name) for name in code.co_names]
    read = [one for one in read if isinstance(one, kinds) and not (callable(one) and _known(one))]
    return [_instructions(code), cells, function.__defaults__, function.__kwdefaults__, read]


def _instructions(code: types.CodeType) -> list[Any]:
    constants = [_instructions(one) if isinstance(one, types.CodeType) else one for one in code.co_consts]
    return [code.co_code, constants, code.co_names]


def _known(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "builtins").partition(".")[0] in _KNOWN


def _cached(kind: type, name: str) -> bool:
    """Whether it is a cached value that follows from the others."""
    return isinstance(inspect.getattr_static(kind, name, None), cached_property)


def _hash_values(values: Any) -> str:
    """A hash of a tensor, an array or bytes, with shape and type."""
    if isinstance(values, Tensor):
        kind = f"{tuple(values.shape)} {values.dtype}"
        if values.is_meta:
            return kind
        data = values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(values, bytes):
        kind, data = "bytes", values
    else:
        kind, data = f"{values.shape} {values.dtype}", np.ascontiguousarray(values).tobytes()
    return f"{kind} {hashlib.sha256(data).hexdigest()}"


def weights_fingerprint(module: nn.Module) -> str:
    """Changes with any value of any tensor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {_hash_values(tensor)}".encode())
    return digest.hexdigest()


@cache
def source_fingerprint() -> str:
    """Hash of the package's source: an edited stage finds no stale result."""
    return _hash_files(sorted(PACKAGE.rglob("*.py")))


def _hash_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
