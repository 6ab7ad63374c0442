"""What one edition asks of a submission, as data; a new edition is one value in `editions.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tinyscene.rules import Rules

Measure = Literal["parameters", "nonzero", "bytes", "KB", "macs"]
"""What a field of the complexity block holds: numbers of parameters, bytes, units of 1024 bytes, or MACs."""

MOST_SYSTEMS = 4
META = "meta.yaml"
# Of every result, overall and by class and device.
SCORES = ("accuracy", "logloss")


@dataclass(frozen=True)
class Edition:
    """How systems are named, what their output and meta files hold, and where the files lie.

    Limits, classes and the length of a clip are those of `rules`; the columns of an output are `filename`,
    `scene_label` and a probability for every class, separated by tabs.

    Attributes:
        year: what `--edition` says.
        task: the third part of a label, such as Lastname_Institute_task1a_1.
        folder: of the zip; below it lies a folder for every system, named by its label.
        clips: how many the official evaluation set has, named 0.wav, 1.wav, ...; None where it is not known here.
        development: the data set whose test part the results block is about.
        description: fields of system.description.
        complexity: fields of system.complexity, and what each holds.
        energy: fields of system.energy_consumption.
        urls: fields of system that hold an address.
        splits: a system is a model and an output for each, where there are any.
        results: blocks of results.development_dataset; its figures stand there directly where there is none.
        devices: of the device-wise figures.
        package: whether the inference code is handed in too, and with it models for single devices.
        sources: where all this is taken from.
        unverified: what stands in none of them, and how it is read here.
    """

    year: int
    rules: Rules
    clips: int | None
    development: str
    description: tuple[str, ...]
    complexity: Mapping[str, Measure]
    sources: tuple[str, ...]
    unverified: tuple[str, ...]
    task: str = "task1"
    folder: str = "task1"
    energy: tuple[str, ...] = ()
    urls: tuple[str, ...] = ("source_code",)
    splits: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    package: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.rules.classes

    @property
    def columns(self) -> tuple[str, ...]:
        """Of an output file."""
        return ("filename", "scene_label", *self.classes)

    @property
    def outputs(self) -> dict[str, str]:
        """The ending of each output file, and the split that it is for ("" where there are no splits)."""
        return {f"output.{split}.csv": split for split in self.splits} or {"output.csv": ""}

    def label(self, team: str, index: int) -> str:
        """Of system `index`, from 1, of a `team` such as Lastname_Institute."""
        return f"{team}_{self.task}_{index}"
