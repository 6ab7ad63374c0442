"""The l1-trained linear model: against SciPy's minimum, its optimality conditions, and what it can hear."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_bands import BANDS, CLASSES, PLANTED, RATE, SAMPLES, frontend, linear_model, run_in, write_clips
from scipy.optimize import minimize
from scipy.stats import kurtosis, skew

from tinyscene import audio
from tinyscene.compression import MagnitudePruning, linear
from tinyscene.compression.linear import LinearFit, SparseHinge, linear_branch
from tinyscene.errors import InputError
from tinyscene.models import CPMobile, masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.tandem import Tandem
from tinyscene.training import Adam, Fit


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Hard enough that no few inputs tell all of them apart."""
    return write_clips(tmp_path_factory.mktemp("planted"), parts={"train": 50, "test": 20}, own_level=(0.01, 0.08))


@pytest.fixture(scope="module")
def fitted(clips, tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("run"))
    return LinearFit()(linear_model(), clips.train, run), run.metrics


def weights_of(classifier):
    """(classes, 5 x bands)"""
    return torch.cat([layer.weight.detach() for layer in linear_branch(classifier.network).layers], 1)


def share_of(weight):
    """Of the inputs, those that any class reads."""
    return float((weight != 0).any(0).double().mean())


def solved(inputs, labels, strength):
    hinge = SparseHinge(inputs, labels)
    return hinge.solve(strength, hinge.zeros, tolerance=1e-3)


def problem(seed, clips=60, inputs=12, classes=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((clips, inputs)) @ (np.eye(inputs) + 0.4 * rng.standard_normal((inputs, inputs)))
    labels = (x @ rng.standard_normal((inputs, classes)) + rng.standard_normal((clips, classes))).argmax(1)
    labels[:classes] = range(classes)
    return torch.from_numpy((x - x.mean(0)) / x.std(0)), torch.from_numpy(labels)


def objective(inputs, labels, weight, bias, strength):
    """torch's own loss."""
    return F.multi_margin_loss(inputs @ weight.T + bias, labels, p=2) + strength * weight.abs().sum()


@pytest.mark.parametrize("strength", [0.3, 0.1, 0.02])
def test_the_minimum_is_scipys(strength):
    """L-BFGS-B on the positive and the negative part of every weight, whose gradient is torch's."""
    inputs, labels = problem(0)
    found = solved(inputs, labels, strength)
    size = 3 * 12

    def both(values):
        split = torch.tensor(values, requires_grad=True)
        weight = (split[:size] - split[size : 2 * size]).view(3, 12)
        loss = F.multi_margin_loss(inputs @ weight.T + split[2 * size :], labels, p=2)
        total = loss + strength * split[: 2 * size].sum()
        total.backward()
        return total.item(), split.grad.numpy()

    bounds = [(0, None)] * (2 * size) + [(None, None)] * 3
    options = {"maxiter": 5000, "maxfun": 50000, "ftol": 1e-15, "gtol": 1e-9}
    theirs = minimize(both, np.zeros(2 * size + 3), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    ours = objective(inputs, labels, found[:, :-1], found[:, -1], strength).item()
    assert ours == pytest.approx(theirs.fun, rel=1e-5)
    assert ours >= theirs.fun - 1e-9
    weight = (theirs.x[:size] - theirs.x[size : 2 * size]).reshape(3, 12)
    np.testing.assert_allclose(found[:, :-1].numpy(), weight, atol=2e-3)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), strength=st.floats(0.01, 0.5))
def test_the_conditions_of_a_minimum_hold(seed, strength):
    """The gradient, by torch, is minus the strength times the sign of a weight, and no larger where it is zero."""
    inputs, labels = problem(seed)
    solution = solved(inputs, labels, strength).requires_grad_()
    F.multi_margin_loss(inputs @ solution[:, :-1].T + solution[:, -1], labels, p=2).backward()
    weight, gradient = solution.detach()[:, :-1], solution.grad[:, :-1]
    assert gradient.abs().max() <= strength * (1 + 2e-3)
    assert (gradient + strength * weight.sign())[weight != 0].abs().sum() <= 2e-3 * strength * weight.numel()
    assert solution.grad[:, -1].abs().max() <= 2e-3 * strength


