"""A synthetic data set, rendered from a seed as a folder in the form of TAU Urban Acoustic Scenes 2022 Mobile.

Nothing in it was recorded. It is for demonstrations and tests, and has the difficulties of the real one in small:
scenes with overlapping spectra, cities and devices outside training, far more of device a than of
any other. No location is in both parts.
"""

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from tinyscene.data import synthetic_scenes as scenes
from tinyscene.data.cache import in_order
from tinyscene.data.synthetic_scenes import Take, from_db
from tinyscene.errors import InputError, Numbers, check
from tinyscene.files import write_whole_folder
from tinyscene.progress import track

# Raised when the same settings no longer give the same samples.
VERSION = 2
RECORD = "synthetic.json"
SEGMENT_S = 10

SCENES = tuple(sorted(scenes.SCENES))
DEVICES = tuple(scenes.DEVICES)
BULK_DEVICE = "a"
FEWER_DEVICES = ("b", "c", "s1", "s2", "s3")
DEVICES_A_TEST_SEGMENT = 3

# RMS range of a recording in dBFS, drawn for each, so that loudness does not give the scene away.
LEVEL_DBFS = (-36.0, -22.0)


@dataclass(frozen=True)
class Synthetic:
    """Settings of a synthetic data set; the default gives 1,440 clips of 1 s (900 to train, 540 to test), 127 MB.

    cities: in both parts, at different locations. test_cities: in the test part only.
    locations: per scene and city in the train part; the test part has one. segments: of 10 s, per location of the
    train part; all are recorded by device a, every second one by a further device as well. A location of the test
    part has one segment, recorded by three of the nine devices. clips_per_segment: how many of its ten seconds
    are kept (a sparse choice shows a network more places for the same number of clips).
    """

    seed: int = 0
    sample_rate: int = 44_100
    cities: tuple[str, ...] = ("barcelona", "helsinki", "london", "paris", "vienna")
    test_cities: tuple[str, ...] = ("milan",)
    locations: int = 2
    segments: int = 2
    clips_per_segment: int = 3

    def __post_init__(self) -> None:
        check(self, seed=Numbers(least=0, whole=True), sample_rate=Numbers(least=16_000, most=192_000, whole=True))
        check(self, clips_per_segment=Numbers(least=1, most=SEGMENT_S, whole=True), cities=tuple, test_cities=tuple)
        check(self, locations=Numbers(least=1, whole=True), segments=Numbers(least=1, whole=True))


@dataclass(frozen=True)
class Segment:
    """10 s at one location, recorded by one device or more at the same time."""

    part: str
    scene: str
    city: str
    location: int
    number: int
    devices: tuple[str, ...]
    seconds: tuple[int, ...]

    def filename(self, second: int, device: str) -> str:
        """As TAU 2022 names it."""
        return f"audio/{self.scene}-{self.city}-{self.location}-{self.number}-{second}-{device}.wav"


def render(folder: str | Path, synthetic: Synthetic | None = None, *, quiet: bool = False) -> Path:
    """Render a synthetic data set, or reuse the one that is there; the same samples for any number of threads.

    The folder gets its name once everything is in it. Raises InputError if something else is there.
    """
    synthetic = synthetic or Synthetic()
    folder = Path(folder).expanduser()
    record = {"what": "synthetic scenes in the form of TAU 2022 Mobile", "version": VERSION, **asdict(synthetic)}
    text = json.dumps(record, indent=2) + "\n"
    if folder.exists() and any(folder.iterdir()):
        found = (folder / RECORD).read_text(encoding="utf-8") if (folder / RECORD).is_file() else f"no {RECORD}"
        if found != text:
            raise InputError(f"{folder}: holds {found}; accepted: a new folder, or a rendering with the same settings")
        return folder
    plan = list(segments_of(synthetic))
    with write_whole_folder(folder) as partial:

        def write(segment: Segment) -> None:
            for name, samples in _clips(synthetic, segment):
                soundfile.write(partial / name, samples, synthetic.sample_rate, subtype="PCM_16")

        (partial / "audio").mkdir()
        (partial / RECORD).write_text(text, encoding="utf-8")
        _write_tables(partial, plan)
        for _ in track(in_order(write, plan), "rendering synthetic scenes", len(plan), quiet=quiet):
            pass
    return folder


