"""A report as code: its network, stages and printed results."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyscene.accounting import Convention
from tinyscene.data import Clips
from tinyscene.errors import InputError, check
from tinyscene.evaluation.scorecard import Reported
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Rules
from tinyscene.training.run import Run, Stage

SYSTEMS = ("byttebier2021", "galindo2021", "pham2020", "schmidt2022", "singh2021")


@dataclass(frozen=True)
class Optimistic(Stage):
    """A stage that is given the test part as its validation part, as in some reports.

    The classifier records those clips, so that this row and all later ones are marked optimistic. The stage is
    given all clips, and uses the train and test parts.
    """

    stage: Stage

    def __post_init__(self) -> None:
        check(self, stage=Stage)

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """As the stage does."""
        return self.stage.shape(classifier)

    def __call__(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """As the stage does. Raises InputError where there is no test clip."""
        if not len(clips.test):
            raise InputError("Optimistic was given no test clip; accepted: all clips of a data set with a test split")
        shown = tuple(clip._replace(split="validation") for clip in clips.test)
        return self.stage(classifier, replace(clips, rows=(*clips.train, *shown)), run)

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """As the stage does, on clips without test clips."""
        return self.stage.apply(classifier, clips, run)


@dataclass(frozen=True)
class System:
    """One submission of a report.

    Attributes:
        rules: its edition, whose classes and clip length `count` uses.
        build: class names -> untrained classifier.
        stages: in the report's order.
        reported: the report's results of the last stage; None for your own system.
        counted_by: the convention where nothing is reported; the edition's own where None.
    """

    rules: Rules
    build: Callable[[tuple[str, ...]], SceneClassifier]
    stages: tuple[Stage, ...]
    reported: Reported | None = None
    counted_by: Convention | None = None

    def __post_init__(self) -> None:
        check(self, rules=Rules, stages=tuple, reported=Reported | None, counted_by=Convention | None)
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise InputError(
                    f"System(stages=...): {stage!r}; accepted: stages, of classes that derive from tinyscene.Stage and "
                    f"define apply(classifier, clips, run)"
                )

    @property
    def convention(self) -> Convention:
        """The report's, or `counted_by`, or that of the edition."""
        given = self.reported.convention if self.reported else self.counted_by
        return given or self.rules.convention


@dataclass(frozen=True)
class SystemFile:
    """A file of `systems/`, or your own: its variants are the `System` values in it, by name."""

    name: str
    path: Path
    about: str
    variants: dict[str, System]

    @property
    def departures(self) -> str:
        """The paragraph of its docstring on departures from the report; empty where there is none."""
        paragraphs = (" ".join(text.split()) for text in self.about.split("\n\n"))
        return next((text for text in paragraphs if text.startswith("Departures")), "")

    def only(self, *names: str) -> "SystemFile":
        """Only these variants. Raises InputError for an unknown one."""
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
        module = importlib.import_module(f"tinyscene.systems.{name}")
    elif path.suffix == ".py" and path.is_file():
        module = _import_file(path)
    else:
        raise InputError(f"no system {str(name)!r}; accepted: {', '.join(SYSTEMS)}, or the path of a system's .py file")
    variants = {key: value for key, value in vars(module).items() if isinstance(value, System)}
    if not variants:
        raise InputError(f"{name}: holds no System; accepted: a file with at least one `name = System(...)`")
    file = Path(str(module.__file__))
    return SystemFile(file.stem, file, (module.__doc__ or "").strip(), variants)


Shaped = list[tuple[Any, SceneClassifier]]


def shapes(system: System, classifier: SceneClassifier, done: Shaped) -> list[SceneClassifier]:
    """The classifier after every stage's `shape`. Shapes shared with an earlier variant are taken from `done`."""
    found = []
    for index, stage in enumerate(system.stages):
        begun = system.build, [_shaping(one) for one in system.stages[: index + 1]]
        classifier = next((known for way, known in done if way == begun), None) or stage.shape(classifier)
        done.append((begun, classifier))
        found.append(classifier)
    return found


def _shaping(stage: Stage) -> dict[str, Any]:
    """What a stage's `shape` depends on: all but the fit within it."""
    held = {field.name: getattr(stage, field.name) for field in fields(stage)}  # type: ignore[arg-type]
    return {"type": type(stage)} | {name: value for name, value in held.items() if name != "fit"}


def stage_label(stage: Stage) -> str:
    """A stage in a few words: its type and distinguishing settings."""
    if isinstance(stage, Optimistic):
        return f"{stage_label(stage.stage)} on test"
    label = type(stage).__name__
    for field in fields(stage):  # type: ignore[arg-type]
        value: Any = getattr(stage, field.name)
        if field.name in ("layer", "units", "ratio") or (field.name == "by" and isinstance(value, str)):
            label += f" {', '.join(value) if isinstance(value, tuple) else value}"
        elif callable(value) and hasattr(value, "__name__"):
            label += f" {value.__name__}"
    return label


def _import_file(path: Path) -> ModuleType:
    # A separate name: a system called torch.py must not replace torch.
    spec = importlib.util.spec_from_file_location(f"private_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"{path}: can't be imported ({type(error).__name__}: {error}); accepted: a Python file"
        ) from error
    return module
