"""Random streams, and the keys under which results are kept."""

import json
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scene_training
import torch

from tinyscene.augment import Crop, Mixup, Noise
from tinyscene.compression import FilterPruning, ReplaceDense, geometric_median, l1_norm
from tinyscene.errors import InputError
from tinyscene.training import SGD, Adam, Cosine, CrossEntropy, EarlyStopping, Fit, Run, Step
from tinyscene.training.run import describe, key_of, weights_fingerprint

FIT = Fit()
CHANGES = {
    "epochs": (99, 101),
    "batch_size": (31, 64),
    "optimizer": (Adam(2e-3), Adam(betas=(0.9, 0.99)), Adam(weight_decay=1e-4), Adam(rates=(("a", 0.1),)), SGD(1e-3)),
    "schedule": (Cosine(), Cosine(1.0), Cosine(final=0.1), Step(3), Step(3, 0.5)),
    "loss": (CrossEntropy(0.1),),
    "augment": ((Noise(),), (Noise(5.0),), (Crop(1.0),), (Noise(), Crop(1.0)), (Crop(1.0), Noise()), (Mixup(),)),
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


@pytest.mark.parametrize("unhashed", [{"a": 1}, {1, 2}, np.zeros(3)])
def test_what_has_no_text_of_its_own_is_not_guessed(unhashed):
    if isinstance(unhashed, dict):
        assert key_of(unhashed) != key_of({"a": 2})
        return
    with pytest.raises((InputError, TypeError)):
        key_of(unhashed)
