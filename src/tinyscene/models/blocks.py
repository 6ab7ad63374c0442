"""What several networks are built of."""

import torch.nn.functional as F
from torch import Tensor, nn

Size2d = int | tuple[int, int]


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: Size2d = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Bias-less convolution with same padding, batch norm and, unless told otherwise, ReLU.

    The bias is left out since the batch norm that follows subtracts any constant.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class MaxPoolAllFrames(nn.Module):
    """Maximum over `bands` neighbouring bands and over all frames, however many there are."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, channels, bands // self.bands, 1)."""
        return F.max_pool2d(x, (self.bands, x.shape[-1]))

    def extra_repr(self) -> str:
        return f"bands={self.bands}"


def round_channels(channels: float, multiple: int = 8) -> int:
    """The multiple nearest to `channels`, but never more than 10 % below it (MobileNetV2, arXiv:1801.04381)."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded
