"""Feature selection: planted bands are found, removed ones are gone, both phases are one fit, the same after a kill."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_bands import (
    BANDS,
    CLASSES,
    PLANTED,
    RATE,
    SAMPLES,
    SELECTION,
    TRAIN,
    frontend,
    linear_model,
    run_in,
    write_clips,
)
from torch.optim.optimizer import register_optimizer_step_post_hook

from killing import killed_at
from soak import SOAK
from tinyscene.accounting import count
from tinyscene.compression import MagnitudePruning
from tinyscene.compression.admm import phases
from tinyscene.compression.selection import FeatureSelection, _weighed
from tinyscene.errors import InputError
from tinyscene.features import Gammatone
from tinyscene.models import CPMobile
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.tandem import Tandem
from tinyscene.training import SGD, EarlyStopping, Fit

FIT = SELECTION.fit
STEPS = 18  # an epoch


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory):
    return TRAIN(linear_model(), clips.train, run_in(tmp_path_factory.mktemp("trained")))


def tandem():
    torch.manual_seed(0)
    network = Tandem(len(CLASSES), bands=64, width=1)
    torch.nn.init.normal_(network.cnn.classify.weight)
    return SceneClassifier(frontend(n_mels=64), network, CLASSES)


def same(one, two):
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def accuracy(classifier, clips):
    from tinyscene import audio

    waveforms = torch.from_numpy(np.stack([audio.read(clips.root / clip.path, RATE) for clip in clips]))
    with torch.inference_mode():
        return float(np.mean(classifier.eval()(waveforms).argmax(1).numpy() == clips.labels))


@pytest.mark.parametrize("seed", range(4 if SOAK else 2))
def test_planted_bands_are_recovered(tmp_path, seed):
    """Three of sixteen, which chance finds once in 560 times; all residuals are told."""
    clips, run = write_clips(tmp_path, seed), run_in(tmp_path)
    trained = TRAIN(linear_model(), clips.train, run)
    selected = SELECTION(trained, clips.train, run)
    assert selected.frontend.arguments["kept"] == PLANTED
    assert run.metrics["smallest_weight_kept"] > 1.1 * run.metrics["largest_weight_removed"]
    assert accuracy(selected, clips.test) >= 0.8
    primal = [row["primal_residual"] for row in run.history if "primal_residual" in row]
    assert len(primal) == 5
    assert primal[-1] == run.metrics["primal_residual"] < 0.7 * max(primal)
    assert all("primal_residual" not in row for row in run.history[5:])


def test_the_rate_falls_in_a_line_from_1e_3_to_1e_4_over_both_phases(clips, trained, tmp_path):
    """Schmidt et al., section 3.3: five update epochs and two of fine-tuning, 0.001 to 0.0001 over all seven."""
    rates = []

    def look(optimizer, *_):
        rates.append([group["lr"] for group in optimizer.param_groups])

    hook = register_optimizer_step_post_hook(look)
    run = run_in(tmp_path)
    try:
        SELECTION(trained, clips.train, run)
    finally:
        hook.remove()
    line = [1e-3 * (1 - 0.9 * step / (7 * STEPS)) for step in range(7 * STEPS)]
    assert [row[-1] for row in rates] == pytest.approx(line)
    assert [len(row) for row in rates] == [2] * 5 * STEPS + [1] * 2 * STEPS
    assert [row[0] for row in rates[: 5 * STEPS]] == pytest.approx([30 * rate for rate in line[: 5 * STEPS]])
    assert [row["epoch"] for row in run.history] == list(range(7))
    assert [row["lr"] for row in run.history] == pytest.approx(line[STEPS - 1 :: STEPS])
    report = FeatureSelection()
    assert (report.keep, report.fit.epochs, report.fit.optimizer.lr) == (192, 7, 1e-3)
    first, second = phases(report.fit, report.updates)
    assert (first.start_after, first.stop_after, second.start_after, second.stop_after) == (0, 5, 5, None)
    assert report.fit.schedule.factor(7, 7) * report.fit.optimizer.lr == pytest.approx(1e-4)


def test_removed_bands_reach_neither_branch(clips, tmp_path):
    """A tone in a removed band changes what all bands hear, and nothing of what these two do."""
    fit = replace(FIT, epochs=2, optimizer=SGD(1e-3))
    before = tandem()
    selected = FeatureSelection(keep=32, fit=fit, updates=0.5)(before, clips.train, run_in(tmp_path))
    kept = selected.frontend.arguments["kept"]
    assert len(kept) == 32 == selected.frontend.bands == selected.standardize.mean.shape[1]
    assert selected.network.linear.layers[0].in_features == 32
    # Rows of the mel matrix of the removed bands alone: bins that no kept band reads.
    every = before.frontend
    silent = (every.weights[list(kept)].sum(0) == 0).nonzero()[:, 0]
    read = silent[every.weights[:, silent].sum(0) > 0]
    assert len(read)
    spectrum = torch.zeros(every.n_fft // 2 + 1)
    spectrum[read] = 7.0
    loud = torch.rand(every.n_fft // 2 + 1, 20) + 1
    one, two = (torch.log(every.weights @ s + 1e-10)[None, None] for s in (loud, loud + spectrum[:, None]))
    assert not torch.allclose(one, two)
    with torch.inference_mode():
        for branch in (selected.network, selected.network.linear, selected.network.cnn):
            heard = [branch(selected.standardize(features[:, :, list(kept)])) for features in (one, two)]
            assert torch.equal(*heard)
    torch.testing.assert_close(selected.frontend.weights, every.weights[list(kept)])


def test_both_branches_train_behind_the_weights_of_the_bands():
    weighed = _weighed(tandem()).eval()
    weighed.network.band_weights.data[5] = 0.0
    heard = []
    for branch in (weighed.network.linear, weighed.network.cnn):
        branch.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    one = torch.randn(2, 1, 64, 20)
    two = one.clone()
    two[:, :, 5] += 1.0
    with torch.no_grad():
        assert torch.equal(weighed.network(one), weighed.network(two))
    assert len(heard) == 4
    assert all(torch.equal(features, heard[0]) for features in heard)


def test_bands_go_from_masked_weights_and_masked_biases_stay(trained):
    masked = MagnitudePruning(0.3).shape(trained)
    before, after = (c.network.layers[0] for c in (masked, replace(SELECTION, keep=8).shape(masked)))
    assert torch.equal(after.weight_mask, before.weight_mask[:, ::2])
    assert torch.equal(after.bias_mask, before.bias_mask)


def test_macs_fall_with_the_bands():
    costs = [count(c.network, c.example(SAMPLES / RATE)) for c in (tandem(), FeatureSelection(keep=32).shape(tandem()))]
    for counter in costs[0].macs:
        assert 0 < costs[1].macs[counter] < 0.6 * costs[0].macs[counter]
    sizes = [
        sum(p.numel() for p in c.network.parameters()) for c in (tandem(), FeatureSelection(keep=32).shape(tandem()))
    ]
    assert sizes[0] - sizes[1] == 5 * 32 * len(CLASSES)


def test_what_was_learned_is_kept_through_the_cut(clips, trained, tmp_path):
    """Of a linear model, zero rows and no rows are the same: before fine-tuning, the logits agree."""
    seen = {}
    selection = replace(SELECTION, updates=1.0)
    cut = FeatureSelection._cut

    def look(self, classifier, run, weighed, consensus):
        seen.update(weighed=copy.deepcopy(weighed))
        return cut(self, classifier, run, weighed, consensus)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureSelection, "_cut", look)
        selected = selection(trained, clips.train, run_in(tmp_path))
    weights = seen["weighed"].network.band_weights
    removed = [band for band in range(BANDS) if band not in selected.frontend.arguments["kept"]]
    waveforms = torch.rand(4, SAMPLES) - 0.5
    with torch.no_grad():
        before = seen["weighed"](waveforms)
        weights[removed] = 0.0
        masked = seen["weighed"](waveforms)
    torch.testing.assert_close(selected(waveforms), masked, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, masked, atol=1e-3)
    assert not same(selected, trained)


def test_a_saved_selection_hears_the_same(clips, trained, tmp_path):
    selected = SELECTION(trained, clips.train, run_in(tmp_path))
    loaded = SceneClassifier.load(selected.save(tmp_path / "model"))
    waveforms = torch.rand(2, SAMPLES)
    assert torch.equal(loaded(waveforms), selected(waveforms))
    assert selected.provenance.recordings == trained.provenance.recordings
    assert "band_weights" not in dict(selected.network.named_parameters())


def test_a_second_selection_counts_bands_of_the_first_front_end(clips, trained):
    once = replace(SELECTION, keep=8).shape(trained)
    twice = replace(SELECTION, keep=2).shape(once)
    assert once.frontend.arguments["kept"] == tuple(range(0, 16, 2))
    assert twice.frontend.arguments["kept"] == (0, 8)
    torch.testing.assert_close(twice.standardize.mean, trained.standardize.mean[:, [0, 8]])


def selected(clips, trained, folder):
    """The selection, its history and its figures."""
    run = run_in(folder)
    return SELECTION(trained, clips.train, run), [{**row, "seconds": 0} for row in run.history], run.metrics


@pytest.fixture(scope="module")
def whole(clips, trained, tmp_path_factory):
    return selected(clips, trained, tmp_path_factory.mktemp("whole"))


# In the last epoch of updates, and while tuning.
@pytest.mark.parametrize("death", [80, 100])
def test_a_killed_run_selects_the_same_bands_to_the_bit(clips, trained, whole, tmp_path, death):
    with killed_at(death):
        selected(clips, trained, tmp_path)
    resumed = selected(clips, trained, tmp_path)
    assert same(whole[0], resumed[0])
    assert whole[0].frontend.arguments == resumed[0].frontend.arguments
    assert whole[1:] == resumed[1:]


def test_the_argument_is_never_changed(clips, trained, tmp_path):
    before = copy.deepcopy(trained)
    SELECTION(trained, clips.train, run_in(tmp_path))
    assert same(before, trained)
    assert not trained.network._forward_pre_hooks
    assert trained.frontend.arguments["kept"] is None


def test_what_it_can_not_do_is_refused(clips, trained, tmp_path):
    with pytest.raises(InputError, match="FeatureSelection.*test"):
        SELECTION(trained, clips, run_in(tmp_path))
    with pytest.raises(InputError, match="keep=17.*accepted: 1 to the front end's 16"):
        replace(SELECTION, keep=17).shape(trained)
    with pytest.raises(InputError, match="33.*32"):
        replace(SELECTION, keep=33)(tandem(), clips.train, run_in(tmp_path))
    mobile = SceneClassifier(frontend(), CPMobile(classes=3, base_channels=8, blocks=(1,), strides=()), CLASSES)
    with pytest.raises(InputError, match="CPMobile has no select_bands.*accepted"):
        SELECTION.shape(mobile)
    gammatone = SceneClassifier(Gammatone(RATE, 512, BANDS, hop_length=128), trained.network, CLASSES)
    with pytest.raises(InputError, match="Gammatone computes all bands; accepted: LogMel"):
        SELECTION.shape(gammatone)
    with pytest.raises(InputError, match="ADMM diverged.*rho=10000"):
        replace(SELECTION, rho=1e4)(trained, clips.train, run_in(tmp_path))
    for wrong in (
        {"keep": 0},
        {"updates": 0.0},
        {"updates": 1.1},
        {"mask_rate": 0.0},
        {"rho": 0.0},
        {"fit": Fit(early_stopping=EarlyStopping())},
        {"fit": Fit(epochs=3, stop_after=2)},
        {"fit": Fit(epochs=3, start_after=2)},
    ):
        with pytest.raises(InputError, match="accepted"):
            replace(SELECTION, **wrong)
