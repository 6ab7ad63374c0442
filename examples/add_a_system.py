"""Your own system: the command line needs only a file with `build` and one `System` for each variant.

tinyscene count examples/add_a_system.py
tinyscene reproduce examples/add_a_system.py --data DATA
python examples/add_a_system.py DATA [EPOCHS_SCALE [FOLDER]]
"""

import sys

import tinyscene as ts
from tinyscene.accounting import CONVENTIONS

frontend = ts.LogMel(sample_rate=16_000, n_fft=1024, hop_length=320, n_mels=40)
bn4 = CONVENTIONS["bn4"]


def build(classes: tuple[str, ...]) -> ts.SceneClassifier:
    network = ts.create_model("baseline2021", filters=(8, 8, 16), dense=32, classes=len(classes))
    return ts.SceneClassifier(frontend, network, classes)


train = ts.Fit(epochs=100, batch_size=16, early_stopping=ts.EarlyStopping(patience=20))

whole = ts.System(ts.rules.dcase2021, build, (train, ts.HalfPrecision()), ts.Reported(11_346, bn4, "22.16", bn4))
pruned = ts.System(
    ts.rules.dcase2021,
    build,
    (train, ts.FilterPruning(("L1", "L2"), ratio=0.25), train, ts.HalfPrecision()),
    ts.Reported(8_288, bn4, "16.19", bn4),
)

if __name__ == "__main__":
    data, scale, folder = [*sys.argv[1:], *["1.0", "runs/mine"][len(sys.argv) - 2 :]]
    file = ts.scale_system(ts.load_system(__file__), float(scale))
    for row in ts.reproduce(file, ts.data.load(data), ts.Run(folder=folder), settings={"epochs_scale": float(scale)}):
        print(f"{row.variant:7} {row.stage:32} {100 * row.scores.accuracy:5.1f} %")
