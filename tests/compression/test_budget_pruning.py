"""Pruning to budgets: they hold by the ledger, every layer stays connected, and what they allow is used."""

import copy
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from prunable_networks import (
    CLASSES,
    PRUNABLE,
    assert_cut_equals_silenced,
    build,
    drawn,
    groups_of,
    half_of,
    measured,
    noise,
    planned,
)
from reordering_networks import REFUSED, Between, ShuffleNet, classifier
from torch import nn

from soak import SOAK
from tinyscene.accounting import CONVENTIONS, count, count_classifier
from tinyscene.compression import BudgetPruning, HalfPrecision, Quantize, frobenius_norm, geometric_median
from tinyscene.compression.channels import cut
from tinyscene.compression.importance import Importance, Narrow, makers_parameters
from tinyscene.compression.widths import fill, quadratic_costs, value
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import create_model
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Run

# With 1-d convolutions, a flattening, depthwise ones, and a gate.
SOME = PRUNABLE if SOAK else ("aemnet", "baseline2021", "cp_mobile", "se_resnet")
INT8 = PRUNABLE if SOAK else ("baseline2021", "cp_mobile", "se_resnet")
NO_CLIPS = Clips("none", Path("/"), CLASSES, ())


@pytest.mark.parametrize("name", SOME)
def test_half_the_parameters_and_macs_of_every_network(name):
    classifier, budgets, plan = planned(name)
    small = BudgetPruning(**budgets)._cut(classifier, plan)
    costs = measured(small)
    assert all(costs[budget] <= limit for budget, limit in budgets.items())
    assert {budget: costs[budget] for budget in plan.costs} == plan.costs
    # No unit could come back within a quarter of its set: the budgets are used.
    at_threshold = BudgetPruning(**budgets, fill=0.0).plan(classifier).kept
    for i, (units, before) in enumerate(zip(plan.kept, at_threshold, strict=True)):
        assert units.any()
        moved, reach = int(units.sum()) - int(before.sum()), len(units) // 4
        assert abs(moved) <= reach
        if not units.all() and moved < reach:
            more = [each.clone() for each in plan.kept]
            more[i][(~units).nonzero()[0]] = True
            larger = copy.deepcopy(classifier)
            cut(larger.network, zip(plan.coupled, more, strict=True), larger.short_example())
            assert any(measured(larger)[budget] > limit for budget, limit in budgets.items())
    features = noise(classifier)
    whole = copy.deepcopy(classifier.network).double()
    assert_cut_equals_silenced(small.network.double(), whole, plan.coupled, plan.kept, features)


@pytest.mark.parametrize(("name", "at"), [*product(PRUNABLE, ["float32"]), *product(INT8, ["int8"])])
def test_costs_at_any_widths_are_the_ledgers(name, at):
    classifier = build(name)
    example = classifier.short_example()

    def counted():
        return count((classifier if at == "float32" else Quantize().shape(classifier)).network, example)

    groups = groups_of(name)
    matrices = quadratic_costs(counted(), classifier.network, groups)
    kept = drawn(groups, seed=len(name))
    cut(classifier.network, zip(groups, kept, strict=True), example)
    ledger, widths = counted(), np.array([int(units.sum()) for units in kept])
    assert {cost: int(value(matrix, widths)) for cost, matrix in matrices.items()} == {
        "parameters": CONVENTIONS["bn2"](ledger.tensors).parameters,
        "bytes": CONVENTIONS["bn4"](ledger.tensors).bytes,
        "macs": ledger.macs["torchinfo"],
    }


@pytest.mark.parametrize("name", SOME)
def test_one_channel_of_every_layer_stays(name):
    classifier = build(name)
    named = r"BudgetPruning\(parameters=1\): with one channel a layer .* has [\d,]+; accepted: at least that"
    with pytest.raises(InputError, match=named) as refused:
        BudgetPruning(parameters=1).shape(classifier)
    least = int(str(refused.value).split(" has ")[1].split(";")[0].replace(",", ""))
    plan = BudgetPruning(parameters=least).plan(classifier)
    assert [int(units.sum()) for units in plan.kept] == [1] * len(plan.coupled)
    small = BudgetPruning(parameters=least)._cut(classifier, plan)
    assert measured(small)["parameters"] == least
    with torch.no_grad():
        assert small.network(noise(classifier).float()).isfinite().all()


@pytest.mark.parametrize("name", ["cp_mobile", "se_resnet"] if SOAK else ["cp_mobile"])
@pytest.mark.parametrize("budget", ["bytes", "peak_ram_bytes"])
def test_bytes_and_ram(name, budget):
    classifier = build(name)
    before = measured(classifier)
    limits = {budget: int(0.6 * before[budget]), "parameters": int(0.9 * before["parameters"])}
    after = measured(BudgetPruning(**limits).shape(classifier))
    assert all(after[cost] <= limit for cost, limit in limits.items())
    alone = measured(BudgetPruning(**{budget: limits[budget]}).shape(classifier))
    assert alone[budget] <= limits[budget]
    assert alone["parameters"] > after["parameters"] * 0.9


