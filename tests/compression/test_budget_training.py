"""Pruning to budgets under training: ADMM settles which channels stay, and a killed run ends the same."""

import pytest
import torch
from planted_bands import RATE, frontend, run_in, write_clips
from prunable_networks import half_of, measured, narrow, spread

from killing import killed_at, same_weights
from tinyscene.compression import BudgetPruning
from tinyscene.compression.admm import ADMM
from tinyscene.errors import InputError
from tinyscene.models import create_model
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import SGD, Fit, Linear


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("planted"))


def trainable(name="baseline2021"):
    torch.manual_seed(0)
    network = create_model(name, classes=3, bands=20, filters=(6, 6, 8), dense=12, seed=0)
    return SceneClassifier(frontend(n_mels=20), network, ("a", "b", "c"))


def test_admm_moves_the_weights_to_where_the_cut_changes_little(planted, tmp_path):
    fit = Fit(epochs=6, batch_size=8, optimizer=SGD(lr=0.02), schedule=Linear(0.1))
    before = fit(trainable(), planted.train, run_in(tmp_path / "before"))
    budgets = half_of(before)
    stage = BudgetPruning(**budgets, fit=fit, rho=5.0)
    run = run_in(tmp_path / "admm")
    after = stage(before, planted.train, run)
    assert all(measured(after)[budget] <= limit for budget, limit in budgets.items())
    assert measured(after) == measured(stage.shape(before))
    residuals = [row["primal_residual"] for row in run.history if "primal_residual" in row]
    assert [row["epoch"] for row in run.history] == list(range(6))
    assert len(residuals) == 4  # five sevenths of six epochs, and then the cut
    project, paths, _ = narrow(before, budgets)
    values = {path: before.network.get_parameter(path).detach() for path in paths}
    flat, nearest = (torch.cat([tensor.flatten() for tensor in some.values()]) for some in (values, project(values)))
    assert residuals[-1] < 0.3 * float((flat - nearest).norm() / flat.norm())
    assert run.metrics["primal_residual"] == residuals[-1]
    assert not any("dual" in name or "consensus" in name for name in after.state_dict())
    after.save(tmp_path / "saved")
    again = SceneClassifier.load(tmp_path / "saved")
    waveforms = torch.randn(2, RATE)
    assert torch.equal(again(waveforms), after.eval()(waveforms))


def test_the_cut_follows_the_consensus_and_not_the_plan(planted, tmp_path, monkeypatch):
    """ADMM hands back the values with each layer's filters in reverse: the others are the important ones."""
    before = trainable()
    spread(before.network)
    project, paths, plan = narrow(before, half_of(before))
    consensus = project({path: before.network.get_parameter(path).detach().flip(0) for path in paths})
    train = ADMM.train
    monkeypatch.setattr(ADMM, "train", lambda *given: (train(*given)[0], consensus))
    fit = Fit(epochs=2, batch_size=8, optimizer=SGD(lr=1e-9))
    stage = BudgetPruning(**half_of(before), fit=fit)
    after = stage(before, planted.train, run_in(tmp_path))
    differ = 0
    for group, planned in zip(plan.coupled, plan.kept, strict=True):
        support = consensus[f"{group.name}.weight"].flatten(1).any(1)
        bias = before.network.get_submodule(group.name).bias
        torch.testing.assert_close(after.network.get_submodule(group.name).bias, bias[support])
        differ += not torch.equal(support, planned)
    assert differ > 1


@pytest.mark.parametrize("step", [13, 30], ids=["update", "tuning"])
def test_a_killed_run_ends_at_the_same_weights(planted, tmp_path, step):
    """Nine steps an epoch: three of update, then one of tuning."""
    stage = BudgetPruning(**half_of(trainable()), fit=Fit(epochs=4, batch_size=8, optimizer=SGD(lr=0.02)), rho=1.0)

    def pruned(folder):
        run = run_in(tmp_path / folder)
        network = stage(trainable(), planted.train, run).network
        return network, [{**row, "seconds": 0} for row in run.history], run.metrics

    whole = pruned("whole")
    with killed_at(step):
        pruned("killed")
    resumed = pruned("killed")
    assert same_weights(whole[0], resumed[0])
    assert whole[1:] == resumed[1:]


def test_admm_that_diverges_names_its_rates(planted, tmp_path):
    fit = Fit(epochs=6, batch_size=8, optimizer=SGD(lr=0.02))
    with pytest.raises(InputError, match=r"rho=1e\+06.*try a smaller rho"):
        BudgetPruning(**half_of(trainable()), fit=fit, rho=1e6)(trainable(), planted.train, run_in(tmp_path))


def test_a_fit_that_begins_late_is_refused_when_written_down():
    with pytest.raises(InputError, match="start_after"):
        BudgetPruning(parameters=1000, fit=Fit(start_after=1))


def test_a_test_clip_is_refused(planted, tmp_path):
    with pytest.raises(InputError, match="BudgetPruning.*test"):
        BudgetPruning(parameters=1000)(trainable(), planted, run_in(tmp_path))
