"""TAU Urban Acoustic Scenes: the development sets of 2019, 2020 Mobile, 2020 3Class and 2022 Mobile, as published.

A file name gives scene, city, location, segment and device (`airport-lisbon-1000-40000-a.wav`); in 2022 also the
second of the segment, before the device (`airport-lisbon-1000-40000-0-a.wav`). The official lists in
`evaluation_setup/` make the splits: fold1_train for training, fold1_evaluate for testing. Files in neither are left
out, with a note.

A recording is a location of a city. On the official lists (2020 Mobile, 3Class, 2022 with its subsets) no location has
two scenes and none is on both sides, so this key neither merges scenes nor leaks; the tests check it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Unpack

from tinyscene.data.clips import Clip, Clips, Split
from tinyscene.data.tables import Row, Settling, folder, read_table, settle, without_missing
from tinyscene.errors import InputError

SCENES = (
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
)
CONTEXTS: Mapping[str, str] = MappingProxyType(
    {
        "airport": "indoor",
        "bus": "transportation",
        "metro": "transportation",
        "metro_station": "indoor",
        "park": "outdoor",
        "public_square": "outdoor",
        "shopping_mall": "indoor",
        "street_pedestrian": "outdoor",
        "street_traffic": "outdoor",
        "tram": "transportation",
    }
)
DEVICES = ("a", "b", "c", "s1", "s2", "s3", "s4", "s5", "s6")
SUBSETS = (5, 10, 25, 50, 100)
SETUP = "evaluation_setup"
TRAIN = "fold1_train.csv"
EVALUATE = "fold1_evaluate.csv"
# Places of the lists: as published, at the root, as in the repository of the 2024 baseline.
PLACES = (SETUP, ".", "split_setup")


@dataclass(frozen=True)
class Edition:
    """File names and labels of one edition: parts of a name, and the label of each scene."""

    name: str
    parts: int
    labels: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.labels.values())))


_SAME = MappingProxyType({scene: scene for scene in SCENES})
TAU2019 = Edition("tau2019", 5, _SAME)
TAU2020_MOBILE = Edition("tau2020-mobile", 5, _SAME)
TAU2020_3CLASS = Edition("tau2020-3class", 5, CONTEXTS)
TAU2022_MOBILE = Edition("tau2022-mobile", 6, _SAME)
SYNTHETIC = Edition("synthetic", 6, _SAME)


def load_tau2019(root: Path | str, *, seed: int = 0, **settling: Unpack[Settling]) -> Clips:
    """TAU Urban Acoustic Scenes 2019: ten scenes, 10 s, device a. Arguments as of `load_tau2022_mobile`."""
    return _load(TAU2019, root, TRAIN, seed, settling)


def load_tau2020_mobile(root: Path | str, *, seed: int = 0, **settling: Unpack[Settling]) -> Clips:
    """TAU Urban Acoustic Scenes 2020 Mobile: ten scenes, 10 s. Arguments as of `load_tau2022_mobile`."""
    return _load(TAU2020_MOBILE, root, TRAIN, seed, settling)


def load_tau2020_3class(root: Path | str, *, seed: int = 0, **settling: Unpack[Settling]) -> Clips:
    """TAU Urban Acoustic Scenes 2020 3Class: indoor, outdoor, transportation; 10 s, device a.

    Arguments as of `load_tau2022_mobile`.
    """
    return _load(TAU2020_3CLASS, root, TRAIN, seed, settling)


def load_tau2022_mobile(
    root: Path | str,
    subset: int = 100,
    *,
    train_list_2020: Path | str | None = None,
    seed: int = 0,
    **settling: Unpack[Settling],
) -> Clips:
    """TAU Urban Acoustic Scenes 2022 Mobile: ten scenes, 1 s.

    Args:
        root: the folder of the tree.
        subset: percentage of the training list, as in the challenges of 2024 and 2025 (split5.csv ... split50.csv).
        train_list_2020: fold1_train.csv of 2020 Mobile, from which the whole list is derived where 2022's is missing.
        seed: of the cut into training and validation.
        settling: see `Settling`.

    Raises:
        InputError: a list is missing or broken, a name or label does not fit the edition, a file is missing.
    """
    if subset not in SUBSETS:
        raise InputError(f"subset {subset!r}; accepted: {', '.join(map(str, SUBSETS))} (percent)")
    if subset == 100 and train_list_2020 is not None and _find(folder(root), TRAIN) is None:
        return _load(TAU2022_MOBILE, root, Path(train_list_2020).expanduser(), seed, settling)
    train = TRAIN if subset == 100 else f"split{subset}.csv"
    return _load(TAU2022_MOBILE, root, train, seed, settling)


def load_synthetic(root: Path | str, *, seed: int = 0, **settling: Unpack[Settling]) -> Clips:
    """A tree that `tinyscene.data.synthetic` rendered, in the layout of 2022 Mobile. Arguments as there."""
    return _load(SYNTHETIC, root, TRAIN, seed, settling)


def load_tau_evaluation(
    root: Path | str, list_file: Path | str, *, classes: Sequence[str] = SCENES, allow_missing: bool = False
) -> Clips:
    """Clips of an evaluation set: a list of file names without labels, perhaps with the device (device_id).

    Every clip is in the test split with the scene None, even where the file name would reveal it.

    Args:
        root: the folder that file names are relative to.
        list_file: the list; relative to `root` or to the working directory.
        classes: those that a classifier may answer with.
        allow_missing: leave out files that are not on disk, with a note.
    """
    top = folder(root)
    path = Path(list_file).expanduser()
    rows = read_table(top / path if (top / path).is_file() else path, ["filename"])
    clips = tuple(_unlabelled(row) for row in rows)
    return without_missing(Clips("tau-evaluation", top, tuple(classes), clips), allow_missing)


def is_tau(root: Path) -> str | None:
    """The edition that a folder holds, by the names and labels in its test list; None if it has no such list."""
    path = _find(root, EVALUATE)
    if path is None:
        return None
    rows = read_table(path, ["filename"])
    names = [_stem(row.cells["filename"]).split("-") for row in rows]
    if all(len(parts) == TAU2022_MOBILE.parts for parts in names):
        return TAU2022_MOBILE.name
    if rows[0].cells.get("scene_label", "") in TAU2020_3CLASS.classes:
        return TAU2020_3CLASS.name
    return TAU2019.name if all(parts[-1] == "a" for parts in names) else TAU2020_MOBILE.name


def expand_2020(rows: list[Row]) -> list[Row]:
    """The rows of a 2020 Mobile list as those of 2022: ten names for one, with the second before the device."""
    expanded = []
    for row in rows:
        segment, device = row.cells["filename"].rsplit("-", 1)
        names = [f"{segment}-{second}-{device}" for second in range(10)]
        expanded += [Row(row.where, row.cells | {"filename": name}) for name in names]
    return expanded


def _load(edition: Edition, root: Path | str, train: str | Path, seed: int, settling: Settling) -> Clips:
    top = folder(root)
    if isinstance(train, Path):
        development = expand_2020(read_table(train, ["filename", "scene_label"]))
    else:
        development = read_table(_need(top, train, edition), ["filename", "scene_label"])
    tested = read_table(_need(top, EVALUATE, edition), ["filename", "scene_label"])
    clips = [_clip(row, "train", edition) for row in development] + [_clip(row, "test", edition) for row in tested]
    _refuse_shared(clips)
    notes = _unused(top, {clip.path for clip in clips})
    published = edition is not SYNTHETIC
    listed = Clips(edition.name, top, edition.classes, tuple(clips), notes, published)
    return settle(listed, seed=seed, **settling)


def _find(top: Path, name: str) -> Path | None:
    return next((top / place / name for place in PLACES if (top / place / name).is_file()), None)


def _need(top: Path, name: str, edition: Edition) -> Path:
    path = _find(top, name)
    if path is None:
        hint = ", or train_list_2020=" if edition is TAU2022_MOBILE and name == TRAIN else ""
        raise InputError(
            f"{top}: no list {name}; accepted for {edition.name}: {SETUP}/{name}, as published, "
            f"or {name} in the folder itself{hint}"
        )
    return path


def _clip(row: Row, split: Split, edition: Edition) -> Clip:
    path, label = row.cells["filename"], row.cells["scene_label"]
    parts = _stem(path).split("-")
    if len(parts) != edition.parts or parts[-1] not in DEVICES:
        form = "scene-city-location-segment-" + ("second-" if edition.parts == 6 else "") + "device"
        raise InputError(
            f"{row.where}: filename {path!r}; accepted in {edition.name}: {form}.wav, device {', '.join(DEVICES)}"
        )
    if edition.labels.get(parts[0]) != label:
        raise InputError(
            f"{row.where}: scene_label {label!r} of {path!r}; accepted: "
            f"{edition.labels.get(parts[0]) or 'a name that begins with one of ' + ', '.join(SCENES)}"
        )
    return Clip(path, label, split, device=parts[-1], city=parts[1], recording=f"{parts[1]}-{parts[2]}", row=row.where)


def _unlabelled(row: Row) -> Clip:
    path = row.cells["filename"]
    parts = _stem(path).split("-")
    device, city, recording = "", "", path
    if len(parts) in (TAU2020_MOBILE.parts, TAU2022_MOBILE.parts):
        device, city, recording = parts[-1], parts[1], f"{parts[1]}-{parts[2]}"
    device = row.cells.get("device_id") or row.cells.get("source_label") or device
    return Clip(path, None, "test", device=device, city=city, recording=recording, row=row.where)


def _refuse_shared(clips: list[Clip]) -> None:
    first: dict[str, Clip] = {}
    for clip in clips:
        earlier = first.setdefault(clip.path, clip)
        if earlier.split != clip.split:
            raise InputError(f"{clip.row}: {clip.path} is also listed at {earlier.row}; accepted: in one list only")


def _unused(top: Path, used: set[str]) -> tuple[str, ...]:
    if not (top / "meta.csv").is_file():
        return ()
    listed = read_table(top / "meta.csv", ["filename"])
    left = sum(row.cells["filename"] not in used for row in listed)
    return (f"{left:,} of the {len(listed):,} files in meta.csv are in neither list and left out",) if left else ()


def _stem(filename: str) -> str:
    return filename.rsplit("/", 1)[-1].rsplit(".", 1)[0]
