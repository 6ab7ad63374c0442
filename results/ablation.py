"""What each part of the recipe of esc.py is worth alone: python results/ablation.py --data $ESC50 [--out FOLDER]

Every row trains with one thing changed, on folds 1 to 3 of ESC-50, and is scored on fold 4, in every second of the 40
classes that are not in ESC-10: no test clip of the ESC-10 figures takes part in a choice. Differences from the recipe
are paired over recordings, with 95 % intervals. A row of ablation.csv that exists is not recomputed.
"""

import argparse
import csv
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from esc import build, train

from tinyscene.augment import BetweenClass, Crop, Excerpt, FreqMixStyle, Mixup, SpecAugment
from tinyscene.data import Clips
from tinyscene.data.esc import load_esc10, load_esc50
from tinyscene.evaluation import Scores, compare, evaluate
from tinyscene.models import create_classifier
from tinyscene.systems.receipt import command, commit, machine
from tinyscene.training import Fit
from tinyscene.training.run import Run

TABLE = Path(__file__).with_suffix(".csv")
SEED, EPOCHS = 0, 150
crop, between, excerpt, masks = train.augment
recipe = replace(train, epochs=EPOCHS, schedule=replace(train.schedule, warmup_epochs=8))
# Twice the clip and half the epochs take the same time.
longer = (Crop(2.4), between, excerpt, SpecAugment(bands=8, frames=20))
CHANGES: dict[str, Fit] = {
    "the recipe": recipe,
    "waveforms mixed as they are, no BetweenClass": replace(
        recipe, augment=(crop, Mixup(0.3, "waveforms"), excerpt, masks)
    ),
    "nothing mixed": replace(recipe, augment=(crop, excerpt, masks)),
    "neither speed nor shift": replace(recipe, augment=(crop, between, Excerpt(excerpt.share), masks)),
    "no masks": replace(recipe, augment=(crop, between, excerpt)),
    "2 s, half the epochs": replace(recipe, augment=longer, epochs=EPOCHS // 2),
    "weights averaged": replace(recipe, average=0.99),
    "CP-Mobile of the same size": recipe,
    "BetweenClass(1), even shares": replace(recipe, augment=(crop, BetweenClass(1.0), excerpt, masks)),
    "Freq-MixStyle as well": replace(recipe, augment=(*train.augment, FreqMixStyle(0.4, 0.3))),
    "twice the epochs": replace(recipe, epochs=2 * EPOCHS),
}


def chosen(root: Path) -> Clips:
    """Every second class outside ESC-10; folds 1 to 3 train, the last one tests."""
    clips = load_esc50(root)
    others = [name for name in clips.classes if name not in load_esc10(root).classes]
    classes = tuple(others[::2])
    clips = replace(clips, name="esc50", classes=classes).where(lambda clip: clip.scene in classes)
    return clips.with_validation_as("train")


def trained(name: str, fit: Fit, clips: Clips, out: Path) -> Scores:
    """The scores of one row on the test part."""
    run = Run(SEED, out)
    run.seed_torch(0)
    classifier = build(25, clips.classes)
    if name.startswith("CP-Mobile"):
        classifier = create_classifier("cp_mobile", clips.classes, base_channels=40)
    return evaluate(fit(classifier, clips.development, run), clips.test, run)


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
    for name, fit in CHANGES.items():
        if name in [row["change"] for row in rows]:
            continue
        scores = trained(name, fit, clips, asked.out)
        scores.save(asked.out / f"{list(CHANGES).index(name)}.csv")
        base = Scores.load(asked.out / "0.csv")
        gained = {metric: compare(base, scores, metric) for metric in ("accuracy", "log_loss")}
        rows.append(
            {"change": name, "epochs": fit.epochs, "clips": len(clips.test)}
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
