"""Balanced epochs: as many clips of every scene."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene_training import build

from tinyscene import InputError
from tinyscene.training import Adam, Fit, Run
from tinyscene.training.batches import Plan


@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=60), st.integers(2, 9), st.integers(0, 3))
def test_every_scene_is_as_frequent_and_all_of_a_rare_one_are_heard(
    scenes: list[str], batch_size: int, epoch: int
) -> None:
    plan = Plan(len(scenes), batch_size, 0, 5, Run(quiet=True), scenes=tuple(scenes))
    taken = [clip for batch in plan.epoch(epoch) for clip in batch]
    plain = Plan(len(scenes), batch_size, 0, 5, Run(quiet=True))
    assert list(map(len, plan.epoch(epoch))) == list(map(len, plain.epoch(epoch)))
    if len(taken) == len(scenes):
        counted = Counter(scenes[clip] for clip in taken)
        assert set(counted) == set(scenes) or len(scenes) < len(set(scenes))
        assert max(counted.values()) - min(counted.values()) <= 1
        each = min(counted.values())
        for scene, held in Counter(scenes).items():
            times = Counter(clip for clip in taken if scenes[clip] == scene)
            assert len(times) == held or held >= each, "a rare scene's clips are all heard"
            assert max(times.values()) - min(times.values()) <= 1


def test_equal_scenes_are_each_heard_once() -> None:
    plan = Plan(30, 8, 0, 2, Run(quiet=True), scenes=("a", "b", "c") * 10)
    first, second = ([clip for batch in plan.epoch(epoch) for clip in batch] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == [*range(30)]
    assert first != second


def test_a_rare_scene_is_learned(small_clips, new_run) -> None:
    """One clip of one scene beside all of the others: drawn as often, it is not drowned."""
    rare = small_clips.classes[0]
    others = [clip for clip in small_clips.train if clip.scene != rare]
    one = next(clip for clip in small_clips.train if clip.scene == rare)
    clips = small_clips.where(lambda clip: clip == one or clip in others)
    found = {}
    for balanced in (False, True):
        fit = Fit(epochs=3, batch_size=8, optimizer=Adam(3e-3), balanced=balanced)
        trained = fit(build(), clips, new_run(str(balanced)))
        found[balanced] = trained.predict(clips.root / one.path).probabilities[rare]
    assert 1 - found[True] < (1 - found[False]) / 2


def test_anything_but_a_yes_or_no_is_refused() -> None:
    with pytest.raises(InputError, match="balanced='yes'.*accepted: bool"):
        Fit(balanced="yes")
