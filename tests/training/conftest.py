"""One small data set for all tests of training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import scene_training

from tinyscene.data import Clips
from tinyscene.training import Run


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return scene_training.write_clips(tmp_path_factory.mktemp("small"))


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    """new_run(name, ...): a quiet run on the CPU in a folder of its own."""

    def build(name: str = "run", **arguments) -> Run:
        return Run(folder=tmp_path / name, accelerator="cpu", **{"seed": 3, "quiet": True} | arguments)

    return build
