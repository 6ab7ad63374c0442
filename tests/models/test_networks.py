"""The networks against published counts, hand counts and the pruning library that has to understand them."""

import inspect
import json

import numpy as np
import pytest
import torch
import torch_pruning
from small_networks import bands_of
from torch import nn

from menus import menus
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import NETWORKS, Baseline2020, Baseline2021, CPMobile, create_model, list_models
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.cp_mobile import Bottleneck
from tinyscene.models.network import shortest_frames

# L1-L2-L3-D, with batch norm at four a channel, without it: the table of Singh et al. 2021.
SINGH = [
    ((16, 16, 32), 100, 46_246, 45_990),
    ((16, 8, 16), 32, 14_914, 14_754),
    ((16, 8, 32), 100, 27_390, 27_166),
    ((16, 16, 24), 100, 38_334, 38_110),
    ((16, 12, 32), 100, 36_818, 36_578),
]


def values(network: nn.Module, *, batch_norm: bool) -> int:
    """Every stored value but batch norm's counters, by a walk that shares nothing with the ledger."""
    total = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += sum(parameter.numel() for parameter in module.parameters())
        elif isinstance(module, nn.BatchNorm2d) and batch_norm:
            total += 4 * module.num_features
    return total


@pytest.mark.parametrize(("filters", "dense", "with_norm", "without_norm"), SINGH)
def test_baseline2021_has_the_reported_counts(filters, dense, with_norm, without_norm):
    network = Baseline2021(filters=filters, dense=dense)
    assert values(network, batch_norm=True) == with_norm
    assert values(network, batch_norm=False) == without_norm


def test_baseline2020_and_cp_mobile_have_the_published_counts():
    assert values(Baseline2020(), batch_norm=False) == 115_219
    assert sum(parameter.numel() for parameter in CPMobile().parameters()) == 61_148


@pytest.mark.parametrize("name", list_models())
def test_every_network_takes_any_number_of_frames_from_its_shortest_on(name):
    network = create_model(name, seed=0).eval()
    classes = network.arguments["classes"]
    bands = bands_of(network)
    for frames in (shortest_frames(network), shortest_frames(network) + 1, 33):
        frames = max(frames, shortest_frames(network))
        assert network(torch.randn(2, 1, bands, frames)).shape == (2, classes)


def test_the_baselines_cannot_take_less_than_their_shortest_input():
    for network in (Baseline2020().eval(), Baseline2021().eval()):
        with pytest.raises(RuntimeError):
            network(torch.randn(1, 1, 40, network.shortest_frames - 1))


@pytest.mark.parametrize("name", list_models())
def test_arguments_rebuild_a_network_through_json(name):
    chosen = {"classes": 4}
    if "bands" in inspect.signature(NETWORKS[name].network).parameters:
        chosen |= {"bands": 64}
    if name.startswith("baseline"):
        chosen |= {"dense": 7}
    network = create_model(name, **chosen, seed=0).eval()
    twin = create_model(name, **json.loads(json.dumps(network.arguments)), seed=0).eval()
    twin.load_state_dict(network.state_dict())
    features = torch.randn(1, 1, 1 if name == "aemnet" else 64, max(20, shortest_frames(network)))
    torch.testing.assert_close(twin(features), network(features))


def test_the_plain_cnn_names_the_bands_that_it_needs():
    network = create_model("plain_cnn", width=2)
    assert network(torch.randn(2, 1, 16, 8)).shape == (2, 10)
    with pytest.raises(InputError, match="PlainCNN was given 15 bands; accepted: at least 16"):
        network(torch.randn(2, 1, 15, 8))


def test_the_last_pooling_takes_every_frame_and_drops_odd_bands():
    features = torch.randn(2, 3, 9, 17)
    pooled = Baseline2021().pool2(features)
    brute = np.stack([features.numpy()[:, :, 4 * row : 4 * row + 4].max(axis=(2, 3)) for row in range(2)], axis=2)
    np.testing.assert_array_equal(pooled.squeeze(-1).numpy(), brute)


def test_the_baseline_starts_like_its_keras_original():
    network = Baseline2021()
    assert not network.L2.bias.any()
    bound = (6 / (49 * 16 + 49 * 16)) ** 0.5
    assert 0.95 * bound < network.L2.weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("layer", "removed", "without_norm"), [("L2", 8, 27_166), ("L3", 8, 38_110), ("L2", 4, 36_578)]
)
def test_torch_pruning_removes_filters_with_all_that_reads_them(layer, removed, without_norm):
    network = Baseline2021()
    example = torch.randn(1, 1, 40, 50)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example)
    conv = getattr(network, layer)
    graph.get_pruning_group(conv, torch_pruning.prune_conv_out_channels, list(range(removed))).prune()
    assert values(network, batch_norm=False) == without_norm
    assert network.eval()(torch.randn(1, 1, 40, 77)).shape == (1, 10)


