"""The moving average of the weights, beside one computed by hand after every step."""

import copy

import torch
from scene_training import build

from tinyscene.compression import MagnitudePruning
from tinyscene.models import masks
from tinyscene.training import Adam, Fit


def test_it_is_the_average_of_all_steps(small_clips, new_run):
    clips, steps = small_clips.development, []

    def note(network, _):
        steps.append(copy.deepcopy(network.state_dict()))

    Fit(epochs=3, batch_size=8, optimizer=Adam(1e-2)).apply(build(), clips, new_run("plain"), after_step=note)
    averaged = Fit(epochs=3, batch_size=8, optimizer=Adam(1e-2), average=0.8)(build(), clips, new_run("averaged"))
    assert len(steps) == 9
    expected = {name: tensor.double() for name, tensor in steps[0].items()}
    for number, state in enumerate(steps[1:], 1):
        share = min(0.8, (1 + number) / (10 + number))
        expected = {name: share * kept + (1 - share) * state[name].double() for name, kept in expected.items()}
    for name, tensor in averaged.network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-6)
            assert not torch.equal(tensor, steps[-1][name])


def test_validation_and_the_kept_epoch_are_of_the_average(small_clips, new_run):
    clips, fit = small_clips.development, Fit(epochs=4, batch_size=8, optimizer=Adam(3e-2), average=0.95)
    run, plain = new_run("averaged"), new_run("plain")
    fit(build(), clips, run)
    Fit(epochs=4, batch_size=8, optimizer=Adam(3e-2))(build(), clips, plain)
    assert [row["train_loss"] for row in run.history] == [row["train_loss"] for row in plain.history]
    assert run.history[-1]["validation_log_loss"] != plain.history[-1]["validation_log_loss"]


def test_what_is_pruned_while_training_stays_zero(small_clips, new_run):
    stage = MagnitudePruning(0.5, fit=Fit(epochs=4, batch_size=8, average=0.9))
    pruned = stage(build(), small_clips.development, new_run())
    kept = masks.masks_of(pruned.network)
    assert kept
    for path, mask in kept.items():
        tensor = dict(pruned.network.named_parameters())[path]
        assert not tensor[~mask].any()
