"""A sparsity that grows while training: against its equation, never falling, the same after a kill."""

import itertools

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from killing import killed_at, same_weights
from tinyscene.compression import HalfPrecision, MagnitudePruning
from tinyscene.data import Clips
from tinyscene.data.clips import Clip
from tinyscene.deployment import export
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import PhamCNN, masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training import Adam, EarlyStopping, Fit, Run

CLASSES = ("a", "b")
FIT = Fit(epochs=5, batch_size=2, optimizer=Adam(5e-3, weight_decay=1e-4))
STEPS = 5 * 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root, rows = tmp_path_factory.mktemp("tones"), []
    for number, (scene, _) in enumerate(itertools.product(CLASSES, range(4))):
        wave = np.sin(2 * np.pi * (300 if scene == "a" else 2000) * np.arange(2000) / 8000)
        noise = 0.1 * np.random.default_rng(number).standard_normal(2000)
        soundfile.write(root / f"{number}.wav", 0.1 * wave + noise, 8000)
        rows.append(Clip(f"{number}.wav", scene, "train", recording=str(number)))
    return Clips("tones", root, CLASSES, tuple(rows))


def classifier():
    torch.manual_seed(0)
    network = PhamCNN(channels=(4, 6, 8, 10), classes=2)
    return SceneClassifier(LogMel(8000, 256, 20, hop_length=100), network, CLASSES)


def run_in(folder):
    return Run(folder=folder, accelerator="cpu", quiet=True)


def zeros_by_tensor(network):
    return {path: int((~kept).sum()) for path, kept in masks.masks_of(network).items()}


def watched(pruning, clips, folder, monkeypatch):
    """The pruned classifier, and after each step the masks that were set there."""
    seen = []
    grow = MagnitudePruning.mask

    def look(self, network, ratio):
        grow(self, network, ratio)
        seen.append({path: kept.clone() for path, kept in masks.masks_of(network).items()})

    with monkeypatch.context() as patch:
        patch.setattr(MagnitudePruning, "mask", look)
        pruned = pruning(classifier(), clips, run_in(folder))
    # Before training: once to see that the share is not nothing, once for empty masks.
    return pruned, seen[2:]


def test_the_share_follows_the_equation():
    """Zhu and Gupta 2017, equation 1, from no sparsity: s = s_f + (0 - s_f) (1 - (t - t_0) / (t_1 - t_0))^3."""
    pruning = MagnitudePruning(0.6, fit=FIT)
    for progress in np.linspace(0, 1, 41):
        expected = np.interp(progress, [0, 0.75], [0, 1])
        assert pruning.sparsity(progress) == pytest.approx(0.6 - 0.6 * (1 - expected) ** 3)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_it_grows_to_the_share_never_falls_and_holds(clips, tmp_path, monkeypatch, scope):
    pruning = MagnitudePruning(0.5, scope, "weights", FIT)
    pruned, seen = watched(pruning, clips, tmp_path, monkeypatch)
    assert len(seen) == STEPS
    total = sum(p.numel() for name, p in pruned.network.named_parameters() if p.ndim > 1)
    counts = [sum(int((~kept).sum()) for kept in one.values()) for one in seen]
    if scope == "global":
        shares = [pruning.sparsity((step + 1) / STEPS) for step in range(STEPS)]
        assert counts == [pytest.approx(total * share, abs=total * 0.02 + 1) for share in shares]
    assert counts[-6:] == [round(0.5 * total)] * 6
    assert len(set(counts)) > 10
    for before, after in itertools.pairwise(seen):
        assert all(not (after[path] & ~before[path]).any() for path in before)
    if scope == "layer":
        sizes = {path: kept.numel() for path, kept in masks.masks_of(pruned.network).items()}
        assert zeros_by_tensor(pruned.network) == {path: round(0.5 * size) for path, size in sizes.items()}
    for path, kept in masks.masks_of(pruned.network).items():
        assert torch.equal(pruned.network.get_parameter(path) == 0, ~kept)


