"""int8 against float, by the clips that set its ranges: python results/int8_ranges.py DATA... [--out FOLDER]

DATA are folders of ESC-10 or ESC-50 (folds 1 to 3 train, the highest tests). The networks of the five systems and
CP-Mobile, behind their published front ends, are trained alike and stored in FOLDER. int8 after training and by QAT
takes its ranges from 32, 128 and all training clips, and from 128 of which one was made thirty times louder. A row of
int8_ranges.csv that exists is not recomputed.
"""

import argparse
import csv
import time
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import soundfile
import torch

from tinyscene.augment import Crop, Mixup
from tinyscene.compression import Quantize
from tinyscene.data import Clips
from tinyscene.data.esc import is_esc, load_esc10, load_esc50
from tinyscene.evaluation import compare, evaluate
from tinyscene.models import create_classifier
from tinyscene.models.classifier import SceneClassifier
from tinyscene.systems.receipt import command, commit, machine
from tinyscene.training import Adam, Cosine, Fit
from tinyscene.training.batches import RANGES
from tinyscene.training.run import Run

TABLE = Path(__file__).with_suffix(".csv")
NETWORKS = {
    "cp_mobile": "cp_mobile",
    "baseline2021": "singh2021",
    "aemnet": "galindo2021",
    "tandem": "schmidt2022",
    "se_resnet": "byttebier2021",
    "pham_cnn": "pham2020",
}
# ESC-50 has five times as many clips an epoch.
EPOCHS, QAT_EPOCHS = {"esc10": 60, "esc50": 16}, {"esc10": 5, "esc50": 2}
GAIN, SEED = 30.0, 0


@dataclass(frozen=True)
class Setting:
    """The clips that set the ranges, and whether training follows."""

    ranges: str
    louder: bool
    qat: bool


SETTINGS = [Setting(*one, qat) for one in (("128", 0), ("128", 1), ("all", 0), ("32", 0)) for qat in (False, True)]


def fit(epochs: int, lr: float) -> Fit:
    """Crops of a second, mixup, Adam and a cosine."""
    augment = (Crop(1.0), Mixup(0.2))
    return Fit(epochs=epochs, batch_size=32, optimizer=Adam(lr=lr), schedule=Cosine(), augment=augment)


def load(root: Path) -> Clips:
    """All folds except the highest train."""
    clips = {"esc10": load_esc10, "esc50": load_esc50}[is_esc(root) or "esc50"](root)
    rows = tuple(clip._replace(split="test" if clip.split == "test" else "train") for clip in clips)
    return replace(clips, rows=rows)


def with_one_louder(train: Clips, folder: Path) -> Clips:
    """The first clip drawn for ranges, as a float WAV of thirty times its amplitude."""
    place = int(Run(seed=SEED).rng(RANGES).permutation(len(train))[0])
    path = (folder / f"{train.name}-louder.wav").resolve()
    samples, rate = soundfile.read(train.root / train.rows[place].path)
    soundfile.write(path, GAIN * samples, rate, subtype="FLOAT")
    rows = list(train.rows)
    rows[place] = rows[place]._replace(path=str(path))
    return replace(train, rows=tuple(rows))


def trained(network: str, train: Clips, folder: Path) -> SceneClassifier:
    """The float classifier, from the folder if it exists."""
    where = folder / f"{train.name}-{network}"
    if not (where / "model.json").is_file():
        torch.manual_seed(SEED)
        run = Run(seed=SEED, folder=folder / "fits" / where.name, quiet=True)
        fit(EPOCHS[train.name], 1e-3)(create_classifier(network, train.classes), train, run).save(where)
    return SceneClassifier.load(where)


def rows_of(network: str, clips: Clips, folder: Path, done: set[tuple[str, ...]]):
    """A row of the table for every missing setting."""
    classifier = trained(network, clips.train, folder)
    scores = evaluate(classifier, clips.test, Run(quiet=True))
    for setting in SETTINGS:
        key = (clips.name, network, *map(str, astuple(setting)))
        if key in done:
            continue
        started = time.monotonic()
        train = with_one_louder(clips.train, folder) if setting.louder else clips.train
        quantize = Quantize(
            fit=fit(QAT_EPOCHS[clips.name], 1e-4) if setting.qat else None,
            clips=len(train) if setting.ranges == "all" else int(setting.ranges),
        )
        run = Run(seed=SEED, folder=folder / "fits" / "-".join([*key, f"{time.time():.0f}"]), quiet=True)
        int8 = evaluate(quantize(classifier, train, run), clips.test, Run(quiet=True))
        lost = compare(scores, int8)
        yield {
            **dict(zip(("dataset", "network", "ranges", "louder", "qat"), key, strict=True)),
            "system": NETWORKS[network],
            "clips": len(clips.test),
            "float": round(float(scores.right.mean()), 4),
            "int8": round(float(int8.right.mean()), 4),
            **{name: round(getattr(lost, field), 4) for name, field in DIFFERENCE.items()},
            "seed": SEED,
            "command": f"python results/{command(clips)}",
            "commit": commit(),
            "machine": f"{machine()}, {torch.get_num_threads()} thread(s)",
            "torch": torch.__version__,
            "minutes": round((time.monotonic() - started) / 60, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }


DIFFERENCE = {"difference": "mean", "difference_low": "low", "difference_high": "high"}


def main() -> None:
    """Train what isn't trained, then append row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/int8_ranges"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--train-only", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for clips in map(load, given.data):
        for network in given.networks:
            started = time.monotonic()
            if given.train_only:
                accuracy = evaluate(trained(network, clips.train, given.out), clips.test, Run(quiet=True)).right.mean()
                print(clips.name, network, round(accuracy, 4), f"{time.monotonic() - started:.0f} s", flush=True)
                continue
            old = []
            if given.table.is_file():
                with given.table.open(newline="") as file:
                    old = list(csv.DictReader(file))
            done = {tuple(row[name] for name in ("dataset", "network", "ranges", "louder", "qat")) for row in old}
            for row in rows_of(network, clips, given.out, done):
                with given.table.open("a", newline="") as file:
                    writer = csv.DictWriter(file, row, lineterminator="\n")
                    if not file.tell():
                        writer.writeheader()
                    writer.writerow(row)
                print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
