"""Front ends of a user's own: with parameters that learn, with two channels; and networks with tied weights."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scene_training import RATE
from torch import nn

from tinyscene.augment import SpecAugment
from tinyscene.compression import Quantize
from tinyscene.data import decode
from tinyscene.deployment import export
from tinyscene.evaluation import evaluate
from tinyscene.features import FRONTENDS, LogMel
from tinyscene.models import NETWORKS
from tinyscene.models.classifier import SceneClassifier
from tinyscene.systems.count import count
from tinyscene.training import SGD, Adam, EarlyStopping, Fit, Run

CLASSES = ("hum", "noise", "whistle")
ONE_STEP = Fit(epochs=1, batch_size=24, optimizer=SGD(0.01, momentum=0.0))


class Gain(LogMel):
    """A learned exponent a band, as in PCEN."""

    def __init__(self, sample_rate: int = RATE, n_fft: int = 256, n_mels: int = 12) -> None:
        super().__init__(sample_rate, n_fft, n_mels, hop_length=160)
        self.arguments = {"sample_rate": sample_rate, "n_fft": n_fft, "n_mels": n_mels}
        self.exponent = nn.Parameter(torch.linspace(0.8, 1.2, n_mels)[:, None])

    def forward(self, waveforms):
        return super().forward(waveforms) * self.exponent


class Two(LogMel):
    """The levels, and half of them to the other sign."""

    def __init__(self) -> None:
        super().__init__(RATE, 256, 12, hop_length=160)
        self.arguments = {}

    def forward(self, waveforms):
        levels = super().forward(waveforms)
        return torch.cat([levels, -0.5 * levels], 1)


class Tied(nn.Module):
    """One kernel in two layers, and a dense layer."""

    def __init__(self, inputs: int = 1, classes: int = 3) -> None:
        super().__init__()
        self.inputs, self.classes = inputs, classes
        self.first = nn.Conv2d(inputs, 6, 3, padding=1)
        self.second, self.third = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.third.weight = self.second.weight
        self.dense = nn.Linear(6, classes)

    def forward(self, features):
        mapped = self.second(self.first(features).relu()).relu()
        return self.dense(self.third(mapped).relu().mean((2, 3)))


@pytest.fixture(autouse=True)
def _menus(monkeypatch):
    for menu, kind in ((FRONTENDS, Gain), (FRONTENDS, Two), (NETWORKS, Tied)):
        monkeypatch.setitem(menu, kind.__name__, kind)


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
