"""What all tests share: a cache of their own, small sound files, trees in the published layouts, the real data."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tinyscene.allocator import keep_freed_memory

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ESC10_CATEGORIES = (
    "Dog bark",
    "Rain",
    "Sea waves",
    "Baby cry",
    "Clock tick",
    "Person sneeze",
    "Helicopter",
    "Chainsaw",
    "Rooster",
    "Fire crackling",
)
TAU_CONTEXTS = {
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


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws from torch's own generator does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def lean_process() -> None:
    """Small tensors are slower on several threads, and large ones where the kernel clears their pages each time."""
    torch.set_num_threads(1)
    keep_freed_memory()


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test touches the user's cache."""
    before = os.environ.get("TINYSCENE_CACHE")
    os.environ["TINYSCENE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["TINYSCENE_CACHE"])
    os.environ.pop("TINYSCENE_CACHE")
    if before is not None:
        os.environ["TINYSCENE_CACHE"] = before


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """shared_data("esc10"): a folder or file of the real data beside the repository; skips where it is missing."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"{path} is not on this machine")
        return path

    return find


@pytest.fixture(scope="session")
def sound() -> Callable[..., Path]:
    """sound(path, seconds, rate, channels, seed): writes seeded noise, in the format that the suffix names."""

    def write(path: Path, seconds: float = 0.15, rate: int = 8000, channels: int = 1, seed: int | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a seed, the name gives one: every file of a tree differs.
        rng = np.random.default_rng(list(path.name.encode()) if seed is None else seed)
        soundfile.write(path, rng.uniform(-0.5, 0.5, (round(seconds * rate), channels)), rate)
        return path

    return write


@pytest.fixture(scope="session")
def tau_tree(sound: Callable[..., Path]) -> Callable[..., Path]:
    """tau_tree(root, edition): a development set as published, six locations a scene: four, one and one unused."""

    def build(root: Path, edition: str = "tau2020-mobile") -> Path:
        seconds = ("0", "1") if edition in ("tau2022-mobile", "synthetic") else ("",)
        lists: dict[str, list[tuple[str, str, str, str]]] = {"train": [], "evaluate": [], "neither": []}
        for number, scene in enumerate(TAU_CONTEXTS):
            label = TAU_CONTEXTS[scene] if edition == "tau2020-3class" else scene
            for place in range(6):
                part = "train" if place < 4 else "evaluate" if place == 4 else "neither"
                further = () if edition in ("tau2019", "tau2020-3class") else ("s4",) if place == 4 else ("b",)
                city, location = ("lisbon", "milan")[place // 3], 10 * number + place
                for device in ("a", *further):
                    for second in seconds:
                        stem = "-".join(filter(None, (scene, city, str(location), str(location + 500), second, device)))
                        sound(root / "audio" / f"{stem}.wav")
                        lists[part].append((f"audio/{stem}.wav", label, f"{city}-{location}", device))
        _write_tau_lists(root, lists)
        return root

    return build


def _write_tau_lists(root: Path, lists: dict[str, list[tuple[str, str, str, str]]]) -> None:
    def write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))

    full = ("filename", "scene_label", "identifier", "source_label")
    write(root / "meta.csv", full, [row for rows in lists.values() for row in rows])
    setup = root / "evaluation_setup"
    write(setup / "fold1_train.csv", full[:2], [row[:2] for row in lists["train"]])
    write(setup / "fold1_evaluate.csv", full[:2], [row[:2] for row in lists["evaluate"]])
    write(setup / "fold1_test.csv", full[:1], [row[:1] for row in lists["evaluate"]])


@pytest.fixture(scope="session")
def esc_tree(sound: Callable[..., Path]) -> Callable[..., Path]:
    """esc_tree(root, layout): "esc50", "esc10" (a table) or "esc10-folders", as published, with three folds."""

    def build(root: Path, layout: str) -> Path:
        categories = list(ESC10_CATEGORIES)
        if layout == "esc50":
            categories += [f"Other {number}" for number in range(40)]
        lines = []
        for target, category in enumerate(categories):
            label = category.lower().replace(" ", "_")
            for fold in (1, 2, 3):
                source = 1000 * fold + target
                for take in "AB" if fold == 1 else "A":
                    base = f"{fold}-{source}-{take}"
                    if layout == "esc10-folders":
                        sound(root / f"{target + 1:03d} - {category}" / f"{base}.ogg", rate=44100)
                    elif layout == "esc10":
                        sound(root / "audio" / f"{base}.ogg", rate=44100)
                        lines.append(f"{base}.ogg,{fold},{label},{source},{take}")
                    else:
                        sound(root / "audio" / f"{base}-{target}.wav")
                        lines.append(f"{base}-{target}.wav,{fold},{target},{label},{target < 10},{source},{take}")
        if layout == "esc50":
            (root / "meta").mkdir()
            header = "filename,fold,target,category,esc10,src_file,take"
            (root / "meta" / "esc50.csv").write_text("\n".join([header, *lines]) + "\n")
        elif layout == "esc10":
            (root / "meta.csv").write_text("\n".join(["filename,fold,category,src_file,take", *lines]) + "\n")
        return root

    return build