def test_torch_pruning_narrows_cp_mobile():
    network = CPMobile()
    graph = torch_pruning.DependencyGraph().build_dependency(network, torch.randn(1, 1, 64, 16))
    expand = network.stages[0].expand[0]
    graph.get_pruning_group(expand, torch_pruning.prune_conv_out_channels, [0, 1, 2]).prune()
    # A channel inside a bottleneck: 32 inputs, 9 depthwise weights, 32 outputs and two batch norms.
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_148 - 3 * (32 + 9 + 32 + 4)
    assert network.eval()(torch.randn(1, 1, 64, 16)).shape == (1, 10)


@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 1)])
def test_a_bottleneck_with_a_silent_branch_passes_its_shortcut(stride):
    block = Bottleneck(8, 8, 2.0, stride).eval()
    nn.init.zeros_(block.project[1].weight)
    x = torch.randn(1, 8, 6, 6)
    expected = x if stride == (1, 1) else nn.functional.avg_pool2d(x, 3, stride, padding=1)
    torch.testing.assert_close(block(x), expected.relu())


def test_a_bottleneck_that_widens_has_no_shortcut():
    block = Bottleneck(8, 16, 2.0, (1, 1)).eval()
    nn.init.zeros_(block.project[1].weight)
    assert not block(torch.randn(1, 8, 6, 6)).any()


def test_cp_mobile_strides_reach_the_feature_map():
    network = CPMobile().eval()
    maps = network.stages(network.stem(torch.randn(1, 1, 256, 65)))
    # 256 x 65, halved twice by the stem, then frames once and bands once.
    assert maps.shape == (1, 104, 32, 9)


def test_the_menu_names_what_it_accepts():
    assert list_models() == sorted(NETWORKS)
    assert list_models("baseline20*") == ["baseline2020", "baseline2021"]
    for arguments in ({"num_classes": 4}, {"classes": 4}):
        assert create_model("cp_mobile", **arguments)(torch.zeros(1, 1, 40, 16)).shape == (1, 4)
    with pytest.raises(InputError, match=r"baseline2022.*baseline2020, baseline2021, bc_resnet_mod, cp_mobile"):
        create_model("baseline2022")
    with pytest.raises(InputError, match=r"filter.*filters=\(16, 16, 32\), dense=100"):
        create_model("baseline2021", filter=3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("baseline2021", {"filters": ()}),
        ("bc_resnet_mod", {"width": -1}),
        ("pham_cnn", {"channels": (8, 8, 8)}),
        ("se_resnet", {"channels": (24, 50)}),
        ("se_resnet", {"channels": (24,)}),
        ("se_resnet", {"cardinality": 0}),
        ("se_resnet", {"strides": ((2, 2),)}),
        ("aemnet", {"filters": (64,)}),
        ("baseline2020", {"bands": 19}),
        ("cp_mobile", {"blocks": ()}),
        ("cp_mobile", {"blocks": (1,), "strides": ((1, 1), (2, 2))}),
        ("cp_mobile", {"strides": ((1,),)}),
    ],
)
def test_impossible_sizes_are_refused(name, arguments):
    with pytest.raises(InputError):
        create_model(name, **arguments, seed=0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("baseline2021", {"filters": (0, 16, 32)}),
        ("aemnet", {"filters": (8, 8)}),
        ("aemnet", {"pooling": 0}),
        ("bc_resnet_mod", {"classes": 0}),
        ("cp_mobile", {"base_channels": -1}),
    ],
)
def test_sizes_that_no_network_has_are_refused(name, arguments):
    with pytest.raises(InputError, match=f"{next(iter(arguments))}.*at least"):
        create_model(name, **arguments)


def test_an_error_of_your_own_constructor_keeps_its_place():
    class Buggy(nn.Module):
        def __init__(self, classes: int = 10) -> None:
            super().__init__()
            self.missing.foo()

    with menus(buggy=Buggy), pytest.raises(AttributeError, match="missing"):
        create_model("buggy")


@pytest.mark.parametrize("classes", [(), ("",), ("a", 1), ("a", "a")])
def test_classes_are_names_each_once(classes):
    network = create_model("baseline2021", classes=max(1, len(classes)), seed=0)
    with pytest.raises(InputError, match="each a name, and once"):
        SceneClassifier(LogMel(8000, 256, 40, hop_length=128), network, classes)
