"""ADMM: least squares with a known best subset, its update by hand, its end when a rate is too large."""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted_bands import linear_model, run_in, write_clips
from torch import nn

from tinyscene.compression.admm import ADMM
from tinyscene.compression.selection import HardThreshold
from tinyscene.errors import InputError
from tinyscene.training import SGD, Fit, Linear

FEATURES, KEPT = 8, 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("planted"))


def least_squares(seed, planted):
    """Inputs with a part in common, outputs of three of them or of all, and the best three of all 56."""
    rng = np.random.default_rng(seed)
    share = 0.3 if planted else 0.7
    inputs = (1 - share) ** 0.5 * rng.standard_normal((60, FEATURES)) + share**0.5 * rng.standard_normal((60, 1))
    factors = rng.standard_normal(FEATURES)
    if planted:
        factors = rng.choice([-1, 1], FEATURES) * rng.uniform(0.5, 1.5, FEATURES)
        factors[rng.choice(FEATURES, FEATURES - KEPT, replace=False)] = 0
    outputs = inputs @ factors + 0.3 * rng.standard_normal(60)

    def residual(subset):
        return np.linalg.lstsq(inputs[:, subset], outputs, rcond=None)[1][0]

    best = min(itertools.combinations(range(FEATURES), KEPT), key=residual)
    thresholded = np.argsort(-np.abs(np.linalg.lstsq(inputs, outputs, rcond=None)[0]))[:KEPT]
    return torch.from_numpy(inputs).float(), torch.from_numpy(outputs).float(), set(best), set(thresholded.tolist())


def solved(inputs, outputs, admm, lr=0.02, steps=500):
    """What stays at the end, and the residuals after every step; the primal rate falls, the dual's stays."""
    torch.manual_seed(0)
    network = nn.Linear(FEATURES, 1, bias=False)
    admm.attach(network)
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9)
    residuals = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - 0.9 * step / steps)
        loss = (network(inputs)[:, 0] - outputs).square().mean() + admm.penalty(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        residuals.append(admm.update(network, (step + 1) / steps))
    admm.detach(network)
    assert list(network.state_dict()) == ["weight"]
    (kept,) = HardThreshold(KEPT)({"weight": network.weight.detach()}).values()
    return set(kept[0].nonzero()[:, 0].tolist()), residuals


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_subset_is_the_best_and_is_found(seed):
    inputs, outputs, best, _ = least_squares(seed, planted=True)
    found, residuals = solved(inputs, outputs, ADMM(("weight",), HardThreshold(KEPT), rho=1.0))
    assert found == best
    primal, dual = ([row[name] for row in residuals] for name in ("primal_residual", "dual_residual"))
    assert primal[-1] < 2e-3 < 0.2 < primal[0]
    assert dual[-1] < 1e-3 < max(dual)


def test_where_no_subset_is_planted_it_finds_the_best_more_often_than_a_threshold():
    """By brute force over all 56 subsets; the problem is not convex, so that a miss is no fault."""
    problems = [least_squares(seed, planted=False) for seed in range(8)]
    admm = ADMM(("weight",), HardThreshold(KEPT), rho=1.0, dual_rate=0.06)
    hits = sum(solved(inputs, outputs, admm)[0] == best for inputs, outputs, best, _ in problems)
    assert hits >= 6 > sum(thresholded == best for *_, best, thresholded in problems)


def test_one_update_by_hand():
    network = nn.Linear(3, 1, bias=False)
    network.weight.data = torch.tensor([[3.0, -2.0, 1.0]])
    admm = ADMM(("weight",), HardThreshold(1), rho=4.0, dual_rate=0.5)
    admm.attach(network)
    assert admm.penalty(network) == 0
    figures = admm.update(network, 0.5)
    # Z = (3, 0, 0): W - Z = (0, -2, 1), Z - Z before = (0, 2, -1), both over ||W|| = sqrt(14).
    assert network.weight_consensus.tolist() == [[3, 0, 0]]
    assert network.weight_dual.tolist() == [[0, -1, 0.5]]
    assert figures == pytest.approx({"primal_residual": (5 / 14) ** 0.5, "dual_residual": (5 / 14) ** 0.5})
    # 4 / 2 x ||(0, -2, 1) + (0, -1, 0.5)||^2, and its gradient 4 (W - Z + U).
    penalty = admm.penalty(network)
    assert penalty.item() == pytest.approx(2 * (3**2 + 1.5**2))
    penalty.backward()
    assert network.weight.grad.tolist() == [[0, -12, 6]]
    # W + U = (3, -3.5, 1.5): now the second stays, and leaves its dual.
    network.weight.data[0, 1] = -2.5
    admm.update(network, 1.0)
    assert network.weight_consensus.tolist() == [[0, -3.5, 0]]
    assert network.weight_dual.tolist() == [[1.5, -0.5, 1.0]]


@given(
    values=st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=9, unique_by=abs),
    keep=st.integers(1, 9),
    first=st.integers(1, 3),
)
def test_the_hard_threshold_is_the_nearest_point_of_its_set(values, keep, first):
    """Over tensors of different shapes together, by brute force over all supports."""
    flat = torch.tensor(values)
    projected = HardThreshold(keep)({"a": flat[:first, None], "b": flat[first:]})
    assert {path: value.shape for path, value in projected.items()} == {"a": (first, 1), "b": (len(flat) - first,)}
    found = torch.cat([value.flatten() for value in projected.values()])
    assert int((found != 0).sum()) <= keep
    supports = itertools.combinations(range(len(values)), min(keep, len(values)))
    nearest = min(sum(v * v for i, v in enumerate(values) if i not in support) for support in supports)
    assert float((found - flat).square().sum()) == pytest.approx(nearest, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("rho", "dual_rate", "lr"), [(1e4, 0.03, 1e-2), (1e12, 0.03, 1e-2), (50.0, 0.03, 0.3), (10.0, 1.0, 1e-2)]
)
def test_a_rate_that_diverges_ends_with_an_error_that_names_it(clips, tmp_path, rho, dual_rate, lr):
    """Not with NaN weights: rates of the primal that gradient descent can't follow, and a dual that momentum can't."""
    admm = ADMM(("layers.0.weight",), HardThreshold(3), rho, dual_rate)
    fit = Fit(epochs=40, batch_size=8, optimizer=SGD(lr))
    given = re.escape(f"rho={rho:g}, dual_rate={dual_rate:g}")
    named = rf"ADMM diverged after .*% of the fit at {given}: .*try a smaller rho"
    with pytest.raises(InputError, match=named):
        admm.train(linear_model(), fit, clips.train, run_in(tmp_path))


