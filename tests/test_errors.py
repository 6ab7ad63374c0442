"""Values check themselves when they are made: what is not refused then runs, and gives what it promises."""

import math
import types
import typing
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyscene import augment, compression, training
from tinyscene.augment import (
    BetweenClass,
    Crop,
    DeviceImpulseResponse,
    Equalizer,
    Excerpt,
    FreqMixStyle,
    Gain,
    Mixup,
    Noise,
    SpecAugment,
    Speed,
    TimeRoll,
)
from tinyscene.compression.admm import ADMM
from tinyscene.compression.selection import HardThreshold
from tinyscene.data.synthetic import Synthetic
from tinyscene.errors import InputError, Numbers
from tinyscene.training import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    CrossEntropy,
    EarlyStopping,
    Fit,
    InverseTime,
    Linear,
    Run,
    Step,
    Triangular2,
)

RATE, SAMPLES = 1000, 300
FIT = Fit(epochs=3)
# One of every value that a user makes of numbers, choices and other values.
VALUES = (
    Crop(0.2),
    Gain(),
    Noise(),
    TimeRoll(),
    Speed(),
    DeviceImpulseResponse("responses"),
    Equalizer(),
    Mixup(),
    SpecAugment(),
    FreqMixStyle(),
    Excerpt(0.5),
    BetweenClass(),
    Cosine(),
    Linear(),
    Step(2),
    InverseTime(),
    Triangular2(),
    Adam(),
    AdamW(),
    SGD(),
    CrossEntropy(),
    EarlyStopping(),
    FIT,
    Run(),
    Synthetic(),
    HardThreshold(3),
    ADMM(("weight",), HardThreshold(3), rho=0.1),
    compression.BudgetPruning(parameters=100, fit=FIT),
    compression.Calibration(),
    compression.FeatureSelection(),
    compression.FilterPruning("L1", 0.5),
    compression.LinearFit(),
    compression.LotteryTicket(0.5, fit=FIT),
    compression.MagnitudePruning(0.5, fit=FIT),
    compression.Quantize(fit=FIT),
    compression.ReplaceDense(3),
)
anything = st.one_of(
    st.floats(), st.floats(-1, 2), st.floats(-300, 300), st.integers(), st.integers(-2, 12), st.just(0), st.just(1)
)


