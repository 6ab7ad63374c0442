"""Two processes on the CPU train as one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import scene_training
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from tinyscene.errors import InputError
from tinyscene.training import Run


def test_two_processes_end_with_the_same_weights_and_finish(small_clips, tmp_path, new_run):
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
    shares = [json.loads((tmp_path / f"clips-{rank}.json").read_text()) for rank in (0, 1)]
    for here, there in zip(*shares, strict=True):
        assert [len(one) + len(other) for one, other in zip(here, there, strict=True)] == [5] * 4 + [4]
        assert sorted(clip for batch in (*here, *there) for clip in batch) == list(range(24))
    one, other = (tmp_path / f"int8-{rank}" / "weights.safetensors" for rank in (0, 1))
    assert one.read_bytes() == other.read_bytes()
    assert len(list(Path(tmp_path, "checkpoints").glob("*.safetensors"))) == len(scene_training.RECIPES)
    alone = dict(scene_training.train_learned(small_clips.train, new_run()).named_parameters())
    for rank in (0, 1):
        together = load_tensors(tmp_path / f"learned-{rank}.safetensors")
        # Gradients of front end and network are means over all clips; in two parts, sums round otherwise.
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5, check_stride=False)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_a_launch_of_other_processes_than_train_together_is_refused(monkeypatch, tmp_path, name):
    """`torchrun --nnodes 2` with one device: both would train alone, and write into one folder."""
    monkeypatch.setenv(name, "2")
    with pytest.raises(InputError, match=f"launched as one of 2 .{name}., Run.devices=1. trains on 1, on one host"):
        Run(folder=tmp_path / "run").fabric  # noqa: B018
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv(name, "1")
    assert Run(accelerator="cpu").fabric.world_size == 1
