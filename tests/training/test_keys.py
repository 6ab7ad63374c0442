"""Random streams, and the keys under which results are kept."""

import json
import threading
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import scene_training
import torch

from tinyscene.augment import Crop, Mixup, Noise
from tinyscene.compression import FilterPruning, ReplaceDense, geometric_median, l1_norm
from tinyscene.data import decode
from tinyscene.errors import InputError
from tinyscene.evaluation import Teacher
from tinyscene.training import SGD, Adam, Cosine, CrossEntropy, EarlyStopping, Fit, Run, Step
from tinyscene.training.batches import features_of_clips
from tinyscene.training.keys import describe, key_of, weights_fingerprint

FIT, TAUGHT = Fit(), scene_training.build()
CHANGES = {
    "epochs": (99, 101),
    "batch_size": (31, 64),
    "optimizer": (Adam(2e-3), Adam(betas=(0.9, 0.99)), Adam(weight_decay=1e-4), Adam(rates=(("a", 0.1),)), SGD(1e-3)),
    "schedule": (Cosine(), Cosine(1.0), Cosine(final=0.1), Step(3), Step(3, 0.5)),
    "loss": (CrossEntropy(0.1),),
    "augment": ((Noise(),), (Noise(5.0),), (Crop(1.0),), (Noise(), Crop(1.0)), (Crop(1.0), Noise()), (Mixup(),)),
    "teacher": (Teacher((TAUGHT,)), Teacher((TAUGHT,), temperature=3), Teacher((TAUGHT,), weight=0.5)),
    "average": (0.9, 0.99),
    "balanced": (True,),
    "early_stopping": (EarlyStopping(), EarlyStopping("accuracy"), EarlyStopping(patience=7)),
    # Any file: its content is part of the key.
    "init": (__file__, scene_training.__file__),
    "stop_after": (0, 5),
    "start_after": (1, 5),
}


def scaled_l1(filters, scale):
    return scale * l1_norm(filters)


def test_a_key_changes_with_every_field_of_a_fit():
    assert set(CHANGES) == {field.name for field in fields(Fit)}
    changed = [replace(FIT, **{name: value}) for name, values in CHANGES.items() for value in values]
    keys = [key_of(stage) for stage in [FIT, *changed]]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key_of(Fit(epochs=100, optimizer=Adam(lr=1e-3)))


def test_a_key_changes_with_the_criterion_and_what_is_bound_to_it():
    def mine(filters):
        return filters.flatten(1).sum(1)

    stages = [
        FilterPruning("L1", 0.5),
        FilterPruning("L2", 0.5),
        FilterPruning("L2", 0.25),
        FilterPruning(("L2", "L1"), 0.5),
        FilterPruning("L2", 0.5, geometric_median),
        FilterPruning("L2", 0.5, mine),
        FilterPruning("L2", 0.5, partial(scaled_l1, scale=-1)),
        FilterPruning("L2", 0.5, partial(scaled_l1, scale=1)),
        FilterPruning("L2", 0.5, lambda filters: filters.flatten(1).amax(1)),
        FilterPruning("L2", 0.5, lambda filters: filters.flatten(1).amin(1)),
        ReplaceDense(5),
        ReplaceDense(6),
    ]
    keys = [key_of(stage) for stage in stages]
    assert len(set(keys)) == len(keys)
    assert keys[1] == key_of(FilterPruning("L2", 0.5, l1_norm))


def test_a_criterion_may_be_a_value_of_its_own():
    @dataclass(frozen=True)
    class Power:
        exponent: float

        def __call__(self, filters):
            return filters.flatten(1).abs().pow(self.exponent).sum(1)

    one, two = (key_of(FilterPruning("L2", 0.5, Power(exponent))) for exponent in (1.0, 2.0))
    assert one != two


