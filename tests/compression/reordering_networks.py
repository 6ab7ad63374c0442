"""Networks that put something between a convolution and what reads it."""

import torch
import torch.nn.functional as F
from torch import nn

from tinyscene.features import LogMel
from tinyscene.models.classifier import SceneClassifier


def classifier(network):
    """Behind eight bands and eight frames a second."""
    return SceneClassifier(LogMel(8000, 256, 8, hop_length=1100), network, ("bus", "park", "tram")).eval()


class Between(nn.Module):
    """Eight channels from `first`, what `between` makes of them, and `second`, which reads as many as that gives."""

    def __init__(self, between, reads=8):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.between = between if isinstance(between, nn.Module) else Function(between)
        self.second = nn.Conv2d(reads, 6, 1)
        self.dense = nn.Linear(6, 3)

    def forward(self, x):
        return self.dense(F.relu(self.second(self.between(F.relu(self.first(x))))).mean((2, 3)))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Wide(nn.Module):
    """A map of two bands and three frames flattened into a dense layer, features first or, as Keras, channels last."""

    def __init__(self, channels_last):
        super().__init__()
        self.channels_last = channels_last
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dense = nn.Linear(48, 10)
        self.logits = nn.Linear(10, 3)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(F.relu(self.norm(self.first(x))), (2, 3))
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        return self.logits(F.relu(self.dense(x.flatten(1))))


class Stacked(nn.Module):
    """Two maps of four channels, taken in turns."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 1)
        self.dense = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.stack([self.left(x), self.right(x)], 2).flatten(1, 2)
        return self.dense(F.relu(self.second(x)).mean((2, 3)))


class ShuffleUnit(nn.Module):
    """Ma et al., "ShuffleNet V2" (ECCV 2018), figure 3c: half of the channels go by, then the halves are shuffled."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *(nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True)),
            *(nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half)),
            *(nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True)),
        )

    def forward(self, x):
        by, through = x.chunk(2, dim=1)
        return shuffled(torch.cat([by, self.branch(through)], 1))


class ShuffleNet(nn.Module):
    def __init__(self, channels=32, units=2):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.units = nn.Sequential(*(ShuffleUnit(channels) for _ in range(units)))
        self.last = nn.Conv2d(channels, 12, 1)
        self.dense = nn.Linear(12, 3)

    def forward(self, x):
        return self.dense(F.relu(self.last(self.units(self.stem(x)))).mean((2, 3)))


def shuffled(x, groups=2):
    batch, channels, bands, frames = x.shape
    x = x.view(batch, groups, channels // groups, bands, frames).transpose(1, 2).contiguous()
    return x.view(batch, channels, bands, frames)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.gru = nn.GRU(8, 6, batch_first=True)
        self.dense = nn.Linear(6, 3)

    def forward(self, x):
        return self.dense(self.gru(F.relu(self.first(x)).mean(2).transpose(1, 2))[0].mean(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.dense = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.first(x)).mean(2).transpose(1, 2)
        return self.dense(self.attention(x, x, x)[0].mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 1)
        self.third = nn.Conv2d(8, 8, 1)
        self.third.weight = self.second.weight
        self.dense = nn.Linear(8, 3)

    def forward(self, x):
        return self.dense(F.relu(self.third(F.relu(self.second(F.relu(self.first(x)))))).mean((2, 3)))


def gated(x):
    """A squeeze-and-excite without weights: sigmoid(0) is not 0."""
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


# What passes channels on one by one, in any order, with how many of `first`'s go together.
FOLLOWED = {
    "view and transpose": (lambda: Between(shuffled), 4),
    "channel_shuffle": (lambda: Between(lambda x: F.channel_shuffle(x, 4)), 2),
    "ChannelShuffle": (lambda: Between(nn.ChannelShuffle(2)), 4),
    "flip": (lambda: Between(lambda x: x.flip(1)), 8),
    "pixel_shuffle": (lambda: Between(nn.PixelShuffle(2), reads=2), 2),
    "halves swapped": (lambda: Between(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)), 4),
    "doubled": (lambda: Between(lambda x: torch.cat([x, -x], 1), reads=16), 8),
    "twice each": (lambda: Between(lambda x: x.repeat_interleave(2, 1), reads=16), 8),
    "gated": (lambda: Between(gated), 8),
    "hardswish": (lambda: Between(nn.Hardswish()), 8),
    "instance norm": (lambda: Between(F.instance_norm), 8),
    "one PReLU": (lambda: Between(nn.PReLU()), 8),
    "flattened": (lambda: Wide(channels_last=False), 8),
    "flattened as Keras": (lambda: Wide(channels_last=True), 8),
    "stacked": (Stacked, 4),
    "ShuffleNet": (ShuffleNet, 8),
}

# What does not, and its name.
REFUSED = {
    "roll": (lambda: Between(lambda x: x.roll(3, 1)), "roll in between"),
    "mean": (lambda: Between(lambda x: x - x.mean(1, keepdim=True)), "mean in between"),
    "group_norm": (lambda: Between(lambda x: F.group_norm(x, 2)), "group_norm in between"),
    "GroupNorm": (lambda: Between(nn.GroupNorm(2, 8)), "GroupNorm (between)"),
    "local_response_norm": (lambda: Between(nn.LocalResponseNorm(3)), "LocalResponseNorm (between)"),
    "softmax": (lambda: Between(lambda x: x.softmax(1)), "softmax in between"),
    "Softmax": (lambda: Between(nn.Softmax(1)), "Softmax (between)"),
    "LayerNorm": (lambda: Between(nn.LayerNorm([8, 8, 8])), "LayerNorm (between)"),
    "PReLU": (lambda: Between(nn.PReLU(8)), "PReLU (between)"),
    "transposed": (lambda: Between(nn.ConvTranspose2d(8, 8, 2)), "ConvTranspose2d (between)"),
    "split": (lambda: Between(lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1)), "split in between"),
    "view": (lambda: Between(lambda x: x.reshape(len(x), 8, -1, x.shape[-1])), "reshape in between"),
    "GRU": (Recurrent, "GRU (gru)"),
    "attention": (Attention, "MultiheadAttention (attention)"),
}
