"""Networks as users write them, plain modules that know nothing of tinyscene, each with its cost by hand.

All take features (batch, 1, BANDS, frames) and give logits of CLASSES. Parameters and MACs are worked out from the
sizes of their layers, for FRAMES frames, as sums of (kernel x inputs x outputs x positions).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

BANDS, FRAMES, CLASSES = 16, 21, 4
# After one and two halvings; convolutions of stride 2 round up, poolings down.
B2, B4, T2_UP, T2, T4 = 8, 4, 11, 10, 5
MAP, HALF = BANDS * FRAMES, B2 * T2_UP


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 8)
        self.conv1, self.conv2 = conv_bn(8, 8), conv_bn(8, 8)
        self.conv3, self.conv4, self.shortcut = conv_bn(8, 12, 3, 2), conv_bn(12, 12), conv_bn(8, 12, 1, 2)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        x = F.relu(self.shortcut(x) + self.conv4(F.relu(self.conv3(x))))
        return self.fc(x.mean((2, 3)))


class InvertedBottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 8, 3, 2), nn.Hardswish())
        self.block = nn.Sequential(
            conv_bn(8, 24, 1), nn.Hardswish(), conv_bn(24, 24, 3, groups=24), nn.Hardswish(), conv_bn(24, 8, 1)
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.block(x))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(1, 12), conv_bn(12, 16, 3, 2)
        self.reduce, self.expand = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.gate = nn.Hardsigmoid()
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        x = x * self.gate(self.expand(torch.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        x = torch.relu(self.conv2(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ChannelShuffle(nn.Module):
    """A unit of ShuffleNet v2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 16, 3, 2), nn.ReLU())
        self.branch = nn.Sequential(
            conv_bn(8, 8, 1), nn.ReLU(), conv_bn(8, 8, 3, groups=8), conv_bn(8, 8, 1), nn.ReLU()
        )
        self.last = nn.Sequential(conv_bn(16, 20, 1), nn.ReLU())
        self.fc = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), dim=1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.fc(self.last(x).mean([2, 3]))


class Dilated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, dilation in ((1, 1), (10, 2), (10, 4)):
            layers += [nn.Conv2d(inputs, 10, 3, padding=(1, dilation), dilation=(1, dilation)), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(-2, -1)))


class Bands1d(nn.Module):
    """Bands as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(BANDS, 24, 3, padding=1), nn.BatchNorm1d(24)
        self.conv2, self.bn2 = nn.Conv1d(24, 24, 3, padding=1), nn.BatchNorm1d(24)
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean(-1))


class GroupNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(3, 12),
            nn.ReLU(),
        )
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


class LayerNorm(nn.Module):
    """A block of ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 4, stride=2, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 5, padding=2, groups=12)
        self.norm = nn.LayerNorm(12)
        self.wide, self.narrow = nn.Linear(12, 24), nn.Linear(24, 12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        x = x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return self.fc(x.mean((2, 3)))


class NormWithoutAffine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16, affine=False)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class PReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(1, 8), nn.PReLU(8), nn.AvgPool2d(2), conv_bn(8, 16), nn.PReLU(16))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


class GeluSilu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv_bn(1, 8, 3, 2), conv_bn(8, 12), conv_bn(12, 12)
        self.gelu, self.silu = nn.GELU(), nn.SiLU()
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gelu(self.conv1(x))
        x = self.silu(self.conv2(x))
        x = F.gelu(self.conv3(x), approximate="tanh")
        return self.fc(x.mean((2, 3)))


class UsedTwice(nn.Module):
    """One convolution in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.last = conv_bn(1, 8, 3, 2), nn.Conv2d(8, 8, 3, padding=1), conv_bn(8, 16)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.shared(F.relu(self.shared(x))))
        return self.fc(F.relu(self.last(x)).mean((2, 3)))


class Branches(nn.Module):
    """A block of Inception."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 8, 3, 2), nn.ReLU())
        self.one, self.three, self.five = conv_bn(8, 4, 1), conv_bn(8, 6, 3), conv_bn(8, 4, 5)
        self.last = nn.Sequential(conv_bn(14, 16, 1), nn.ReLU())
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([F.relu(branch(x)) for branch in (self.one, self.three, self.five)], 1)
        return self.fc(self.last(x).mean((2, 3)))


