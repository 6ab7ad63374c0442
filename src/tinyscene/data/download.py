"""Download the public TAU sets with soundata (the extra `download`)."""

from importlib import import_module
from pathlib import Path
from typing import Any

from tinyscene.data.tau import load_tau2019, load_tau2020_mobile, load_tau2022_mobile
from tinyscene.errors import InputError

# Our name: soundata's name, the folder inside the archives, our loader.
SOURCES = {
    "tau2019": ("tau2019uas", "TAU-urban-acoustic-scenes-2019-development", load_tau2019),
    "tau2020-mobile": ("tau2020uas_mobile", "TAU-urban-acoustic-scenes-2020-mobile-development", load_tau2020_mobile),
    "tau2022-mobile": ("tau2022uas_mobile", "TAU-urban-acoustic-scenes-2022-mobile-development", load_tau2022_mobile),
}


def download(name: str, folder: Path | str) -> Path:
    """Download a development set into `folder`, unless it is complete there. Returns the folder to load it from.

    The archives stay beside it, so that an interrupted download resumes; they may be deleted afterwards.

    Raises:
        InputError: another name, soundata is not installed, or the download fails.
    """
    if name not in SOURCES:
        raise InputError(f"{name!r} can't be downloaded; accepted: {', '.join(SOURCES)}")
    source, inner, loader = SOURCES[name]
    home = Path(folder).expanduser()
    for tree in (home, home / inner):
        if _is_whole(loader, tree):
            return tree
    dataset = _soundata().initialize(source, data_home=str(home))
    parts = [part for part in dataset.remotes if part.startswith("development")]
    try:
        home.mkdir(parents=True, exist_ok=True)
        dataset.download(partial_download=parts)
    except OSError as error:
        raise InputError(
            f"{home}: the download of {name} failed ({error}); check the connection and the room on the disk: "
            f"the same command resumes it"
        ) from error
    return home / inner


def _is_whole(loader: Any, tree: Path) -> bool:
    try:
        loader(tree)
    except InputError:
        return False
    return True


def _soundata() -> Any:
    try:
        return import_module("soundata")
    except ImportError as error:
        raise InputError(
            "downloads need soundata, which is not installed; try pip install tinyscene[download]"
        ) from error
