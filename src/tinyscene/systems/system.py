"""A report as code: what it builds, in which stages, and what it printed."""

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyscene.accounting import Convention, get_convention
from tinyscene.errors import InputError
from tinyscene.evaluation.scorecard import Reported
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Rules
from tinyscene.training.run import Stage

SYSTEMS = {"singh2021": "tinyscene.systems.singh2021"}


@dataclass(frozen=True)
class System:
    """One submission of a report.

    Attributes:
        rules: the edition it was made for; its classes and clip length are what `count` uses.
        build: class names -> untrained classifier.
        stages: in the report's order.
        reported: what the report prints of the last stage; None for a system of your own.
    """

    rules: Rules
    build: Callable[[tuple[str, ...]], SceneClassifier]
    stages: tuple[Stage, ...]
    reported: Reported | None = None

    def __post_init__(self) -> None:
        for name, kind in (("rules", Rules), ("stages", tuple), ("reported", Reported | None)):
            if not isinstance(getattr(self, name), kind):
                wanted = "a tuple of stages" if name == "stages" else f"a value of type {kind}"
                raise InputError(f"System({name}={getattr(self, name)!r}); accepted: {wanted}")

    @property
    def convention(self) -> Convention:
        """The report's, or that of the edition where no report printed anything."""
        named = next((limit.convention for limit in self.rules.limits if limit.convention), "bn2")
        return self.reported.convention if self.reported else get_convention(named)

    def untrained(self, classes: tuple[str, ...]) -> SceneClassifier:
        """What `build` gives. Raises InputError, saying where, if it fails."""
        try:
            return self.build(classes)
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            where = traceback.extract_tb(error.__traceback__)[1]
            raise InputError(
                f"{where.filename}:{where.lineno}: {error}; accepted: a build(classes) that returns a SceneClassifier"
            ) from error


@dataclass(frozen=True)
class SystemFile:
    """A file of `systems/`, or one of yours: its variants are the `System` values in it, by their names."""

    name: str
    path: Path
    about: str
    variants: dict[str, System]

    def only(self, *names: str) -> "SystemFile":
        """These variants alone. Raises InputError, naming those there are."""
        unknown = [name for name in names if name not in self.variants]
        if unknown:
            raise InputError(f"{self.name} has no variant {unknown[0]!r}; accepted: {', '.join(self.variants)}")
        return SystemFile(self.name, self.path, self.about, {name: self.variants[name] for name in names})


def load_system(name: str | Path) -> SystemFile:
    """A published system by name, or a private one by the path of its file.

    Raises:
        InputError: there is no such system or file, or the file holds no `System`.
    """
    path = Path(name)
    if str(name) in SYSTEMS:
        module = importlib.import_module(SYSTEMS[str(name)])
    elif path.suffix == ".py" and path.is_file():
        module = _import_file(path)
    else:
        raise InputError(f"no system {str(name)!r}; accepted: {', '.join(SYSTEMS)}, or the path of a system's .py file")
    variants = {key: value for key, value in vars(module).items() if isinstance(value, System)}
    if not variants:
        raise InputError(f"{name}: holds no System; accepted: a file with at least one `name = System(...)`")
    file = Path(str(module.__file__))
    return SystemFile(file.stem, file, (module.__doc__ or "").strip(), variants)


def stage_label(stage: Stage) -> str:
    """A stage in a few words: its type and what tells it from others of its kind."""
    label = type(stage).__name__
    for field in fields(stage):  # type: ignore[arg-type]
        value: Any = getattr(stage, field.name)
        if field.name in ("layer", "units", "ratio"):
            label += f" {', '.join(value) if isinstance(value, tuple) else value}"
        elif callable(value) and hasattr(value, "__name__"):
            label += f" {value.__name__}"
    return label


def slug(text: str) -> str:
    """A stage's label as part of a folder's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _import_file(path: Path) -> ModuleType:
    # A name of its own: a system called torch.py must not stand in for torch.
    spec = importlib.util.spec_from_file_location(f"private_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by its name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"{path}: can't be imported ({type(error).__name__}: {error}); accepted: a Python file"
        ) from error
    return module
