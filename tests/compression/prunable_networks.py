"""Every network of the menu as a small classifier, with values that a trained one could have, and channels silenced."""

import copy
from functools import cache

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinyscene.accounting import CONVENTIONS, count
from tinyscene.compression import BudgetPruning
from tinyscene.compression.channels import Coupled
from tinyscene.compression.coupling import coupled_channels
from tinyscene.compression.importance import makers_parameters
from tinyscene.features import LogMel, Raw
from tinyscene.models import NETWORKS, create_model
from tinyscene.models.bc_resnet_mod import ResidualNorm
from tinyscene.models.blocks import StatisticsPooling
from tinyscene.models.classifier import SceneClassifier

CLASSES = ("bus", "park", "tram")
# A network that is added later runs at its own size until it stands here.
SIZES = {
    "aemnet": {"width": 1 / 8, "pooling": 4, "filters": (6, 32), "embedding": 16},
    "baseline2020": {"filters": (6, 8), "dense": 12},
    "baseline2021": {"filters": (6, 6, 8), "dense": 12},
    "bc_resnet_mod": {"width": 1},
    "cp_mobile": {"base_channels": 16},
    "moments_linear": {"bands": 40},
    "pham_cnn": {"channels": (8, 12, 16, 20)},
    "se_resnet": {"channels": (12, 24), "bands": 40},
    "tandem": {"bands": 32, "width": 1},
}
PRUNABLE = tuple(name for name in NETWORKS if name != "moments_linear")


def build(name: str, seed: int = 0) -> SceneClassifier:
    """Behind a front end of 20 frames a second."""
    network = create_model(name, seed=seed, classes=len(CLASSES), **SIZES.get(name, {}))
    bands = 32 if name == "bc_resnet_mod" else network.arguments.get("bands", 40)
    frontend = Raw(8000) if name == "aemnet" else LogMel(8000, 256, bands, hop_length=400)
    return SceneClassifier(frontend, spread(network, seed), CLASSES).eval()


def spread(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw what begins at zero or one: batch norms, with their statistics, biases, and a classifier of zeros."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
                tensor.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            if not layer.weight.any():
                layer.weight.data.normal_(generator=generator)
            if layer.bias is not None:
                layer.bias.data.normal_(generator=generator)
    return network


@cache
def sets_of(name: str) -> tuple[Coupled, ...]:
    """All sets of channels, which are the same whatever the weights."""
    classifier = build(name)
    return coupled_channels(classifier.network, classifier.short_example())


def groups_of(name: str) -> tuple[Coupled, ...]:
    """Those that can be pruned."""
    return tuple(group for group in sets_of(name) if not group.exempt)


def noise(classifier: SceneClassifier, seed: int = 0) -> torch.Tensor:
    """Features of two clips of a second, in double precision."""
    shape = classifier.short_example().shape[1:]
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def silenced(network: nn.Module, groups, kept) -> nn.Module:
    """The uncut network with the removed channels set to zero behind every layer that makes or normalises them.

    Residual normalization takes its mean and deviation over all channels: it is told which are there. The deviation
    over time of a silent channel is the root of an epsilon, and not zero: without that, it is.
    """
    silent = copy.deepcopy(network)
    for group, units in zip(groups, kept, strict=True):
        for path, side, unit_of in group.members:
            gone = (unit_of >= 0) & ~units[unit_of]
            if side == "out":
                silent.get_submodule(path).register_forward_hook(_zero(gone))
                parent, _, rest = path.rpartition(".")
                if rest == "stem" or path.endswith("along_time.3"):
                    parent = parent.removesuffix("along_time").rstrip(".")
                    norm = silent.get_submodule(f"{parent}.residual_norm" if parent else "residual_norm")
                    norm.register_forward_hook(_over(~gone))
    return without_epsilon(silent)


def assert_cut_equals_silenced(small: nn.Module, network: nn.Module, groups, kept, features) -> torch.Tensor:
    """The cut network computes, in double precision, what the uncut one does with those channels silent; the logits."""
    with torch.no_grad():
        expected = silenced(network, groups, kept)(features)
        torch.testing.assert_close(without_epsilon(small)(features), expected, rtol=1e-9, atol=1e-9)
    return expected


def without_epsilon(network: nn.Module) -> nn.Module:
    """Statistics pooling takes the deviation as it is."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, StatisticsPooling):
            layer.eps = 0.0
    return network


def _zero(gone: torch.Tensor):
    def hook(_layer, _inputs, output):
        return output.masked_fill(gone.view(1, -1, *[1] * (output.ndim - 2)), 0.0)

    return hook


def _over(stays: torch.Tensor):
    def hook(norm: ResidualNorm, inputs, output):
        there = torch.zeros_like(output)
        there[:, stays] = norm.forward(inputs[0][:, stays])
        return there

    return hook


def drawn(groups, seed: int):
    """Some units of every set, one at least, at random."""
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for group in groups:
        units = torch.zeros(group.units, dtype=torch.bool)
        number = int(torch.randint(1, group.units + 1, (), generator=generator))
        units[torch.randperm(group.units, generator=generator)[:number]] = True
        kept.append(units)
    return tuple(kept)


def measured(classifier, clip_s=1.0):
    """What the project's ledger says."""
    shortest_s = classifier.shortest_samples / classifier.sample_rate
    ledger = count(classifier.network, classifier.example(max(clip_s, shortest_s)))
    return {
        "parameters": CONVENTIONS["bn2"](ledger.tensors).parameters,
        "macs": ledger.macs["torchinfo"],
        "bytes": CONVENTIONS["bn4"](ledger.tensors).bytes,
        "peak_ram_bytes": ledger.peak_ram_bytes,
    }


def half_of(classifier):
    costs = measured(classifier)
    return {name: costs[name] // 2 for name in ("parameters", "macs")}


@cache
def planned(name):
    """A classifier, which no test changes, half of its costs, and the plan for them."""
    classifier = build(name)
    budgets = half_of(classifier)
    return classifier, budgets, BudgetPruning(**budgets).plan(classifier)


def narrow(classifier, budgets):
    """The projection that `BudgetPruning` hands to ADMM, and the paths that it projects."""
    stage = BudgetPruning(**budgets)
    plan = stage.plan(classifier)
    return stage.projection(classifier, plan), makers_parameters(classifier.network, plan.coupled), plan