def test_its_step_is_safe_and_not_timid():
    """One over a bound of the loss's curvature: at most that, and not a tenth of it, by the Hessian."""
    inputs, labels = problem(1, clips=20, inputs=4)
    hinge = SparseHinge(inputs, labels)
    extended = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)

    def loss(flat):
        # Torch differentiates its own loss once only.
        scores = extended @ flat.view(3, 5).T
        margins = (1 - scores.gather(1, labels[:, None]) + scores).clamp_min(0).square()
        return (margins.sum() - len(labels)) / (3 * len(labels))

    start = torch.randn(15, generator=torch.Generator().manual_seed(0)).double()
    assert loss(start) == pytest.approx(F.multi_margin_loss(extended @ start.view(3, 5).T, labels, p=2).item())
    curvature = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, torch.zeros(15).double()))[-1]
    assert 0.1 / curvature < hinge.step <= 1 / curvature + 1e-12


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_the_search_meets_the_share(keep):
    inputs, labels = problem(2, clips=400, inputs=100)
    weights, strength = SparseHinge(inputs, labels).search(keep, quiet=True)
    assert share_of(weights[:, :-1]) == pytest.approx(keep, abs=0.011)
    assert strength > 0


def test_about_half_the_inputs_stay_and_the_others_are_true_zeros(fitted):
    classifier, figures = fitted
    weight = weights_of(classifier)
    assert weight.shape == (len(CLASSES), 5 * BANDS)
    stay = (weight != 0).any(0)
    assert float(stay.double().mean()) == pytest.approx(0.5, abs=0.05)
    assert figures["inputs_kept"] == float(stay.double().mean())
    assert figures["l1_strength"] > 0
    # The planted bands' means are among them.
    assert all(stay[band] for band in PLANTED)


def test_masked_weights_stay_zero(clips, tmp_path):
    masked = MagnitudePruning(0.3).shape(linear_model())
    fitted = LinearFit()(masked, clips.train, run_in(tmp_path)).network
    removed = masks.removed(fitted)
    assert sum(int(gone.sum()) for _, gone in removed) == round(0.3 * sum(p.numel() for p in fitted.parameters()))
    assert not any(parameter[gone].any() for parameter, gone in removed)
    assert fitted.layers[0].weight.any()


def test_the_figures_are_of_what_the_masks_leave(clips, fitted, tmp_path):
    masked, run = linear_model(), run_in(tmp_path)
    for i in range(len(masked.network.layers)):
        gone = (torch.arange(BANDS) + i) % 3 > 0
        masks.attach(masked.network, f"layers.{i}.weight", (~gone).expand(len(CLASSES), -1).clone())
    after = LinearFit()(masked, clips.train, run)
    weight = weights_of(after)
    assert run.metrics["inputs_kept"] == share_of(weight) < fitted[1]["inputs_kept"]
    moments, loss = moments_and_loss(after, clips.train)
    l1 = (weight.double().abs().numpy() * moments.std(0)).sum()
    assert run.metrics["l1_objective"] == pytest.approx(loss + run.metrics["l1_strength"] * l1, rel=1e-3)
    assert run.metrics["l1_objective"] > 1.01 * fitted[1]["l1_objective"]
    # Nor does the bias hold any longer what a removed weight read in the mean.
    of_means = [
        weights_of(one).numpy() @ moments.mean(0) + linear_branch(one.network).layers[0].bias.detach().numpy()
        for one in (fitted[0], after)
    ]
    np.testing.assert_allclose(*of_means, rtol=1e-3, atol=1e-3)


def test_a_fit_that_ran_out_of_steps_says_so(clips, fitted, tmp_path, monkeypatch):
    assert fitted[1]["l1_imbalance"] < 0.03
    monkeypatch.setattr(linear, "_STEPS", 5)
    run = run_in(tmp_path)
    LinearFit()(linear_model(), clips.train, run)
    assert run.metrics["l1_imbalance"] > 0.1


