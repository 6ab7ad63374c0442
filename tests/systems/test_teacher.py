"""Learning from teachers: the loss by its formula, the targets by the teachers themselves, and what leaks through."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch.nn import functional as F

from tinyscene import InputError, SceneClassifier, Teacher, evaluate, export
from tinyscene.augment import Mixup
from tinyscene.compression import Quantize
from tinyscene.data import Clips, decode, load
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021
from tinyscene.training import Adam, CrossEntropy, Fit, Run
from tinyscene.training.keys import key_of


@pytest.fixture(scope="module")
def clips(tone_set: Path) -> Clips:
    return load(tone_set)


def untrained(classes: tuple[str, ...], seed: int) -> SceneClassifier:
    torch.manual_seed(seed)
    network = Baseline2021(filters=(8, 8, 12), dense=24, classes=len(classes), bands=20)
    return SceneClassifier(LogMel(8000, n_fft=256, hop_length=160, n_mels=20), network, classes)


@pytest.fixture(scope="module")
def teacher(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> SceneClassifier:
    run = Run(folder=tmp_path_factory.mktemp("teacher"), quiet=True)
    return Fit(epochs=30, batch_size=8, optimizer=Adam(1e-2))(untrained(clips.classes, 1), clips.development, run)


def logits(classifier: SceneClassifier, clips: Clips) -> np.ndarray:
    """One clip at a time."""
    waveforms = decode(clips, classifier.sample_rate, quiet=True)
    with torch.no_grad():
        return torch.cat([classifier.eval()(torch.tensor(waveforms[i])[None]) for i in range(len(clips))]).numpy()


def test_targets_are_the_mean_of_the_teachers_logits(clips: Clips, teacher: SceneClassifier, tmp_path: Path) -> None:
    other, run = untrained(clips.classes, 2).eval(), Run(folder=tmp_path, quiet=True)
    folder = teacher.save(tmp_path / "saved")
    found = Teacher((folder, other), temperature=3).targets(clips.train, run)
    both = log_softmax(logits(teacher, clips.train), 1) + log_softmax(logits(other, clips.train), 1)
    np.testing.assert_allclose(found, softmax(both / 2 / 3, 1), atol=1e-5)


def test_an_exported_file_teaches_as_its_model(clips: Clips, teacher: SceneClassifier, tmp_path: Path) -> None:
    file, run = export(teacher, tmp_path / "scene.onnx").path, Run(folder=tmp_path, quiet=True)
    np.testing.assert_allclose(
        Teacher((file,)).targets(clips.train, run), Teacher((teacher,)).targets(clips.train, run), atol=1e-4
    )


def test_classes_are_mapped_by_name(clips: Clips, teacher: SceneClassifier, tmp_path: Path) -> None:
    run, order = Run(folder=tmp_path, quiet=True), clips.classes[::-1]
    turned = replace(clips, classes=order).train
    found = Teacher((teacher,)).targets(turned, run)
    np.testing.assert_allclose(found, Teacher((teacher,)).targets(clips.train, run)[:, ::-1], atol=1e-7)
    with pytest.raises(InputError, match="lacks harbour"):
        Teacher((teacher,)).targets(replace(clips, classes=(*order, "harbour")).train, run)


def test_they_hear_every_clip_once(
    clips: Clips, teacher: SceneClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Teacher((teacher,)).targets(clips.train, Run(folder=tmp_path, quiet=True))
    monkeypatch.setattr("tinyscene.evaluation.teacher.probabilities_of", None)
    np.testing.assert_array_equal(Teacher((teacher,)).targets(clips.train, Run(folder=tmp_path, quiet=True)), first)


def test_the_loss_is_hintons(clips: Clips, teacher: SceneClassifier) -> None:
    fit, rng = Fit(teacher=Teacher((teacher,), temperature=4, weight=0.7)), np.random.default_rng(0)
    given, taught = rng.normal(size=(5, 3)), softmax(rng.normal(size=(5, 3)), 1)
    labels = np.eye(3)[[0, 2, 1, 1, 0]]
    hard = -(labels * log_softmax(given, 1)).sum(1).mean()
    soft = -(taught * log_softmax(given / 4, 1)).sum(1).mean()
    found = fit.objective(torch.tensor(given), torch.tensor(np.concatenate([labels, taught], 1)))
    assert float(found) == pytest.approx(0.7 * 16 * soft + 0.3 * hard)


def test_clips_without_a_label_have_no_share_in_the_labels_loss(teacher: SceneClassifier) -> None:
    fit = Fit(teacher=Teacher((teacher,), weight=0.5), loss=CrossEntropy(0.1))
    given, taught = torch.randn(4, 3), torch.randn(4, 3).softmax(1)
    labels = torch.eye(3)[[0, 1, 2, 0]] * torch.tensor([1.0, 0, 1, 0])[:, None]
    soft = 0.5 * 4 * F.cross_entropy(given / 2, taught)
    hard = 0.5 * 0.5 * F.cross_entropy(given[::2], labels[::2], label_smoothing=0.1)
    torch.testing.assert_close(fit.objective(given, torch.cat([labels, taught], 1)), soft + hard)
    none = fit.objective(given, torch.cat([torch.zeros(4, 3), taught], 1))
    torch.testing.assert_close(none, soft)


def test_the_students_features_stay(clips: Clips, teacher: SceneClassifier, tmp_path: Path) -> None:
    run = Run(folder=tmp_path, quiet=True)
    Fit(epochs=1, batch_size=8, teacher=Teacher((teacher,)))(untrained(clips.classes, 3), clips.development, run)
    assert len(run.features) == 2, "the train and the validation part"


def test_labels_and_teachings_are_mixed_alike() -> None:
    labels, taught = torch.eye(3)[torch.arange(8) % 3], torch.eye(3)[(torch.arange(8) + 1) % 3]
    _, mixed = Mixup(0.5)(torch.zeros(8, 1, 2, 2), torch.cat([labels, taught], 1), np.random.default_rng(0))
    known, other = mixed.split(3, 1)
    torch.testing.assert_close(other, known.roll(1, 1))
    assert (known.amax(1) < 1).any()


def test_a_student_follows_it_without_any_label(clips: Clips, teacher: SceneClassifier, tmp_path: Path) -> None:
    rows = tuple(clip._replace(scene=None) if clip.split == "train" else clip for clip in clips.development)
    unlabelled = replace(clips, rows=rows)
    fit = Fit(epochs=80, batch_size=8, optimizer=Adam(1e-2), teacher=Teacher((teacher,), weight=1.0))
    student = fit.apply(untrained(clips.classes, 3), unlabelled, Run(folder=tmp_path, quiet=True))
    agreed = logits(student, clips.test).argmax(1) == logits(teacher, clips.test).argmax(1)
    assert agreed.mean() >= 0.9
    with pytest.raises(InputError, match="the train split has no clip of bus, park, tram"):
        replace(fit, teacher=None).apply(untrained(clips.classes, 3), unlabelled, Run(folder=tmp_path, quiet=True))


def test_an_int8_student_follows_it_too(clips: Clips, teacher: SceneClassifier, tmp_path: Path) -> None:
    run = Run(folder=tmp_path, quiet=True)
    fit = Fit(epochs=3, batch_size=8, optimizer=Adam(1e-3), teacher=Teacher((teacher,)))
    int8 = Quantize(fit=fit)(copy.deepcopy(teacher), clips.development, run)
    assert int8.precision == "int8"
    both = [evaluate(one, clips.test, run).probabilities.argmax(1) for one in (int8, teacher)]
    assert (both[0] == both[1]).mean() >= 0.9


def test_what_a_teacher_was_trained_on_counts_as_heard(clips: Clips, tmp_path: Path) -> None:
    run = Run(folder=tmp_path, quiet=True)
    heard = replace(clips, rows=tuple(clip._replace(split="train") for clip in clips.test))
    taught_on_test = Fit(epochs=1, batch_size=4)(untrained(clips.classes, 1), heard, run)
    for teacher, optimistic in ((taught_on_test, True), (untrained(clips.classes, 2).eval(), False)):
        fit = Fit(epochs=1, batch_size=8, teacher=Teacher((teacher,)))
        student = fit(untrained(clips.classes, 3), clips.development, run)
        assert evaluate(student, clips.test, run).optimistic is optimistic


def test_another_teacher_is_another_result(teacher: SceneClassifier, tmp_path: Path) -> None:
    folder = teacher.save(tmp_path / "saved")
    before = key_of(Fit(teacher=Teacher((folder,))))
    assert key_of(Fit(teacher=Teacher((folder,)))) == before
    changed = copy.deepcopy(teacher)
    with torch.no_grad():
        next(changed.network.parameters()).add_(0.1)
    turned = SceneClassifier(teacher.frontend, teacher.network, teacher.classes[::-1], teacher.standardize)
    front_end = LogMel(8000, n_fft=256, hop_length=80, n_mels=20)
    finer = SceneClassifier(front_end, teacher.network, teacher.classes, teacher.standardize)
    for other in (changed, turned, finer):
        other.save(folder)
        assert key_of(Fit(teacher=Teacher((folder,)))) != before


def test_wrong_teachers_are_refused(teacher: SceneClassifier) -> None:
    with pytest.raises(InputError, match=r"teacher=.*accepted: Teacher"):
        Fit(teacher=teacher)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one"):
        Teacher(())
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        key_of(Fit(teacher=Teacher(("nowhere",))))
    with pytest.raises(InputError, match="temperature"):
        Teacher((teacher,), temperature=0)
