"""What a classifier was trained on goes with it, whatever stage ran."""

import copy
from dataclasses import dataclass, replace

import pytest
import scene_training
from safetensors.torch import load_file, save_file

from tinyscene import SceneClassifier
from tinyscene.compression import HalfPrecision
from tinyscene.errors import InputError
from tinyscene.models.provenance import Provenance
from tinyscene.training import Fit, Stage


@dataclass(frozen=True)
class Mine(Stage):
    """A stage of a user's own, which knows nothing of provenance."""

    def apply(self, classifier, clips, run):
        run.metrics["clips"] = len(clips)
        return copy.deepcopy(classifier)


def of_device(clips, device):
    return clips.where(lambda clip: clip.device == device)


def test_any_stage_adds_what_it_was_handed(small_clips, new_run):
    classifier, clips = scene_training.build(), small_clips.development
    after = Mine()(classifier, clips, new_run())
    assert set(after.provenance.recordings) == set(clips.recording_hashes)
    assert after.provenance.devices == ("a", "b")
    assert classifier.provenance == Provenance()


def test_a_stage_of_ones_own_is_handed_no_test_clip(small_clips, new_run):
    with pytest.raises(InputError, match="Mine was given the test clip"):
        Mine()(scene_training.build(), small_clips, new_run())


def test_tuning_on_one_device_keeps_those_before(small_clips, new_run):
    run, fit = new_run(), Fit(epochs=1, batch_size=4)
    on_both = fit(scene_training.build(), small_clips.train, run)
    tuned = replace(fit, batch_size=5)(on_both, of_device(small_clips.train, "a"), run)
    assert tuned.provenance.devices == ("a", "b")
    assert tuned.provenance == on_both.provenance


def test_it_is_part_of_the_state(small_clips, new_run, tmp_path):
    trained = HalfPrecision()(
        Mine()(scene_training.build(), small_clips.train, new_run()), small_clips.train, new_run()
    )
    trained.provenance = replace(trained.provenance, clip_s=1.5)
    filled = HalfPrecision().shape(scene_training.build())
    filled.load_state_dict(trained.state_dict())
    assert filled.provenance == trained.provenance
    assert copy.deepcopy(trained).provenance == trained.provenance
    save_file({name: one.contiguous() for name, one in trained.state_dict().items()}, tmp_path / "state.safetensors")
    other = HalfPrecision().shape(scene_training.build())
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert other.provenance == trained.provenance
    assert SceneClassifier.load(trained.save(tmp_path / "model")).provenance == trained.provenance


def test_figures_are_of_the_stage_that_ran_last(small_clips, new_run):
    run = new_run()
    Mine()(scene_training.build(), small_clips.train, run)
    assert run.metrics == {"clips": len(small_clips.train)}
    HalfPrecision()(scene_training.build(), small_clips.train, run)
    assert run.metrics == {}
