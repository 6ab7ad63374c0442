"""What the recipe of esc.py was chosen by:

    python results/ablation.py --data $ESC50 --microphones $MICIRP [--out FOLDER]

Every row changes one thing of the first, trains on folds 1 to 3 of ESC-50 and is scored on fold 4, in every second of
the 40 classes that are not in ESC-10: no test clip of the ESC-10 figures takes part in a choice. What helped is put
together in LAST. The rows after it change that one for microphones that training never heard: every sixth of the folder
(devices.py), and none of them is in the row that trains with microphones. They took part in this choice: a figure for
unheard microphones must be of others. Differences from the first row are paired
over recordings, with 95 % intervals. A row of ablation.csv that exists is not recomputed.
"""

import argparse
import csv
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import devices
import numpy as np
from esc import build, int8, train

from tinyscene.augment import (
    Augmentation,
    BetweenClass,
    Crop,
    DeviceImpulseResponse,
    Equalizer,
    Excerpt,
    FreqMixStyle,
    Mixup,
    SpecAugment,
)
from tinyscene.compression import Quantize
from tinyscene.data import Clips
from tinyscene.data.esc import load_esc10, load_esc50
from tinyscene.evaluation import Scores, compare, evaluate
from tinyscene.models.classifier import SceneClassifier
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
# A stretch a little longer than the excerpt is filtered, so that it can still be played faster.
stretch, of_stretch = Crop(2.4), replace(two_seconds, share=2 / 2.4)
gentle = Equalizer(ripple_db=6, slope_db=36, p=0.8)
MICROPHONES = "2 s, responses of other microphones"
FOR_DEVICES: dict[str, Fit] = {
    "2 s, a random response": halved(stretch, gentle, of_stretch),
    "2 s, a stronger random response": halved(stretch, replace(gentle, ripple_db=12, slope_db=60, p=0.9), of_stretch),
    "2 s, the strongest random response": halved(stretch, Equalizer(), of_stretch),
    "2 s, Freq-MixStyle": halved(two_seconds, FreqMixStyle(p=0.8)),
    "2 s, a random response, Freq-MixStyle": halved(stretch, gentle, of_stretch, FreqMixStyle()),
    MICROPHONES: halved(stretch, of_stretch),
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


def fit_of(name: str, others: Path) -> Fit:
    """The training of a row; `others` are the microphones to train with."""
    fit = (CHANGES | FOR_DEVICES).get(name, CHANGES[LAST])
    return replace(fit, augment=(*fit.augment, DeviceImpulseResponse(str(others), 0.5))) if name == MICROPHONES else fit


def trained(name: str, clips: Clips, out: Path, others: Path) -> SceneClassifier:
    """The classifier of one row."""
    run = Run(SEED, out)
    run.seed_torch(INITIAL)
    classifier = fit_of(name, others)(build(25, clips.classes), clips.development, run)
    return ROUNDED[name](classifier, clips.development, run) if name in ROUNDED else classifier


def through(classifier: SceneClassifier, clips: Clips, unheard: list[Path]) -> dict[str, float]:
    """Accuracy and log loss of the test part, through every microphone."""
    heard = [DeviceImpulseResponse(str(path), p=1.0) for path in unheard]
    shares = devices.probabilities(classifier, clips.test, heard)[1:]
    right = np.take_along_axis(shares, np.array(clips.test.labels)[None, :, None], 2)
    return {
        "accuracy_devices": float((shares.argmax(2) == clips.test.labels).mean()),
        "log_loss_devices": float(-np.log(right.clip(1e-12)).mean()),
    }


def main() -> None:
    """Add the missing rows to the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="ESC-50")
    parser.add_argument("--microphones", type=Path, required=True, help="a folder of impulse responses, each a file")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    asked = parser.parse_args()
    clips = chosen(asked.data)
    rows: list[dict[str, object]] = []
    if TABLE.is_file():
        with TABLE.open(newline="") as file:
            rows = [*csv.DictReader(file)]
    origin = {"command": command(clips), "commit": commit(), "machine": machine(), "seed": SEED}
    unheard, others = devices.microphones(asked.microphones), asked.out / "microphones"
    others.mkdir(parents=True, exist_ok=True)
    for path in asked.microphones.glob("*.flac"):
        if path not in unheard and not (others / path.name).exists():
            (others / path.name).symlink_to(path.resolve())
    run = Run(SEED, asked.out)
    if rows and not (asked.out / "0.csv").is_file():  # to compare the missing rows with
        evaluate(trained(FIRST, clips, asked.out, others), clips.test, run).save(asked.out / "0.csv")
    for number, name in enumerate((*CHANGES, *FOR_DEVICES, *ROUNDED)):
        if name in [row["change"] for row in rows]:
            continue
        classifier = trained(name, clips, asked.out, others)
        scores = evaluate(classifier, clips.test, run)
        scores.save(asked.out / f"{number}.csv")
        base = Scores.load(asked.out / "0.csv")
        gained = {metric: compare(base, scores, metric) for metric in ("accuracy", "log_loss")}
        rows.append(
            {"change": name, "epochs": fit_of(name, others).epochs, "clips": len(clips.test)}
            | {"accuracy": scores.accuracy, "log_loss": scores.log_loss, "ece": scores.calibration_error}
            | {
                f"{metric}_{part}": getattr(one, part)
                for metric, one in gained.items()
                for part in ("mean", "low", "high")
            }
            | origin
            | {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
            | through(classifier, clips, unheard)
        )
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[-1]], restval="")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
