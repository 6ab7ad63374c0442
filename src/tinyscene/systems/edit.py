"""Change a recipe from the shell: single fields by path, and all epochs by a factor."""

import ast
import types
import typing
from dataclasses import fields, is_dataclass, replace
from typing import Any

from tinyscene.errors import InputError
from tinyscene.systems.system import SystemFile
from tinyscene.training import Fit


def scale_epochs(value: Any, factor: float) -> Any:
    """The same nest of stages, every `Fit` in it with `factor` times its epochs, at least one."""
    if factor <= 0:
        raise InputError(f"--epochs-scale {factor}; accepted: above 0, such as 0.1")
    if isinstance(value, Fit):
        return replace(value, epochs=max(1, round(value.epochs * factor)))
    if isinstance(value, tuple):
        return tuple(scale_epochs(item, factor) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        changed = {k: v for k, v in held.items() if isinstance(v, Fit | tuple) and scale_epochs(v, factor) != v}
        return replace(value, **{k: scale_epochs(v, factor) for k, v in changed.items()})
    return value


def scale_system(file: SystemFile, factor: float) -> SystemFile:
    """`scale_epochs` over every variant."""
    variants = {n: replace(s, stages=scale_epochs(s.stages, factor)) for n, s in file.variants.items()}
    return replace(file, variants=variants)


def override(file: SystemFile, assignments: list[str]) -> SystemFile:
    """Apply `VARIANT.stages.N.field=value`, in order; the variant `all` stands for every one.

    Raises:
        InputError: a name that isn't there, or a value of another type; the message names the right ones.
    """
    variants = dict(file.variants)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        names = path.split(".")
        if not equals or len(names) < 3 or names[1] != "stages":
            raise InputError(f"--set {assignment}; accepted: VARIANT.stages.N.field=value")
        chosen = list(variants) if names[0] == "all" else [names[0]]
        for variant in chosen:
            if variant not in variants:
                raise InputError(f"--set {assignment}: no variant {variant!r}; accepted: all, {', '.join(variants)}")
            stages = _changed(variants[variant].stages, names[2:], text, assignment)
            variants[variant] = replace(variants[variant], stages=stages)
    return replace(file, variants=variants)


def _changed(value: Any, names: list[str], text: str, assignment: str) -> Any:
    """`value` with the field at the end of `names` set."""
    name, rest = names[0], names[1:]
    if isinstance(value, tuple):
        if not name.isdigit() or int(name) >= len(value):
            raise InputError(f"--set {assignment}: no item {name!r}; accepted: 0 to {len(value) - 1}")
        i = int(name)
        item = _changed(value[i], rest, text, assignment) if rest else _parse(value[i], None, text, assignment)
        return (*value[:i], item, *value[i + 1 :])
    known = [f.name for f in fields(value)] if is_dataclass(value) else []
    if name not in known:
        raise InputError(
            f"--set {assignment}: {type(value).__name__} has no field {name!r}; accepted: {', '.join(known) or 'none'}"
        )
    old = getattr(value, name)
    hint = typing.get_type_hints(type(value))[name]
    return replace(
        value, **{name: _changed(old, rest, text, assignment) if rest else _parse(old, hint, text, assignment)}
    )


def _parse(old: Any, hint: Any, text: str, assignment: str) -> Any:
    """`text` as a value of the field's type."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    allowed = hint if hint is not None else type(old)
    if float in _alternatives(allowed) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not _is(value, allowed):
        names = ", ".join(str(getattr(t, "__name__", t)) for t in _alternatives(allowed))
        raise InputError(f"--set {assignment}: {text!r} is {type(value).__name__}; accepted: {names} (now {old!r})")
    return value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _is(value: Any, hint: Any) -> bool:
    for alternative in _alternatives(hint):
        origin = typing.get_origin(alternative)
        if origin is typing.Literal:
            fits = value in typing.get_args(alternative)
        elif origin is tuple:
            inner = typing.get_args(alternative)
            item = inner[0] if inner else Any
            fits = isinstance(value, tuple) and all(item is Any or _is(v, item) for v in value)
        else:
            kind = origin or alternative
            fits = isinstance(kind, type) and type(value) is kind
        if fits:
            return True
    return False
