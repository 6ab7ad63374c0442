"""Every network of the menu at a small size, with values that a trained one could have."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinyscene.models import NETWORKS, AemNet, BCResNetMod, create_model
from tinyscene.models.network import shortest_frames

# A network that is added later runs at its own size until it stands here.
SIZES = {
    "aemnet": {"width": 1 / 16, "pooling": 1, "filters": (4, 32), "embedding": 16},
    "baseline2020": {"filters": (4, 8), "dense": 12},
    "baseline2021": {"filters": (4, 4, 8), "dense": 12},
    "bc_resnet_mod": {"width": 1},
    "cp_mobile": {"base_channels": 8},
    "moments_linear": {"bands": 40},
    "pham_cnn": {"channels": (8, 16, 16, 32)},
    "plain_cnn": {"width": 6},
    "se_resnet": {"channels": (8, 16)},
    "tandem": {"bands": 32, "width": 1},
}
SE_FLOAT = ("pooling", "blocks.*.se")
# (network, what stays in float)
CASES = [*((name, ()) for name in NETWORKS), ("se_resnet", SE_FLOAT)]


def spread(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw scale, shift and statistics of every batch norm, scales of either sign; in evaluation mode.

    A layer that starts at zero draws its weights as well.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            layer.weight.data.normal_(0, 1, generator=generator)
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
    return spread(create_model(name, **SIZES.get(name, {}) | arguments, seed=0))


def bands_of(network: nn.Module) -> int:
    free = {AemNet: 1, BCResNetMod: 32}
    return network.arguments.get("bands", free.get(type(network), 40))


def noise(network: nn.Module, clips: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Features of that many clips, standardized; of a waveform, as many times its shortest input.

    Longer where the network needs it.
    """
    generator = torch.Generator().manual_seed(seed)
    frames = frames * shortest_frames(network) if isinstance(network, AemNet) else max(frames, shortest_frames(network))
    return torch.randn(clips, 1, bands_of(network), frames, generator=generator)
