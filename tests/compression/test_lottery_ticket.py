"""The lottery ticket: which values stay, at which values, and that they are worth more than a random choice."""

import copy
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from soak import SOAK
from tinyscene.accounting import CONVENTIONS, count
from tinyscene.compression import HalfPrecision, LotteryTicket, Quantize
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.evaluation import evaluate
from tinyscene.features import LogMel, Raw, Standardize
from tinyscene.models import AemNet, Baseline2021, masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Adam, EarlyStopping, Fit, Run
from tones import CLASSES, sine, write_clips

RATE = 8000
FIT = Fit(epochs=4, batch_size=8, optimizer=Adam(3e-3, weight_decay=1e-4))


def small(seed: int = 1) -> SceneClassifier:
    torch.manual_seed(seed)
    network = Baseline2021((6, 6, 8), 16, len(CLASSES), 20)
    return SceneClassifier(LogMel(RATE, 256, 20, hop_length=160), network, CLASSES)


def waveform_net(seed: int = 1) -> SceneClassifier:
    torch.manual_seed(seed)
    network = AemNet(classes=len(CLASSES), width=1 / 16, pooling=4, filters=(4, 32), embedding=16)
    return SceneClassifier(Raw(RATE), network, CLASSES, Standardize.identity(1))


def gone(classifier: SceneClassifier) -> int:
    return sum(int((~mask).sum()) for mask in masks.masks_of(classifier.network).values())


def values(classifier: SceneClassifier) -> int:
    return sum(parameter.numel() for parameter in classifier.network.parameters())


def run_in(folder, initial: SceneClassifier | None = None, seed: int = 0) -> Run:
    return Run(seed=seed, folder=os.fspath(folder), accelerator="cpu", quiet=True, initial=initial)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """High and low tones under noise: 16 to train, 40 to test."""

    def wave(scene: str, _part: str, _take: int, rng: np.random.Generator) -> np.ndarray:
        hz = rng.uniform(1800, 2600) if scene == "high" else rng.uniform(900, 1700)
        return 0.05 * (sine(hz, 3200, RATE) + 1.5 * rng.standard_normal(3200))

    return write_clips(tmp_path_factory.mktemp("tones"), RATE, {"train": 8, "test": 20}, wave)


@pytest.fixture(scope="module")
def trained(tones, tmp_path_factory) -> tuple[SceneClassifier, SceneClassifier]:
    """Before and after."""
    before = small()
    return before, FIT(before, tones.development, run_in(tmp_path_factory.mktemp("trained")))


def state(classifier: SceneClassifier) -> dict[str, torch.Tensor]:
    return dict(classifier.network.state_dict())


def assert_rewound(ticket: SceneClassifier, start: SceneClassifier) -> None:
    """Survivors have the values of `start` bit for bit, the others are zero, statistics are those of `start`."""
    kept = masks.masks_of(ticket.network)
    for name, tensor in state(start).items():
        mask = kept.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(state(ticket)[name], torch.where(mask, tensor, torch.zeros_like(tensor))), name


# Which values stay


@pytest.mark.parametrize("ratio", [0.2, 0.85])
def test_survivors_are_the_largest_of_their_tensors_scale_at_their_first_values(tones, trained, tmp_path, ratio):
    before, after = trained
    held = copy.deepcopy(state(after))
    ticket = LotteryTicket(ratio)(after, tones.development, run_in(tmp_path, before))
    assert all(torch.equal(state(after)[name], tensor) for name, tensor in held.items())
    assert_rewound(ticket, before)
    # By brute force, in NumPy.
    weights = {n: p.detach().numpy() for n, p in after.network.named_parameters() if p.ndim > 1}
    scores = {name: np.abs(w) / np.sqrt(np.square(w, dtype=np.float64).mean()) for name, w in weights.items()}
    number = round(ratio * values(after))
    threshold = np.sort(np.concatenate([score.ravel() for score in scores.values()]))[number]
    assert gone(ticket) == number
    assert masks.masks_of(ticket.network).keys() == weights.keys()
    for name, mask in masks.masks_of(ticket.network).items():
        assert (mask.numpy() != (scores[name] >= threshold)).sum() <= 1, name


