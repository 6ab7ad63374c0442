"""Microphones that training never heard: python results/devices.py --data $ESC10 --microphones $MICIRP RUN

RUN is a cross-validation by esc.py. Every fold's int8 model classifies its own test clips as recorded, and once more
through the impulse response of each microphone (every sixth of the folder), its level kept. Differences are paired,
with 95 % intervals over recordings.
"""

import argparse
import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from tinyscene import metrics
from tinyscene.augment import DeviceImpulseResponse
from tinyscene.data import Clips, decode, load
from tinyscene.models.classifier import SceneClassifier
from tinyscene.progress import track
from tinyscene.systems.receipt import command, commit, machine

EVERY = 6
TABLE = Path(__file__).with_suffix(".csv")


def microphones(folder: Path) -> list[Path]:
    """Those that training never hears."""
    return sorted(folder.glob("*.flac"))[::EVERY]


def probabilities(classifier: SceneClassifier, clips: Clips, devices: list[DeviceImpulseResponse]) -> np.ndarray:
    """(1 + devices, clips, classes): of the clips as they are, and through every device."""
    found, rng = [], np.random.default_rng(0)
    waveforms = decode(clips, classifier.sample_rate, classifier.channel)
    for i in track(range(len(waveforms)), "through every microphone", len(waveforms)):
        heard = [waveforms[i], *(device(waveforms[i], classifier.sample_rate, rng) for device in devices)]
        with torch.inference_mode():
            found.append(classifier(torch.from_numpy(np.stack(heard))).double().softmax(1).numpy())
    return np.stack(found, 1)


def main() -> None:
    """Write one row for every variant and seed of the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="ESC-10")
    parser.add_argument("--microphones", type=Path, required=True, help="a folder of impulse responses, each a file")
    parser.add_argument("run", type=Path, metavar="RUN")
    asked = parser.parse_args()
    names = microphones(asked.microphones)
    devices = [DeviceImpulseResponse(str(path), p=1.0) for path in names]
    rows = []
    for place in sorted(path.parent for path in asked.run.glob("*/seed-*/predictions.csv")):
        shares, labels, recordings = [], [], []
        for fold in sorted(asked.run.glob("fold-*")):
            clips = load(asked.data, test_fold=fold.name.removeprefix("fold-")).test
            model = SceneClassifier.load(fold / place.relative_to(asked.run))
            shares.append(probabilities(model, clips, devices))
            labels.append(clips.labels)
            recordings += clips.recording_hashes
        joined, truth = np.concatenate(shares, 1), np.concatenate(labels)
        right = joined.argmax(2) == truth
        losses = -np.log(np.take_along_axis(joined, truth[None, :, None], 2)[..., 0].clip(1e-12))
        by_device = right[1:].mean(1)
        lost = right[1:].mean(0) - right[0]
        low, high = metrics.bootstrap_interval(lost, np.array(recordings))
        rows.append(
            {"variant": place.parent.name, "seed": place.name.removeprefix("seed-"), "clips": len(truth)}
            | {"microphones": len(devices), "accuracy": right[0].mean(), "accuracy_devices": by_device.mean()}
            | {"difference": lost.mean(), "difference_low": low, "difference_high": high}
            | {"worst": by_device.min(), "worst_device": names[by_device.argmin()].stem}
            | {"log_loss": losses[0].mean(), "log_loss_devices": losses[1:].mean()}
            | {"command": command(clips), "commit": commit(), "machine": machine()}
            | {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
        )
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