def test_what_is_no_number_is_no_progress():
    network = nn.Linear(3, 1)
    admm = ADMM(("weight",), HardThreshold(1), 1.0)
    admm.attach(network)
    network.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="residual is nan"):
        admm.update(network, 0.1)


def test_through_a_fit_parameters_come_near_the_set_and_nothing_else_stays(clips, tmp_path):
    fit = Fit(epochs=30, batch_size=8, optimizer=SGD(1e-2), schedule=Linear(0.1))
    before, run = linear_model(), run_in(tmp_path)
    paths = tuple(f"layers.{i}.weight" for i in range(5))
    trained, consensus = ADMM(paths, HardThreshold(12), rho=1.0).train(before, fit, clips.train, run)
    assert list(consensus) == list(paths)
    assert sum(int((value != 0).sum()) for value in consensus.values()) == 12
    assert list(trained.state_dict()) == list(before.state_dict())
    largest = torch.cat([trained.network.get_parameter(path).flatten() for path in paths]).abs().sort(descending=True)
    assert largest.values[12:].norm() < 0.2 * largest.values[:12].norm()
    primal = [row["primal_residual"] for row in run.history]
    assert len(primal) == 30
    assert primal[-1] < 0.2 < 0.4 < primal[0]
    # Without it, the same fit leaves all of them.
    plain = fit(before, clips.train, run_in(tmp_path))
    values = (
        torch.cat([plain.network.get_parameter(path).flatten() for path in paths]).abs().sort(descending=True).values
    )
    assert values[12:].norm() > 0.5 * values[:12].norm()


def test_its_fields_are_part_of_a_checkpoints_key(clips, tmp_path):
    fit, run = Fit(epochs=1, batch_size=8, optimizer=SGD(1e-2)), run_in(tmp_path)
    one = ADMM(("layers.0.weight",), HardThreshold(3), 1.0)
    others = [
        ADMM(("layers.0.weight",), HardThreshold(3), 2.0),
        ADMM(("layers.0.weight",), HardThreshold(4), 1.0),
        ADMM(("layers.1.weight",), HardThreshold(3), 1.0),
        ADMM(("layers.0.weight",), HardThreshold(3), 1.0, 0.05),
    ]
    for number, admm in enumerate([one, *others, one], 1):
        admm.train(linear_model(), fit, clips.train, run)
        assert len(list((tmp_path / "checkpoints").iterdir())) == min(number, 5)


def test_impossible_rates_and_paths_are_refused():
    for rho, dual_rate in ((0.0, 0.1), (-1.0, 0.1), (float("inf"), 0.1), (float("nan"), 0.1), (1.0, 0.0), (1.0, 1.1)):
        with pytest.raises(InputError, match=rf"ADMM\((rho={rho}|dual_rate={dual_rate})\); accepted: above 0"):
            ADMM(("weight",), HardThreshold(1), rho, dual_rate)
    for paths in ((), ("heavy",)):
        with pytest.raises(InputError, match="no parameters .*accepted: some of weight, bias"):
            ADMM(paths, HardThreshold(1), 1.0).attach(nn.Linear(2, 2))
