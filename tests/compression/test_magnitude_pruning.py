"""Magnitude pruning against PyTorch's own, and that what is pruned stays so."""

import operator
import os

import numpy as np
import pytest
import torch
from torch.nn.utils import prune
from torch.optim.optimizer import register_optimizer_step_post_hook

from killing import killed_at, same_weights
from tinyscene.accounting import CONVENTIONS, count, in_unit
from tinyscene.compression import FilterPruning, HalfPrecision, LotteryTicket, MagnitudePruning
from tinyscene.data import Clips
from tinyscene.data.clips import Clip
from tinyscene.errors import InputError
from tinyscene.features import LogMel, Standardize
from tinyscene.models import Baseline2021, SEResNet, masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Adam, Fit, Run, Triangular2

CLASSES = tuple("abcdefghij")
# The report's system 4: round(0.25 x 82,078), half to even.
ZEROS = 20_520


def system4(spread: bool = True) -> SceneClassifier:
    """Untrained but, with `spread`, no two magnitudes alike, as after training."""
    torch.manual_seed(0)
    frontend = LogMel(8000, n_fft=256, n_mels=128, hop_length=400, f_min_hz=0, power=1, floor=1e-5, subtract_mean=True)
    network = SEResNet(channels=(20, 40))
    if spread:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return SceneClassifier(frontend, network, CLASSES, Standardize.identity(128)).eval()


def small() -> SceneClassifier:
    torch.manual_seed(1)
    return SceneClassifier(LogMel(8000, 256, 20, hop_length=160), Baseline2021((8, 8, 12), 24, 3, 20), ("a", "b", "c"))


def zeros(classifier: SceneClassifier) -> int:
    return sum(int((parameter == 0).sum()) for parameter in classifier.network.parameters())


def gone(classifier: SceneClassifier) -> int:
    return sum(int((~mask).sum()) for mask in masks.masks_of(classifier.network).values())


@pytest.fixture(scope="module")
def noise_clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """One clip of noise a class."""
    import soundfile

    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for scene in CLASSES:
        soundfile.write(root / f"{scene}.wav", 0.1 * rng.standard_normal(4000), 8000)
    return Clips("noise", root, CLASSES, tuple(Clip(f"{s}.wav", s, "train", recording=s) for s in CLASSES))


def test_the_reports_size_is_hit_whatever_the_weights():
    for spread in (True, False):  # untrained, hundreds of values tie
        pruned = HalfPrecision().shape(MagnitudePruning(0.25).shape(system4(spread)))
        assert gone(pruned) == ZEROS
        size = CONVENTIONS["bn4"](count(pruned.network, pruned.example(1.0)).tensors)
        assert (size.parameters, size.kept) == (82_910, 62_390)
        assert round(in_unit(size.kept_bytes, "KB"), 2) == 121.86


@pytest.mark.parametrize(("ratio", "scope"), [(0.25, "global"), (0.6, "global"), (0.4, "layer")])
def test_it_removes_what_pytorch_removes(ratio, scope):
    ours, theirs = MagnitudePruning(ratio, scope).shape(system4()).network, system4().network
    theirs.to(memory_format=torch.contiguous_format)
    places = [(m, name) for m in theirs.modules() for name, _ in m.named_parameters(recurse=False)]
    if scope == "global":
        prune.global_unstructured(places, prune.L1Unstructured, amount=ratio)
    else:
        for module, name in places:
            if round(ratio * getattr(module, name).numel()):
                prune.l1_unstructured(module, name, ratio)
    for path, parameter in ours.named_parameters():
        layer, _, name = path.rpartition(".")
        assert torch.equal(parameter.detach(), getattr(theirs.get_submodule(layer), name).detach()), path


