"""The moving average of the weights, beside one computed by hand after every step."""

import copy

import pytest
import torch
from scene_training import build

from tinyscene import evaluate
from tinyscene.compression import MagnitudePruning, Quantize
from tinyscene.compression.admm import ADMM, phases
from tinyscene.compression.selection import HardThreshold
from tinyscene.models import masks
from tinyscene.models.fake_quantize import ActivationQuantize
from tinyscene.models.quantized import FakeQuantized
from tinyscene.training import Adam, EarlyStopping, Fit


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


def test_validation_is_of_the_average(small_clips, new_run):
    clips, fit = small_clips.development, Fit(epochs=4, batch_size=8, optimizer=Adam(3e-2), average=0.95)
    run, plain = new_run("averaged"), new_run("plain")
    fit(build(), clips, run)
    Fit(epochs=4, batch_size=8, optimizer=Adam(3e-2))(build(), clips, plain)
    assert [row["train_loss"] for row in run.history] == [row["train_loss"] for row in plain.history]
    assert run.history[-1]["validation_log_loss"] != plain.history[-1]["validation_log_loss"]


def test_the_epoch_that_is_kept_is_one_of_the_average(small_clips, new_run):
    clips, kept = small_clips.development, EarlyStopping("log_loss", patience=9)
    fit = Fit(epochs=6, batch_size=8, optimizer=Adam(5e-2), average=0.5, early_stopping=kept)
    run = new_run()
    trained = fit(build(), clips, run)
    best = min(row["validation_log_loss"] for row in run.history)
    assert evaluate(trained, clips.validation, run).log_loss == pytest.approx(best, rel=1e-5)


def test_ranges_and_zero_points_fit(small_clips, new_run):
    clips, run = small_clips.development, new_run()
    trained = Fit(epochs=2, batch_size=8)(build(), clips, run)
    tuned, convert = [], FakeQuantized.convert
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeQuantized, "convert", lambda network: tuned.append(network) or convert(network))
        Quantize(fit=Fit(epochs=6, batch_size=8, optimizer=Adam(1e-2), average=0.9))(trained, clips, run)
    quantizers = [module for module in tuned[-1].modules() if isinstance(module, ActivationQuantize)]
    assert quantizers
    for one in quantizers:
        assert float(one.scale) == pytest.approx(float(one.high - one.low) / 255, rel=1e-5)
        assert int(one.zero_point) == pytest.approx(-128 - float(one.low / one.scale), abs=0.51)


def test_the_consensus_of_admm_stays_in_its_set(small_clips, new_run):
    classifier = Fit(epochs=1, batch_size=8)(build(), small_clips.development, new_run("first"))
    first, second = phases(Fit(epochs=4, batch_size=8, average=0.99), 0.5)
    _, consensus = ADMM(("dense.weight",), HardThreshold(4), 0.1).train(
        classifier, first, small_clips.development, new_run()
    )
    assert int((consensus["dense.weight"] != 0).sum()) == 4
    assert second.average == 0.99


def test_what_is_pruned_while_training_stays_zero(small_clips, new_run):
    stage = MagnitudePruning(0.5, fit=Fit(epochs=4, batch_size=8, average=0.9))
    pruned = stage(build(), small_clips.development, new_run())
    kept = masks.masks_of(pruned.network)
    assert kept
    for path, mask in kept.items():
        tensor = dict(pruned.network.named_parameters())[path]
        assert not tensor[~mask].any()
