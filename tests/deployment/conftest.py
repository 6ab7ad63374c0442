"""The files of small classifiers."""

import sys
from collections.abc import Callable
from functools import cache, partial

import pytest
from listeners import Ear, Said
from scene_files import CLIP_S, at

from tinyscene.cli import main
from tinyscene.deployment import Artifact, export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Artifact]:
    """exported("cp_mobile", "int8"): its file, written once."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def write(name: str, precision: str) -> Artifact:
        return export(at(name, precision), folder / f"{name}-{precision}.onnx", clip_s=CLIP_S)

    return write


@pytest.fixture(scope="session")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A file with the front end inside, for clips of CLIP_S."""
    file = tmp_path_factory.mktemp("inside") / "scene.onnx"
    return export(at("baseline2021", "float32"), file, front_end="inside", clip_s=CLIP_S)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """What the console script does with these words."""

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["tinyscene", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Said(status, *capsys.readouterr())

    return call


@pytest.fixture
def run(typed: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """tinyscene run with a model of the tests."""
    monkeypatch.setattr("tinyscene.listening.open_model", lambda path: Ear())
    return partial(typed, "run", "model")


@pytest.fixture
def tinyscene(typed: Callable[..., Said]) -> Callable[..., tuple[int, str]]:
    """Status and all that was printed."""

    def call(*words: object) -> tuple[int, str]:
        status, out, err = typed(*words)
        return status, out + err

    return call