def test_a_description_is_json_that_names_types_and_callables():
    stage = FilterPruning(("L1", "L2"), 0.5, geometric_median)
    assert json.loads(json.dumps(describe(stage))) == {
        "type": "FilterPruning",
        "layer": ["L1", "L2"],
        "ratio": 0.5,
        "by": "tinyscene.compression.filters.geometric_median",
    }
    assert describe([Path("a") / "b", None, (1, 2.5)]) == [str(Path("a") / "b"), None, [1, 2.5]]
    adam = {"type": "Adam", "lr": 1e-3, "weight_decay": 0.0, "betas": [0.9, 0.999], "rates": []}
    assert describe(FIT)["optimizer"] == adam


def test_the_order_of_parts_counts():
    assert key_of(1, 2) != key_of(2, 1)
    assert key_of("a", "b") != key_of("ab")


def test_one_changed_value_changes_the_fingerprint_of_the_weights():
    module = torch.nn.BatchNorm1d(3)
    before = weights_fingerprint(module)
    assert weights_fingerprint(torch.nn.BatchNorm1d(3)) == before
    module.running_mean[2] = 1e-30
    changed = weights_fingerprint(module)
    assert changed != before
    assert weights_fingerprint(module.half()) not in (before, changed)


def test_a_channels_last_copy_has_the_same_fingerprint():
    module = torch.nn.Conv2d(3, 4, 5)
    before = weights_fingerprint(module)
    assert weights_fingerprint(module.to(memory_format=torch.channels_last)) == before


def test_streams_depend_on_seed_and_key_alone():
    def draw(seed, *key):
        return Run(seed).rng(*key).integers(0, 2**62, 3).tolist()

    assert draw(0, 1, 2) == draw(0, 1, 2) == np.random.default_rng((0, 1, 2)).integers(0, 2**62, 3).tolist()
    streams = [tuple(draw(seed, *key)) for seed in (0, 1) for key in ((0, 1), (1, 0), (1, 1), (2, 1, 1), (2, 1, 2))]
    assert len(set(streams)) == len(streams)


def test_torch_is_seeded_by_key():
    def draw(*key):
        Run(5).seed_torch(*key)
        return torch.rand(3)

    with torch.random.fork_rng(devices=[]):
        assert torch.equal(draw(3, 0), draw(3, 0))
        assert not torch.equal(draw(3, 0), draw(3, 1))


class Scale:
    """An augmentation as users write them: no dataclass, its state an attribute."""

    domain = "features"

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, batch, targets, rng):
        return batch * self.factor, targets

    def score(self, filters):
        return self.factor * l1_norm(filters)


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, batch, targets, rng):
        return batch * self.factor, targets


class Both(Slotted):
    """Slots of a base, and attributes beside them."""

    def __init__(self, gain):
        super().__init__(1.0)
        self.gain = gain


class Soft(NamedTuple):
    factor: float

    def __call__(self, logits, targets):
        return self.factor * (logits - targets).square().mean()


class Hard(NamedTuple):
    factor: float

    def __call__(self, logits, targets):
        return self.factor * (logits - targets).abs().mean()


@dataclass(frozen=True)
class Longer(Noise):
    seconds: float = field(default=1.0, repr=False)


def at_a_prompt(text):
    """What a function called `mine` does that was typed and stands in no file."""
    typed = {"__name__": "__main__", "l1_norm": l1_norm, "torch": torch}
    exec(compile(text, "<stdin>", "exec"), typed)
    return typed["mine"]


def weighted(weights):
    return torch.nn.CrossEntropyLoss(weight=torch.tensor(weights))


def frontend(factor):
    class Mine(torch.nn.Module):
        arguments: ClassVar = {}

        def forward(self, waveforms):
            return waveforms * factor

    return Mine()


