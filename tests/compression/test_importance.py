"""Which units are worth most: scores by hand, over what still reaches them, and the threshold that follows."""

import copy

import numpy as np
import pytest
import torch
from prunable_networks import build, drawn, groups_of, half_of, measured, planned
from torch import nn

from tinyscene.compression import BudgetPruning, frobenius_norm, l1_norm, max_norm
from tinyscene.compression.channels import cut
from tinyscene.compression.coupling import coupled_channels
from tinyscene.compression.importance import Importance
from tinyscene.errors import InputError


def by_hand(weights, kept, by):
    """Scores of a chain of layers, from the filters' reachable inputs cut out one by one."""
    scores = []
    for i, weight in enumerate(weights):
        inputs = [k for k in range(weight.shape[1]) if i == 0 or kept[i - 1][k]]
        scores.append([by(weight[j, inputs]) for j in range(len(weight))])
    return scores


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    ("criterion", "by"),
    [
        (frobenius_norm, lambda w: np.sqrt((w**2).sum())),
        (max_norm, lambda w: abs(w).max()),
        (l1_norm, lambda w: abs(w).sum()),
    ],
)
def test_importance_is_that_of_the_reachable_inputs(criterion, by, normalise):
    classifier = build("pham_cnn")
    network = classifier.network
    groups = groups_of("pham_cnn")
    assert [g.name for g in groups] == [f"block{i}.0" for i in range(1, 5)]
    kept = drawn(groups, 2)
    weights = [network.get_submodule(g.name).weight.detach().numpy() for g in groups]
    expected = by_hand(weights, [k.numpy() for k in kept], by)
    for got, scores in zip(Importance(network, groups, criterion, normalise)(kept), expected, strict=True):
        np.testing.assert_allclose(got, np.array(scores) / (np.mean(scores) if normalise else 1), rtol=1e-5)


def test_layers_that_share_channels_share_their_importance():
    classifier = build("cp_mobile")
    network = classifier.network
    groups = groups_of("cp_mobile")
    stream = next(i for i, g in enumerate(groups) if g.name == "stem.1.0")
    makers = ["stem.1.0", *(f"stages.{i}.project.0" for i in range(3))]
    norms = [network.get_submodule(path).weight.detach().flatten(1).norm(dim=1) for path in makers]
    everything = tuple(torch.ones(group.units, dtype=torch.bool) for group in groups)
    raw = Importance(network, groups, frobenius_norm, False)(everything)[stream]
    torch.testing.assert_close(raw, torch.stack(norms).norm(dim=0))
    even = Importance(network, groups, frobenius_norm, True)(everything)[stream]
    torch.testing.assert_close(even, torch.stack([n / n.mean() for n in norms]).square().mean(0).sqrt())


class Beside(nn.Module):
    """The third convolution reads the maps of the first two side by side."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(1, 3, 1)
        self.right = nn.Conv2d(1, 4, 1)
        self.mix = nn.Conv2d(7, 6, 1)
        self.dense = nn.Linear(6, 2)

    def forward(self, x):
        return self.dense(self.mix(torch.cat([self.left(x), self.right(x)], 1)).mean((2, 3)))


def test_a_filter_over_concatenated_maps_counts_what_is_left_of_each():
    torch.manual_seed(0)
    network = Beside()
    groups = [g for g in coupled_channels(network, torch.zeros(1, 1, 8, 8)) if not g.exempt]
    assert [g.name for g in groups] == ["left", "right", "mix"]
    kept = (torch.tensor([True, False, True]), torch.tensor([False, True, True, False]), torch.ones(6) > 0)
    mix = Importance(network, groups, frobenius_norm, normalise=False)(kept)[2]
    torch.testing.assert_close(mix, network.mix.weight[:, [0, 2, 4, 5]].detach().flatten(1).norm(dim=1))


def survivors_by_hand(weights, threshold):
    kept = [np.ones(len(weight), bool) for weight in weights]
    while True:
        scores = by_hand(weights, kept, lambda w: np.sqrt((w**2).sum()))
        fewer = [k & (np.array(s) > threshold) for k, s in zip(kept, scores, strict=True)]
        for f, s, k in zip(fewer, scores, kept, strict=True):
            if not f.any():
                f[np.argmax(np.where(k, s, -1))] = True
        if all((f == k).all() for f, k in zip(fewer, kept, strict=True)):
            return kept
        kept = fewer


def test_the_threshold_is_the_least_that_holds_and_its_reachability_is_settled():
    classifier = build("pham_cnn")
    weights = [classifier.network.get_submodule(f"block{i}.0").weight.detach().numpy() for i in range(1, 5)]
    budgets = half_of(classifier)
    stage = BudgetPruning(**budgets, normalise=False, fill=0)
    plan = stage.plan(classifier)
    assert [k.tolist() for k in plan.kept] == [k.tolist() for k in survivors_by_hand(weights, plan.threshold)]
    norms = np.sort(np.concatenate([np.sqrt((w**2).reshape(len(w), -1).sum(1)) for w in weights]))
    below = norms[norms < plan.threshold * (1 - 1e-6)][-1]
    kept = [torch.from_numpy(k) for k in survivors_by_hand(weights, below)]
    cut(classifier.network, zip(plan.coupled, kept, strict=True), classifier.short_example())
    assert any(measured(classifier)[cost] > limit for cost, limit in budgets.items())


def test_normalised_importance_does_not_see_the_scale_of_a_layer():
    classifier = build("pham_cnn")
    scaled = copy.deepcopy(classifier)
    with torch.no_grad():
        scaled.network.get_submodule("block2.0").weight *= 20
    plans = {
        normalise: [BudgetPruning(**half_of(classifier), normalise=normalise).plan(c) for c in (classifier, scaled)]
        for normalise in (True, False)
    }
    assert all(map(torch.equal, plans[True][0].kept, plans[True][1].kept))
    assert not all(map(torch.equal, plans[False][0].kept, plans[False][1].kept))


def test_kept_are_the_most_important_of_each_layer():
    classifier, budgets, plan = planned("pham_cnn")
    straight = BudgetPruning(**budgets, fill=0).plan(classifier)
    scores = Importance(classifier.network, plan.coupled, frobenius_norm, True)(straight.kept)
    for kept, importance in zip(plan.kept, scores, strict=True):
        assert kept.all() or importance[kept].min() >= importance[~kept].max()


def test_a_criterion_below_zero_is_refused():
    """Layers that share channels add up squares: the sign would be lost."""
    with pytest.raises(InputError, match=r"gives -[\d.]+ for a filter of .*; accepted: at least 0"):
        BudgetPruning(parameters=3000, by=lambda filters: -l1_norm(filters)).shape(build("cp_mobile"))
