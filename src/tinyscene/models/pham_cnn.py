"""The CNN of Pham et al., DCASE 2020 Task 1b: 62,855 values with batch norm at four a channel, 245.53 KB.

Four blocks of convolution, ReLU, batch norm, pooling and dropout, then one dense layer (table 2). That table has a
batch norm before every convolution too, which would make 63,751 values and miss the printed 245.5 KB: here there is one
only before the first. Of 107 frames the table's second pooling leaves 54, so that incomplete windows count; of those
54 it prints 13 after the third, where they make 14. With them any number of bands and frames is accepted.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from tinyscene.models.blocks import initialise_as_keras
from tinyscene.models.network import Locality, Network

KERNELS = (3, 3, 1, 1)
# (bands, frames); the last block pools over all of both.
POOLS = ((2, 4), (2, 2), (2, 4))
DROPOUT = (0.20, 0.25, 0.30, 0.35)


class PhamCNN(Network):
    """Batch norm, four blocks of convolution and pooling, the last pooling over everything, and a dense layer.

    Batch norm follows the ReLU, so that none folds into the convolution before it; the first one meets zero padding.

    Args:
        channels: of the four convolutions.
        classes: number of scenes.
    """

    locality = Locality.of("max", [(3, 1), (4, 4), (3, 1), (2, 2), (1, 1), (4, 4), (1, 1)])

    def __init__(self, channels: Sequence[int] = (32, 64, 128, 256), classes: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        first, second, third, last = channels
        self.block1 = nn.Sequential(*_conv(1, first, KERNELS[0]), *_pool(0))
        self.block2 = nn.Sequential(*_conv(first, second, KERNELS[1]), *_pool(1))
        self.block3 = nn.Sequential(*_conv(second, third, KERNELS[2]), *_pool(2))
        self.block4 = nn.Sequential(*_conv(third, last, KERNELS[3]))
        self.dropout = nn.Dropout(DROPOUT[3])
        self.dense = nn.Linear(last, classes)
        self.apply(initialise_as_keras)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, classes), logits."""
        return self.classify_map(self.local(features))

    def local(self, features: Tensor) -> Tensor:
        """(batch, 1, bands, frames) -> (batch, channels[3], bands / 8, frames / 32), rounded up"""
        mapped: Tensor = self.block4(self.block3(self.block2(self.block1(self.norm(features)))))
        return mapped

    def classify_map(self, mapped: Tensor) -> Tensor:
        """The output of `local` -> (batch, classes), logits"""
        logits: Tensor = self.dense(self.dropout(mapped.amax((2, 3))))
        return logits


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU(inplace=True), nn.BatchNorm2d(outputs)]


def _pool(block: int) -> list[nn.Module]:
    return [nn.MaxPool2d(POOLS[block], ceil_mode=True), nn.Dropout(DROPOUT[block])]