def test_a_step_that_changes_no_mask_leaves_them_alone():
    network = classifier().network
    pruning = MagnitudePruning(0.5, "layer")
    for ratio in (0.0, 0.3):
        pruning.mask(network, ratio)
        before = masks.masks_of(network)
        assert before.keys() == dict(network.named_parameters()).keys()
        pruning.mask(network, ratio)
        assert all(kept is before[path] for path, kept in masks.masks_of(network).items())


def test_what_trains_on_is_ranked_and_not_what_there_was(clips, tmp_path):
    """The masks of one shot on the untrained weights are others."""
    pruning = MagnitudePruning(0.5, "layer", "weights", FIT)
    grown, shot = pruning(classifier(), clips, run_in(tmp_path)), pruning.shape(classifier())
    assert zeros_by_tensor(grown.network) == zeros_by_tensor(shot.network)
    before, after = (masks.masks_of(c.network) for c in (shot, grown))
    assert any(not torch.equal(before[path], after[path]) for path in before)


def test_kernels_alone_are_masked_where_asked_for(clips, tmp_path):
    pruned = MagnitudePruning(0.5, what="weights", fit=FIT)(classifier(), clips, run_in(tmp_path)).network
    layers = {f"{path}.weight" for path, m in pruned.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(masks.masks_of(pruned)) == layers
    everything = MagnitudePruning(0.5).shape(classifier()).network
    assert set(masks.masks_of(everything)) == {name for name, _ in everything.named_parameters()}


@pytest.mark.parametrize("death", [7, 19])
def test_a_killed_run_goes_on_with_the_same_masks(clips, tmp_path, death):
    def pruned(folder, ratio=0.5):
        return MagnitudePruning(ratio, "layer", "weights", FIT)(classifier(), clips, run_in(tmp_path / folder))

    whole = pruned("whole")
    with killed_at(death):
        pruned("killed")
    # Another share finds nothing of this run.
    assert zeros_by_tensor(pruned("killed", ratio=0.3).network) != zeros_by_tensor(whole.network)
    assert same_weights(whole, pruned("killed"))


def test_an_earlier_pruning_stays_and_counts(clips, tmp_path):
    first = MagnitudePruning(0.2, "layer", "weights").shape(classifier())
    second = MagnitudePruning(0.5, "layer", "weights", FIT)(first, clips, run_in(tmp_path)).network
    for path, kept in masks.masks_of(first.network).items():
        assert not (masks.masks_of(second)[path] & ~kept).any()
        assert int((~masks.masks_of(second)[path]).sum()) == round(0.5 * kept.numel())


def test_the_zeros_are_in_the_saved_and_in_the_exported_file(clips, tmp_path):
    import onnx

    pruned = MagnitudePruning(0.5, "layer", "weights", FIT)(classifier(), clips, run_in(tmp_path))
    wanted = zeros_by_tensor(pruned.network)
    loaded = SceneClassifier.load(pruned.save(tmp_path / "model"))
    assert zeros_by_tensor(loaded.network) == wanted
    assert {path: int((loaded.network.get_parameter(path) == 0).sum()) for path in wanted} == wanted
    artifact = export(HalfPrecision().shape(pruned), tmp_path / "half.onnx", clip_s=0.25)
    held = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(artifact.path).graph.initializer}
    assert {path: int((held[path] == 0).sum()) for path in wanted} == wanted
    kept = {row.name: row.values - row.kept for row in artifact.certificate.ledger.tensors}
    assert {path: kept[path] for path in wanted} == wanted


def test_what_it_can_not_do_is_refused(clips, tmp_path):
    for wrong in (
        {"what": "biases"},
        {"fit": Fit(early_stopping=EarlyStopping())},
        {"fit": Fit(epochs=3, stop_after=2)},
        {"fit": Fit(init="weights.safetensors")},
    ):
        with pytest.raises(InputError, match="MagnitudePruning.*accepted"):
            MagnitudePruning(0.5, **wrong)
    with pytest.raises(InputError, match="removes none.*try a larger"):
        MagnitudePruning(1e-6, fit=FIT)(classifier(), clips, run_in(tmp_path))
