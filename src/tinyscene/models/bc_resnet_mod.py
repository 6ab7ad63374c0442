"""BC-ResNet-Mod as Schmidt et al. use it (DCASE 2022 Task 1, section 2.1): 315,410 parameters at width 8.

Convolutions along frequency on the whole map, and along time on its mean over frequency, which is added to every band:
Kim et al., "Broadcasted residual learning for efficient keyword spotting", Interspeech 2021 (arXiv:2106.04140). The
order of blocks and the residual normalization are those of Kim et al., "QTI submission to DCASE 2021", whose Mod-1 has
8,100 parameters; their 1x1 classifier has no bias, and Schmidt et al. add one. By torchinfo's count, one second (34
frames) takes 51.53 M MACs at 256 bands and 38.94 M at 192, the tandem's linear branch apart.

"Residual normalization to all layers" is read as: after the first convolution and after every block.
"""

import torch
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.models.network import Network

SUB_BANDS = 4
# Channels at width 1: of the first convolution, and of each stage with its number of blocks.
STEM = 20
STAGES = ((10, 2), (15, 2), (20, 2), (25, 3))
# A pooling follows the first two stages.
POOLED = 2
# The first convolution and two poolings halve, and then each sub-band needs a row.
BANDS_MULTIPLE = 2 ** (1 + POOLED) * SUB_BANDS


class SubSpectralNorm(nn.Module):
    """Batch norm of every channel in each of `sub_bands` equal parts of the frequency axis (Chang et al., ICASSP 2021).

    One batch norm over channels x sub_bands: `norm` holds sub-band s of channel c at index c x sub_bands + s, so that a
    channel's values lie together, as in a flattened channel. No convolution can absorb them all, and
    without batch norm they are a scale and a shift.
    """

    def __init__(self, channels: int, sub_bands: int = SUB_BANDS) -> None:
        super().__init__()
        self.sub_bands = sub_bands
        self.norm = nn.BatchNorm2d(channels * sub_bands)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the same shape; `sub_bands` divides the bands."""
        batch, _, bands, frames = x.shape
        parts = self.norm(x.reshape(batch, -1, bands // self.sub_bands, frames))
        normed: Tensor = parts.reshape(batch, -1, bands, frames)
        return normed

    def extra_repr(self) -> str:
        return f"sub_bands={self.sub_bands}"


class ResidualNorm(nn.Module):
    """Every clip's bands brought to mean 0 and deviation 1, plus `share` of the input (Kim et al., DCASE 2021, 2.2).

    Mean and deviation are those of a band over channels and time. Nothing is learned.
    """

    share = 0.1
    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> the same shape"""
        variance, mean = torch.var_mean(x, (1, 3), correction=0, keepdim=True)
        normed: Tensor = self.share * x + (x - mean) * (variance + self.eps).rsqrt()
        return normed


class BroadcastBlock(nn.Module):
    """A convolution along frequency; one along time, of the mean over frequency, added to every band.

    A transition block has a 1x1 convolution in front, which changes the width; a normal one adds its input, and its
    convolution along frequency has a bias.
    """

    def __init__(self, inputs: int, outputs: int, transition: bool) -> None:
        super().__init__()
        self.transition: nn.Module | None = None
        if transition:
            self.transition = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
            )
        self.along_frequency = nn.Sequential(
            nn.Conv2d(outputs, outputs, (3, 1), padding=(1, 0), groups=outputs, bias=not transition),
            SubSpectralNorm(outputs),
        )
        self.along_time = nn.Sequential(
            nn.Conv2d(outputs, outputs, (1, 3), padding=(0, 1), groups=outputs, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.Dropout2d(0.1),
        )
        self.relu = nn.ReLU()
        self.residual_norm = ResidualNorm()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, bands, frames) -> (batch, outputs, bands, frames)"""
        y: Tensor = self.along_frequency(x if self.transition is None else self.transition(x))
        broadcast = y + self.along_time(y.mean(2, keepdim=True))
        if self.transition is None:
            broadcast = broadcast + x
        normed: Tensor = self.residual_norm(self.relu(broadcast))
        return normed


class BCResNetMod(Network):
    """A 5x5 convolution, nine broadcasted residual blocks, a 1x1 classifier averaged over bands and frames.

    Under quantization the inputs and outputs of all convolutions are int8, and the SiLU. Sub-spectral norm (a scale and
    a shift), the sums behind it and residual normalization are computed in float: neither folds into a convolution.

    Residual normalization depends on the whole clip: `predict` takes a long recording in one piece.

    Args:
        classes: number of scenes.
        width: multiplies the channels, 20 of the first convolution, 10 to 25 of the blocks.

    Raises:
        InputError: in forward, bands that 32 doesn't divide.
    """

    shortest_frames = 7

    def __init__(self, classes: int = 10, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, STEM * width, 5, 2, padding=2, bias=False)
        self.residual_norm = ResidualNorm()
        before, stages = STEM * width, []
        for number, (channels, blocks) in enumerate(STAGES):
            after = channels * width
            stage: list[nn.Module] = [BroadcastBlock(before, after, transition=True)]
            stage += [BroadcastBlock(after, after, transition=False) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage, *([nn.MaxPool2d(2)] if number < POOLED else [])))
            before = after
        self.stages = nn.Sequential(*stages)
        self.classify = nn.Conv2d(before, classes, 1)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits; at least 7 frames."""
        check_bands(features.shape[2])
        mapped = self.classify(self.stages(self.residual_norm(self.stem(features))))
        return torch.flatten(self.pool(mapped), 1)

    def select_bands(self, kept: list[int]) -> None:
        """Nothing here depends on single bands; raise InputError for a number of them that 32 doesn't divide."""
        check_bands(len(kept))


def check_bands(bands: int) -> None:
    """Raise InputError unless three halvings leave as many bands in each sub-band."""
    if bands < 1 or bands % BANDS_MULTIPLE:
        raise InputError(f"{bands} bands; accepted: a multiple of {BANDS_MULTIPLE}")
