"""Figures beside scikit-learn's and beside loops; parts, intervals, the table of predictions."""

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, log_loss
from sklearn.utils.class_weight import compute_sample_weight

from tinyscene import InputError
from tinyscene.cli import listing
from tinyscene.evaluation import Scores

Draw = Callable[..., Scores]


def test_overall_figures_equal_scikit_learn(draw_scores: Draw) -> None:
    scores = draw_scores()
    labels, predicted = scores.labels, scores.probabilities.argmax(1)
    assert scores.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert scores.log_loss == pytest.approx(log_loss(labels, scores.probabilities, labels=range(4)))
    np.testing.assert_array_equal(scores.confusion, confusion_matrix(labels, predicted, labels=range(4)))


def test_macro_averages_weigh_the_classes_alike(draw_scores: Draw) -> None:
    scores = draw_scores()
    # Ten times as many clips of one class: the plain averages now differ from those over the classes.
    keep = np.concatenate(
        [np.flatnonzero(scores.labels == 0), *(np.flatnonzero(scores.labels == k)[:5] for k in (1, 2, 3))]
    )
    rows = tuple(scores.clips.rows[i] for i in keep)
    uneven = Scores(replace(scores.clips, rows=rows), scores.probabilities[keep])
    weights = compute_sample_weight("balanced", uneven.labels)
    expected = log_loss(uneven.labels, uneven.probabilities, labels=range(4), sample_weight=weights)
    assert uneven.macro_accuracy == pytest.approx(
        balanced_accuracy_score(uneven.labels, uneven.probabilities.argmax(1))
    )
    assert uneven.macro_log_loss == pytest.approx(expected)
    assert abs(uneven.macro_log_loss - uneven.log_loss) > 1e-3


def test_calibration_error_equals_a_loop_over_bins(draw_scores: Draw) -> None:
    scores = draw_scores()
    confidence, right = scores.probabilities.max(1), scores.probabilities.argmax(1) == scores.labels
    expected = 0.0
    for k in range(15):
        members = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if members.any():
            expected += members.mean() * abs(right[members].mean() - confidence[members].mean())
    assert scores.calibration_error == pytest.approx(expected)


@pytest.mark.parametrize("what", ["scene", "device", "city"])
def test_parts_hold_their_clips_and_no_others(draw_scores: Draw, what: str) -> None:
    scores = draw_scores()
    values = np.array([getattr(clip, what) for clip in scores.clips])
    parts = scores.by(what)  # type: ignore[arg-type]
    assert sorted(parts) == sorted(set(values))
    for value, part in parts.items():
        assert len(part.clips) == (values == value).sum()
        assert part.accuracy == pytest.approx(scores.right[values == value].mean())
        assert part.log_loss == pytest.approx(scores.losses[values == value].mean())
    assert sum(len(part.clips) for part in parts.values()) == len(scores.clips)


def test_devices_are_real_seen_or_unseen(draw_scores: Draw) -> None:
    groups = draw_scores().by_device_group()
    devices = {name: {clip.device for clip in part.clips} for name, part in groups.items()}
    assert devices == {"real": {"a", "b"}, "seen": {"s1"}, "unseen": {"s4"}}
    # A real device stays one, whether it was heard or not.
    unheard = replace(draw_scores(), training_devices=("s4",)).by_device_group()
    assert {clip.device for clip in unheard["unseen"].clips} == {"s1"}
    assert {clip.device for clip in unheard["real"].clips} == {"a", "b"}


def test_parts_count_and_mark_what_was_heard_of_them(draw_scores: Draw) -> None:
    scores = draw_scores(40)
    # All places of device a in Lisbon and one of s1; device b and s4 were never heard.
    places = {clip.recording for clip in scores.clips if clip.device == "a" and clip.city == "lisbon"} | {"place-2"}
    known = frozenset(hashlib.sha256(place.encode()).hexdigest()[:10] for place in places)
    marked = replace(scores, training_recordings=known)
    parts = {"overall": marked, **marked.by_device_group()}
    for kind, what in (("class", "scene"), ("device", "device"), ("city", "city")):
        for name, part in marked.by(what).items():  # type: ignore[arg-type]
            parts[f"{kind} {name}"] = part
            assert part.training_clips == sum(
                getattr(clip, what) == name and clip.recording in places for clip in scores.clips
            )
            assert part.summary()["training_clips"] == part.training_clips
    assert [parts[f"device {name}"].optimistic for name in ("a", "b", "s1", "s4")] == [True, False, True, False]
    assert marked.to_json()["by_device"]["b"]["training_clips"] == 0
    with (console := Console(width=120)).capture() as text:
        console.print(listing.scores(marked, "drawn"))
    rows = [" ".join(line.strip("│ ").split()) for line in text.get().splitlines()]
    for name, part in parts.items():
        label = f"devices {name}" if name in marked.by_device_group() else name
        (row,) = (row for row in rows if row.startswith((f"{label} ", f"{label},")))
        assert ("*optimistic*" in row) == part.optimistic, row
    assert "*optimistic*" in listing.mean_and_deviation([scores, marked])
    assert "*optimistic*" not in listing.mean_and_deviation([scores, scores])
    # Of scores that were read from a table, nobody knows.
    assert scores.training_clips is None
    assert scores.by("device")["a"].summary()["training_clips"] is None


