"""Learning rates over the epochs."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scene_training import build
from torch.optim.optimizer import register_optimizer_step_post_hook

from tinyscene.errors import InputError
from tinyscene.training import SGD, Constant, Cosine, Fit, Linear, Step, Triangular2


def test_constant_stays():
    assert {Constant().factor(epoch, 10) for epoch in (0, 0.5, 9.99)} == {1.0}


@pytest.mark.parametrize(
    ("schedule", "epochs", "points"),
    [
        (Cosine(), 10, {0: 1.0, 5: 0.5, 10: 0.0, 2.5: 0.5 + math.sqrt(0.125)}),
        (Cosine(final=0.1), 10, {0: 1.0, 5: 0.55, 10: 0.1}),
        (Cosine(warmup_epochs=2), 10, {0: 0.0, 1: 0.5, 2: 1.0, 6: 0.5, 10: 0.0}),
        (Cosine(warmup_epochs=4), 4, {0: 0.0, 3: 0.75, 4: 1.0}),
        (Linear(), 7, {0: 1.0, 3.5: 0.55, 5: 1 - 0.9 * 5 / 7, 7: 0.1}),
        (Linear(final=0.0), 4, {0: 1.0, 1: 0.75, 4: 0.0}),
        (Linear(final=2.0), 4, {0: 1.0, 4: 2.0}),
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


def test_the_reports_rates_peak_at_a_half_and_a_quarter():
    """Byttebier et al., section 2.1: 1e-3 down to 1e-6, three cycles of 120 epochs, the maximum halved after each."""
    steps = [1e-3 * Triangular2(cycles=3, lowest=1e-3).factor(epoch / 10, 360) for epoch in range(3601)]
    peaks = [(i / 10, b) for i, (a, b, c) in enumerate(zip(steps, steps[1:], steps[2:], strict=False), 1) if a < b > c]
    assert [epoch for epoch, _ in peaks] == [60, 180, 300]
    assert [rate for _, rate in peaks] == pytest.approx([1e-3, 5e-4, 2.5e-4], rel=1e-12)
    assert [steps[epoch * 10] for epoch in (0, 120, 240, 360)] == pytest.approx([1e-6] * 4)
    # Straight lines: within half a cycle, every step is as large as the first.
    rises = [after - before for before, after in pairwise(steps[:601])]
    assert rises == pytest.approx([rises[0]] * 600)


def test_torchs_own_triangular2_agrees_to_half_the_lowest_rate():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-6)
    theirs = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 1e-6, 1e-3, step_size_up=60, mode="triangular2", cycle_momentum=False
    )
    for epoch in range(361):
        ours = 1e-3 * Triangular2().factor(epoch, 360)
        # Ours halves the peak, torch's its height above the lowest rate.
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9 if epoch < 120 else 0, abs=1e-6)
        optimizer.step()
        theirs.step()


@given(epochs=st.integers(1, 400), place=st.floats(0, 1), cut=st.integers(1, 2))
def test_cycles_after_a_cut_go_on_where_the_first_ended(epochs, place, cut):
    whole, after = Triangular2(cycles=3), Triangular2(cycles=3 - cut, first=cut)
    rest = epochs * (3 - cut)
    assert after.factor(place * rest, rest) == pytest.approx(whole.factor(epochs * cut + place * rest, 3 * epochs))


@pytest.mark.parametrize("arguments", [{"cycles": 0}, {"first": -1}, {"lowest": -0.1}, {"lowest": 0.3}])
def test_impossible_cycles_are_refused(arguments):
    with pytest.raises(InputError, match="Triangular2.*accepted"):
        Triangular2(**arguments)


def test_torchs_own_linear_agrees():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=7)
    for epoch in range(8):
        assert Linear(0.1).factor(epoch, 7) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    with pytest.raises(InputError, match="Linear.*accepted: 0 to 1000"):
        Linear(-0.1)


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
