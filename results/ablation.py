"""What the recipe of esc.py was chosen by: python results/ablation.py --data $ESC50 [--out FOLDER]

Every row changes one thing of the first, trains on folds 1 to 3 of ESC-50 and is scored on fold 4, in every second of
the 40 classes that are not in ESC-10: no test clip of the ESC-10 figures takes part in a choice. What helped is put
together in the last rows, which are rounded to int8; the last of all is the recipe. Differences from the first row are
paired over recordings, with 95 % intervals. A row of ablation.csv that exists is not recomputed.
"""

import argparse
import csv
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from esc import build, int8, train

from tinyscene.augment import Augmentation, BetweenClass, Crop, Excerpt, Mixup, SpecAugment
from tinyscene.compression import Quantize
from tinyscene.data import Clips
from tinyscene.data.esc import load_esc10, load_esc50
from tinyscene.evaluation import Scores, compare, evaluate
from tinyscene.systems.receipt import command, commit, machine
from tinyscene.training import CrossEntropy, Fit
from tinyscene.training.batches import INITIAL
from tinyscene.training.run import Run

TABLE = Path(__file__).with_suffix(".csv")
SEED, EPOCHS = 0, 150
(two_seconds,) = train.augment
excerpt, masks = replace(two_seconds, share=0.2), SpecAugment(bands=8, frames=10)
FIRST, LAST = "excerpts of 1 s with masks", "2 s, no masks, half the epochs"
first = replace(train, epochs=EPOCHS, schedule=replace(train.schedule, warmup_epochs=8), augment=(excerpt, masks))


def augmented(*augment: Augmentation) -> Fit:
    """The first row with another augmentation."""
    return replace(first, augment=augment)


def halved(*augment: Augmentation) -> Fit:
    """The same for half the epochs."""
    return replace(first, augment=augment, epochs=EPOCHS // 2)


CHANGES: dict[str, Fit] = {
    FIRST: first,
    "twice the epochs": replace(first, epochs=2 * EPOCHS),
    "two sounds mixed at equal levels": augmented(Crop(1.2), BetweenClass(0.3), replace(excerpt, share=1 / 1.2), masks),
    "two features mixed": augmented(excerpt, masks, Mixup(0.3)),
    "labels smoothed by 0.1": replace(first, loss=CrossEntropy(0.1)),
    "weights averaged": replace(first, average=0.99),
    "neither speed nor shift": augmented(Excerpt(excerpt.share), masks),
    "no masks": augmented(excerpt),
    "twice the speed, shift and masks": augmented(Excerpt(excerpt.share, 0.4, 0.06), SpecAugment(16, 20)),
    "2 s, half the epochs": halved(two_seconds, SpecAugment(8, 20)),
    LAST: halved(two_seconds),
}
# What follows for a tenth of the epochs.
rounding = replace(int8, fit=replace(int8.fit, epochs=EPOCHS // 20))
ROUNDED = {f"{LAST}, int8 after training": Quantize(), f"{LAST}, int8 by training": rounding}


def chosen(root: Path) -> Clips:
    """Every second class outside ESC-10; folds 1 to 3 train, the last one tests."""
    clips = load_esc50(root)
    others = [name for name in clips.classes if name not in load_esc10(root).classes]
    classes = tuple(others[::2])
    clips = replace(clips, name="esc50", classes=classes).where(lambda clip: clip.scene in classes)
    return clips.with_validation_as("train")


def trained(name: str, clips: Clips, out: Path) -> Scores:
    """The scores of one row on the test part."""
    run = Run(SEED, out)
    run.seed_torch(INITIAL)
    classifier = CHANGES.get(name, CHANGES[LAST])(build(25, clips.classes), clips.development, run)
    if name in ROUNDED:
        classifier = ROUNDED[name](classifier, clips.development, run)
    return evaluate(classifier, clips.test, run)


def main() -> None:
    """Add the missing rows to the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="ESC-50")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    asked = parser.parse_args()
    clips = chosen(asked.data)
    rows: list[dict[str, object]] = []
    if TABLE.is_file():
        with TABLE.open(newline="") as file:
            rows = [*csv.DictReader(file)]
    origin = {"command": command(clips), "commit": commit(), "machine": machine(), "seed": SEED}
    asked.out.mkdir(parents=True, exist_ok=True)
    if rows and not (asked.out / "0.csv").is_file():
        trained(FIRST, clips, asked.out).save(asked.out / "0.csv")  # to compare the missing rows with
    for number, name in enumerate((*CHANGES, *ROUNDED)):
        if name in [row["change"] for row in rows]:
            continue
        scores = trained(name, clips, asked.out)
        scores.save(asked.out / f"{number}.csv")
        base = Scores.load(asked.out / "0.csv")
        gained = {metric: compare(base, scores, metric) for metric in ("accuracy", "log_loss")}
        rows.append(
            {"change": name, "epochs": CHANGES.get(name, CHANGES[LAST]).epochs, "clips": len(clips.test)}
            | {"accuracy": scores.accuracy, "log_loss": scores.log_loss, "ece": scores.calibration_error}
            | {
                f"{metric}_{part}": getattr(one, part)
                for metric, one in gained.items()
                for part in ("mean", "low", "high")
            }
            | origin
            | {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
        )
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
