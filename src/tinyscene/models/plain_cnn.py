"""Five 3x3 convolutions in the manner of VGG (Simonyan and Zisserman, ICLR 2015), a mean, and a dense layer."""

from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.models.blocks import conv_bn
from tinyscene.models.network import Locality, Network

# Channels of the stages, in multiples of the width.
STAGES = (1, 2, 3, 4)
FEWEST_BANDS = 16


class PlainCNN(Network):
    """Convolutions with batch norm, in four stages between poolings, the mean over bands and frames, a dense layer.

    Args:
        classes: number of scenes.
        width: channels of the first stage.
        dropout: before the dense layer.
    """

    shortest_frames = 8
    locality = Locality.of("mean", [(3, 1), (3, 1), (2, 2), (3, 1), (2, 2), (3, 1), (2, 2), (3, 1)])

    def __init__(self, classes: int = 10, width: int = 24, dropout: float = 0.0) -> None:
        super().__init__()
        first, second, third, last = (width * stage for stage in STAGES)
        self.stem = conv_bn(1, first, 3, (2, 1))
        self.stages = nn.Sequential(
            conv_bn(first, first, 3),
            nn.MaxPool2d(2),
            conv_bn(first, second, 3),
            nn.MaxPool2d(2),
            conv_bn(second, third, 3),
            nn.MaxPool2d(2),
            conv_bn(third, last, 3),
        )
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(last, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits; at least 16 bands and `shortest_frames` frames."""
        return self.classify_map(self.local(features))

    def local(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, 4 x width, bands / 16, frames / 8), rounded down"""
        if features.shape[2] < FEWEST_BANDS:
            raise InputError(f"PlainCNN was given {features.shape[2]} bands; accepted: at least {FEWEST_BANDS}")
        mapped: Tensor = self.stages(self.stem(features))
        return mapped

    def classify_map(self, mapped: Tensor) -> Tensor:
        """The output of `local` -> (batch, classes), logits"""
        logits: Tensor = self.dense(self.dropout(mapped.mean((2, 3))))
        return logits
