"""The files of small classifiers."""

from collections.abc import Callable
from functools import cache

import pytest
from scene_files import CLIP_S, at

from tinyscene.deployment import Artifact, export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Artifact]:
    """exported("cp_mobile", "int8"): its file, written once."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def write(name: str, precision: str) -> Artifact:
        return export(at(name, precision), folder / f"{name}-{precision}.onnx", clip_s=CLIP_S)

    return write
