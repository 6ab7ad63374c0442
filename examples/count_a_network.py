"""Count your own network, and see which challenge editions would accept it.

python examples/count_a_network.py [CHANNELS]
"""

import sys

import torch
from torch import nn

import tinyscene as ts

channels = int((sys.argv[1:] or ["64"])[0])
network = nn.Sequential(
    nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False),
    nn.BatchNorm2d(channels),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
    nn.Conv2d(channels, 2 * channels, 1, bias=False),
    nn.BatchNorm2d(2 * channels),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(2 * channels, 10),
)

for rules in ts.rules.RULES.values():
    # 128 mel bands every 20 ms; each edition has clips of its own length.
    features = torch.zeros(1, 1, 128, round(rules.clip_s / 0.020))
    print(rules.judge(ts.accounting.count(network, features)).text)