def test_the_argument_keeps_its_weights():
    classifier = system4()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    MagnitudePruning(0.5).shape(classifier)
    assert list(classifier.state_dict()) == list(before)
    assert all(torch.equal(classifier.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_second_pruning_keeps_the_first_and_counts_it():
    first = MagnitudePruning(0.25).shape(system4())
    # What is masked stays so even where it is no longer the smallest.
    for path, mask in masks.masks_of(first.network).items():
        first.network.get_parameter(path).data.masked_fill_(~mask, 9.0)
    second = MagnitudePruning(0.5).shape(first)
    assert gone(second) == round(0.5 * 82_078)
    for path, mask in masks.masks_of(first.network).items():
        assert not (masks.masks_of(second.network)[path] & ~mask).any()
    again = MagnitudePruning(0.1).shape(second)
    assert gone(again) == gone(second)


def test_exactly_20520_zeros_survive_adam_and_weight_decay(noise_clips, tmp_path):
    pruned = MagnitudePruning(0.25).shape(system4())
    left = []

    def look(optimizer, *_) -> None:
        left.append(sum(int((p == 0).sum()) for group in optimizer.param_groups for p in group["params"]))

    fit = Fit(epochs=3, batch_size=5, optimizer=Adam(1e-3, weight_decay=1e-4), schedule=Triangular2(2, first=1))
    hook = register_optimizer_step_post_hook(look)
    try:
        tuned = fit(pruned, noise_clips, Run(folder=tmp_path, accelerator="cpu", quiet=True))
    finally:
        hook.remove()
    # Adam itself revives them: without the mask, they would be gone after the first step.
    assert len(left) == 6
    assert max(left) < ZEROS // 2
    assert zeros(tuned) == gone(tuned) == ZEROS
    before = dict(pruned.network.named_parameters())
    for path, mask in masks.masks_of(tuned.network).items():
        parameter = tuned.network.get_parameter(path)
        assert torch.equal(parameter == 0, ~mask)
        assert torch.equal(mask, masks.masks_of(pruned.network)[path])
        assert not torch.equal(parameter, before[path])
    loaded = SceneClassifier.load(HalfPrecision().shape(tuned).save(tmp_path / "model"))
    assert gone(loaded) == ZEROS
    assert all(not loaded.network.get_parameter(p)[~m].any() for p, m in masks.masks_of(loaded.network).items())


def test_a_killed_fit_goes_on_with_its_masks(noise_clips, tmp_path):
    def fitted(folder: str) -> SceneClassifier:
        run = Run(folder=os.fspath(tmp_path / folder), accelerator="cpu", quiet=True)
        fit = Fit(epochs=3, batch_size=5, optimizer=Adam(1e-3, weight_decay=1e-4))
        return fit(MagnitudePruning(0.25).shape(system4()), noise_clips, run)

    whole = fitted("whole")
    with killed_at(4):
        fitted("killed")
    resumed = fitted("killed")
    assert same_weights(whole, resumed)
    assert zeros(resumed) == ZEROS


@pytest.mark.parametrize("layer", ["L1", "L2", "L3"])
def test_masks_are_cut_along_with_filters(layer):
    pruned = MagnitudePruning(0.4).shape(small())
    cut = FilterPruning(layer, 0.25).shape(pruned)
    kept = masks.masks_of(cut.network)
    assert set(kept) == set(masks.masks_of(pruned.network))
    for path, mask in kept.items():
        parameter = cut.network.get_parameter(path)
        assert mask.shape == parameter.shape
        # Before it was zero exactly where masked, and so it is after.
        assert torch.equal(parameter != 0, mask), path
    assert gone(cut) < gone(pruned)


def mixed() -> SceneClassifier:
    """A convolution, norms with a scale of several dimensions and of one, recurrence, and dense layers."""

    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.norm = torch.nn.LayerNorm([20, 1])
            self.up = torch.nn.ConvTranspose2d(4, 4, 1)
            self.gru = torch.nn.GRU(4, 6, batch_first=True)
            self.dense = torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(self.norm(self.conv(x).mean(3, keepdim=True)))
            y: torch.Tensor = self.dense(self.gru(x.mean(3).mT)[0].mean(1))
            return y

    torch.manual_seed(0)
    return SceneClassifier(LogMel(8000, 256, 20, hop_length=160), Mixed(), ("a", "b", "c"))


@pytest.mark.parametrize("stage", [MagnitudePruning(0.5, what="weights"), LotteryTicket(0.1)])
def test_weights_are_those_of_convolutions_and_dense_layers_alone(stage):
    assert set(masks.masks_of(stage.shape(mixed()).network)) == {"conv.weight", "up.weight", "dense.weight"}


@pytest.mark.parametrize("stage", [MagnitudePruning(0.9), LotteryTicket(0.5)])
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm", "parametrizations.weight_norm", "pruned"])
def test_a_weight_that_is_computed_from_others_is_refused_and_taken_once_it_is_not(stage, norm):
    classifier = small()
    layer = classifier.network.dense
    if norm == "pruned":
        prune.l1_unstructured(layer, "weight", 0.5)
    else:
        operator.attrgetter(norm)(torch.nn.utils)(layer)
    with pytest.raises(InputError, match=r"the weight of 'dense' is computed.*remove_parametrizations"):
        stage.shape(classifier)
    if norm == "parametrizations.weight_norm":
        torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")
        assert gone(stage.shape(classifier)) > 0


def test_a_network_without_weights_is_refused():
    classifier = small()
    classifier.network.requires_grad_(False)
    with pytest.raises(InputError, match="MagnitudePruning: Baseline2021 has no trainable weight"):
        MagnitudePruning(0.5, what="weights").shape(classifier)


def test_what_it_can_not_do_is_refused():
    for arguments in ({"ratio": 0}, {"ratio": 1.0}, {"ratio": 0.5, "scope": "filter"}):
        with pytest.raises(InputError, match="MagnitudePruning.*accepted"):
            MagnitudePruning(**arguments)
    with pytest.raises(InputError, match="removes none.*try a larger"):
        MagnitudePruning(1e-6).shape(small())
    with pytest.raises(InputError, match="float16.*accepted"):
        MagnitudePruning(0.5).shape(HalfPrecision().shape(small()))
