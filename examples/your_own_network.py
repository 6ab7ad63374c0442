"""Your own front end and network, from training to export: two classes, and two lines that register them.

tinyscene count examples/your_own_network.py
tinyscene reproduce examples/your_own_network.py --data DATA
python examples/your_own_network.py DATA [EPOCHS [FOLDER]]
"""

import sys

from torch import Tensor, nn

import tinyscene as ts


class LearnedBands(ts.FrontEnd):
    """Energies of 32 filters that are trained with the network, every 10 ms."""

    sample_rate, bands, hop_length, shortest_samples = 16_000, 32, 160, 400

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, self.bands, self.shortest_samples, self.hop_length, bias=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        return (self.filters(waveforms[:, None]).square() + 1e-6).log()[:, None]


class Small(nn.Module):
    """Any module works: (batch, 1, bands, frames) -> (batch, classes), logits."""

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.dense = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.dense(self.body(self.stem(features)).mean((2, 3)))


ts.register_frontend("learned_bands", LearnedBands)
ts.register_network("small", Small, frontend=LearnedBands)


def build(classes: tuple[str, ...]) -> ts.SceneClassifier:
    return ts.create_classifier("small", classes)


train = ts.Fit(epochs=int((sys.argv[2:] or ["100"])[0]) if __name__ == "__main__" else 100, batch_size=16)
stages = (train, ts.FilterPruning("body.0", ratio=0.5), train, ts.Quantize(fit=train))
small = ts.System(ts.rules.dcase2024, build, stages)

if __name__ == "__main__":
    clips, folder = ts.data.load(sys.argv[1]), (sys.argv[3:] or ["runs/own"])[0]
    classifier, run = build(clips.classes), ts.Run(folder=folder)
    for stage in stages:
        classifier = stage(classifier, clips.development, run)
        print(f"{type(stage).__name__:14} {100 * ts.evaluate(classifier, clips.test, run).accuracy:5.1f} %")
    classifier = ts.SceneClassifier.load(classifier.save(f"{folder}/model"))
    print(ts.export(classifier, f"{folder}/small.onnx", front_end="inside", clips=clips.test, clip_s=0.2).parity)