class Transposed(nn.Module):
    """Down and up again."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(conv_bn(1, 8, 3, 2), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 6, 2, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.conv = nn.Sequential(conv_bn(6, 8), nn.ReLU())
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(self.up(self.down(x))).mean((2, 3)))


class Recurrent(nn.Module):
    """A CRNN."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_bn(1, 8), nn.ReLU(), nn.MaxPool2d((2, 2)), conv_bn(8, 8), nn.ReLU(), nn.MaxPool2d((2, 1))
        )
        self.gru = nn.GRU(8 * B4, 12, batch_first=True)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(x)
        x = x.view(x.size(0), -1, x.size(3)).permute(0, 2, 1)
        x, _ = self.gru(x)
        return self.fc(x.mean(1))


class Attention(nn.Module):
    """Patches of 4 bands and one frame."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, (4, 2), stride=(4, 2))
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.fc(x.mean(1))


class AdaptivePooling(nn.Module):
    """To (3, 1), and dense from there."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(1, 8), nn.ReLU(), nn.MaxPool2d(2), conv_bn(8, 12), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d((3, 1))
        self.fc = nn.Linear(36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.body(x)), 1))


class WeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv2d(1, 8, 3, padding=1))
        self.conv2 = weight_norm(nn.Conv2d(8, 12, 3, stride=2, padding=1))
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


class MeanMaxPooling(nn.Module):
    """Over bands by the mean, over time by mean and maximum, as PANNs do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(1, 8), conv_bn(8, 16)
        self.fc1, self.fc2 = nn.Linear(16, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu(self.conv1(x)), kernel_size=(2, 2))
        x = torch.mean(F.relu(self.conv2(x)), dim=2)
        highest, _ = torch.max(x, dim=2)
        x = highest + torch.mean(x, dim=2)
        return self.fc2(F.relu(self.fc1(F.dropout(x, p=0.1, training=self.training))))


class NormFirst(nn.Module):
    """Norm and activation before each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv1(F.relu(self.bn1(x)))
        x = self.conv2(F.relu(self.bn2(x)))
        return self.fc(F.relu(self.bn3(x)).mean((2, 3)))


class FlattenedDense(nn.Module):
    """For clips of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(1, 6), nn.ReLU(), nn.MaxPool2d(2), conv_bn(6, 6), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(6 * B4 * T4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 8, 3, 2), nn.ReLU(inplace=True))
        self.conv = nn.Sequential(conv_bn(8, 8), nn.Dropout(0.1, inplace=True))
        self.last = nn.Sequential(conv_bn(8, 12), nn.SiLU(inplace=True))
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(x)
        y += x
        y.mul_(0.5).clamp_(max=6)
        return self.fc(self.last(F.relu_(y)).mean((2, 3)))


class OldWeightNorm(nn.Module):
    """The deprecated form, as in much published code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.utils.weight_norm(nn.Conv2d(1, 8, 3, padding=1))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv1(x)).mean((2, 3)))


@dataclass(frozen=True)
class User:
    """A user's network.

    Attributes:
        parameters, macs: by hand; two a channel for batch norm, multiplications of weights and activations alone.
        prune: a convolution of it.
    """

    network: type[nn.Module]
    parameters: int
    macs: int
    prune: str


def _gru_macs(inputs: int, hidden: int, steps: int) -> int:
    return steps * 3 * hidden * (inputs + hidden)


