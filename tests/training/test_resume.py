"""Training that is killed goes on where it was, to the same bits."""

import multiprocessing
import multiprocessing.forkserver
import os
import random
import signal
import sys
import time
from functools import partial

import pytest
import scene_training
import torch
from scene_training import RECIPES, build

from killing import killed_at, same_weights
from soak import SOAK
from tinyscene.errors import InputError
from tinyscene.models import CPMobile
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import SGD, Adam, AdamW, Fit

STEPS_AN_EPOCH = 5


@pytest.fixture(scope="module")
def fork():
    """Processes that begin with everything imported and nothing computed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scene_training", "lightning.fabric", "torch._dynamo"])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 starts the server without this process's sys.path, and says nothing when it can't import.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        multiprocessing.forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def expected(fork, small_clips, tmp_path_factory):
    """Weights and history of every recipe, trained without interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish = partial(trained, fork, small_clips, folder=folder)
    return {recipe: finish(recipe, name=recipe) for recipe in RECIPES}


def trained(fork, clips, recipe, folder, name="run", workers=0):
    assert launched(fork, clips, recipe, folder, name, workers) == 0
    return [(folder / f"{name}-model" / file).read_bytes() for file in ("weights.safetensors", "history.json")]


def launched(fork, clips, recipe, folder, name="run", workers=0, death=None, after_s=None):
    """The exit code of one process that trains, killed by itself at `death` or from here after some seconds."""
    arguments = (clips.development, recipe, folder / name, folder / f"{name}-model", workers, death)
    process = fork.Process(target=scene_training.train, args=arguments)
    process.start()
    if after_s is not None:
        time.sleep(after_s)
        process.kill()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize(("recipe", "workers"), [("memory", 0), ("loader", 0), ("loader", 2)])
def test_killed_at_steps_and_checkpoints(fork, small_clips, expected, tmp_path, recipe, workers):
    last = STEPS_AN_EPOCH * RECIPES[recipe].epochs
    draw = random.Random(f"{recipe} {workers}")
    deaths = [("step", draw.randint(1, 4)), ("partial", 1), ("checkpoint", 1), ("step", draw.randint(7, last // 2))]
    for death in deaths:
        assert launched(fork, small_clips, recipe, tmp_path, workers=workers, death=death) == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sum(name.endswith(".partial") for name in left) == 1
    assert trained(fork, small_clips, recipe, tmp_path, workers=workers) == expected[recipe]


@pytest.mark.parametrize("seed", range(8 if SOAK else 4))
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_at_any_one_point(fork, small_clips, expected, tmp_path, recipe, seed):
    draw = random.Random(seed)
    epochs = RECIPES[recipe].epochs
    where = ("step", "checkpoint", "step", "partial")[seed % 4]
    death = (where, draw.randint(1, epochs * STEPS_AN_EPOCH if where == "step" else epochs))
    assert launched(fork, small_clips, recipe, tmp_path, death=death) == -signal.SIGKILL
    assert trained(fork, small_clips, recipe, tmp_path) == expected[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_from_outside_at_any_time(fork, small_clips, expected, tmp_path, recipe):
    started = time.monotonic()
    trained(fork, small_clips, recipe, tmp_path, "timed", workers=1)
    whole_s = time.monotonic() - started
    draw = random.Random(recipe)
    for _ in range(8 if SOAK else 4):
        launched(fork, small_clips, recipe, tmp_path, workers=1, after_s=draw.uniform(0.2, 0.9) * whole_s)
    assert trained(fork, small_clips, recipe, tmp_path, workers=1) == expected[recipe]


def test_what_a_killed_process_left_half_written_is_not_trusted(fork, small_clips, expected, tmp_path):
    assert launched(fork, small_clips, "memory", tmp_path, death=("checkpoint", 2)) == -signal.SIGKILL
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("*.safetensors")
    contents = checkpoint.read_bytes()
    for name, leftover in (("aa", contents[: len(contents) // 2]), ("bb", b""), ("cc", b"\xff" * 999)):
        (checkpoint.parent / f".{checkpoint.name}.{name}.partial").write_bytes(leftover)
    assert trained(fork, small_clips, "memory", tmp_path) == expected["memory"]


@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_a_broken_checkpoint_is_named(small_clips, new_run, damage):
    run, fit = new_run(), Fit(epochs=1, batch_size=8)
    fit(build(), small_clips.train, run)
    (checkpoint,) = run.folder.glob("checkpoints/*")
    contents = checkpoint.read_bytes()
    checkpoint.write_bytes({"cut": contents[:-50], "header": b"\xff" * 8 + contents[8:], "empty": b""}[damage])
    with pytest.raises(InputError, match=checkpoint.name):
        fit(build(), small_clips.train, run)


@pytest.mark.parametrize(
    "optimizer", [Adam(1e-3, 1e-4), AdamW(1e-3), SGD(0.02, nesterov=True)], ids=lambda o: type(o).__name__
)
def test_every_optimizer_goes_on_with_its_state(small_clips, new_run, optimizer):
    """On a network with depthwise and 1x1 convolutions, whose channels-last weights the optimiser steps through."""

    def mobile():
        torch.manual_seed(2)
        network = CPMobile(classes=3, base_channels=8, blocks=(2, 1), strides=())
        return SceneClassifier(build().frontend, network, build().classes)

    fit = Fit(epochs=3, batch_size=8, optimizer=optimizer)
    whole = fit(mobile(), small_clips.train, new_run("whole"))
    with killed_at(5):  # the second step of the second epoch
        fit(mobile(), small_clips.train, new_run("killed"))
    assert same_weights(whole, fit(mobile(), small_clips.train, new_run("killed")))
