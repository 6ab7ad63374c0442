"""Front ends of a user's own: with parameters that learn, with two channels; and networks with tied weights."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scene_training import RATE, Gain, Tied
from torch import nn

from killing import killed_at, same_weights
from menus import menus
from tinyscene.augment import Crop, Mixup, SpecAugment
from tinyscene.compression import LotteryTicket, Quantize
from tinyscene.data import decode
from tinyscene.deployment import export
from tinyscene.evaluation import evaluate
from tinyscene.features import LogMel
from tinyscene.models.classifier import SceneClassifier
from tinyscene.systems.count import count
from tinyscene.training import SGD, Adam, EarlyStopping, Fit, Run

CLASSES = ("hum", "noise", "whistle")
ONE_STEP = Fit(epochs=1, batch_size=24, optimizer=SGD(0.01, momentum=0.0))


class Two(LogMel):
    """The levels, and half of them to the other sign."""

    def __init__(self) -> None:
        super().__init__(RATE, 256, 12, hop_length=160)

    def forward(self, waveforms):
        levels = super().forward(waveforms)
        return torch.cat([levels, -0.5 * levels], 1)


@pytest.fixture(autouse=True)
def _menus():
    with menus(Gain=Gain, Two=Two, Tied=Tied):
        yield


def classifier_of(frontend) -> SceneClassifier:
    torch.manual_seed(0)
    return SceneClassifier(frontend, Tied(2 if isinstance(frontend, Two) else 1), CLASSES)


def run_in(folder) -> Run:
    return Run(folder=folder, accelerator="cpu", quiet=True)


def test_a_step_moves_the_parameters_of_a_front_end_as_autograd_says(small_clips, tmp_path):
    start = classifier_of(Gain())
    trained = ONE_STEP(start, small_clips.development, run_in(tmp_path))
    by_hand = copy.deepcopy(start)
    by_hand.standardize.load_state_dict(trained.standardize.state_dict())
    waveforms = decode(small_clips.train, RATE, "mean", quiet=True)
    batch = torch.from_numpy(np.stack([np.array(waveforms[i]) for i in range(len(waveforms))]))
    loss = nn.functional.cross_entropy(by_hand(batch), torch.tensor(small_clips.train.labels))
    (gradient,) = torch.autograd.grad(loss, [by_hand.frontend.exponent])
    assert gradient.abs().max() > 1e-4
    moved = trained.frontend.exponent - start.frontend.exponent
    torch.testing.assert_close(moved, -0.01 * gradient, rtol=1e-3, atol=1e-7)
    # Standardized as the features of the untrained front end.
    with torch.no_grad():
        features = start.frontend(batch)
    torch.testing.assert_close(trained.standardize.mean[0, :, 0], features.mean((0, 1, 3)), rtol=1e-4, atol=1e-4)


def test_a_front_end_that_learned_is_resumed_saved_loaded_and_evaluated(small_clips, tmp_path):
    fit = Fit(epochs=3, batch_size=8, optimizer=Adam(1e-2), augment=(SpecAugment(2, 2),))
    fit = replace(fit, early_stopping=EarlyStopping("log_loss", 5))
    run = run_in(tmp_path / "run")
    trained = fit(classifier_of(Gain()), small_clips.development, run)
    again = fit(classifier_of(Gain()), small_clips.development, run_in(tmp_path / "run"))
    assert not torch.equal(trained.frontend.exponent, Gain().exponent)
    assert torch.equal(again.frontend.exponent, trained.frontend.exponent)
    loaded = SceneClassifier.load(trained.save(tmp_path / "model"))
    assert torch.equal(loaded.frontend.exponent, trained.frontend.exponent)
    # What was watched is what the best epoch's front end gives.
    scores = evaluate(loaded, small_clips.validation)
    assert scores.log_loss == pytest.approx(min(row["validation_log_loss"] for row in run.history), rel=1e-4)


def test_two_channels_are_standardized_trained_counted_quantized_saved_and_exported(small_clips, tmp_path):
    trained = ONE_STEP(classifier_of(Two()), small_clips.development, run_in(tmp_path))
    mean, std = trained.standardize.mean, trained.standardize.std
    assert mean.shape == (2, 12, 1)
    torch.testing.assert_close(mean[1], -0.5 * mean[0])
    torch.testing.assert_close(std[1], 0.5 * std[0])
    assert count(trained).ledger.input_shape[:3] == (1, 2, 12)
    loaded = SceneClassifier.load(trained.save(tmp_path / "model"))
    waveforms = 0.1 * torch.randn(2, RATE)
    assert torch.equal(loaded(waveforms), trained(waveforms))
    int8 = Quantize()(trained, small_clips.development, run_in(tmp_path))
    assert int8(waveforms).shape == (2, 3)
    artifact = export(trained, tmp_path / "two.onnx", clip_s=1.0)
    expected = trained.predict(waveforms[0].numpy(), RATE).probabilities
    assert artifact.predict(waveforms[0].numpy(), RATE).probabilities == pytest.approx(expected, abs=1e-4)


def test_tied_weights_are_stored_once_and_stay_tied(small_clips, tmp_path):
    from safetensors.torch import load_file

    trained = ONE_STEP(classifier_of(LogMel(RATE, 256, 12, hop_length=160)), small_clips.development, run_in(tmp_path))
    loaded = SceneClassifier.load(trained.save(tmp_path / "model"))
    assert loaded.network.second.weight is loaded.network.third.weight
    assert torch.equal(loaded.network.second.weight, trained.network.second.weight)
    assert "network.third.weight" not in load_file(tmp_path / "model" / "weights.safetensors")
    late = classifier_of(LogMel(RATE, 256, 12, hop_length=160))
    late.network.third.bias = late.network.second.bias
    again = SceneClassifier.load(late.save(tmp_path / "late"))
    assert again.network.second.bias is again.network.third.bias


@pytest.mark.parametrize("augment", [(), (Crop(0.3), Mixup(0.3, "waveforms"), SpecAugment(2, 4), Mixup(0.3))])
def test_a_killed_training_goes_on_to_the_same_front_end(small_clips, tmp_path, augment):
    fit, clips = Fit(epochs=3, batch_size=8, optimizer=Adam(1e-2), augment=augment), small_clips.development
    whole = fit(classifier_of(Gain()), clips, run_in(tmp_path / "whole"))
    with killed_at(5):  # the second step of the second epoch
        fit(classifier_of(Gain()), clips, run_in(tmp_path / "killed"))
    assert same_weights(whole, fit(classifier_of(Gain()), clips, run_in(tmp_path / "killed")))
    assert not torch.equal(whole.frontend.exponent, Gain().exponent)


def test_the_best_epoch_is_that_of_front_end_and_network(small_clips, tmp_path):
    fit, run = Fit(epochs=4, batch_size=8, optimizer=Adam(0.2)), run_in(tmp_path / "all")
    stopped = replace(fit, early_stopping=EarlyStopping(patience=9))
    best = stopped(classifier_of(Gain()), small_clips.development, run)
    losses = [row["validation_log_loss"] for row in run.history]
    first = losses.index(min(losses)) + 1
    assert first < 4
    expected = replace(fit, stop_after=first)(classifier_of(Gain()), small_clips.development, run_in(tmp_path / "some"))
    assert same_weights(best, expected)


def test_results_and_features_are_found_only_of_the_same_front_end_frozen_or_not(small_clips, tmp_path):
    fit, clips, run = Fit(epochs=2, batch_size=8), small_clips.development, run_in(tmp_path / "one")
    fit(classifier_of(Gain()), clips, run)
    assert not run.features
    frozen = classifier_of(Gain())
    frozen.frontend.requires_grad_(False)
    trained = fit(frozen, clips, run)
    assert len(run.features) == 2
    assert torch.equal(trained.frontend.exponent, frozen.frontend.exponent)
    other = copy.deepcopy(frozen)
    other.frontend.exponent.fill_(0.3)
    assert same_weights(fit(other, clips, run), fit(other, clips, run_in(tmp_path / "other")))


def test_a_lottery_ticket_begins_with_the_front_end_before_training(small_clips, tmp_path):
    run, before = run_in(tmp_path), classifier_of(Gain())
    run.initial = before
    trained = Fit(epochs=1, batch_size=8)(before, small_clips.development, run)
    ticket = LotteryTicket(0.5)(trained, small_clips.development, run)
    assert not torch.equal(trained.frontend.exponent, before.frontend.exponent)
    assert torch.equal(ticket.frontend.exponent, before.frontend.exponent)