@pytest.mark.parametrize("by", ["magnitude", "random"])
def test_the_number_is_that_of_all_trainable_values_whatever_competes(tones, trained, tmp_path, by):
    before, after = trained
    ticket = LotteryTicket(0.6, by)(after, tones.development, run_in(tmp_path, before))
    assert gone(ticket) == round(0.6 * values(before))
    assert_rewound(ticket, before)
    assert not {"bn1.weight", "dense.bias"} & set(masks.masks_of(ticket.network))


def test_on_untrained_values_the_dense_layer_keeps_its_share():
    """The reason for normalising: initial weights are smaller the more inputs a layer has."""
    torch.manual_seed(0)
    classifier = SceneClassifier(Raw(16_000), AemNet(), tuple("abcdefghij"), Standardize.identity(1))
    ticket = LotteryTicket(0.6).shape(classifier)
    assert values(ticket) - gone(ticket) == round(0.4 * 319_093) == 127_637
    assert 0.3 < float(masks.masks_of(ticket.network)["dense.weight"].float().mean()) < 0.5
    assert_rewound(ticket, classifier)


def test_rounds_cut_the_same_share_each_time_and_end_where_one_shot_ends(tones, trained, tmp_path):
    before, after = trained
    seen = []

    def look(optimizer, *_) -> None:
        seen.append(sum(int((p == 0).sum()) for group in optimizer.param_groups for p in group["params"]))

    class Looking(Fit):
        def apply(self, classifier, clips, run):
            assert self.init is None, "a round begins with the ticket, not with published weights"
            assert_rewound(classifier, before)
            seen.append(gone(classifier))
            return super().apply(classifier, clips, run)

    stage = LotteryTicket(0.6, fit=Looking(epochs=1, batch_size=8, init="published.safetensors"), rounds=3)
    ticket = stage(after, tones.development, run_in(tmp_path, before))
    assert_rewound(ticket, before)
    assert [*seen, gone(ticket)] == [round(values(before) * (1 - 0.4 ** (n / 3))) for n in (1, 2, 3)]
    first = LotteryTicket(1 - 0.4 ** (1 / 3))(after, tones.development, run_in(tmp_path, before))
    for path, mask in masks.masks_of(first.network).items():
        assert not (masks.masks_of(ticket.network)[path] & ~mask).any(), "what a round removed came back"


def test_late_rewinding_goes_back_to_the_values_after_an_epoch(tones, trained, tmp_path):
    """Whichever early stopping would keep: watching wrong labels, the first."""
    before, after = trained
    wrong = tuple(row._replace(split="validation", scene=CLASSES[row.scene == "high"]) for row in tones.test)
    run, fit = run_in(tmp_path, before), replace(FIT, early_stopping=EarlyStopping())
    ticket = LotteryTicket(0.6, fit=fit, rewind_epoch=2)(after, replace(tones, rows=(*tones.train, *wrong)), run)
    assert run.history == []
    epoch2 = replace(FIT, stop_after=2)(before, tones.development, run_in(tmp_path / "again"))
    assert_rewound(ticket, epoch2)
    assert not torch.equal(state(epoch2)["L1.weight"], state(before)["L1.weight"])


def test_a_random_ticket_is_drawn_from_the_seed(tones, trained, tmp_path):
    before, after = trained
    stage = LotteryTicket(0.6, by="random")
    first, again, other = (stage(after, tones.development, run_in(tmp_path, before, seed)) for seed in (0, 0, 1))
    assert gone(first) == gone(other) == gone(LotteryTicket(0.6).shape(after))
    assert all(torch.equal(state(first)[name], tensor) for name, tensor in state(again).items())
    assert not torch.equal(state(first)["L2.weight_mask"], state(other)["L2.weight_mask"])
    # No share of a layer is favoured.
    shares = [float(mask.float().mean()) for mask in masks.masks_of(first.network).values() if mask.numel() > 200]
    assert max(shares) - min(shares) < 0.15


