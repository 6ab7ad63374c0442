"""C files on emulated Cortex-M boards give what they give here: `make test-device` installs what it takes."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_files import CLIP_S, at

from tinyscene.deployment import Artifact, export, probes

sys.path.insert(0, str(Path(__file__).parents[2] / "results"))
import boards

pytestmark = [
    pytest.mark.skipif(bool(boards.missing()), reason=f"no {boards.missing()}: make test-device"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc"),
]
CORES = [board.core for board in boards.BOARDS]
# Of probabilities: other logarithms and exponentials.
CLOSE = 1e-6


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(at("cp_mobile", "int8"), tmp_path_factory.mktemp("c") / "scene.c", clip_s=CLIP_S)


@pytest.mark.parametrize("board", boards.BOARDS, ids=CORES)
def test_integers_are_the_same_to_the_bit(board: boards.Board, file: Artifact) -> None:
    waveforms = probes.generated(file.clip_samples)[0].waveforms[3:6]
    features = file.classifier.features(torch.from_numpy(waveforms)).numpy()
    measured = boards.run(file.path, board, [[one] for one in features])
    np.testing.assert_array_equal(measured.outputs, file.run(features)[0])
    weights = sum(row.bytes for row in file.certificate.ledger.tensors if row.role != "frontend")
    memory = file.format.memory(file.path)
    assert weights < measured.flash < weights + 64_000
    assert 0 <= measured.ram - sum(memory.values()) < 4096
    assert 100 < measured.stack < 4096
    # A product and its sum take more than one instruction, and here much less than ten, but without a float unit.
    macs = file.certificate.ledger.macs["nessi"]
    assert 1 < measured.instructions / macs < (80 if board.core in ("Cortex-M0+", "Cortex-M3") else 12)


@pytest.mark.parametrize("board", [boards.BOARDS[2]], ids=["Cortex-M4F"])
@pytest.mark.parametrize("step_s", [None, 0.1])
def test_waveforms_and_streams(board: boards.Board, step_s: float | None, tmp_path: Path) -> None:
    classifier = at("pham_cnn", "float32")
    file = export(classifier, tmp_path / "scene.c", clip_s=CLIP_S, front_end="inside", step_s=step_s)
    waveforms = probes.generated(file.clip_samples)[0].waveforms[3:5]
    calls = [[one] for one in waveforms]
    if step_s:
        state = np.random.default_rng(0).uniform(0, 1, file.facts["state_size"]).astype(np.float32)
        calls = [[one[: file.step_samples], state] for one in waveforms]
    measured = boards.run(file.path, board, calls)
    wanted = [np.concatenate([part.flatten() for part in file.run(*(one[None] for one in call))]) for call in calls]
    np.testing.assert_allclose(measured.outputs, wanted, rtol=1e-5, atol=CLOSE)
