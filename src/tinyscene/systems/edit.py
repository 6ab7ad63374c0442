"""Change a recipe from the shell: single fields by path, and all epochs by a factor."""

import ast
import inspect
import math
import re
import types
import typing
from dataclasses import fields, is_dataclass, replace
from typing import Any

from tinyscene.compression import LotteryTicket
from tinyscene.errors import InputError
from tinyscene.systems.system import SystemFile
from tinyscene.training import Cosine, Fit, Step


def scale_epochs(value: Any, factor: float) -> Any:
    """The same nested stages, every `Fit` in them with `factor` times its epochs, at least one.

    Other settings in epochs keep their share: where a fit starts and stops or a lottery ticket rewinds to,
    warm-up, the length of a step. Adjoining parts of one fit still adjoin; one that rounds to zero trains nothing.
    """
    if not 0 < factor < math.inf:
        raise InputError(f"--epochs-scale {factor}; accepted: above 0, such as 0.1")
    if isinstance(value, Fit):
        return _scale_fit(value, max(1, round(value.epochs * factor)))
    if isinstance(value, tuple):
        return tuple(scale_epochs(item, factor) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        scaled = {name: scale_epochs(item, factor) for name, item in held.items()}
        changed = {name: item for name, item in scaled.items() if item is not held[name] and item != held[name]}
        if isinstance(value, LotteryTicket) and value.fit is not None and "fit" in changed:
            changed["rewind_epoch"] = _place(value.rewind_epoch, changed["fit"].epochs / value.fit.epochs)
        return replace(value, **changed) if changed else value
    return value


def _place(epoch: int, share: float) -> int:
    """An epoch's place in a scaled fit: only the beginning stays or becomes the beginning."""
    return max(1, round(epoch * share)) if epoch else 0


def _scale_fit(fit: Fit, epochs: int) -> Fit:
    share = epochs / fit.epochs
    schedule = fit.schedule
    if isinstance(schedule, Cosine):
        schedule = replace(schedule, warmup_epochs=schedule.warmup_epochs * share)
    elif isinstance(schedule, Step):
        schedule = replace(schedule, every_epochs=_place(schedule.every_epochs, share))
    stop = None if fit.stop_after is None else _place(fit.stop_after, share)
    return replace(fit, epochs=epochs, schedule=schedule, stop_after=stop, start_after=_place(fit.start_after, share))


def scale_system(file: SystemFile, factor: float) -> SystemFile:
    """`scale_epochs` over every variant."""
    variants = {n: replace(s, stages=scale_epochs(s.stages, factor)) for n, s in file.variants.items()}
    return replace(file, variants=variants)


def override(file: SystemFile, assignments: list[str]) -> SystemFile:
    """Apply `VARIANT.stages.N.field=value`, in order; the variant `all` means every one that has the field.

    Raises:
        InputError: an unknown name, or a value of another type; the message names the right ones.
    """
    variants = dict(file.variants)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        first, *names = path.split(".")
        if not equals or len(names) < 2 or names[0] != "stages":
            raise InputError(f"--set {assignment}; accepted: VARIANT.stages.N.field=value")
        if first not in ("all", *variants):
            raise InputError(f"--set {assignment}: no variant {first!r}; accepted: all, {', '.join(variants)}")
        chosen = [first]
        if first == "all":
            # Where none has that stage, the longest variant's error lists the most accepted names.
            longest = max(variants, key=lambda name: len(variants[name].stages))
            chosen = [name for name, one in variants.items() if _has(one.stages, names[1])] or [longest]
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = text
        for variant in chosen:
            try:
                stages = _changed(variants[variant].stages, tuple, names[1:], value)
            except _RefusedError as error:
                raise InputError(f"--set {assignment}: {error}") from None
            variants[variant] = replace(variants[variant], stages=stages)
    return replace(file, variants=variants)


class _RefusedError(Exception):
    """What is wrong, and what is accepted."""


def _has(items: tuple[Any, ...], name: str) -> bool:
    return name.isdecimal() and int(name) < len(items)


def _changed(old: Any, hint: Any, names: list[str], value: Any) -> Any:
    """`old`, of the type `hint`, with the field at the end of `names` set; `value` itself where no name is left."""
    if not names:
        try:
            return _fitted(value, hint)
        except TypeError:
            accepted = re.sub(r"\w+\.|Literal", "", inspect.formatannotation(hint))
            raise _RefusedError(
                f"{str(value)!r} is {type(value).__name__}; accepted: {accepted} (now {old!r})"
            ) from None
    name, rest = names[0], names[1:]
    if isinstance(old, tuple):
        if not _has(old, name):
            raise _RefusedError(f"no item {name!r}; accepted: 0 to {len(old) - 1}")
        i = int(name)
        return (*old[:i], _changed(old[i], type(old[i]), rest, value), *old[i + 1 :])
    known = [f.name for f in fields(old)] if is_dataclass(old) else []
    if name not in known:
        raise _RefusedError(f"{type(old).__name__} has no field {name!r}; accepted: {', '.join(known) or 'none'}")
    return replace(old, **{name: _changed(getattr(old, name), typing.get_type_hints(type(old))[name], rest, value)})


def _fitted(value: Any, hint: Any) -> Any:
    """`value` as `hint`, with integers as floats where it is float; TypeError for another type."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for alternative in typing.get_args(hint) if union else (hint,):
        origin, inner = typing.get_origin(alternative) or alternative, typing.get_args(alternative)
        if origin is tuple and isinstance(value, tuple):
            items = inner[:1] * len(value) if inner[1:] == (...,) or not inner else inner
            if len(items) in (0, len(value)):
                return tuple(_fitted(item, kind) for item, kind in zip(value, items, strict=True)) if items else value
        elif origin is float and type(value) is int:
            return float(value)
        elif type(value) is origin or (origin is typing.Literal and value in inner):
            return value
    raise TypeError