def test_it_refuses_what_it_can_not_do(tones, trained, tmp_path):
    before, after = trained
    for arguments in (
        {"ratio": 1.0},
        {"ratio": 0.5, "by": "luck"},
        {"ratio": 0.5, "rounds": 2},
        {"ratio": 0.5, "rounds": 2, "fit": FIT, "by": "random"},
        {"ratio": 0.5, "rewind_epoch": 1},
        {"ratio": 0.5, "rewind_epoch": 5, "fit": FIT},
    ):
        with pytest.raises(InputError, match="LotteryTicket.*accepted"):
            LotteryTicket(**arguments)
    with pytest.raises(InputError, match=r"Run.initial, which is not set; accepted"):
        LotteryTicket(0.6)(after, tones.development, run_in(tmp_path))
    with pytest.raises(InputError, match=r"Run.initial, which is of another network; accepted"):
        LotteryTicket(0.6)(after, tones.development, run_in(tmp_path, waveform_net()))
    with pytest.raises(InputError, match="values to remove, of which .* are ranked; accepted"):
        LotteryTicket(0.999)(after, tones.development, run_in(tmp_path, before))
    with pytest.raises(InputError, match="LotteryTicket was given float16"):
        LotteryTicket(0.6).shape(HalfPrecision().shape(after))
    with pytest.raises(InputError, match="LotteryTicket"):
        LotteryTicket(0.6)(after, tones, run_in(tmp_path, before))


# What comes after


def test_masked_weights_stay_zero_after_every_later_stage(tones, tmp_path):
    """On the waveform network, whose batch norms all fold into int8 layers."""
    before = waveform_net()
    fit = Fit(epochs=2, batch_size=8, optimizer=Adam(3e-3, weight_decay=1e-4))
    after = fit(before, tones.development, run_in(tmp_path))
    ticket = LotteryTicket(0.6)(after, tones.development, run_in(tmp_path, before))
    tuned = fit(ticket, tones.development, run_in(tmp_path))
    int8 = Quantize(fit=Fit(epochs=1, batch_size=8))(tuned, tones.development, run_in(tmp_path))
    loaded = SceneClassifier.load(int8.save(tmp_path / "model"))
    kept = masks.masks_of(ticket.network)
    removed = round(0.6 * values(before))
    for later in (ticket, tuned, int8, loaded):
        tensors, zeros = state(later), 0
        for path, mask in kept.items():
            assert torch.equal(tensors[path + masks.SUFFIX], mask)
            assert not tensors[path][~mask].any(), path
            zeros += int((~mask).sum())
        assert zeros == removed
        size = CONVENTIONS["galindo2021"](count(later.network, later.example(0.4)).tensors)
        assert (size.parameters, size.kept) == (values(before), values(before) - removed)
    assert state(loaded)["dense.weight"].dtype == torch.int8
    assert not torch.equal(state(tuned)["dense.weight"], state(ticket)["dense.weight"])


# Whether it is worth it


class Levels(nn.Module):
    """The mean level of every band into two dense layers."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(bands, 32), nn.Linear(32, len(CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(features.mean((1, 3))).relu())


@pytest.mark.parametrize("seed", range(3 if SOAK else 2))
def test_a_ticket_beats_a_random_one_of_the_same_size(tmp_path, seed):
    """Two of forty bands tell the classes apart: of the few weights that stay, a ticket's read these."""
    draw = np.random.default_rng(seed)

    def wave(scene: str, _part: str, _take: int, _rng: np.random.Generator) -> np.ndarray:
        tone = np.sin(2 * np.pi * (2500 if scene == "high" else 1500) * np.arange(1600) / RATE + draw.uniform(0, 6))
        return 0.1 * (0.3 * tone + draw.standard_normal(1600))

    clips = write_clips(tmp_path / "planted", RATE, {"train": 32, "test": 64}, wave)
    torch.manual_seed(seed)
    before = SceneClassifier(LogMel(RATE, 512, 40, hop_length=160), Levels(40), CLASSES)
    fit = Fit(epochs=30, batch_size=8, optimizer=Adam(1e-2, weight_decay=1e-3))
    run = run_in(tmp_path / "run", before, seed)
    after = fit(before, clips.development, run)
    losses = {}
    for by in ("magnitude", "random"):
        ticket = LotteryTicket(0.85, by)(after, clips.development, run)
        losses[by] = evaluate(fit(ticket, clips.development, run), clips.test, run).log_loss
    assert losses["magnitude"] < 0.5 * losses["random"], losses
