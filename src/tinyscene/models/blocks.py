"""Building blocks that several networks share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size2d = int | tuple[int, int]


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: Size2d = 1,
    groups: int = 1,
    relu: bool = True,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution with same padding, batch norm and, by default, ReLU.

    The bias is left out by default, since the batch norm that follows subtracts any constant.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class MaxPoolAllFrames(nn.Module):
    """Maximum over `bands` neighbouring bands and over all frames, of any number."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, channels, bands // self.bands, 1)."""
        if torch.compiler.is_exporting():
            # The same maximum; a window as long as the input would fix the length of an exported graph.
            return F.max_pool2d(x.amax(-1, keepdim=True), (self.bands, 1))
        return F.max_pool2d(x, (self.bands, x.shape[-1]))

    def extra_repr(self) -> str:
        return f"bands={self.bands}"


class SqueezeExcite(nn.Module):
    """Scale every channel by a factor between 0 and 1 that depends on the whole clip (Hu et al., CVPR 2018).

    With batch norm between the two 1x1 convolutions (Byttebier et al., DCASE 2021, figure 3).
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.norm = nn.BatchNorm2d(squeezed)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the same shape"""
        descriptor = x.mean((2, 3), keepdim=True)
        factors = self.sigmoid(self.expand(self.relu(self.norm(self.reduce(descriptor)))))
        scaled: Tensor = x * factors
        return scaled


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over time, of every channel and band; any number of frames."""

    # Keeps the gradient of the square root finite where a band is constant.
    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, 2 x channels, bands), the means first"""
        mean = x.mean(3, keepdim=True)
        centred = x - mean
        std = ((centred * centred).mean(3) + self.eps).sqrt()
        return torch.cat([mean.squeeze(3), std], 1)


def initialise_as_keras(module: nn.Module) -> None:
    """Glorot uniform weights and zero biases, the default of Keras, for a convolution or dense layer."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def round_channels(channels: float, multiple: int = 8) -> int:
    """The multiple nearest to `channels`, but never more than 10 % below it (MobileNetV2, arXiv:1801.04381)."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded
