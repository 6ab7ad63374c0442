"""Learning rates over the epochs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scene_training import build
from torch.optim.optimizer import register_optimizer_step_post_hook

from tinyscene.training import SGD, Constant, Cosine, Fit, Step


def test_constant_stays():
    assert {Constant().factor(epoch, 10) for epoch in (0, 0.5, 9.99)} == {1.0}


@pytest.mark.parametrize(
    ("schedule", "epochs", "points"),
    [
        (Cosine(), 10, {0: 1.0, 5: 0.5, 10: 0.0, 2.5: 0.5 + math.sqrt(0.125)}),
        (Cosine(final=0.1), 10, {0: 1.0, 5: 0.55, 10: 0.1}),
        (Cosine(warmup_epochs=2), 10, {0: 0.0, 1: 0.5, 2: 1.0, 6: 0.5, 10: 0.0}),
        (Cosine(warmup_epochs=4), 4, {0: 0.0, 3: 0.75, 4: 1.0}),
        (Step(3), 10, {0: 1.0, 2.99: 1.0, 3: 0.1, 5.9: 0.1, 6: 0.01}),
        (Step(1, 0.5), 4, {0: 1.0, 1: 0.5, 3.5: 0.125}),
    ],
)
def test_values_at_key_points(schedule, epochs, points):
    for epoch, factor in points.items():
        assert schedule.factor(epoch, epochs) == pytest.approx(factor, abs=1e-12)


@given(
    warmup=st.floats(0, 20),
    final=st.floats(0, 1),
    epochs=st.integers(1, 20),
    places=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_cosine_rises_then_falls_within_its_limits(warmup, final, epochs, places):
    schedule = Cosine(warmup, final)
    first, second = (schedule.factor(place * epochs, epochs) for place in sorted(places))
    assert 0 <= first <= 1
    if min(places) * epochs >= warmup:
        assert second <= first + 1e-12
        assert second >= final - 1e-12
    elif max(places) * epochs < warmup:
        assert second >= first


def test_torchs_own_cosine_agrees():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7, eta_min=0.2)
    for epoch in range(8):
        assert Cosine(final=0.2).factor(epoch, 7) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_the_optimizer_steps_at_the_scheduled_rate(small_clips, new_run):
    rates = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        run = new_run()
        Fit(epochs=2, batch_size=8, optimizer=SGD(0.01), schedule=Cosine(warmup_epochs=1))(
            build(), small_clips.train, run
        )
    finally:
        hook.remove()
    # Three batches an epoch: a line up, then half a cosine down.
    down = [0.5 * (1 + math.cos(math.pi * step / 3)) for step in range(3)]
    assert rates == pytest.approx([0.01 * factor for factor in (0, 1 / 3, 2 / 3, *down)])
    assert [row["lr"] for row in run.history] == [rates[2], rates[5]]