def test_it_hears_what_is_planted(fitted, clips):
    classifier, figures = fitted
    for part in (clips.train, clips.test):
        waveforms = torch.from_numpy(np.stack([audio.read(part.root / clip.path, RATE) for clip in part]))
        with torch.inference_mode():
            logits = classifier(waveforms)
        assert np.mean(logits.argmax(1).numpy() == part.labels) >= 0.65  # a third by chance
        if part.labels is not None and len(part) == len(clips.train):
            loss = F.multi_margin_loss(logits, torch.from_numpy(part.labels), p=2).item()
            assert 0 < loss < figures["l1_objective"]


def moments_and_loss(classifier, part):
    """By SciPy's moments, from the waveforms on: (clips, 5 x bands), and the mean loss."""
    waveforms = torch.from_numpy(np.stack([audio.read(part.root / clip.path, RATE) for clip in part]))
    with torch.inference_mode():
        features = classifier.features(waveforms)[:, 0].double().numpy()
        logits = classifier(waveforms).double()
    centred = features - features.mean(2, keepdims=True)
    hyper = (centred**5).mean(2) / features.std(2) ** 5
    moments = [features.mean(2), features.var(2), skew(features, axis=2), kurtosis(features, axis=2, fisher=False)]
    loss = F.multi_margin_loss(logits, torch.from_numpy(part.labels), p=2).item()
    return np.concatenate([*moments, hyper], 1), loss


def test_the_objective_is_that_of_standardized_moments(fitted, clips):
    classifier, figures = fitted
    moments, loss = moments_and_loss(classifier, clips.train)
    l1 = (weights_of(classifier).double().abs().numpy() * moments.std(0)).sum()
    assert figures["l1_objective"] == pytest.approx(loss + figures["l1_strength"] * l1, rel=1e-3)


def test_only_the_linear_branch_of_a_tandem_moves(clips, tmp_path):
    torch.manual_seed(0)
    before = SceneClassifier(frontend(n_mels=32), Tandem(len(CLASSES), bands=32, width=1), CLASSES)
    held = copy.deepcopy(before)
    after = LinearFit(0.3)(before, clips.train, run_in(tmp_path))
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, held.state_dict()[name]), name
        if name.startswith("network.cnn"):
            assert torch.equal(tensor, after.state_dict()[name]), name
    assert after.standardize.fitted
    assert share_of(weights_of(after)) == pytest.approx(0.3, abs=0.05)
    assert after.provenance.devices == ("a",)
    assert after.trained_clip_s == SAMPLES / RATE
    assert set(after.provenance.recordings) == set(clips.train.recording_hashes)


def test_standardization_is_what_a_fit_makes_and_is_fitted_once(clips, fitted, tmp_path):
    by_fit = Fit(epochs=1, batch_size=8, optimizer=Adam(1e-9))(linear_model(), clips.train, run_in(tmp_path))
    assert torch.equal(fitted[0].standardize.mean, by_fit.standardize.mean)
    assert torch.equal(fitted[0].standardize.std, by_fit.standardize.std)
    by_fit.standardize.mean.add_(1.0)
    again = LinearFit()(by_fit, clips.train, run_in(tmp_path))
    assert torch.equal(again.standardize.mean, by_fit.standardize.mean)


def test_what_it_can_not_do_is_refused(clips, tmp_path):
    for keep in (0.0, -0.5, 1.5):
        with pytest.raises(InputError, match=f"LinearFit\\(keep={keep}\\); accepted"):
            LinearFit(keep)
    mobile = SceneClassifier(frontend(), CPMobile(classes=3, base_channels=8, blocks=(1,), strides=()), CLASSES)
    with pytest.raises(InputError, match="CPMobile has no linear model on moments; accepted: MomentsLinear"):
        LinearFit().shape(mobile)
    with pytest.raises(InputError, match="LinearFit.*test"):
        LinearFit()(linear_model(), clips, run_in(tmp_path))
    other = SceneClassifier(frontend(), linear_model().network, ("x", "y", "z"))
    with pytest.raises(InputError, match="has the classes a, b, c, the classifier x, y, z; accepted"):
        LinearFit()(other, clips.train, run_in(tmp_path))