def segments_of(synthetic: Synthetic) -> Iterator[Segment]:
    """What is to be recorded, where, and by which devices. Locations and segments are numbered throughout."""
    kept = synthetic.clips_per_segment
    seconds = tuple((2 * index + 1) * SEGMENT_S // (2 * kept) for index in range(kept))
    locations, numbers = itertools.count(), itertools.count()
    for shift, scene in enumerate(SCENES):
        train = [(city, next(locations)) for city in synthetic.cities for _ in range(synthetic.locations)]
        test = [(city, next(locations)) for city in (*synthetic.cities, *synthetic.test_cities)]
        for index, ((city, location), _) in enumerate(itertools.product(train, range(synthetic.segments))):
            further = () if index % 2 else (FEWER_DEVICES[(index // 2 + shift) % len(FEWER_DEVICES)],)
            devices = (BULK_DEVICE, *further)
            yield Segment("train", scene, city, location, next(numbers), devices, seconds)
        for index, (city, location) in enumerate(test):
            first = DEVICES_A_TEST_SEGMENT * index + shift
            devices = tuple(DEVICES[(first + step) % len(DEVICES)] for step in range(DEVICES_A_TEST_SEGMENT))
            yield Segment("test", scene, city, location, next(numbers), devices, seconds)


def _write_tables(folder: Path, plan: list[Segment]) -> None:
    """`meta.csv` and fold 1, tab-separated, with TAU's headers."""
    rows = [
        (segment.filename(second, device), segment.scene, f"{segment.city}-{segment.location}", device, segment.part)
        for segment in plan
        for device in segment.devices
        for second in segment.seconds
    ]
    train, test = ([row for row in rows if row[4] == part] for part in ("train", "test"))
    header = ("filename", "scene_label", "identifier", "source_label")
    (folder / "evaluation_setup").mkdir()
    for name, listed, columns in (
        ("meta", rows, 4),
        ("evaluation_setup/fold1_train", train, 2),
        ("evaluation_setup/fold1_evaluate", test, 2),
        ("evaluation_setup/fold1_test", test, 1),
    ):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerows(row[:columns] for row in (header, *listed))


def _clips(synthetic: Synthetic, segment: Segment) -> Iterator[tuple[str, npt.NDArray[np.int16]]]:
    """Name and samples, shape (sample_rate,), of each clip of one segment."""
    place = scenes.SCENES[segment.scene]
    for keys, spread in (
        (("city", segment.scene, segment.city), scenes.CITY_SPREAD),
        (("location", segment.location), scenes.LOCATION_SPREAD),
    ):
        place = scenes.vary_place(place, _take(synthetic, *keys).rng, spread)
    take = _take(synthetic, "segment", segment.number)
    sound = scenes.sound_of(place, take) * scenes.colour(_take(synthetic, "colour", segment.location))
    for device in segment.devices:
        recorded = scenes.through_device(sound, scenes.DEVICES[device], take)
        recorded *= np.float32(from_db(take.rng.uniform(*LEVEL_DBFS)) / np.sqrt(np.mean(recorded**2)))
        seconds = recorded.reshape(SEGMENT_S, synthetic.sample_rate)
        for second in segment.seconds:
            samples = np.clip(np.rint(seconds[second] * 32_768), -32_768, 32_767).astype(np.int16)
            yield segment.filename(second, device), samples


def _take(synthetic: Synthetic, *keys: int | str) -> Take:
    """A 10 s take with a generator of its own, which depends on the seed and the keys alone."""
    numbers = [int.from_bytes(key.encode()) if isinstance(key, str) else key for key in keys]
    rng = np.random.default_rng([synthetic.seed, *numbers])
    return Take(rng, SEGMENT_S * synthetic.sample_rate, synthetic.sample_rate)
