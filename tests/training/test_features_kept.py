"""Which features a run keeps in memory: no more than it may, none of what is over, each of them once."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest
import scene_training
import torch
from scene_training import build

from killing import same_weights
from tinyscene.augment import TimeRoll
from tinyscene.training import EarlyStopping, Fit, batches
from tinyscene.training.keys import key_of

FIT = Fit(epochs=2, batch_size=5, early_stopping=EarlyStopping())


def kept(run) -> dict[str, int]:
    """Bytes by part."""
    return {part.split()[0]: sum(one.nbytes for one in some) for (_, part, _), some in run.features.items()}


def rows(run) -> list[dict[str, float]]:
    return [{**row, "seconds": 0} for row in run.history]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_what_does_not_fit_is_computed_anew_and_changes_nothing(small_clips, new_run, monkeypatch, room):
    clips = small_clips.development
    runs = [new_run("whole"), new_run("little")]
    whole = FIT(build(), clips, runs[0])
    parts = kept(runs[0])
    assert list(parts) == ["train", "validation"]
    assert parts["train"] == 2 * parts["validation"]
    # Half a second each, for 24 clips: 20 bands, 4 bytes.
    assert parts["train"] == 24 * 20 * 4 * build().frontend.frames(4000)
    # For none, for validation alone, or for train alone, by a byte.
    most = [parts["validation"] - 1, parts["validation"], sum(parts.values()) - 1][room]
    monkeypatch.setattr(batches, "_MOST_BYTES", most)
    little = FIT(build(), clips, runs[1])
    assert list(kept(runs[1])) == [[], ["validation"], ["train"]][room]
    assert same_weights(whole, little)
    assert rows(runs[0]) == rows(runs[1])


def test_of_clips_of_many_lengths_the_bytes_are_those_that_were_said(new_run, monkeypatch, tmp_path):
    clips = scene_training.write_clips(tmp_path, lambda rng: rng.uniform(0.3, 1.2)).development
    run = new_run()
    FIT(build(), clips, run)
    parts = kept(run)
    monkeypatch.setattr(batches, "_MOST_BYTES", sum(parts.values()))
    again = new_run("again")
    FIT(build(), clips, again)
    assert kept(again) == parts
    monkeypatch.setattr(batches, "_MOST_BYTES", sum(parts.values()) - 1)
    short = new_run("short")
    FIT(build(), clips, short)
    assert list(kept(short)) == ["train"]


def test_a_later_fit_drops_what_it_does_not_use(small_clips, new_run):
    clips = small_clips.development
    run = new_run()
    FIT(build(), clips, run)
    first = {key: list(map(id, some)) for key, some in run.features.items()}
    Fit(epochs=3, batch_size=8)(build(), clips, run)
    assert {key: list(map(id, some)) for key, some in run.features.items()} == first
    # Of other clips, as another fold has them.
    fewer = clips.where(lambda clip: not clip.path.endswith("-0.wav"))
    FIT(build(), fewer, run)
    assert kept(run)["train"] == 7 / 8 * 24 * 20 * 4 * build().frontend.frames(4000)
    assert len(run.features) == 2
    # Of another front end.
    FIT(build(hop_length=80), clips, run)
    assert {made_by for made_by, _, _ in run.features} == {key_of(build(hop_length=80).frontend)}
    assert len(run.features) == 2


class Weigh:
    """Changes nothing; weighs all features made since `only_new_objects` that are in memory, each block of it once."""

    domain: ClassVar[str] = "features"
    heaviest: ClassVar[int] = 0

    def __call__(self, features, targets, rng):
        gc.collect()
        found = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.shape[1:3] == features.shape[1:3]]
        blocks = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in found}
        Weigh.heaviest = max(Weigh.heaviest, sum(blocks.values()))
        return features, targets


@pytest.fixture
def only_new_objects() -> Iterator[None]:
    """The collector walks none of the millions of objects that other tests left, which takes a minute."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize("room", [True, False])
def test_features_are_in_memory_once_or_a_batch_of_them(small_clips, new_run, monkeypatch, room):
    if not room:
        monkeypatch.setattr(batches, "_MOST_BYTES", 0)
    monkeypatch.setattr(Weigh, "heaviest", 0)
    run = new_run()
    Fit(epochs=2, batch_size=4, augment=(Weigh(),))(build(), small_clips.development, run)
    held = sum(kept(run).values())
    assert (held > 0) == room
    # Beside them the batch of four, before and after standardization.
    clip = 20 * 4 * build().frontend.frames(4000)
    assert held < Weigh.heaviest <= held + 3 * 4 * clip


def test_a_roll_of_frames_keeps_the_features_and_one_of_samples_does_not(small_clips, new_run):
    found = {}
    for domain in ("features", "waveforms"):
        run = new_run(domain)
        replace(FIT, augment=(TimeRoll(0.2, domain),))(build(), small_clips.development, run)
        found[domain] = [part for _, part, _ in run.features if part.startswith("train")]
    # Of the whole clips, for the statistics, or of stretches of 4000 samples, for training.
    assert found == {"features": ["train 4000"], "waveforms": ["train None"]}
