"""Runs without what takes longer than all else: pictures and exported files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import tinyscene.systems.reproduce  # noqa: F401  found by its path: the package's name is the function
from soak import SOAK

REPRODUCE = sys.modules["tinyscene.systems.reproduce"]


@contextmanager
def no_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_confusion", "draw_curves", "draw_devices", "draw_sizes"):
            patch.setattr(f"tinyscene.evaluation.pictures.{name}", lambda *_: None)
        yield


@contextmanager
def bare_runs() -> Iterator[None]:
    """Neither pictures nor files: for what is trained, kept and scored."""
    with no_pictures(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(REPRODUCE, "deploy", lambda *_: {})
        yield


@contextmanager
def int8_files() -> Iterator[None]:
    """No pictures, and of all files those of int8 classifiers, which end a recipe; under soak every stage's."""
    deploy = REPRODUCE.deploy

    def some(classifier: Any, *rest: Any) -> dict[str, Any]:
        return deploy(classifier, *rest) if SOAK or classifier.precision == "int8" else {}

    with no_pictures(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(REPRODUCE, "deploy", some)
        yield