def test_macs_of_longer_clips():
    classifier = build("baseline2021")
    budget = measured(classifier, 2.0)["macs"] // 2
    small = BudgetPruning(macs=budget, clip_s=2.0).shape(classifier)
    assert 0.9 * budget < measured(small, 2.0)["macs"] <= budget
    assert measured(small)["macs"] < 0.6 * budget


def test_fill_finds_what_trying_everything_finds():
    classifier = build("baseline2021")
    example = classifier.short_example()
    groups = groups_of("baseline2021")
    matrices = quadratic_costs(count(classifier.network, example), classifier.network, groups)
    costs, units = [matrices["parameters"], matrices["macs"]], np.array([g.units for g in groups])
    start = np.array([3, 3, 4, 5])
    limits = [int(value(cost, start) * more) for cost, more in zip(costs, (1.3, 1.2), strict=True)]
    reach = np.floor(0.5 * units).astype(int)
    near = [range(max(1, s - r), min(u, s + r) + 1) for s, r, u in zip(start, reach, units, strict=True)]
    best = np.inf
    for widths in product(*near):
        left = [1 - value(cost, np.array(widths)) / limit for cost, limit in zip(costs, limits, strict=True)]
        if min(left) >= 0:
            best = min(best, sum(left))
    found = fill(costs, limits, start, units, 0.5)
    left = [1 - value(cost, found) / limit for cost, limit in zip(costs, limits, strict=True)]
    assert min(left) >= 0
    assert sum(left) == pytest.approx(best, abs=1e-4)
    assert (abs(found - start) <= reach).all()
    assert (fill(costs, limits, start, units, 0.0) == start).all()
    assert (fill(costs[:1], limits[:1], start, units, 0.1) - start <= 0.1 * units).all()


def test_the_tandem_reaches_the_reports_budgets_as_printed():
    frontend = LogMel(16_000, 2048, 192, hop_length=480, window="hamming")
    classifier = SceneClassifier(frontend, create_model("tandem", seed=0, bands=192), tuple("abcdefghij"))
    costs = BudgetPruning(parameters=127_844, macs=17_383_426).plan(classifier).costs
    # 127.84k parameters and 17.383 M MACs.
    assert 127_835 <= costs["parameters"] <= 127_844
    assert 17_382_500 <= costs["macs"] <= 17_383_426


def test_of_a_network_of_zeros_and_by_the_median_something_is_left():
    classifier = build("baseline2020")
    budgets = half_of(classifier)
    assert measured(BudgetPruning(**budgets, by=geometric_median).shape(classifier))["macs"] <= budgets["macs"]
    for parameter in classifier.network.parameters():
        nn.init.zeros_(parameter)
    assert measured(BudgetPruning(**budgets).shape(classifier))["macs"] <= budgets["macs"]


def test_a_network_within_its_budgets_stays_and_the_argument_is_never_changed():
    classifier = build("cp_mobile").train()
    before = copy.deepcopy(classifier.state_dict())
    costs = measured(classifier)
    same = BudgetPruning(parameters=costs["parameters"], macs=costs["macs"], bytes=costs["bytes"]).shape(classifier)
    assert same is not classifier
    assert all(torch.equal(before[name], tensor) for name, tensor in same.state_dict().items())
    BudgetPruning(**half_of(classifier)).shape(classifier)
    assert classifier.training
    assert before.keys() == classifier.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())


def test_what_it_reached_is_told():
    classifier, run = build("pham_cnn"), Run()
    stage = BudgetPruning(**half_of(classifier))
    small = stage(classifier, NO_CLIPS, run)
    costs = measured(small)
    assert run.metrics["parameters"] == costs["parameters"]
    assert run.metrics["macs"] == costs["macs"]
    assert run.metrics["threshold"] == stage.plan(classifier).threshold
    again = stage.shape(classifier).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in small.state_dict().items())


def test_wrong_numbers_and_networks_are_refused():
    with pytest.raises(InputError, match="no budget; accepted: one or more of parameters, macs, bytes, peak_ram"):
        BudgetPruning()
    for wrong in ({"macs": 0}, {"bytes": -5}, {"parameters": float("nan")}):
        with pytest.raises(InputError, match=r"BudgetPruning\(\w+=.*\); accepted: at least 1"):
            BudgetPruning(**wrong)
    for wrong in ({"fill": -0.1}, {"fill": 1.5}, {"clip_s": 0.0}):
        with pytest.raises(InputError, match="accepted: (0 to 1|above 0)"):
            BudgetPruning(macs=10, **wrong)
    with pytest.raises(InputError, match="MomentsLinear has no channels that can be pruned"):
        BudgetPruning(parameters=10).shape(build("moments_linear"))
    with pytest.raises(InputError, match="BudgetPruning was given float16"):
        BudgetPruning(parameters=10).shape(HalfPrecision().shape(build("pham_cnn")))


