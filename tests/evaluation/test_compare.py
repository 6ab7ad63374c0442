"""Two runs clip by clip: direction, matching, and intervals that mean what they say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tinyscene import InputError, compare, compare_by_device, metrics
from tinyscene.cli import listing
from tinyscene.evaluation import Scores, compare_runs
from tinyscene.evaluation.evaluate import pairs_of

Draw = Callable[..., Scores]
FIGURES = ("accuracy", "log_loss")


def blurred(scores: Scores, amount: float, seed: int = 1) -> Scores:
    """The same predictions with noise on their logits: a second model that errs mostly on the same clips."""
    logits = np.log(scores.probabilities)
    logits += amount * np.random.default_rng(seed).normal(size=logits.shape)
    return replace(scores, probabilities=np.exp(logits) / np.exp(logits).sum(1, keepdims=True))


def shuffled(scores: Scores, seed: int = 2) -> Scores:
    order = np.random.default_rng(seed).permutation(len(scores.clips))
    rows = tuple(scores.clips.rows[i] for i in order)
    return replace(scores, clips=replace(scores.clips, rows=rows), probabilities=scores.probabilities[order])


@pytest.mark.parametrize("figure", FIGURES)
def test_a_run_does_not_differ_from_itself(draw_scores: Draw, figure: str) -> None:
    scores = draw_scores()
    for other in (scores, shuffled(scores)):
        found = compare(scores, other, figure)  # type: ignore[arg-type]
        assert (found.mean, found.low, found.high, found.clips) == (0, 0, 0, 240)
        assert not found.significant


@pytest.mark.parametrize("figure", FIGURES)
def test_second_minus_first(draw_scores: Draw, figure: str) -> None:
    worse = draw_scores()
    # Half way to certainty on every clip: better in both figures.
    better = replace(worse, probabilities=0.5 * worse.probabilities + 0.5 * np.eye(4)[worse.labels])
    there = compare(worse, better, figure)  # type: ignore[arg-type]
    back = compare(better, worse, figure)  # type: ignore[arg-type]
    assert there.mean == pytest.approx(getattr(better, figure) - getattr(worse, figure))
    assert (there.mean > 0) == (figure == "accuracy")
    assert there.low < there.mean < there.high
    assert there.significant
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))


def test_the_order_of_the_clips_is_of_no_importance(draw_scores: Draw) -> None:
    first, second = draw_scores(), blurred(draw_scores(), 0.5)
    straight = compare(first, second, "log_loss")
    assert compare(first, shuffled(second), "log_loss") == straight
    assert straight.mean == pytest.approx(second.log_loss - first.log_loss)


def test_other_clips_are_refused(draw_scores: Draw) -> None:
    scores = draw_scores(20)
    renamed = (scores.clips.rows[0]._replace(path="audio/other.wav"), *scores.clips.rows[1:])
    other = replace(scores, clips=replace(scores.clips, rows=renamed))
    fewer = replace(
        scores, clips=replace(scores.clips, rows=scores.clips.rows[:-1]), probabilities=scores.probabilities[:-1]
    )
    for both in (compare, compare_by_device):
        with pytest.raises(InputError, match=r"audio/0\.wav.*accepted: runs over the same"):
            both(scores, other)
        with pytest.raises(InputError, match=r"20 and 19;.*accepted: runs over the same"):
            both(scores, fewer)
        with pytest.raises(InputError, match=r"19 and 20;.*accepted: runs over the same"):
            both(fewer, scores)


def test_devices_are_compared_apart(draw_scores: Draw) -> None:
    first, second = draw_scores(), blurred(draw_scores(), 0.8)
    found = compare_by_device(first, shuffled(second), "log_loss")
    assert list(found) == ["all", "a", "b", "s1", "s4"]
    for device, part in found.items():
        if device != "all":
            assert part == compare(first.by("device")[device], second.by("device")[device], "log_loss")
    assert sum(part.clips for device, part in found.items() if device != "all") == found["all"].clips == 240


def test_devices_are_those_of_the_first_run(draw_scores: Draw) -> None:
    """The second run's table may lack them: it was scored before somebody added the column."""
    first = draw_scores()
    bare = replace(first.clips, rows=tuple(clip._replace(device="") for clip in first.clips))
    found = compare_by_device(first, replace(first, clips=bare))
    assert list(found) == ["all", "a", "b", "s1", "s4"]


def test_pairing_narrows_the_interval(draw_scores: Draw) -> None:
    first = draw_scores(1000)
    second = blurred(first, 0.3)
    paired = compare(first, second)
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 1000, (2, 1000, 1000))
    unpaired = second.right[draws[0]].mean(1) - first.right[draws[1]].mean(1)
    low, high = np.quantile(unpaired, [0.025, 0.975])
    assert paired.high - paired.low < 0.6 * (high - low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """400 made-up sets of 80 recordings of 3 clips, whose clips agree with each other."""
    rng = np.random.default_rng(3)
    recordings = np.repeat(np.arange(80), 3)
    covered, alone = 0, 0
    for _ in range(400):
        values = 0.2 + rng.normal(size=80).repeat(3) + 0.5 * rng.normal(size=240)
        low, high = metrics.bootstrap_interval(values, recordings, draws=200)
        covered += low <= 0.2 <= high
        low, high = metrics.bootstrap_interval(values, np.arange(240), draws=200)
        alone += low <= 0.2 <= high
    assert 0.90 < covered / 400 < 0.98
    # Clip by clip the interval would claim too much.
    assert alone / 400 < 0.85


def test_what_was_heard_before_is_marked_optimistic(draw_scores: Draw, tmp_path: Path) -> None:
    scores = draw_scores(12)
    for name, heard in (("fresh", ()), ("heard", scores.clips.recording_hashes[:1])):
        (tmp_path / name).mkdir()
        replace(scores, training_recordings=frozenset(heard)).save(tmp_path / name / "predictions.csv")
    for second, marked in (("fresh", False), ("heard", True)):
        ((_, found),) = compare_runs(tmp_path / "fresh", tmp_path / second).items()
        assert {difference.optimistic for parts in found.values() for difference in parts.values()} == {marked}
        assert found["accuracy"]["all"].to_json()["optimistic"] == marked
        with (console := Console()).capture() as text:
            console.print(listing.differences("both", found))
        assert ("optimistic" in text.get()) == marked


def test_two_runs_are_compared_variant_by_variant(draw_scores: Draw, tmp_path: Path) -> None:
    for run, variants in (("one", ("small", "large")), ("two", ("large", "other"))):
        for variant in variants:
            place = tmp_path / run / variant / "seed-0"
            place.mkdir(parents=True)
            draw_scores(12, seed=len(run + variant)).save(place / "predictions.csv")
    found = list(pairs_of(tmp_path / "one", tmp_path / "two"))
    assert [name for name, _, _ in found] == ["large/seed-0"]
    models = [tmp_path / "one" / "small" / "seed-0", tmp_path / "two" / "other" / "seed-0"]
    assert len(list(pairs_of(*models))) == 1
    with pytest.raises(InputError, match=r"small/seed-0.*nothing in common"):
        list(pairs_of(tmp_path / "one", models[1]))
    with pytest.raises(InputError, match=r"gone: no predictions\.csv"):
        list(pairs_of(tmp_path / "one", tmp_path / "gone"))