def test_without_devices_there_are_no_parts(draw_scores: Draw) -> None:
    scores = draw_scores()
    plain = replace(scores.clips, rows=tuple(clip._replace(device="", city="") for clip in scores.clips))
    bare = Scores(plain, scores.probabilities)
    assert bare.by("device") == bare.by("city") == bare.by_device_group() == {}


@pytest.mark.parametrize("figure", ["accuracy", "log_loss"])
def test_intervals_hold_the_estimate_and_shrink_with_the_root_of_the_clips(draw_scores: Draw, figure: str) -> None:
    widths = []
    for number in (250, 4000):
        scores = draw_scores(number)
        low, high = scores.interval(figure)  # type: ignore[arg-type]
        assert low < getattr(scores, figure) < high
        widths.append(high - low)
    assert 3 < widths[0] / widths[1] < 5.3  # 4 by theory


def test_interval_of_an_accuracy_is_near_the_normal_one(draw_scores: Draw) -> None:
    scores = draw_scores(4000)
    low, high = scores.interval()
    half = 1.96 * np.sqrt(scores.accuracy * (1 - scores.accuracy) / 4000)
    np.testing.assert_allclose([low, high], [scores.accuracy - half, scores.accuracy + half], atol=half / 5)


def test_copies_of_a_clip_in_its_recording_narrow_nothing(draw_scores: Draw) -> None:
    scores = draw_scores(60)
    rows = tuple(clip._replace(start_s=float(k)) for clip in scores.clips for k in range(5))
    copied = Scores(replace(scores.clips, rows=rows), scores.probabilities.repeat(5, axis=0))
    assert copied.interval() == pytest.approx(scores.interval())
    apart = tuple(clip._replace(recording=f"{clip.recording} {clip.start_s}") for clip in rows)
    low, high = Scores(replace(scores.clips, rows=apart), copied.probabilities).interval()
    assert high - low < 0.7 * np.subtract(*scores.interval()[::-1])


def test_json_holds_every_figure(draw_scores: Draw) -> None:
    scores = draw_scores()
    found = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert found["clips"] == 240
    assert (found["accuracy"], found["log_loss"], found["ece"]) == (
        scores.accuracy,
        scores.log_loss,
        scores.calibration_error,
    )
    assert found["accuracy_interval"] == list(scores.interval())
    assert list(found["by_device"]) == ["a", "b", "s1", "s4"]
    assert found["by_device"]["s4"] == found["by_device_group"]["unseen"]
    assert list(found["by_city"]) == ["lisbon", "milan", "paris"]
    assert found["by_class"]["tram"]["accuracy"] == scores.by("scene")["tram"].accuracy
    assert found["confusion"] == scores.confusion.tolist()


def test_predictions_come_back_exactly(draw_scores: Draw, tmp_path: Path) -> None:
    scores = draw_scores(20)
    odd = [
        clip._replace(path=f'ätsch, "{i}".wav', start_s=0.1 * i, duration_s=None if i % 2 else 1 / 3)
        for i, clip in enumerate(scores.clips)
    ]
    scores = replace(scores, clips=replace(scores.clips, rows=tuple(odd)))
    scores.save(tmp_path / "predictions.csv")
    again = Scores.load(tmp_path / "predictions.csv")
    assert again.clips.classes == scores.clips.classes
    assert [clip._replace(row="") for clip in scores.clips] == list(again.clips)
    # To the last bit: what a killed run reads back gives the figures of one that went through.
    np.testing.assert_array_equal(again.probabilities, scores.probabilities)
    assert again.log_loss == scores.log_loss
    assert again.interval("log_loss") == scores.interval("log_loss")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rows: rows[:1], "predictions.csv"),
        (lambda rows: [["a", "b"], ["1", "2"]], "predictions.csv"),
        (lambda rows: [*rows[:2], [*rows[2][:-1], "many"]], "predictions.csv:3"),
        (lambda rows: [*rows[:2], rows[2][:-2]], "predictions.csv:3"),
        (lambda rows: [rows[0][:7], *(row[:7] for row in rows[1:])], "predictions.csv"),
    ],
    ids=["no rows", "other columns", "no number", "short row", "no probabilities"],
)
def test_a_broken_table_is_refused(
    draw_scores: Draw, tmp_path: Path, change: Callable[[list[list[str]]], list[list[str]]], named: str
) -> None:
    table = tmp_path / "predictions.csv"
    draw_scores(6).save(table)
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(change(rows))
    with pytest.raises(InputError, match=f"{named}.*accepted"):
        Scores.load(table)
