"""Calibration: the factors are those of the named regressions, and the folded network is the same as two steps."""

import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from tinyscene import Calibration, HalfPrecision, InputError, LogMel, Run, SceneClassifier, accounting, evaluate
from tinyscene.compression.quantize import Quantize
from tinyscene.data import Clip, Clips
from tinyscene.models import Baseline2021, CPMobile, masks
from tinyscene.systems.system import stage_label

SCENES, RATE = ("bus", "park", "tram"), 8000
METHODS = ("multinomial", "one-vs-rest", "temperature")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """Noise of three colours, well apart but not separable: 36 clips to calibrate on, 9 to train and 9 to test on."""
    root, rows = tmp_path_factory.mktemp("noise"), []
    for i in range(54):
        rng = np.random.default_rng(i)
        noise = rng.normal(0, 0.1, 1600)
        smooth = 1 + i % 3 + rng.integers(0, 2)
        wave = np.convolve(noise, np.ones(smooth) / smooth, "same")
        soundfile.write(root / f"{i}.wav", wave, RATE)
        split = "validation" if i < 36 else "train" if i < 45 else "test"
        rows.append(Clip(f"{i}.wav", SCENES[i % 3], split, device=("a", "s1")[i // 3 % 2], recording=f"place {i}"))
    return Clips("noise", root, SCENES, tuple(rows))


@pytest.fixture
def classifier() -> SceneClassifier:
    torch.manual_seed(0)
    network = Baseline2021(filters=(4, 4, 4), dense=12, classes=3, bands=20)
    # At its first values, the network gives nearly the same answer for any clip.
    for layer in (network.dense, network.output):
        layer.weight.data *= 4
        torch.nn.init.normal_(layer.bias)
    return SceneClassifier(LogMel(RATE, n_fft=512, hop_length=200, n_mels=20), network, SCENES).eval()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path, accelerator="cpu", quiet=True)


@torch.no_grad()
def heard(classifier: SceneClassifier, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels, clip by clip through the whole classifier."""
    waves = [soundfile.read(clips.root / clip.path, dtype="float32")[0] for clip in clips]
    return torch.cat([classifier(torch.from_numpy(wave)[None]) for wave in waves]).double().numpy(), clips.labels


def drawn(number: int = 600, classes: int = 10, seed: int = 0, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits in which the true class is raised by `skill`, with offsets and scales that differ by class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % classes
    logits = rng.normal(size=(number, classes))
    logits[np.arange(number), labels] += skill
    return logits * rng.uniform(0.5, 4, classes) + rng.normal(size=classes), labels


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("by", METHODS)
def test_the_folded_network_is_the_two_steps(classifier, clips, run, by) -> None:
    stage = Calibration(by)
    logits, labels = heard(classifier, clips.validation)
    calibrated = stage(classifier, clips.development, run)
    assert not np.allclose(stage.factors(logits, labels), np.eye(3), atol=0.1)
    for part in (clips.validation, clips.test):
        two_steps = heard(classifier, part)[0] @ stage.factors(logits, labels).T
        np.testing.assert_allclose(heard(calibrated, part)[0], two_steps, atol=1e-5, rtol=1e-5)


def test_only_the_values_of_the_dense_layer_change(classifier, clips, run) -> None:
    before = copy.deepcopy(classifier.state_dict())
    calibrated = Calibration()(classifier.train(), clips.development, run)
    assert classifier.training
    assert classifier.provenance.recordings == classifier.provenance.devices == ()
    after = calibrated.state_dict()
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, before[name]), "the argument keeps its values"
        assert torch.equal(tensor, after[name]) == ("network.output" not in name) or name == "_extra_state"
    assert repr(calibrated) == repr(classifier)
    example = classifier.example(0.2)
    assert accounting.count(calibrated.network, example) == accounting.count(classifier.network, example)
    assert calibrated.provenance.recordings == tuple(sorted({*clips.development.recording_hashes}))
    assert calibrated.provenance.devices == ("a", "s1")


def test_figures_are_those_of_the_clips_it_was_fitted_on(classifier, clips, run) -> None:
    before = evaluate(classifier, clips.validation, run)
    after = evaluate(Calibration(C=1e6)(classifier, clips.development, run), clips.validation, run)
    assert run.metrics == pytest.approx(
        {
            "fitted_clips": 36,
            "fitted_log_loss_before": before.log_loss,
            "fitted_log_loss_after": after.log_loss,
            "fitted_ece_before": before.calibration_error,
            "fitted_ece_after": after.calibration_error,
        },
        abs=1e-6,
    )
    assert after.log_loss < before.log_loss


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_multinomial_factors_are_where_the_objective_is_flat(strength: float) -> None:
    """The gradient of C times the summed log loss plus half the squared factors, written out."""
    logits, labels = drawn()
    factors = Calibration("multinomial", strength).factors(logits, labels)
    assert factors.shape == (10, 10)
    error = softmax(logits @ factors.T, axis=1) - np.eye(10)[labels]
    gradient = error.T @ logits + factors / strength
    assert np.abs(gradient).max() / len(labels) < 1e-5


def test_one_vs_rest_goes_through_the_softmax(classifier, clips, run) -> None:
    logits, labels = heard(classifier, clips.validation)
    scores, _ = heard(classifier, clips.test)
    binary = [
        LogisticRegression(C=100, fit_intercept=False, tol=1e-8, max_iter=10_000).fit(logits, labels == number)
        for number in range(3)
    ]
    wanted = softmax(np.stack([one.decision_function(scores) for one in binary], 1), axis=1)
    calibrated = evaluate(Calibration("one-vs-rest", 100)(classifier, clips.development, run), clips.test, run)
    np.testing.assert_allclose(calibrated.probabilities, wanted, atol=1e-4)
    usual = OneVsRestClassifier(LogisticRegression(C=100, fit_intercept=False)).fit(logits, labels)
    assert np.abs(usual.predict_proba(scores) - wanted).max() > 0.01, "scikit-learn's own way is another one"


def test_one_vs_rest_of_ten_classes() -> None:
    logits, labels = drawn()
    factors = Calibration("one-vs-rest", C=0.3).factors(logits, labels)
    for number, row in enumerate(factors):
        one = LogisticRegression(C=0.3, fit_intercept=False, solver="newton-cholesky", tol=1e-10)
        np.testing.assert_allclose(row, one.fit(logits, labels == number).coef_[0], atol=1e-4)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("number", "classes"), [(20, 10), (60, 3), (600, 10), (40, 2)])
def test_the_fitted_part_never_gets_worse(seed: int, number: int, classes: int) -> None:
    logits, labels = drawn(number, classes, seed, skill=1.0)
    after = {by: loss(logits @ Calibration(by, 1e8).factors(logits, labels).T, labels) for by in METHODS}
    assert after["multinomial"] <= after["temperature"] + 1e-6
    assert after["temperature"] <= loss(logits, labels) + 1e-6


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    """Labels are drawn from the softmax of logits that are then multiplied by the temperature."""
    rng = np.random.default_rng(1)
    true = 2 * rng.normal(size=(20_000, 5))
    labels = (true + rng.gumbel(size=true.shape)).argmax(1)
    factors = Calibration("temperature", 1e8).factors(temperature * true, labels)
    np.testing.assert_allclose(factors, np.eye(5) / temperature, rtol=0.03, atol=0)


def test_two_classes_are_one_regression() -> None:
    logits, labels = drawn(80, 2, skill=1.0)
    sure = softmax(logits @ Calibration().factors(logits, labels).T, axis=1)
    wanted = LogisticRegression(fit_intercept=False, tol=1e-8).fit(logits, labels).predict_proba(logits)
    np.testing.assert_allclose(sure, wanted, atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("by", METHODS)
def test_separable_logits_give_finite_factors(by) -> None:
    labels = np.arange(30) % 3
    logits = 5 * np.eye(3)[labels]
    factors = Calibration(by).factors(logits, labels)
    assert 0 < np.abs(factors).max() < 2
    assert (softmax(logits @ factors.T, axis=1).argmax(1) == labels).all()


def test_pruned_weights_stay_zero_or_it_is_refused(classifier, clips, run) -> None:
    kept = torch.arange(36).reshape(3, 12) % 2 == 0
    kept[0] = ~kept[0]
    masks.attach(classifier.network, "output.weight", kept)
    with pytest.raises(InputError, match=r'fill in pruned weights.*accepted: by="temperature"'):
        Calibration()(classifier, clips.development, run)
    calibrated = Calibration("temperature")(classifier, clips.development, run)
    assert torch.equal(calibrated.network.output.weight != 0, kept)


def test_what_it_can_not_use_is_refused(classifier, clips, run) -> None:
    def refused(message: str, some: Clips = clips.development, of: SceneClassifier = classifier) -> None:
        with pytest.raises(InputError, match=message):
            Calibration()(of, some, run)

    refused("Calibration was given the test clip 45.wav", clips)
    refused(r"no validation clip; accepted: .*with_validation", clips.train)
    refused(
        "validation split has no clip of park",
        clips.development.where(lambda c: c.split == "train" or c.scene != "park"),
    )
    refused("float16 weights; accepted: float32", of=HalfPrecision().shape(classifier))
    other = SceneClassifier(classifier.frontend, classifier.network, ("bus", "park", "plane"))
    refused("classes bus, park, tram, the classifier bus, park, plane", of=other)
    mobile = SceneClassifier(LogMel(RATE, n_fft=512, hop_length=200, n_mels=20), CPMobile(3, base_channels=8), SCENES)
    refused("CPMobile has no dense layer of 3 outputs; accepted: .*nn.Linear", of=mobile)
    with pytest.raises(InputError, match="CPMobile has no dense layer"):
        Calibration().shape(mobile)


def test_a_layer_that_does_not_make_the_logits_is_refused(classifier, clips, run) -> None:
    classifier.network = torch.nn.Sequential(classifier.network, torch.nn.Tanh())
    with pytest.raises(InputError, match=r"logits that are .* off; accepted: .*nothing behind it"):
        Calibration()(classifier, clips.development, run)


class InputOfDense(torch.fx.Interpreter):
    """Runs a graph and keeps what its dense layer of three outputs reads."""

    def run_node(self, node):
        found = super().run_node(node)
        if node.target is torch.ops.aten.linear.default and found.shape[-1] == 3:
            self.read = self.fetch_args_kwargs_from_env(node)[0][0]
        return found


def quantized(values: np.ndarray, scale: np.ndarray, lowest: int, zero: int = 0) -> np.ndarray:
    """Rounded to steps of `scale`, 8 bits wide."""
    return (np.clip(np.round(values / scale) + zero, lowest, 127) - zero) * scale


def test_an_int8_layer_is_the_folded_one_quantized_with_a_fresh_range(classifier, clips, run) -> None:
    int8 = Quantize()(classifier, clips.development, run)
    before = copy.deepcopy(int8.state_dict())
    calibrated = Calibration()(int8, clips.development, run)
    # The same by hand: fold, 8 bits a row of weights, 8 bits from the lowest to the highest calibrated logit.
    waves = np.stack([soundfile.read(clips.root / clip.path, dtype="float32")[0] for clip in clips.validation])
    recorder = InputOfDense(int8.network, graph=int8.network.graph)
    logits = recorder.run(int8.features(torch.from_numpy(waves))).double().numpy()
    layer, read = int8.network.get_submodule("output"), recorder.read.double().numpy()
    weight = (layer.weight.double() * layer.weight_scale.double()[:, None]).numpy()
    bias = int8.network.dense_layer()[2].double().numpy()
    summed, labels = read @ weight.T + bias, clips.validation.labels
    factors = Calibration().factors(summed, labels)
    rows = factors @ weight
    rounded = quantized(rows, np.abs(rows).max(1, keepdims=True) / 127, -127)
    wanted = summed @ factors.T
    step = (wanted.max() - wanted.min()) / 255
    by_hand = quantized(read @ rounded.T + factors @ bias, step, -128, np.round(-128 - wanted.min() / step))
    after = heard(calibrated, clips.validation)[0]
    assert calibrated.network.output_step == pytest.approx(step, rel=1e-3)
    assert np.abs(after - by_hand).max() < 1.1 * step
    assert np.mean(np.abs(after - by_hand) < 0.2 * step) > 0.9
    assert loss(after, labels) == pytest.approx(loss(wanted, labels), abs=0.01)
    apart = np.abs(after - logits @ factors.T) / step
    assert run.metrics["output_steps_largest"] == pytest.approx(apart.max(), rel=0.01)
    assert run.metrics["output_steps_mean"] == pytest.approx(apart.mean(), rel=0.01)
    assert run.metrics["fitted_log_loss_before"] == pytest.approx(loss(logits, labels), abs=1e-5)
    assert calibrated.precision == "int8"
    for name, tensor in calibrated.state_dict().items():
        assert torch.equal(int8.state_dict()[name], before[name]), "the argument keeps its values"
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]) == ("network.output" not in name), name


@pytest.mark.parametrize(
    ("values", "named"), [({"by": "platt"}, "multinomial"), ({"C": 0.0}, "above 0"), ({"C": float("nan")}, "above 0")]
)
def test_unknown_values_are_refused(values, named: str) -> None:
    with pytest.raises(InputError, match=f"Calibration.*accepted: .*{named}"):
        Calibration(**values)


def test_the_label_names_the_method() -> None:
    assert stage_label(Calibration("one-vs-rest")) == "Calibration one-vs-rest"