def wrong_for(hint: object) -> list[object]:
    """What no field of that type takes."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in kinds:
        return [math.nan, math.inf, -math.inf, 10**400, "1", [1.0]]
    if int in kinds:
        return [math.nan, math.inf, -1, "1", [1], *([1.5] if hint is int else [])]
    if typing.get_origin(hint) is typing.Literal:
        return ["neither", 1]
    return ["neither", 10] if Fit in kinds else []


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_no_field_takes_what_is_no_number_or_no_choice_of_it(value):
    hints = typing.get_type_hints(type(value))
    tried = 0
    for field in fields(value):
        for wrong in wrong_for(hints[field.name]):
            with pytest.raises(InputError, match=rf"{field.name}=.*; accepted: "):
                replace(value, **{field.name: wrong})
            tried += 1
    assert tried or value == Speed()


def test_none_of_the_public_values_is_left_out():
    public = {getattr(module, name) for module in (augment, training, compression) for name in module.__all__}
    numbered = {
        kind for kind in public if isinstance(kind, type) and any(map(wrong_for, typing.get_type_hints(kind).values()))
    }
    assert numbered <= {type(value) for value in VALUES}


@settings(max_examples=400, deadline=None)
@example(kind=Gain, values=(0.0, -0.0), seed=0)
@given(
    kind=st.sampled_from([Crop, Gain, Noise, Speed]),
    values=st.tuples(anything, anything),
    seed=st.integers(0, 9),
)
def test_an_augmentation_of_clips_is_refused_or_runs(kind, values, seed):
    given = values[: 2 if kind in (Gain, Noise) else 1]
    try:
        augmentation = Speed(given) if kind is Speed else kind(*given)
    except InputError:
        return
    waveform = np.random.default_rng(seed).uniform(-1, 1, SAMPLES).astype(np.float32)
    heard = augmentation(waveform, RATE, np.random.default_rng(seed))
    wanted = {Crop: max(1, round(given[0] * RATE)), Speed: SAMPLES / given[0] if kind is Speed else 0}
    assert abs(len(heard) - wanted.get(kind, SAMPLES)) <= (1 if kind is Speed else 0)
    assert heard.dtype == np.float32
    assert np.isfinite(heard).all()


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([Mixup, SpecAugment, FreqMixStyle, TimeRoll, Excerpt]),
    values=st.tuples(anything, anything),
    seed=st.integers(0, 9),
)
def test_an_augmentation_of_batches_is_refused_or_runs(kind, values, seed):
    try:
        augmentation = kind(*values[: 1 if kind in (Mixup, TimeRoll) else 2])
    except InputError:
        return
    batch, targets = torch.randn(4, 1, 6, 9), torch.eye(4)
    mixed, mixed_targets = augmentation(batch, targets, np.random.default_rng(seed))
    assert mixed.shape == (*batch.shape[:3], augmentation.frames(9) if kind is Excerpt else 9)
    assert mixed.isfinite().all()
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(4))


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([Cosine, Linear, Step, InverseTime, Triangular2]),
    values=st.tuples(anything, anything),
    epochs=st.integers(1, 40),
    place=st.floats(0, 1, exclude_max=True),
)
def test_a_schedule_is_refused_or_gives_a_rate(kind, values, epochs, place):
    try:
        schedule = kind(*values[: 1 if kind in (Linear, InverseTime) else 2])
        Fit(epochs=epochs, schedule=schedule)
    except InputError:
        return
    assert 0 <= schedule.factor(place * epochs, epochs) <= 1000
    if kind is Cosine:
        reached = max(schedule.factor(epoch, epochs) for epoch in (schedule.warmup_epochs, 0.0))
        assert schedule.warmup_epochs < epochs
        assert reached >= 1


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from([Adam, AdamW, SGD]), values=st.tuples(anything, anything, anything, anything))
def test_an_optimizer_is_refused_or_steps(kind, values):
    lr, decay, *more = values
    own = {"momentum": more[0], "nesterov": lr > 1} if kind is SGD else {"betas": tuple(more)}
    try:
        optimizer = kind(lr, weight_decay=decay, rates=(("*", abs(more[1])),), **own)
    except InputError:
        return
    layer = torch.nn.Linear(2, 2)
    stepping = optimizer.build([{"params": list(layer.parameters())}])
    layer(torch.ones(1, 2)).sum().backward()
    stepping.step()


@given(smoothing=anything)
def test_a_smoothed_loss_is_refused_or_finite(smoothing):
    try:
        loss = CrossEntropy(smoothing)
    except InputError:
        return
    assert loss(torch.randn(3, 4), torch.eye(4)[:3]).isfinite()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EarlyStopping("logloss"), r"EarlyStopping\(monitor='logloss'\); accepted: 'log_loss' or 'accuracy'"),
        (lambda: EarlyStopping(patience=0), r"EarlyStopping\(patience=0\); accepted: at least 1, in whole numbers"),
        (lambda: Gain(6, -6), r"Gain\(lowest_db=6, highest_db=-6\); accepted: the lower level first"),
        (lambda: Speed(()), r"Speed\(rates=\(\)\); accepted: a tuple of one or more numbers, each 0.1 to 10"),
        (
            lambda: Adam(betas=(0.9,)),
            r"Adam\(betas=\(0.9,\)\); accepted: a tuple of 2 numbers, each at least 0 and below",
        ),
        (lambda: Adam(rates=("body", 0.1)), r"Adam\(rates=.*accepted: pairs of a path and a factor 0 to 1000"),
        (lambda: Adam(rates=(("body", -0.1),)), r"Adam\(rates=.*accepted: pairs of a path and a factor 0 to 1000"),
        (lambda: SGD(momentum=0.0, nesterov=True), "accepted: nesterov with a momentum above 0"),
        (lambda: Fit(epochs=5, schedule=Cosine(5)), r"epochs=5.*warmup_epochs=5.*accepted: a warm-up of fewer epochs"),
        (lambda: Fit(schedule="cosine"), r"Fit\(schedule='cosine'\); accepted: Constant\(\), Cosine\(\)"),
        (lambda: Fit(schedule=Cosine), "accepted: .*Cosine"),
        (lambda: Fit(optimizer=torch.optim.Adam), r"torch.optim.adam.Adam.*; accepted: Adam\(\), AdamW\(\) or SGD\(\)"),
        (lambda: Fit(optimizer="adam"), r"accepted: Adam\(\)"),
        (lambda: Fit(loss=torch.nn.CrossEntropyLoss), "accepted: CrossEntropy.*a function of logits and targets"),
        (lambda: Fit(loss="cross_entropy"), "accepted: CrossEntropy"),
        (lambda: Fit(augment=Mixup()), r"augment=Mixup.*accepted: tuple"),
        (lambda: Fit(augment=(Mixup,)), "augment=.*Mixup.*accepted: values such as"),
        (lambda: Fit(augment=("mixup",)), "augment='mixup'.*accepted: values such as"),
        (lambda: Fit(early_stopping=5), "early_stopping=5.*accepted: EarlyStopping or None"),
        (lambda: Run(seed=-1), r"Run\(seed=-1\); accepted: at least 0"),
        (lambda: compression.FilterPruning("L1", 0.5, by="l1"), "by='l1'"),
    ],
)
def test_the_error_names_what_was_given_and_what_is_accepted(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_parts_of_a_users_own_are_accepted():
    class Halved(Constant):
        def factor(self, epoch, epochs):
            return 0.5

    fit = Fit(
        loss=torch.nn.CrossEntropyLoss(), schedule=Halved(), augment=(lambda waveform, rate, rng: waveform, Mixup())
    )
    assert float(fit.loss(torch.zeros(2, 4), torch.eye(4)[:2])) == pytest.approx(math.log(4))


@given(
    number=anything,
    least=st.none() | st.integers(-3, 3),
    most=st.none() | st.integers(-3, 3),
    whole=st.booleans(),
)
def test_numbers_are_finite_and_within_their_bounds(number, least, most, whole):
    inside = math.isfinite(number) and (not whole or isinstance(number, int))
    inside &= (least is None or number >= least) and (most is None or number <= most)
    assert (number in Numbers(least=least, most=most, whole=whole)) == inside
    assert ((number,) in Numbers(least=least, most=most, whole=whole, items=1)) == inside
    assert ((number, number) in Numbers(least=least, most=most, whole=whole, items=0)) == inside
    assert (number, number) not in Numbers(items=3)
