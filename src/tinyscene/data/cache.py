"""Sound files decoded once, then read as slices of memory-mapped arrays.

The cache is keyed by content, rate and channel: a renamed or copied file is reused, a changed one is decoded
again. It consists of shards, each an array of samples (`.npy`) beside its table of contents (`.json`: where the samples
of a file begin and end, and their hash), which is written last: a shard without it is never read.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tinyscene import audio
from tinyscene.data.clips import Clip, Clips, recording_of
from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

FILES_A_SHARD = 64
_FORMAT = 2
_LISTED = 5


def cache_folder() -> Path:
    """The folder of decoded audio: $TINYSCENE_CACHE, or one in the user's cache."""
    return Path(os.environ.get("TINYSCENE_CACHE") or Path.home() / ".cache" / "tinyscene")


@dataclass(frozen=True)
class Slice:
    """The location of one file's samples."""

    shard: Path
    start: int
    stop: int
    sound: str
    """A hash of all samples of the file."""
    content: str
    """A hash of the file itself."""


@dataclass(frozen=True)
class Waveforms:
    """The waveforms of clips, as slices of the cache. `skipped` holds the clips set aside, with the reason."""

    clips: Clips
    sample_rate: int
    slices: tuple[Slice, ...]
    skipped: tuple[tuple[Clip, str], ...] = ()

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> audio.Waveform:
        """float32 samples of one clip, shape (samples,), read-only."""
        where = self.slices[index]
        samples: audio.Waveform = self._shards[where.shard][where.start : where.stop]
        return samples

    @cached_property
    def _shards(self) -> dict[Path, Any]:
        return {path: np.load(path, mmap_mode="r") for path in {where.shard for where in self.slices}}

    def __getstate__(self) -> dict[str, Any]:
        """Without the open maps: a loader worker opens its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_shards"}

    @property
    def sounds(self) -> dict[str, str]:
        """A hash of the decoded samples of every file, by path: a WAV and a FLAC of the same sound have the same."""
        return {clip.path: where.sound for clip, where in zip(self.clips, self.slices, strict=True)}

    def drop_shared(self) -> "Waveforms":
        """Without what a later split also holds, by recording or by content: as `Clips.drop_shared`."""
        clips = self.clips.drop_shared(self.sounds)
        kept = set(clips)
        slices = tuple(where for clip, where in zip(self.clips, self.slices, strict=True) if clip in kept)
        return replace(self, clips=clips, slices=slices)

    @property
    def lengths(self) -> list[int]:
        """Samples of every clip."""
        return [where.stop - where.start for where in self.slices]

    def in_pieces(self, length_s: float) -> Clips:
        """The clips cut into pieces of `length_s`, one after the other; a shorter rest is left out.

        Raises:
            InputError: the length is not above 0, or no clip is as long.
        """
        rate = self.sample_rate
        samples = round(length_s * rate) if 0 < length_s < float("inf") else 0
        rows = tuple(
            clip._replace(
                # In whole samples: what is rounded later could leave the file.
                start_s=(round(clip.start_s * rate) + piece * samples) / rate,
                duration_s=samples / rate,
                recording=recording_of(clip),
            )
            for clip, length in zip(self.clips, self.lengths, strict=True)
            for piece in range(length // samples if samples else 0)
        )
        if not rows:
            longest = max(self.lengths, default=0) / rate
            raise InputError(
                f"pieces of {length_s:g} s; accepted: above 0, up to the {longest:g} s of the longest clip"
            )
        return replace(self.clips, name=f"{self.clips.name}-{length_s:g}s", rows=rows)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the content, label, split, device or extent of any clip; not with its place on disk."""
        facts = [(clip.scene, clip.split, clip.start_s, clip.duration_s, clip.device) for clip in self.clips]
        return _digest(json.dumps([self.clips.classes, [where.content for where in self.slices], facts]).encode())


def decode(
    clips: Clips,
    sample_rate: int,
    channel: audio.Channel = "mean",
    *,
    skip_bad: bool = False,
    folder: Path | None = None,
    quiet: bool = False,
) -> Waveforms:
    """Waveforms of `clips` at `sample_rate` Hz, decoded (in parallel) where the cache lacks them.

    Raises:
        InputError: a file can't be used, unless `skip_bad` sets it aside; or the cache can't be written.
    """
    store = (folder or cache_folder()) / f"v{_FORMAT}-soxr{version('soxr')}-{sample_rate}-{channel}"
    paths = sorted({clip.path for clip in clips})
    hashes, reasons = _content_hashes(clips.root, paths, store.parent, quiet)
    found = dict(_read_contents(store, store.stat().st_mtime_ns)) if store.is_dir() else {}
    lacking = {content: path for path, content in hashes.items() if content not in found}

    def read(path: str) -> audio.Waveform:
        return audio.read(clips.root / path, sample_rate, channel)

    waveforms = track(in_order(read, lacking.values()), f"decoding at {sample_rate} Hz", len(lacking), quiet=quiet)
    done = zip(lacking, waveforms, strict=True)
    while lacking and (batch := list(islice(done, FILES_A_SHARD))):
        found |= _write(store, {content: got for content, got in batch if not isinstance(got, str)})
        reasons |= {content: got for content, got in batch if isinstance(got, str)}
    contents = ((clip, hashes.get(clip.path, clip.path)) for clip in clips)
    cuts = [(clip, reasons.get(key) or _cut(clip, found[key], sample_rate, clips.root)) for clip, key in contents]
    kept = [(clip, got) for clip, got in cuts if isinstance(got, Slice)]
    skipped = [(clip, got) for clip, got in cuts if isinstance(got, str)]
    if skipped and not skip_bad:
        what = "1 clip" if len(skipped) == 1 else f"{len(skipped)} clips"
        lines = [f"{what} can't be used (--skip-bad sets such clips aside):"]
        lines += [reason + clip.at for clip, reason in skipped[:_LISTED]]
        lines += [f"... and {len(skipped) - _LISTED} more"] if len(skipped) > _LISTED else []
        raise InputError("\n".join(lines))
    left = replace(clips, rows=tuple(clip for clip, _ in kept))
    return Waveforms(left, sample_rate, tuple(where for _, where in kept), tuple(skipped))


