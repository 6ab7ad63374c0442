"""Labelled recordings: loaders for the published layouts, splits that don't leak, decoded audio."""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from tinyscene.data.cache import Waveforms, decode
from tinyscene.data.check import DataReport, check
from tinyscene.data.clips import Clip, Clips
from tinyscene.data.esc import is_esc, load_esc10, load_esc50
from tinyscene.data.folder import load_csv, load_folder
from tinyscene.data.tau import (
    download,
    is_tau,
    load_synthetic,
    load_tau2019,
    load_tau2020_3class,
    load_tau2020_mobile,
    load_tau2022_mobile,
    load_tau_evaluation,
)
from tinyscene.errors import InputError

__all__ = [
    "DATASETS",
    "Clip",
    "Clips",
    "DataReport",
    "Waveforms",
    "check",
    "decode",
    "download",
    "load",
    "load_csv",
    "load_esc10",
    "load_esc50",
    "load_folder",
    "load_synthetic",
    "load_tau2019",
    "load_tau2020_3class",
    "load_tau2020_mobile",
    "load_tau2022_mobile",
    "load_tau_evaluation",
]

DATASETS: dict[str, Callable[..., Clips]] = {
    "folder": load_folder,
    "csv": load_csv,
    "esc10": load_esc10,
    "esc50": load_esc50,
    "tau2019": load_tau2019,
    "tau2020-mobile": load_tau2020_mobile,
    "tau2020-3class": load_tau2020_3class,
    "tau2022-mobile": load_tau2022_mobile,
    "synthetic": load_synthetic,
}


def load(
    root: Path | str,
    name: str | None = None,
    *,
    allow_missing: bool = False,
    strict: bool = True,
    drop_shared: bool = False,
    **options: Any,
) -> Clips:
    """Clips of a data set on disk.

    Args:
        root: its folder, or a table of files.
        name: one of DATASETS; recognised by its layout where None.
        allow_missing: leave out listed files that are not on disk, with a note.
        strict: False keeps what is wrong among the clips, for `check`.
        drop_shared: leave out of training what a later split also holds (`Clips.drop_shared`).
        options: those of the loader, such as `test_fold` or `subset`.

    Raises:
        InputError: nothing is there, the layout or an option is unknown, or the loader refuses what it finds.
    """
    path = Path(root).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; accepted: the folder of a data set, or a .csv of files")
    chosen = _recognise(path) if name is None else name
    if chosen not in DATASETS:
        raise InputError(f"data set {chosen!r}; accepted: {', '.join(DATASETS)}")
    loader = DATASETS[chosen]
    accepted = [*list(signature(loader).parameters)[1:-1], "seed"]
    unknown = [option for option in options if option not in accepted]
    if unknown:
        raise InputError(f"{chosen}: no option {', '.join(unknown)}; accepted: {', '.join(accepted)}")
    clips = loader(path, allow_missing=allow_missing, strict=strict, drop_shared=drop_shared, **options)
    # Results on the rendered set are called synthetic, whichever reader was asked for.
    return replace(clips, name="synthetic") if (path / "synthetic.json").is_file() else clips


def _recognise(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv"):
            return "csv"
        raise InputError(f"{path}: a file; accepted: a .csv or .tsv table of files, or the folder of a data set")
    if (path / "synthetic.json").is_file():
        return "synthetic"
    if found := is_tau(path) or is_esc(path):
        return found
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir()):
        return "folder"
    held = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
    raise InputError(
        f"{path}: holds {held}; accepted: a folder per class, evaluation_setup/ of a TAU set, meta/esc50.csv of "
        f"ESC-50, meta.csv of ESC-10, or the name of a .csv file"
    )