PAIRS = {
    "state of an object": lambda n: Fit(augment=(Scale(float(n)),)),
    "slots": lambda n: Fit(augment=(Slotted(n),)),
    "attributes beside slots": lambda n: Fit(augment=(Both(n),)),
    "kinds of tuples": lambda n: Fit(loss=[Soft(1.0), Hard(1.0)][n - 1]),
    "method": lambda n: FilterPruning("L1", 0.5, Scale(float(n)).score),
    "field of a subclass": lambda n: Fit(augment=(Longer(seconds=n),)),
    "loss as a module": lambda n: Fit(loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1 * n)),
    "tensor of a loss": lambda n: Fit(loss=weighted([1.0, n])),
    "tensor in a partial": lambda n: FilterPruning("L1", 0.5, partial(scaled_l1, scale=torch.tensor(n))),
    "array in a partial": lambda n: FilterPruning("L1", 0.5, partial(scaled_l1, scale=np.array(n))),
    "default": lambda n: FilterPruning(
        "L1", 0.5, at_a_prompt(f"def mine(filters, n={n}): return n * l1_norm(filters)")
    ),
    "typed": lambda n: FilterPruning("L1", 0.5, at_a_prompt(f"def mine(filters): return {n} * l1_norm(filters)")),
    "global": lambda n: FilterPruning(
        "L1", 0.5, at_a_prompt(f"k = {n}\ndef mine(filters): return k * l1_norm(filters)")
    ),
    "helper": lambda n: FilterPruning(
        "L1", 0.5, at_a_prompt(f"def h(x): return {n} * x\ndef mine(filters): return h(l1_norm(filters))")
    ),
    "one line": lambda n: (
        FilterPruning("L1", 0.5, lambda x: -l1_norm(x)),
        FilterPruning("L1", 0.5, lambda x: l1_norm(x)),
    )[n - 1],
    "forward": frontend,
    "unsaved buffer": lambda n: torch.nn.Sequential(unsaved(n)),
    "setting without a repr": lambda n: [torch.nn.Dropout(0.1), setattr_of(torch.nn.Dropout(0.1), "gain", n)][n - 1],
    "hook": lambda n: hooked(n),
    "dictionary": lambda n: {"a": n},
    "set": lambda n: {n, 3},
    "array": lambda n: np.full(3, n),
    "tensor's type": lambda n: torch.ones(2, dtype=[torch.float16, torch.int16][n - 1]),
}


def unsaved(number):
    module = torch.nn.Identity()
    module.register_buffer("held", torch.tensor(number), persistent=False)
    return module


def setattr_of(module, name, value):
    setattr(module, name, value)
    return module


def hooked(number):
    module = torch.nn.Identity()
    module.register_forward_hook(lambda module, given, made: number * made)
    return module


@pytest.mark.parametrize("kind", PAIRS)
def test_a_key_holds_all_that_makes_a_result(kind):
    assert key_of(PAIRS[kind](1)) == key_of(PAIRS[kind](1))
    assert key_of(PAIRS[kind](1)) != key_of(PAIRS[kind](2))


def test_what_holds_itself_has_a_key():
    one, other = Scale(1.0), Scale(1.0)
    one.me, other.me = one, other
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize("unknown", [iter([1, 2]), (n for n in range(3)), object(), threading.Lock()])
def test_what_can_not_be_told_from_another_is_refused(unknown):
    with pytest.raises(InputError, match=r"Scale\.factor is a .*, which can't be distinguished from another"):
        key_of(Scale(unknown))


def test_the_state_of_an_augmentation_trains_anew(small_clips, new_run):
    """Results of a folder are found by what made them: Scale(1.0) is not Scale(0.001)."""
    run = new_run()
    losses = []
    for factor in (1.0, 0.001):
        fit = Fit(epochs=1, batch_size=8, augment=(Scale(factor),))
        fit(scene_training.build(), small_clips.development, run)
        losses.append(run.history[0]["train_loss"])
    assert losses[0] != losses[1]


def test_a_front_end_of_another_function_finds_no_features(small_clips, new_run):
    run = new_run()
    waveforms = decode(small_clips.train, scene_training.RATE, quiet=True)
    found = []
    for factor in (1.0, 2.0):
        classifier = scene_training.build()
        classifier.frontend.window.mul_(factor)
        found.append(next(iter(features_of_clips(classifier, waveforms, run, "train"))))
    assert not torch.equal(*found)


def test_a_fit_that_is_taken_up_says_so(small_clips, new_run, capsys):
    run = new_run()
    run.quiet = False
    for kept in (False, True):
        Fit(epochs=1, batch_size=8)(scene_training.build(), small_clips.development, run)
        assert ("training of 1 epochs, reused from" in capsys.readouterr().err) == kept