def in_order(one: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result | str]:
    """As `map`, in threads, with the message of an InputError instead of a result.

    No more than a shard ahead: memory stays bounded whatever the data set.
    """

    def attempt(item: Item) -> Result | str:
        try:
            return one(item)
        except InputError as error:
            return str(error)

    queue = iter(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while ahead := list(islice(queue, FILES_A_SHARD)):
            yield from pool.map(attempt, ahead)


def _cut(clip: Clip, whole: Slice, sample_rate: int, root: Path) -> Slice | str:
    """The clip's samples, or why there are none."""
    if not clip.start_s and clip.duration_s is None:
        return whole
    start = whole.start + round(clip.start_s * sample_rate)
    stop = whole.stop if clip.duration_s is None else start + round(clip.duration_s * sample_rate)
    if whole.start <= start < stop <= whole.stop:
        return replace(whole, start=start, stop=stop)
    return (
        f"{root / clip.path}: asked for {clip.duration_s} s from {clip.start_s} s, but the file has "
        f"{(whole.stop - whole.start) / sample_rate:.3f} s; accepted: a stretch inside the file"
    )


@contextmanager
def _storing(folder: Path, what: str) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: {what} can't be written ({error.strerror or error}); name a folder with room by --cache or "
            f"$TINYSCENE_CACHE"
        ) from error


def _write(store: Path, waveforms: dict[str, audio.Waveform]) -> dict[str, Slice]:
    if not waveforms:
        return {}
    stops = np.cumsum([len(waveform) for waveform in waveforms.values()]).tolist()
    sounds = [hashlib.sha256(waveform.data).hexdigest()[:32] for waveform in waveforms.values()]
    contents = dict(zip(waveforms, zip([0, *stops[:-1]], stops, sounds, strict=True), strict=True))
    shard = store / f"{_digest(''.join(waveforms).encode())}.npy"
    with (
        _storing(store, f"{stops[-1] * 4 / 1e6:.0f} MB of decoded audio"),
        write_whole(shard.with_suffix(".json")) as table,
        write_whole(shard) as samples,
        samples.open("wb") as file,
    ):
        np.save(file, np.concatenate(list(waveforms.values())))
        table.write_text(json.dumps(contents))
    return {content: Slice(shard, *extent, content) for content, extent in contents.items()}


@lru_cache(maxsize=4)
def _read_contents(store: Path, changed_ns: int) -> dict[str, Slice]:
    """Every file of every shard, read once until the store changes. A shard of another size than needed is left out."""
    found: dict[str, Slice] = {}
    for index in sorted(store.glob("*.json")):
        shard = index.with_suffix(".npy")
        try:
            contents: dict[str, tuple[int, int, str]] = json.loads(index.read_text())
            samples = max(stop for _, stop, _ in contents.values())
            header = _header(samples)
            with shard.open("rb") as file:
                whole = file.read(len(header)) == header and shard.stat().st_size == len(header) + 4 * samples
        except (OSError, ValueError):  # cut short, by a crash of the machine
            continue
        if whole:
            found |= {content: Slice(shard, *extent, content) for content, extent in contents.items()}
    return found


def _header(samples: int) -> bytes:
    """What `np.save` writes before that many float32 samples; parsing it takes ten times as long as comparing."""
    held = BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(held, about)
    return held.getvalue()


def _content_hashes(root: Path, paths: list[str], folder: Path, quiet: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Content hash of every file, and why some have none; those of unchanged size and time are not read again."""
    memo_path = folder / f"hashes-{_digest(str(root.resolve()).encode())}.json"
    try:
        memo: dict[str, list[Any]] = json.loads(memo_path.read_text())
    except (OSError, ValueError):  # none yet, or cut short
        memo = {}

    def unchanged(path: str) -> bool:
        try:
            stat = os.stat(f"{root}/{path}")
        except OSError:
            return False
        return path in memo and memo[path][:2] == [stat.st_size, stat.st_mtime_ns]

    def one(path: str) -> list[Any]:
        try:
            stat = (root / path).stat()
            with (root / path).open("rb") as file:
                return [stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()[:32]]
        except OSError as error:
            raise InputError(f"{root / path}: {error.strerror or error}; accepted: {audio.ACCEPTED}") from error

    changed = [path for path in paths if not unchanged(path)]
    done = track(in_order(one, changed), "hashing the files", len(changed), quiet=quiet or not changed)
    found = dict(zip(changed, done, strict=True))
    bad = {path: reason for path, reason in found.items() if isinstance(reason, str)}
    if new := {path: stamp for path, stamp in found.items() if not isinstance(stamp, str)}:
        memo |= new
        with _storing(folder, "hashes of files"), write_whole(memo_path) as partial:
            partial.write_text(json.dumps(memo))
    return {path: memo[path][2] for path in paths if path not in bad}, bad


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
