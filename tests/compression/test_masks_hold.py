"""What a stage masked, a later one keeps: at every step of a training, after a kill, and in a ticket's ranking."""

import numpy as np
import pytest
import soundfile
import torch

from killing import killed_at, same_weights
from tinyscene.compression import LotteryTicket, MagnitudePruning
from tinyscene.data import Clips
from tinyscene.data.clips import Clip
from tinyscene.features import LogMel, Standardize
from tinyscene.models import Baseline2021, masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import SGD, Adam, AdamW, Fit, Run

CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Three clips of noise a class."""
    root, rows = tmp_path_factory.mktemp("noise"), []
    for number in range(6):
        soundfile.write(root / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(2000), 8000)
        rows.append(Clip(f"{number}.wav", CLASSES[number % 2], "train", recording=str(number)))
    return Clips("noise", root, CLASSES, tuple(rows))


def small(seed: int = 0) -> SceneClassifier:
    """As after training: no two values alike, and none zero."""
    torch.manual_seed(seed)
    network = Baseline2021((6, 6, 8), 16, len(CLASSES), 20)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return SceneClassifier(LogMel(8000, 256, 20, hop_length=100), network, CLASSES, Standardize.identity(20))


def run_in(folder, initial: SceneClassifier | None = None) -> Run:
    return Run(folder=folder, accelerator="cpu", quiet=True, initial=initial)


def gone(classifier: SceneClassifier) -> dict[str, int]:
    return {path: int((~kept).sum()) for path, kept in masks.masks_of(classifier.network).items()}


def values(classifier: SceneClassifier) -> int:
    return sum(parameter.numel() for parameter in classifier.network.parameters())


@pytest.mark.parametrize("optimizer", [Adam(1e-2, 1e-2), AdamW(1e-2), SGD(1e-2)])
@pytest.mark.parametrize("grows", [False, True])
def test_masked_values_are_zero_at_every_step(clips, tmp_path, optimizer, grows):
    classifier, removed = small(), []

    def look(network, _) -> None:
        kept = masks.masks_of(network)
        assert not any(network.get_parameter(path)[~mask].any() for path, mask in kept.items())
        if network.training:
            removed.append(sum(int((~mask).sum()) for mask in kept.values()))

    classifier.network.register_forward_pre_hook(look)
    fit = Fit(epochs=3, batch_size=2, optimizer=optimizer)
    stages = (MagnitudePruning(0.5, fit=fit),) if grows else (MagnitudePruning(0.5), fit)
    for stage in stages:
        classifier = stage(classifier, clips, run_in(tmp_path))
    half = round(0.5 * values(classifier))
    assert len(removed) == 9
    assert removed == ([0, *sorted(removed[1:-2]), half, half] if grows else [half] * 9)
    look(classifier.network.train(), ())
    assert removed[-1] == half


def test_masks_survive_a_kill_in_the_middle_of_any_round(clips, tmp_path):
    fit = Fit(epochs=4, batch_size=3, optimizer=Adam(3e-3, 1e-4))

    def ticket(folder: str) -> SceneClassifier:
        before, where = small(), tmp_path / folder
        after = fit(before, clips, run_in(where))
        found = LotteryTicket(0.6, fit=fit, rounds=2)(after, clips, run_in(where, before))
        return fit(found, clips, run_in(where))

    whole = ticket("whole")
    for death in (3, 11, 6):  # in the first training, in the round's, in the ticket's own; eight steps each
        with killed_at(death):
            ticket("killed")
    resumed = ticket("killed")
    assert same_weights(whole, resumed)
    assert sum(gone(resumed).values()) == round(0.6 * values(resumed))


@pytest.mark.parametrize("by", ["magnitude", "random"])
def test_a_ticket_keeps_and_counts_masks_of_what_does_not_compete(clips, tmp_path, by):
    first = MagnitudePruning(0.3, "layer").shape(small())
    start = small(seed=1)
    ticket = LotteryTicket(0.6, by)(first, clips, run_in(tmp_path, start))
    assert sum(gone(ticket).values()) == round(0.6 * values(start))
    for path, earlier in masks.masks_of(first.network).items():
        kept, now = masks.masks_of(ticket.network)[path], ticket.network.get_parameter(path)
        assert torch.equal(now, start.network.get_parameter(path) * kept), path
        assert torch.equal(kept, earlier) if now.ndim == 1 else not (kept & ~earlier).any(), path


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_a_tensors_scale_is_that_of_what_it_still_has(ratio):
    """By brute force. Over all values, with the zeros, the dense layer would look far smaller than it is."""
    classifier = small()
    masks.attach(classifier.network, "dense.weight", torch.rand(classifier.network.dense.weight.shape) < 0.1)
    ticket = LotteryTicket(ratio).shape(classifier)
    weights = {n: p.detach().double().numpy() for n, p in classifier.network.named_parameters() if p.ndim > 1}
    scores = {name: np.abs(w) / np.sqrt(np.square(w[w != 0]).mean()) for name, w in weights.items()}
    threshold = np.sort(np.concatenate([score.ravel() for score in scores.values()]))[round(ratio * values(ticket))]
    for name, kept in masks.masks_of(ticket.network).items():
        assert (kept.numpy() != (scores[name] >= threshold)).sum() <= 1, name


def test_a_ticket_never_brings_back_what_was_masked_even_where_that_is_more():
    first = MagnitudePruning(0.8, "layer", "weights").shape(small())
    assert gone(LotteryTicket(0.4).shape(first)) == gone(first)
