"""Training: it learns, keeps its promises about splits, weights and workers, and says what it can't do."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scene_training
import sklearn.metrics
import torch
from scene_training import CLASSES, RATE, RECIPES, build

from killing import same_weights
from tinyscene import audio
from tinyscene.augment import Crop, Excerpt, FreqMixStyle, Gain, Noise, SpecAugment, Speed
from tinyscene.compression import HalfPrecision
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import SGD, Adam, CrossEntropy, EarlyStopping, Fit

QUICK = Fit(epochs=2, batch_size=8)


def probabilities(classifier, clips):
    """By the waveform path, one clip at a time: nothing of the training loop is used."""
    waveforms = [audio.read(clips.root / clip.path, RATE) for clip in clips]
    with torch.inference_mode():
        logits = [classifier.eval()(torch.from_numpy(waveform)[None]) for waveform in waveforms]
    return torch.cat(logits).double().softmax(1).numpy()


@pytest.mark.parametrize(
    "fit",
    [
        Fit(epochs=25, batch_size=4, optimizer=Adam(3e-3)),
        Fit(epochs=25, batch_size=4, optimizer=Adam(3e-3), augment=(Noise(20, 40), FreqMixStyle(0.3))),
    ],
    ids=["memory", "loader"],
)
def test_it_learns_what_it_can_hear(small_clips, new_run, fit):
    run = new_run()
    before = build()
    trained = fit(before, small_clips.development, run)
    accuracy = np.mean(probabilities(trained, small_clips.test).argmax(1) == small_clips.test.labels)
    assert accuracy >= 10 / 12
    assert run.history[-1]["train_loss"] < 0.6 * run.history[0]["train_loss"]
    assert not trained.training
    assert trained.provenance.devices == ("a", "b")


@pytest.mark.parametrize(
    ("augment", "seconds"), [((), 0.5), ((Crop(0.4),), 0.4), ((Excerpt(0.5),), 0.5), ((Crop(0.4), Excerpt(0.5)), 0.4)]
)
def test_a_model_says_how_long_the_clips_were(small_clips, new_run, tmp_path, augment, seconds):
    trained = replace(QUICK, epochs=1, augment=augment)(build(), small_clips.development, new_run())
    assert trained.trained_clip_s == seconds
    saved = trained.save(tmp_path / "model")
    assert SceneClassifier.load(saved).trained_clip_s == seconds


def test_history_tells_what_the_last_weights_do(small_clips, new_run):
    run = new_run()
    trained = replace(QUICK, epochs=3)(build(), small_clips.development, run)
    part = small_clips.validation
    scores = probabilities(trained, part)
    assert [row["epoch"] for row in run.history] == [0, 1, 2]
    assert run.history[-1]["validation_log_loss"] == pytest.approx(
        sklearn.metrics.log_loss(part.labels, scores), rel=1e-4
    )
    assert run.history[-1]["validation_accuracy"] == np.mean(scores.argmax(1) == part.labels)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_argument_is_never_changed(small_clips, new_run, recipe):
    classifier = build()
    classifier.train()
    before = copy.deepcopy(classifier)
    trained = RECIPES[recipe](classifier, small_clips.development, new_run())
    assert same_weights(classifier, before)
    assert classifier.training
    assert not classifier.standardize.fitted
    assert classifier.provenance.devices == ()
    assert not same_weights(trained, before)


def test_standardization_is_fitted_on_the_train_split_once(small_clips, new_run):
    trained = QUICK(build(), small_clips.development, new_run())
    frontend = build().frontend
    frames = torch.cat(
        [
            frontend(torch.from_numpy(audio.read(small_clips.root / clip.path, RATE))[None])
            for clip in small_clips.train
        ],
        dim=3,
    ).double()
    torch.testing.assert_close(trained.standardize.mean.double()[0, :, 0], frames.mean((0, 1, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        trained.standardize.std.double()[0, :, 0], frames.std((0, 1, 3), correction=0), rtol=1e-4, atol=1e-5
    )
    again = QUICK(trained, small_clips.where(lambda clip: clip.device == "a").development, new_run("again"))
    assert torch.equal(again.standardize.mean, trained.standardize.mean)


@pytest.mark.parametrize("monitor", ["log_loss", "accuracy"])
def test_early_stopping_ends_in_time_and_gives_back_the_best_epoch(small_clips, new_run, monitor):
    # Validation labels that have nothing to do with the sounds: what is learnt soon makes them worse.
    deceived = replace(
        small_clips,
        rows=tuple(
            clip._replace(scene=CLASSES[(i // 2) % 3]) if clip.split == "validation" else clip
            for i, clip in enumerate(small_clips)
        ),
    ).development
    run = new_run()
    fit = Fit(epochs=40, batch_size=8, optimizer=Adam(3e-3), early_stopping=EarlyStopping(monitor, patience=3))
    trained = fit(build(), deceived, run)
    sign = 1 if monitor == "log_loss" else -1
    figures = [sign * row[f"validation_{monitor}"] for row in run.history]
    best = int(np.argmin(figures))  # of equal ones, the first
    assert len(figures) == best + 1 + 3 < 40
    scores = probabilities(trained, deceived.validation)
    labels = deceived.validation.labels
    measured = sklearn.metrics.log_loss(labels, scores) if sign == 1 else np.mean(scores.argmax(1) == labels)
    assert sign * measured == pytest.approx(figures[best], rel=1e-4)
    whole = Fit(epochs=40, batch_size=8, optimizer=Adam(3e-3))
    assert same_weights(trained, replace(whole, epochs=best + 1)(build(), deceived, new_run("until then")))


@pytest.mark.parametrize(
    "augment",
    [
        RECIPES["loader"].augment,
        (Speed((0.9, 1.1)), Noise(), Gain()),
    ],
    ids=["crop", "speed"],
)
def test_the_number_of_loader_workers_changes_nothing(small_clips, new_run, augment):
    fit = Fit(epochs=2, batch_size=5, augment=augment)
    alone, one, two = (fit(build(), small_clips.train, new_run(f"{n}", workers=n)) for n in range(3))
    assert same_weights(alone, one)
    assert same_weights(alone, two)
    other = fit(build(), small_clips.train, new_run("other", seed=4))
    assert not same_weights(alone, other)


def test_every_epoch_sees_every_clip_once_in_another_order_and_with_another_draw(small_clips, new_run):
    seen, drawn, drawn_a_batch = [], [], []

    class Watch(Noise):
        def __call__(self, waveform, sample_rate, rng):
            seen.append(waveform.tobytes())
            drawn.append(rng.bytes(8))
            return waveform

    class WatchBatch(SpecAugment):
        def __call__(self, features, targets, rng):
            drawn_a_batch.append(rng.bytes(8))
            return features, targets

    Fit(epochs=3, batch_size=8, augment=(Watch(), WatchBatch()))(build(), small_clips.train, new_run())
    epochs = [seen[i * 24 : (i + 1) * 24] for i in range(3)]
    assert len(seen) == 72
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len(set(drawn)) == 72
    assert len(set(drawn_a_batch)) == 9


@pytest.mark.parametrize(
    "augment", [(), (Noise(20, 40),), (Crop(0.3),), (Excerpt(0.4),)], ids=["memory", "loader", "crop", "excerpt"]
)
def test_clips_of_unequal_length_train(tmp_path_factory, new_run, augment):
    uneven = scene_training.write_clips(tmp_path_factory.mktemp("uneven"), lambda rng: rng.uniform(0.35, 0.65))
    run = new_run()
    fit = Fit(epochs=25, batch_size=4, optimizer=Adam(3e-3), augment=augment)
    trained = fit(build(), uneven.development, run)
    assert np.mean(probabilities(trained, uneven.test).argmax(1) == uneven.test.labels) >= 10 / 12
    scores = probabilities(trained, uneven.validation)
    # Whole clips are judged, each at its own length.
    assert run.history[-1]["validation_log_loss"] == pytest.approx(
        sklearn.metrics.log_loss(uneven.validation.labels, scores), rel=1e-4
    )


def test_a_last_batch_of_one_clip_is_left_out(small_clips, new_run):
    three = small_clips.where(lambda clip: clip.path.endswith(("-0.wav", "-1.wav", "noise-train-2.wav"))).train
    assert len(three) == 7
    Fit(epochs=1, batch_size=3)(build(), three, new_run())


def test_a_test_clip_is_refused_and_named(small_clips, new_run):
    with pytest.raises(InputError, match=r"hum-test-0\.wav.*clips\.development"):
        QUICK(build(), small_clips, new_run())


def test_unusable_arguments_are_refused(small_clips, new_run):
    clips = small_clips.development
    with pytest.raises(InputError, match="float16"):
        QUICK(HalfPrecision().shape(build()), clips, new_run())
    with pytest.raises(InputError, match="hum, noise, whistle.*hum, whistle, noise"):
        QUICK(build(("hum", "whistle", "noise")), clips, new_run())
    with pytest.raises(InputError, match="no validation clip"):
        replace(QUICK, early_stopping=EarlyStopping())(build(), clips.train, new_run())
    with pytest.raises(InputError, match="has no clip of whistle"):
        QUICK(build(), clips.where(lambda clip: clip.scene != "whistle"), new_run())
    for wrong, least in (({"epochs": 0}, "at least 1"), ({"batch_size": 1}, "at least 2")):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}.*{least}"):
            replace(QUICK, **wrong)
    with pytest.raises(InputError, match="lr=-1.*accepted: above 0"):
        replace(QUICK, optimizer=Adam(lr=-1.0))


def test_clips_too_short_for_the_network_are_refused(small_clips, new_run):
    with pytest.raises(InputError, match=r"0\.020 s.*at least 0\.080 s"):
        replace(QUICK, augment=(Crop(0.02),))(build(), small_clips.development, new_run())
    long = {"n_fft": 4096, "hop_length": 2048}
    with pytest.raises(InputError, match=r"0\.500 s.*at least 1\.024 s"):
        QUICK(build(**long), small_clips.train, new_run())
    with pytest.raises(InputError, match=r"hum-validation-0\.wav.*0\.500 s.*at least 1\.024 s"):
        QUICK(build(**long), small_clips.development, new_run())


def test_a_loss_that_is_no_number_ends_training_by_naming_epoch_and_rate(small_clips, new_run):
    with pytest.raises(InputError, match=r"(nan|inf) in epoch 0, batch \d, at a learning rate of 1e\+30"):
        replace(QUICK, optimizer=SGD(1e30))(build(), small_clips.train, new_run())


def test_the_loss_smooths_targets_as_torch_would_by_hand():
    logits, targets = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    smooth = 0.9 * targets + 0.1 / 3
    expected = -(smooth * torch.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(CrossEntropy(0.1)(logits, targets), expected)


@pytest.mark.parametrize("changed", [{"power": 1}, {"window": "hamming"}, {"log": "db"}, {"mel": "htk"}])
def test_another_front_end_does_not_find_the_checkpoint_of_this_one(small_clips, new_run, changed):
    fit, run = Fit(epochs=1, batch_size=8), new_run("shared")
    first = fit(build(), small_clips.train, run)
    second = fit(build(**changed), small_clips.train, run)
    alone = fit(build(**changed), small_clips.train, new_run("alone"))
    assert not same_weights(first, second)
    assert same_weights(second, alone)


def test_another_dropout_does_not_find_the_checkpoint_of_this_one(small_clips, new_run):
    fit, run = Fit(epochs=1, batch_size=8), new_run("shared")
    fit(build(), small_clips.train, run)
    other = build()
    other.network.dropout.p = 0.0
    assert same_weights(fit(other, small_clips.train, run), fit(other, small_clips.train, new_run("alone")))


def test_a_finished_training_is_not_done_again(small_clips, new_run):
    first, second = new_run("shared"), new_run("shared")
    fit = RECIPES["loader"]
    trained = fit(build(), small_clips.development, first)
    assert same_weights(fit(build(), small_clips.development, second), trained)
    assert second.history == first.history  # the seconds of every epoch, too: nothing was trained anew


# What other stages have a fit do


def pull(strength, network):
    return strength * sum(parameter.square().sum() for parameter in network.parameters()) / 2


def look(seen, network, progress):
    seen.append((type(network).__name__, progress))
    return {"looks": float(len(seen))}


def test_a_penalty_is_a_part_of_the_loss(small_clips, new_run):
    """A quadratic one is weight decay, by torch's definition."""
    fit = Fit(epochs=2, batch_size=8, optimizer=SGD(1e-2))
    decayed = replace(fit, optimizer=SGD(1e-2, weight_decay=0.1))(build(), small_clips.train, new_run("decayed"))
    run, plain = new_run("pulled"), new_run("plain")
    pulled = fit.apply(build(), small_clips.train, run, penalty=partial(pull, 0.1))
    without = fit(build(), small_clips.train, plain)
    for name, value in decayed.network.named_parameters():
        torch.testing.assert_close(pulled.network.get_parameter(name), value, rtol=1e-4, atol=1e-6)
    assert not same_weights(pulled, without)
    # The loss that is told is the clips' alone, and another penalty finds no checkpoint of this one.
    assert run.history[0]["train_loss"] == pytest.approx(plain.history[0]["train_loss"], rel=0.1)
    assert not same_weights(pulled, fit.apply(build(), small_clips.train, run, penalty=partial(pull, 0.2)))


def test_hooks_see_the_network_itself_and_leave_figures_in_the_history(small_clips, new_run):
    seen, run = [], new_run()
    fit = Fit(epochs=3, batch_size=8, start_after=1)
    fit.apply(build(), small_clips.train, run, partial(look, seen))
    assert [name for name, _ in seen] == ["Baseline2021"] * 6
    assert [progress for _, progress in seen] == pytest.approx([(3 + step) / 9 for step in range(1, 7)])
    assert [row["looks"] for row in run.history] == [3.0, 6.0]
