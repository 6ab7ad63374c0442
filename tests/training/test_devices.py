"""Two processes on the CPU train as one."""

import subprocess
import sys
from pathlib import Path

import scene_training
from safetensors.numpy import load_file


def test_two_processes_end_with_the_same_weights_and_finish(small_clips, tmp_path):
    command = [sys.executable, scene_training.__file__, str(small_clips.root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for recipe in scene_training.RECIPES:
        first, second = (tmp_path / f"{recipe}-{rank}" / "weights.safetensors" for rank in (0, 1))
        assert first.read_bytes() == second.read_bytes()
        trained, untrained = load_file(first), scene_training.build().state_dict()
        assert (trained["network.L1.weight"] != untrained["network.L1.weight"].numpy()).any()
        # Five clips a batch make two and three: the schedule of steps is that of one process.
        assert int(trained["network.bn1.num_batches_tracked"]) in {5, 10, 15, 20}
    assert len(list(Path(tmp_path, "checkpoints").glob("*.safetensors"))) == len(scene_training.RECIPES)
