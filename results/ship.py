"""Train the models that come with the package: python results/ship.py --data $ESC10 [--out FOLDER]

The recipe is that of esc.py, on all folds; nothing is left to test on, so that the cards quote its cross-validation
(folds-esc-esc10.csv) and its microphones (devices.csv). Credits are the data set's own README.
"""

import argparse
import csv
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import esc

from tinyscene.data import load
from tinyscene.models.pretrained import FOLDER, Card, save_pretrained
from tinyscene.progress import say
from tinyscene.systems.receipt import command, commit, machine
from tinyscene.training.batches import INITIAL
from tinyscene.training.run import Run

CREDITS = "README-CC-BY-3.0.txt"
SEED = 0
SIZES = {"32kb": esc.kb32, "64kb": esc.kb64, "128kb": esc.kb128}


def card(size: str, facts: dict[str, str], devices: dict[str, str], made: str, folds: int) -> Card:
    """From the row of a cross-validation and that of its microphones, their shares as percent."""
    accuracy, deviation = 100 * float(facts["accuracy"]), 100 * float(facts["deviation"])
    by_fold = ", ".join(f"{100 * float(share):.1f}" for name, share in facts.items() if name.startswith("fold_"))
    return Card(
        name=f"esc10-{size}",
        summary=f"Ten everyday sounds (ESC-10) within {size.removesuffix('kb')} kB at int8: "
        f"{accuracy:.1f} % over {folds} folds.",
        licence="CC-BY-3.0",
        data=f"ESC-10 (K. J. Piczak, ACM Multimedia 2015), folds 1 to {folds}: clips of 5 s from freesound.org, whose "
        "authors are named in ESC-10-CREDITS.txt, beside this folder.",
        figures=f"This model was trained on all clips. In a cross-validation of its recipe (seeds: {facts['seeds']}) "
        f"int8 networks have {by_fold} % on folds 1 to {folds}, {accuracy:.1f} ± {deviation:.1f} %, a log "
        f"loss of {float(facts['log_loss']):.2f} and a calibration error of {float(facts['ece']):.3f} "
        f"(`{facts['command']}`, commit {facts['commit']}). {int(facts['bytes']) / 1000:.1f} kB, "
        f"{int(facts['macs']) / 1e6:.1f} M MACs a second of sound. **Through {devices['microphones']} microphones that "
        f"training never heard, {100 * float(devices['accuracy_devices']):.1f} %**: it is not robust to other devices.",
        command=made,
        use="For trying tinyscene, and as a start for your own classes (`tinyscene fit --from`). It names one of its "
        "ten sounds whatever it hears, and knows no other; it is not made for alarms or for anything that matters.",
    )


def rows(table: str) -> list[dict[str, str]]:
    """Of a table beside this file."""
    with Path(__file__).with_name(table).open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Train and write every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="ESC-10")
    parser.add_argument("--out", type=Path, default=Path("runs/ship"))
    asked = parser.parse_args()
    clips = load(asked.data)
    clips = replace(clips, rows=tuple(clip._replace(split="train") for clip in clips))
    tested = {row["variant"]: row for row in rows("folds-esc-esc10.csv") if row["stage"] == "Quantize"}
    devices = {row["variant"]: row for row in rows("devices.csv")}
    if not (asked.data / CREDITS).is_file():
        sys.exit(f"{asked.data}: no {CREDITS}; accepted: ESC-10 as published, with the credits of its recordings")
    made = f"python results/{command(clips)}  # commit {commit()}, seed {SEED}, {machine()}"
    cards = {}
    for size in SIZES:
        variant = f"kb{size.removesuffix('kb')}"
        cards[size] = card(size, tested[variant], devices[variant], made, len(clips.folds))
    for size, system in SIZES.items():
        about = cards[size]
        say(about.name)
        run = Run(SEED, asked.out / size)
        run.seed_torch(INITIAL)
        train, quantize = system.stages
        trained = train(system.build(clips.classes), clips, run)
        rounded = quantize(trained, clips, run)
        save_pretrained(rounded, FOLDER / about.name, about, trainable=trained)
    shutil.copyfile(asked.data / CREDITS, FOLDER / "ESC-10-CREDITS.txt")


if __name__ == "__main__":
    main()
