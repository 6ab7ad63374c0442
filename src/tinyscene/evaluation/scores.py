"""Scores of a classifier on labelled clips: overall, by class, device and city, with intervals."""

import csv
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinyscene import metrics
from tinyscene.data import Clip, Clips
from tinyscene.errors import InputError
from tinyscene.files import write_whole

# Devices that the TAU sets recorded with; s1 to s6 are simulated from device a.
REAL_DEVICES = ("a", "b", "c")
_COLUMNS = ("filename", "start_s", "duration_s", "scene", "device", "city", "recording", "heard")


@dataclass(frozen=True)
class Scores:
    """A classifier's probabilities for labelled clips, and every metric derived from them.

    Attributes:
        clips: in the order of the rows.
        probabilities: shape (clips, classes).
        training_devices: those the classifier was trained on, which separates seen from unseen devices.
        training_recordings: hashes of those that the classifier was trained, stopped or calibrated on; None if
            unknown.
    """

    clips: Clips
    probabilities: npt.NDArray[np.float64]
    training_devices: tuple[str, ...] = ()
    training_recordings: frozenset[str] | None = None

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        return self.clips.labels

    @cached_property
    def training_clips(self) -> int | None:
        """The number of clips of recordings that, by name, the classifier was trained on; None if unknown."""
        known = self.training_recordings
        return None if known is None else sum(recording in known for recording in self.clips.recording_hashes)

    @property
    def optimistic(self) -> bool:
        """Whether any clip is from a training recording; a part only if it holds one."""
        return bool(self.training_clips)

    def marked(self, name: str) -> str:
        """The title of the scores, marked where they are optimistic."""
        return f"{name}, *optimistic*" if self.optimistic else name

    @property
    def accuracy(self) -> float:
        return metrics.accuracy(self.labels, self.probabilities)

    @property
    def log_loss(self) -> float:
        return metrics.log_loss(self.labels, self.probabilities)

    @property
    def calibration_error(self) -> float:
        return metrics.calibration_error(self.labels, self.probabilities)

    @property
    def macro_accuracy(self) -> float:
        """Mean of the accuracies of the classes, by which the DCASE tasks rank."""
        return float(np.mean([one.accuracy for one in self.by("scene").values()]))

    @property
    def macro_log_loss(self) -> float:
        """Mean of the log losses of the classes."""
        return float(np.mean([one.log_loss for one in self.by("scene").values()]))

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Clips by true class (rows) and predicted class (columns)."""
        return metrics.confusion(self.labels, self.probabilities)

    @property
    def right(self) -> npt.NDArray[np.float64]:
        """1 where the most probable class is the true one, shape (clips,)."""
        right: npt.NDArray[np.float64] = (self.probabilities.argmax(1) == self.labels).astype(np.float64)
        return right

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """Log loss of every clip, shape (clips,)."""
        return metrics.losses(self.labels, self.probabilities)

    @property
    def recordings(self) -> npt.NDArray[np.str_]:
        """The groups of the bootstrap, since clips of one recording are dependent."""
        return np.array([clip.recording or clip.path for clip in self.clips])

    def interval(self, metric: Literal["accuracy", "log_loss"] = "accuracy") -> tuple[float, float]:
        """95 % bootstrap interval over recordings."""
        return metrics.bootstrap_interval(self.right if metric == "accuracy" else self.losses, self.recordings)

    def by(self, what: Literal["scene", "device", "city"]) -> "dict[str, Scores]":
        """The scores of every scene, device or city; empty where the data set names none."""
        values = [getattr(clip, what) for clip in self.clips]
        return {value: self._part([v == value for v in values]) for value in sorted({v for v in values if v})}

    def by_device_group(self) -> "dict[str, Scores]":
        """Real devices (a, b, c), and of the others those in training (seen) and those not (unseen)."""

        def group(device: str) -> str:
            return "real" if device in REAL_DEVICES else "seen" if device in self.training_devices else "unseen"

        groups = [group(clip.device) if clip.device else "" for clip in self.clips]
        return {name: self._part([g == name for g in groups]) for name in ("real", "seen", "unseen") if name in groups}

    def parts(self) -> "dict[str, dict[str, Scores]]":
        """By class, device, group of devices and city."""
        groups = {"class": self.by("scene"), "device": self.by("device"), "device_group": self.by_device_group()}
        return {**groups, "city": self.by("city")}

    def _part(self, keep: list[bool]) -> "Scores":
        rows = tuple(clip for clip, kept in zip(self.clips, keep, strict=True) if kept)
        return replace(self, clips=replace(self.clips, rows=rows), probabilities=self.probabilities[keep])

    def summary(self) -> dict[str, Any]:
        """Clips, how many are from training recordings, accuracy and log loss with intervals, calibration error."""
        return {
            "clips": len(self.clips),
            "training_clips": self.training_clips,
            "accuracy": self.accuracy,
            "accuracy_interval": plain_interval(self.interval("accuracy")),
            "log_loss": self.log_loss,
            "log_loss_interval": plain_interval(self.interval("log_loss")),
            "ece": self.calibration_error,
        }

    def to_json(self) -> dict[str, Any]:
        """Every metric as plain values."""
        return {
            **self.summary(),
            "macro_accuracy": self.macro_accuracy,
            "macro_log_loss": self.macro_log_loss,
            **{
                f"by_{kind}": {name: part.summary() for name, part in parts.items()}
                for kind, parts in self.parts().items()
            },
            "classes": list(self.clips.classes),
            "confusion": self.confusion.tolist(),
        }

    def save(self, path: Path) -> None:
        """Write one row a clip: its facts, whether it is from a training recording (empty where unknown), and the
        probability of every class."""
        known = self.training_recordings
        heard = ["" if known is None else int(one in known) for one in self.clips.recording_hashes]
        with write_whole(path) as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*_COLUMNS, *(f"p_{scene}" for scene in self.clips.classes)])
            for clip, row, one in zip(self.clips, self.probabilities, heard, strict=True):
                end = "" if clip.duration_s is None else clip.duration_s
                facts = [clip.path, clip.start_s, end, clip.scene, clip.device, clip.city, clip.recording, one]
                # All digits, so that scores read back are equal to the last bit.
                writer.writerow([*facts, *row.tolist()])

    @staticmethod
    def load(path: Path) -> "Scores":
        """Read what `save` wrote."""
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or not all(name in rows[0] for name in _COLUMNS):
            raise InputError(f"{path}: not a table of predictions; accepted: predictions.csv from a run")
        classes = tuple(name[2:] for name in rows[0] if name and name.startswith("p_"))
        clips, probabilities = [], []
        for number, row in enumerate(rows, 2):
            try:
                if row["scene"] not in classes:
                    raise ValueError(f"no probability of the scene {row['scene']!r}")
                clips.append(_clip(row))
                probabilities.append([float(row[f"p_{scene}"]) for scene in classes])
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}:{number}: {error}; accepted: predictions.csv from a run") from error
        found = Clips(path.parent.name, path.parent, classes, tuple(clips))
        hashes = zip(found.recording_hashes, rows, strict=True)
        unknown = all(row["heard"] == "" for row in rows)
        heard = None if unknown else frozenset(one for one, row in hashes if row["heard"] == "1")
        return Scores(found, np.array(probabilities), training_recordings=heard)


def _clip(row: dict[str, str]) -> Clip:
    return Clip(
        row["filename"],
        row["scene"],
        "test",
        float(row["start_s"]),
        float(row["duration_s"]) if row["duration_s"] else None,
        row["device"],
        row["city"],
        row["recording"],
    )


def plain_interval(interval: tuple[float, float]) -> list[float] | None:
    """As JSON: null where there is only one recording, whose spread is unknown."""
    return None if math.isnan(interval[0]) else list(interval)


def percent(interval: tuple[float, float]) -> str:
    """An interval of shares in percent, for a table."""
    low, high = interval
    return "-" if math.isnan(low) else f"{100 * low:.1f}-{100 * high:.1f}"
