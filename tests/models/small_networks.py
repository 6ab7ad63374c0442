"""Every network of the menu at a small size, with values that a trained one could have."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinyscene.models import NETWORKS, AemNet, create_model

# A network that is added later runs at its own size until it stands here.
SIZES = {
    "aemnet": {"width": 1 / 16, "pooling": 1, "filters": (4, 32), "embedding": 16},
    "baseline2020": {"filters": (4, 8), "dense": 12},
    "baseline2021": {"filters": (4, 4, 8), "dense": 12},
    "cp_mobile": {"base_channels": 8},
    "pham_cnn": {"channels": (8, 16, 16, 32)},
    "se_resnet": {"channels": (8, 16)},
}
SE_FLOAT = ("pooling", "blocks.*.se")
# (network, what stays in float)
CASES = [*((name, ()) for name in NETWORKS), ("se_resnet", SE_FLOAT)]


def spread(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw scale, shift and statistics of every batch norm, scales of either sign; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for norm in network.modules():
        if isinstance(norm, _BatchNorm):
            if norm.affine:
                signs = torch.randn(norm.num_features, generator=generator).sign()
                norm.weight.data.uniform_(0.3, 2, generator=generator).mul_(signs)
                # High enough for no ReLU to be zero at all times.
                norm.bias.data.uniform_(0, 2, generator=generator)
            if norm.running_mean is not None:
                norm.running_mean.normal_(0, 1, generator=generator)
                norm.running_var.uniform_(0.2, 3, generator=generator)
    return network.eval()


def small(name: str, **arguments) -> nn.Module:
    return spread(create_model(name, **SIZES.get(name, {}), **arguments))


def bands_of(network: nn.Module) -> int:
    return 1 if isinstance(network, AemNet) else network.arguments.get("bands", 40)


def noise(network: nn.Module, clips: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Features of that many clips, standardized; of a waveform, as many times its shortest input."""
    generator = torch.Generator().manual_seed(seed)
    samples = network.shortest_frames if isinstance(network, AemNet) else 1
    return torch.randn(clips, 1, bands_of(network), frames * samples, generator=generator)
