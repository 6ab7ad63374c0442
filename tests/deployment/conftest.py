"""The files of small classifiers."""

import sys
from collections.abc import Callable
from functools import cache

import pytest
from listeners import Ear
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
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """tinyscene run with a model of the tests."""
    monkeypatch.setattr("tinyscene.listening.open_model", lambda path: Ear())

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinyscene", "run", "model", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def tinyscene(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Status and all that was printed."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tinyscene", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out + said.err

    return call
