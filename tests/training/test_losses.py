"""Losses against SciPy, and the l2 term of an optimiser's weight decay against its equation."""

import numpy as np
import pytest
import scipy.special
import torch

from tinyscene.augment import Mixup
from tinyscene.training import SGD, Adam, CrossEntropy, KLDivergence


def mixed(batch=6, classes=4, seed=0):
    """Logits, and targets of which some classes are exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    targets = torch.eye(classes, dtype=torch.float64)[torch.arange(batch) % classes]
    return logits, Mixup(0.4)(logits[:, :, None, None], targets, np.random.default_rng(seed))[1]


def test_divergence_is_scipys_mean_over_the_clips():
    logits, targets = mixed()
    assert (targets == 0).any()
    expected = scipy.special.rel_entr(targets.numpy(), scipy.special.softmax(logits.numpy(), 1)).sum(1).mean()
    assert float(KLDivergence()(logits, targets)) == pytest.approx(expected, rel=1e-12)


def test_divergence_is_zero_at_a_match_and_nowhere_else():
    logits, targets = mixed()
    assert float(KLDivergence()(logits, logits.softmax(1))) == pytest.approx(0.0, abs=1e-15)
    # Of a target without a class, the limit: its logit far below the others.
    sure = torch.tensor([[50.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(KLDivergence()(sure, torch.eye(3, dtype=torch.float64)[:1])) == pytest.approx(0.0, abs=1e-15)
    assert float(KLDivergence()(logits, targets)) > 0.01


def test_gradients_are_finite_and_those_of_cross_entropy():
    """Targets are given: their entropy is a constant."""
    logits, targets = mixed()
    logits *= 40  # probabilities next to zero where the target is zero
    gradients = []
    for loss in (KLDivergence(), CrossEntropy()):
        leaf = logits.clone().requires_grad_()
        loss(leaf, targets).backward()
        gradients.append(leaf.grad)
    assert torch.isfinite(gradients[0]).all()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("optimizer", [SGD(lr=1.0, momentum=0.0, weight_decay=1e-2), Adam(lr=1e-3, weight_decay=1e-2)])
def test_weight_decay_is_the_gradient_of_half_lambda_times_the_squared_norm(optimizer):
    """Equation (1): a step with weight decay equals one on the loss with (lambda / 2) ||theta||^2 added to it."""
    logits, targets = mixed(seed=1)
    inputs = logits[:, :3]
    plain = type(optimizer)(**{**optimizer.__dict__, "weight_decay": 0.0})

    def trained(chosen, l2):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 4).double()
        stepping = chosen.build([{"params": list(layer.parameters())}])
        for _ in range(3):
            loss = KLDivergence()(layer(inputs), targets)
            loss = loss + l2 / 2 * sum(parameter.square().sum() for parameter in layer.parameters())
            stepping.zero_grad()
            loss.backward()
            stepping.step()
        return torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])

    torch.testing.assert_close(trained(optimizer, 0.0), trained(plain, 1e-2), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(trained(plain, 0.0), trained(plain, 1e-2), rtol=1e-6)


def test_the_term_alone_pulls_by_lambda_theta():
    """Where the divergence has no gradient, a step of rate 1 moves every value by lambda times itself."""
    theta = torch.nn.Parameter(torch.randn(5, dtype=torch.float64))
    before = theta.detach().clone()
    stepping = SGD(lr=1.0, momentum=0.0, weight_decay=1e-4).build([{"params": [theta]}])
    logits = theta.sum() * torch.zeros(1, 3, dtype=torch.float64)
    KLDivergence()(logits, torch.full((1, 3), 1 / 3, dtype=torch.float64)).backward()
    assert not theta.grad.any()
    stepping.step()
    torch.testing.assert_close(before - theta.detach(), 1e-4 * before)
