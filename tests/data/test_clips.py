"""Splits: nothing leaks, nothing is lost, every class is on both sides."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyscene.data import Clip, Clips
from tinyscene.errors import InputError


@st.composite
def data_sets(draw, fewest=2):
    """Two to five classes with `fewest` to eight recordings each, of one to thirty clips."""
    rows = []
    classes = tuple("abcde"[: draw(st.integers(2, 5))])
    for scene in classes:
        for number, size in enumerate(draw(st.lists(st.integers(1, 30), min_size=fewest, max_size=8))):
            rows += [Clip(f"{scene}{number}-{i}.wav", scene, recording=f"{scene}{number}") for i in range(size)]
    return Clips("drawn", Path("drawn"), classes, tuple(draw(st.permutations(rows))))


def unsplit(clips):
    return [clip._replace(split="train") for clip in clips]


fractions = st.floats(0.01, 0.5)
seeds = st.integers(0, 2**32 - 1)


@given(data_sets(), fractions, seeds)
def test_validation(clips, fraction, seed):
    cut = clips.with_validation(fraction, seed)
    assert unsplit(cut) == list(clips.rows)
    assert cut.leaks() == []
    cut.require("train", "validation")
    assert cut == clips.with_validation(fraction, seed)
    for scene in clips.classes:
        sizes = Counter(clip.recording for clip in clips if clip.scene == scene)
        held = sum(clip.scene == scene for clip in cut.validation)
        assert abs(held - fraction * sizes.total()) <= max(sizes.values())


@given(data_sets(fewest=3), fractions, fractions, seeds)
def test_three_recordings_a_class_always_give_three_splits(clips, test_fraction, fraction, seed):
    cut = clips.with_test(test_fraction, seed)
    whole = cut.with_validation(fraction, seed).require("train", "validation", "test")
    assert whole.test.rows == cut.test.rows
    assert unsplit(whole) == list(clips.rows)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=2, max_size=60), fractions, seeds)
def test_a_recording_of_several_scenes_is_not_cut(pairs, fraction, seed):
    rows = tuple(Clip(f"{i}.wav", scene, recording=f"r{r}") for i, (scene, r) in enumerate(pairs))
    clips = Clips("mixed", Path("mixed"), tuple(sorted({scene for scene, _ in pairs})), rows)
    try:
        cut = clips.with_validation(fraction, seed)
    except InputError:
        assert min(len({r for s, r in pairs if s == scene}) for scene in clips.classes) < 2
        return
    assert cut.leaks() == []
    assert unsplit(cut) == list(rows)


def test_a_poor_class_does_not_take_the_others_along():
    """StratifiedGroupKFold would set half of everything aside here."""
    rows = [Clip(f"rich{i}.wav", "rich", recording=f"{i // 10}") for i in range(1000)]
    rows += [Clip(f"poor{i}.wav", "poor") for i in range(2)]
    cut = Clips("uneven", Path("x"), ("poor", "rich"), tuple(rows)).with_validation(0.15)
    assert Counter(clip.scene for clip in cut.validation) == {"rich": 150, "poor": 1}


def test_a_test_split_leaves_two_recordings_of_every_class():
    """The two short recordings come closest to a fifth of the clips, but the long one alone could not be cut."""
    sizes = {"r1": 1, "r2": 1, "r3": 10}
    rows = [Clip(f"{s}{r}{i}.wav", s, recording=f"{s}{r}") for s in "ab" for r, n in sizes.items() for i in range(n)]
    for seed in range(20):
        cut = Clips("x", Path("x"), ("a", "b"), tuple(rows)).with_test(0.2, seed)
        cut.with_validation(seed=seed).require("train", "validation", "test")


def test_what_one_scene_keeps_another_does_not_take():
    rows = [Clip("0.wav", "a", recording="A"), Clip("1.wav", "a", recording="B")]
    rows += [Clip(f"b{i}.wav", "b", recording="AAAABBBBCCDDEEFF"[i]) for i in range(16)]
    for seed in range(20):
        cut = Clips("x", Path("x"), ("a", "b"), tuple(rows)).with_validation(0.5, seed)
        cut.require("train", "validation")


def test_the_order_of_the_rows_does_not_matter():
    rows = tuple(Clip(f"{i}.wav", "ab"[i % 2]) for i in range(40))
    forth = Clips("x", Path("x"), ("a", "b"), rows).with_validation()
    back = Clips("x", Path("x"), ("a", "b"), rows[::-1]).with_validation()
    assert set(forth) == set(back)


def test_one_recording_is_too_few():
    rows = (
        Clip("a.wav", "a", recording="r1"),
        Clip("b.wav", "a", recording="r1"),
        Clip("c.wav", "b"),
        Clip("d.wav", "b"),
    )
    with pytest.raises(
        InputError, match=r"class 'a' has 1 recording to train and validate on \(r1\); accepted: at least 2"
    ):
        Clips("x", Path("x"), ("a", "b"), rows).with_validation()
    with pytest.raises(InputError, match="class 'c' has 0 recordings"):
        Clips("x", Path("x"), ("b", "c"), rows[2:]).with_validation()
    with pytest.raises(InputError, match="class 'b' has 2 recordings to train, validate and test on"):
        Clips("x", Path("x"), ("b",), rows[2:]).with_test()


@pytest.mark.parametrize("fraction", [0, -0.1, 0.51, float("nan")])
def test_fraction_is_checked(fraction):
    with pytest.raises(InputError, match="validation fraction"):
        Clips("x", Path("x"), ("a",), (Clip("a.wav", "a"), Clip("b.wav", "a"))).with_validation(fraction)


def test_a_test_clip_is_refused_and_untouched():
    rows = tuple(Clip(f"{i}.wav", "a", "test" if i < 3 else "train", row=f"list.csv:{i}") for i in range(9))
    clips = Clips("x", Path("x"), ("a",), rows)
    assert clips.with_validation().test.rows == rows[:3]
    with pytest.raises(InputError, match=r"Fit was given the test clip 0.wav \(list.csv:0\); accepted: clips.train"):
        clips.refuse_test("Fit")
    clips.development.refuse_test("Fit")
    clips.train.refuse_test("Fit")


def test_labels():
    clips = Clips("x", Path("x"), ("a", "b"), (Clip("0.wav", "b"), Clip("1.wav", "a"), Clip("2.wav", "b")))
    assert clips.labels.tolist() == [1, 0, 1]
    unknown = Clips("x", Path("x"), ("a", "b"), (Clip("0.wav", None, row="list.csv:2"),))
    with pytest.raises(InputError, match=r"0.wav \(list.csv:2\): label None; accepted: a, b"):
        _ = unknown.labels