@pytest.mark.parametrize("name", ["GroupNorm", "roll", "GRU"])
def test_what_is_mixed_stays_and_the_rest_is_pruned(name):
    """Below what can be had, the refusal names what is in the way."""
    make, operation = REFUSED[name]
    whole = classifier(make())
    with pytest.raises(InputError, match=rf"of first, since {re.escape(operation)} does not keep them"):
        BudgetPruning(parameters=3).shape(whole)
    if isinstance(whole.network, Between):
        small = BudgetPruning(parameters=measured(whole)["parameters"] - 20).shape(whole).network
        assert (small.first.out_channels, small.second.out_channels) == (8, 4)


def test_a_shufflenet_is_pruned_to_half():
    whole = classifier(ShuffleNet(channels=64))
    budgets = half_of(whole)
    costs = measured(BudgetPruning(**budgets).shape(whole))
    assert all(0.75 * limit < costs[name] <= limit for name, limit in budgets.items())


@pytest.mark.parametrize("name", PRUNABLE)
def test_the_projection_is_the_network_with_silent_channels(name):
    """Of every layer as many channels stay as the cut leaves; a second projection changes nothing."""
    classifier, budgets, plan = planned(name)
    project, paths = (
        BudgetPruning(**budgets).projection(classifier, plan),
        makers_parameters(classifier.network, plan.coupled),
    )
    values = {path: classifier.network.get_parameter(path).detach() for path in paths}
    kept, projected = project.kept(values), project(values)
    assert [int(units.sum()) for units in kept] == [int(units.sum()) for units in plan.kept]
    silent = copy.deepcopy(classifier)
    for path, left in projected.items():
        assert torch.equal(left, torch.where(left != 0, values[path], 0.0))
        silent.network.get_parameter(path).data.copy_(left)
    for group, units in zip(plan.coupled, kept, strict=True):
        for path, _, unit_of in group.makers():
            gone = (unit_of >= 0) & ~units[unit_of]
            for parameter in silent.network.get_submodule(path).parameters():
                assert not parameter[gone].any()
    assert all(torch.equal(a, b) for a, b in zip(project(projected).values(), projected.values(), strict=True))


def test_the_projection_of_one_layer_is_the_nearest():
    """Brute force over all choices of filters: none is nearer than that of the largest Frobenius norms."""
    classifier = build("baseline2021")
    paths = ("L1.weight",)
    (group,) = (g for g in groups_of("baseline2021") if g.name == "L1")
    importance = Importance(copy.deepcopy(classifier.network), (group,), frobenius_norm, normalise=False)
    weight = torch.randn_like(classifier.network.get_parameter("L1.weight"))
    width = group.units // 2
    distances = {
        chosen: (
            weight
            - weight.masked_fill(~torch.tensor([i in chosen for i in range(group.units)])[:, None, None, None], 0)
        ).norm()
        for chosen in combinations(range(group.units), width)
    }
    projected = Narrow((width,), frobenius_norm, False, importance)(dict.fromkeys(paths, weight))["L1.weight"]
    assert torch.isclose((weight - projected).norm(), min(distances.values()))


class Tied(nn.Module):
    """Two convolutions with one weight, before one that can be pruned."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, bias=False)
        self.second.weight = self.first.weight
        self.more, self.dense = nn.Conv2d(8, 32, 3), nn.Linear(32, 3)

    def forward(self, features):
        mapped = self.second(self.first(self.stem(features).relu()).relu()).relu()
        return self.dense(self.more(mapped).relu().mean((2, 3)))


@pytest.mark.parametrize("at", ["float32", "int8"])
def test_layers_that_share_a_weight_are_counted_twice(at):
    torch.manual_seed(0)
    classifier = SceneClassifier(LogMel(8000, 256, 40, hop_length=160), Tied(), CLASSES)
    small = BudgetPruning(macs=5_000_000, at=at).shape(classifier)
    counted = small if at == "float32" else Quantize().shape(small)
    assert 4_700_000 < count(counted.network, small.example(1.0)).macs["torchinfo"] <= 5_000_000
    assert small.network.more.out_channels < 32


class Learned(LogMel):
    """Its mel matrix is trained."""

    def __init__(self):
        super().__init__(8000, 256, 40, hop_length=160)
        weights = self.weights
        del self.weights
        self.weights = nn.Parameter(weights)


def test_a_front_end_that_learns_is_part_of_the_budget():
    classifier = SceneClassifier(Learned(), build("cp_mobile").network, CLASSES)
    before = count_classifier(classifier, 1.0)
    assert before.layers[0].macs["conv_only"] == 40 * 129 * 51
    small = BudgetPruning(parameters=9_000).shape(classifier)
    parameters = CONVENTIONS["bn2"](count_classifier(small, 1.0).tensors).parameters
    assert 8_700 < parameters <= 9_000
    assert sum(parameter.numel() for parameter in small.parameters()) == parameters


def test_a_budget_of_ram_is_that_of_the_ledger_of_the_int8_network():
    classifier = build("pham_cnn")

    def peak(one):
        return count_classifier(Quantize().shape(one), 1.0).peak_ram_bytes

    budget = int(0.6 * peak(classifier))
    stage = BudgetPruning(peak_ram_bytes=budget, at="int8")
    assert peak(stage.shape(classifier)) == stage.plan(classifier).costs["peak_ram_bytes"] <= budget