USERS = {
    "residual": User(
        Residual,
        9 * 8 + 16 + 2 * (9 * 64 + 16) + (9 * 96 + 24) + (9 * 144 + 24) + (96 + 24) + 12 * 4 + 4,
        (9 * 8 + 2 * 9 * 64) * MAP + (9 * 96 + 9 * 144 + 96) * HALF + 48,
        "conv1.0",
    ),
    "inverted bottleneck": User(
        InvertedBottleneck,
        (72 + 16) + (192 + 48) + (9 * 24 + 48) + (192 + 16) + 8 * 4 + 4,
        (72 + 192 + 9 * 24 + 192) * HALF + 32,
        "block.0.0",
    ),
    "squeeze-excite": User(
        SqueezeExcite,
        (108 + 24) + (9 * 12 * 16 + 32) + (48 + 4) + (48 + 12) + 16 * 4 + 4,
        108 * MAP + 48 + 48 + 9 * 12 * 16 * HALF + 64,
        "conv1.0",
    ),
    "channel shuffle": User(
        ChannelShuffle,
        (144 + 32) + (64 + 16) + (72 + 16) + (64 + 16) + (320 + 40) + 20 * 4 + 4,
        (144 + 64 + 72 + 64 + 320) * HALF + 80,
        "branch.0.0",
    ),
    "dilated": User(Dilated, (90 + 10) + 2 * (900 + 10) + 40 + 4, (90 + 2 * 900) * MAP + 40, "features.2"),
    "bands as channels": User(
        Bands1d,
        (3 * 16 * 24 + 24 + 48) + (3 * 24 * 24 + 24 + 48) + 24 * 4 + 4,
        3 * 16 * 24 * FRAMES + 3 * 24 * 24 * T2 + 96,
        "conv1",
    ),
    "group norm": User(GroupNorm, (72 + 16) + (9 * 96 + 24) + 48 + 4, 72 * MAP + 9 * 96 * HALF + 48, "body.0"),
    "layer norm": User(
        LayerNorm,
        (16 * 12 + 12) + (25 * 12 + 12) + 24 + (288 + 24) + (288 + 12) + 48 + 4,
        (16 * 12 + 25 * 12 + 288 + 288) * B2 * T2 + 48,
        "depthwise",
    ),
    "norm without affine": User(
        NormWithoutAffine, (72 + 8) + (9 * 128 + 16) + 64 + 4, 72 * MAP + 9 * 128 * B2 * T2 + 64, "conv1"
    ),
    "prelu": User(PReLU, (72 + 16 + 8) + (9 * 128 + 32 + 16) + 64 + 4, 72 * MAP + 9 * 128 * B2 * T2 + 64, "body.0.0"),
    "gelu and silu": User(
        GeluSilu,
        (72 + 16) + (9 * 96 + 24) + (9 * 144 + 24) + 48 + 4,
        (72 + 9 * 96 + 9 * 144) * HALF + 48,
        "conv2.0",
    ),
    "used twice": User(
        UsedTwice,
        (72 + 16) + (9 * 64 + 8) + (9 * 128 + 32) + 64 + 4,
        (72 + 2 * 9 * 64 + 9 * 128) * HALF + 64,
        "last.0",
    ),
    "branches": User(
        Branches,
        (72 + 16) + (32 + 8) + (9 * 48 + 12) + (25 * 32 + 8) + (14 * 16 + 32) + 64 + 4,
        (72 + 32 + 9 * 48 + 25 * 32 + 14 * 16) * HALF + 64,
        "three.0",
    ),
    "transposed": User(
        Transposed,
        (72 + 16) + (4 * 48 + 6 + 12) + (9 * 48 + 16) + 32 + 4,
        (72 + 4 * 48) * HALF + 9 * 48 * 16 * 22 + 32,
        "conv.0.0",
    ),
    "recurrent": User(
        Recurrent,
        (72 + 16) + (9 * 64 + 16) + 3 * 12 * (32 + 12 + 2) + 48 + 4,
        72 * MAP + 9 * 64 * B2 * T2 + _gru_macs(32, 12, T2) + 48,
        "convs.0.0",
    ),
    # 40 patches: queries, keys, values and the output, then scores and what they weigh.
    "attention": User(
        Attention,
        (8 * 16 + 16) + 32 + 4 * (16 * 16 + 16) + 64 + 4,
        (8 * 16 + 4 * 16 * 16) * 40 + 2 * 40 * 40 * 16 + 64,
        "patch",
    ),
    "adaptive pooling": User(
        AdaptivePooling, (72 + 16) + (9 * 96 + 24) + 36 * 4 + 4, 72 * MAP + 9 * 96 * B2 * T2 + 144, "body.0.0"
    ),
    "weight norm": User(WeightNorm, (72 + 8 + 8) + (9 * 96 + 12 + 12) + 48 + 4, 72 * MAP + 9 * 96 * HALF + 48, "conv1"),
    "mean and max pooling": User(
        MeanMaxPooling,
        (72 + 16) + (9 * 128 + 32) + (256 + 16) + 64 + 4,
        72 * MAP + 9 * 128 * B2 * T2 + 256 + 64,
        "conv1.0",
    ),
    "norm first": User(
        NormFirst, 72 + (16 + 9 * 64) + (16 + 9 * 96) + 24 + 48 + 4, (72 + 9 * 64) * MAP + 9 * 96 * HALF + 48, "stem"
    ),
    "flattened dense": User(
        FlattenedDense,
        (54 + 12) + (9 * 36 + 12) + (120 * 16 + 16) + 64 + 4,
        54 * MAP + 9 * 36 * B2 * T2 + 120 * 16 + 64,
        "features.3.0",
    ),
    "in place": User(
        InPlace, (72 + 16) + (9 * 64 + 16) + (9 * 96 + 24) + 48 + 4, (72 + 9 * 64 + 9 * 96) * HALF + 48, "conv.0.0"
    ),
    "old weight norm": User(OldWeightNorm, (72 + 8 + 8) + 32 + 4, 72 * MAP + 32, "conv1"),
}
