"""TAU Urban Acoustic Scenes: the development sets of 2019, 2020 Mobile, 2020 3Class and 2022 Mobile, as published.

A file name gives scene, city, location, segment and device (`airport-lisbon-1000-40000-a.wav`); in 2022 also the
second of the segment, before the device (`airport-lisbon-1000-40000-0-a.wav`). The official lists in
`evaluation_setup/` make the splits: fold1_train for training, fold1_evaluate for testing. Files in neither are left
out.

A recording is a location of a city. On the official lists (2020 Mobile, 3Class, 2022 with its subsets) no location has
two scenes and none is on both sides, so this key neither merges scenes nor leaks; the tests check it.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Unpack

from tinyscene.data.clips import Clip, Clips, Split
from tinyscene.data.tables import Row, Settling, folder, read_table, settle, without_missing
from tinyscene.errors import InputError

CONTEXTS = {
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
SCENES = tuple(CONTEXTS)
DEVICES = ("a", "b", "c", "s1", "s2", "s3", "s4", "s5", "s6")
SUBSETS = (5, 10, 25, 50, 100)
TRAIN = "fold1_train.csv"
EVALUATE = "fold1_evaluate.csv"
# Places of the lists: as published, at the root, as in the repository of the 2024 baseline.
PLACES = ("evaluation_setup", ".", "split_setup")
THREE_CLASSES = "tau2020-3class"
# Sets of 1 s clips, whose names hold the second.
_SECONDS = ("tau2022-mobile", "synthetic")


def load_tau2019(root: Path | str, **settling: Unpack[Settling]) -> Clips:
    """TAU Urban Acoustic Scenes 2019: ten scenes, 10 s, device a. Arguments as of `load_tau2022_mobile`."""
    return _load("tau2019", root, TRAIN, settling)


def load_tau2020_mobile(root: Path | str, **settling: Unpack[Settling]) -> Clips:
    """TAU Urban Acoustic Scenes 2020 Mobile: ten scenes, 10 s. Arguments as of `load_tau2022_mobile`."""
    return _load("tau2020-mobile", root, TRAIN, settling)


def load_tau2020_3class(root: Path | str, **settling: Unpack[Settling]) -> Clips:
    """TAU Urban Acoustic Scenes 2020 3Class: indoor, outdoor, transportation; 10 s, device a.

    Arguments as of `load_tau2022_mobile`.
    """
    return _load(THREE_CLASSES, root, TRAIN, settling)


def load_tau2022_mobile(root: Path | str, subset: int = 100, **settling: Unpack[Settling]) -> Clips:
    """TAU Urban Acoustic Scenes 2022 Mobile: ten scenes, 1 s.

    Args:
        root: the folder of the tree.
        subset: percentage of the training list, as in the challenges of 2024 and 2025 (split5.csv ... split50.csv).
        settling: see `Settling`.

    Raises:
        InputError: a list is missing or broken, a name or label does not fit the edition, a file is missing.
    """
    if subset not in SUBSETS:
        raise InputError(f"subset {subset!r}; accepted: {', '.join(map(str, SUBSETS))} (percent)")
    train = TRAIN if subset == 100 else f"split{subset}.csv"
    return _load("tau2022-mobile", root, train, settling)


def load_synthetic(root: Path | str, **settling: Unpack[Settling]) -> Clips:
    """A tree that `tinyscene.data.synthetic` rendered, in the layout of 2022 Mobile. Arguments as there."""
    return _load("synthetic", root, TRAIN, settling)


def load_tau_evaluation(root: Path | str, list_file: Path | str, *, classes: Sequence[str] = SCENES) -> Clips:
    """Clips of an evaluation set: a list of file names without labels, perhaps with the device (device_id).

    Every clip is in the test split with the scene None, even where the file name would reveal it.

    Args:
        root: the folder that file names are relative to.
        list_file: the list; relative to `root` or to the working directory.
        classes: those that a classifier may answer with.
    """
    top = folder(root)
    path = Path(list_file).expanduser()
    clips = []
    for where, cells in read_table(top / path if (top / path).is_file() else path, ["filename"]):
        name = cells["filename"]
        parts = _parts(name)
        city, recording, device = "", name, ""
        if len(parts) in (5, 6):
            city, recording, device = parts[1], f"{parts[1]}-{parts[2]}", parts[-1]
        device = cells.get("device_id") or cells.get("source_label") or device
        clips.append(Clip(name, None, "test", device=device, city=city, recording=recording, row=where))
    return without_missing(Clips("tau-evaluation", top, tuple(classes), tuple(clips)), allow_missing=False)


def is_tau(root: Path) -> str | None:
    """The edition that a folder holds, by the names and labels in its test list; None if it has no such list."""
    path = _find(root, EVALUATE)
    if path is None:
        return None
    rows = read_table(path, ["filename"])
    names = [_parts(row.cells["filename"]) for row in rows]
    if all(len(parts) == 6 for parts in names):
        return "tau2022-mobile"
    if rows[0].cells.get("scene_label") in CONTEXTS.values():
        return THREE_CLASSES
    return "tau2019" if all(parts[-1] == "a" for parts in names) else "tau2020-mobile"


def download(name: str, folder: Path | str) -> Path:
    """Download a development set into `folder`, with soundata, unless it is complete there.

    The archives stay beside it, so that an interrupted download resumes; they may be deleted afterwards.

    Returns:
        The folder to load it from.

    Raises:
        InputError: another name, soundata (the extra `download`) is not installed, or the download fails.
    """
    if name not in DOWNLOADS:
        raise InputError(f"{name!r} can't be downloaded; accepted: {', '.join(DOWNLOADS)}")
    source, loader = DOWNLOADS[name]
    home = Path(folder).expanduser()
    inner = home / f"TAU-urban-acoustic-scenes-{name.removeprefix('tau')}-development"
    for tree in (home, inner):
        try:
            loader(tree)
        except InputError:
            continue
        return tree
    try:
        dataset = import_module("soundata").initialize(source, data_home=str(home))
        home.mkdir(parents=True, exist_ok=True)
        dataset.download(partial_download=[part for part in dataset.remotes if part.startswith("development")])
    except ImportError as error:
        raise InputError(
            "downloads need soundata, which is not installed; try pip install tinyscene[download]"
        ) from error
    except OSError as error:
        raise InputError(
            f"{home}: the download of {name} failed ({error}); check the connection and the room on the disk: "
            f"the same command resumes it"
        ) from error
    return inner


# Our name: soundata's, and our loader.
DOWNLOADS: dict[str, tuple[str, Callable[..., Clips]]] = {
    "tau2019": ("tau2019uas", load_tau2019),
    "tau2020-mobile": ("tau2020uas_mobile", load_tau2020_mobile),
    "tau2022-mobile": ("tau2022uas_mobile", load_tau2022_mobile),
}


def _load(name: str, root: Path | str, train: str, settling: Settling) -> Clips:
    top = folder(root)
    labels = CONTEXTS if name == THREE_CLASSES else {scene: scene for scene in SCENES}
    clips: list[Clip] = []
    lists: tuple[tuple[str, Split], ...] = ((train, "train"), (EVALUATE, "test"))
    for file, split in lists:
        path = _find(top, file)
        if path is None:
            raise InputError(
                f"{top}: no list {file}; accepted for {name}: {PLACES[0]}/{file}, as published, or {file} in the "
                f"folder itself"
            )
        clips += [_clip(row, split, name, labels) for row in read_table(path, ["filename", "scene_label"])]
    listed = Clips(name, top, tuple(sorted({*labels.values()})), tuple(clips), published=name != "synthetic")
    return settle(listed, **settling)


def _find(top: Path, name: str) -> Path | None:
    return next((top / place / name for place in PLACES if (top / place / name).is_file()), None)


def _clip(row: Row, split: Split, name: str, labels: Mapping[str, str]) -> Clip:
    path, label = row.cells["filename"], row.cells["scene_label"]
    parts = _parts(path)
    if len(parts) != 5 + (name in _SECONDS) or parts[-1] not in DEVICES:
        form = "scene-city-location-segment-" + ("second-" if name in _SECONDS else "") + "device"
        raise InputError(f"{row.where}: filename {path!r}; accepted in {name}: {form}.wav, device {', '.join(DEVICES)}")
    if label != labels.get(parts[0]):
        accepted = labels.get(parts[0], f"a name that begins with one of {', '.join(SCENES)}")
        raise InputError(f"{row.where}: scene_label {label!r} of {path!r}; accepted: {accepted}")
    return Clip(path, label, split, device=parts[-1], city=parts[1], recording=f"{parts[1]}-{parts[2]}", row=row.where)


def _parts(filename: str) -> list[str]:
    return filename.rsplit("/", 1)[-1].rsplit(".", 1)[0].split("-")
