"""Sound files decoded once, then read as slices of memory-mapped arrays.

The cache is keyed by content, rate and channel: a renamed or copied file is reused, a changed one is decoded
again. It consists of shards, each an array of samples (`.npy`) beside its table of contents (`.json`: where the samples
of a file begin and end, and their hash), which is written last: a shard without it is never read.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tinyscene import audio
from tinyscene.data.clips import Clip, Clips
from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.progress import track

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


@dataclass(frozen=True)
class Waveforms:
    """The waveforms of clips, as slices of the cache. `skipped` holds the clips set aside, with the reason."""

    clips: Clips
    sample_rate: int
    slices: tuple[Slice, ...]
    hashes: tuple[str, ...]
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
        chosen = [i for i, clip in enumerate(self.clips) if clip in kept]
        slices, hashes = tuple(self.slices[i] for i in chosen), tuple(self.hashes[i] for i in chosen)
        return replace(self, clips=clips, slices=slices, hashes=hashes)

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
                recording=clip.recording or clip.path,
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
        return _digest(json.dumps([self.clips.classes, self.hashes, facts]).encode())


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
    hashes, bad = _content_hashes(clips.root, paths, store.parent, quiet)
    found = dict(_read_contents(store, store.stat().st_mtime_ns)) if store.is_dir() else {}
    failed: dict[str, str] = {}
    missing = {hashes[path]: path for path in paths if path in hashes and hashes[path] not in found}
    for contents, failures in _build(store, clips.root, missing, sample_rate, channel, quiet):
        found.update(contents)
        failed.update(failures)
    reasons = bad | {path: failed[content] for path, content in hashes.items() if content in failed}
    slices = {path: found[content] for path, content in hashes.items() if content in found}
    kept, skipped = _sort_out(clips, slices, reasons, sample_rate)
    if skipped and not skip_bad:
        raise InputError(_report(skipped))
    return Waveforms(
        replace(clips, rows=tuple(clip for clip, _ in kept)),
        sample_rate,
        tuple(where for _, where in kept),
        tuple(hashes[clip.path] for clip, _ in kept),
        tuple(skipped),
    )


def _sort_out(
    clips: Clips, slices: dict[str, Slice], reasons: dict[str, str], sample_rate: int
) -> tuple[list[tuple[Clip, Slice]], list[tuple[Clip, str]]]:
    """The clips that can be used, each with its slice, and those that can't, each with the reason."""
    kept: list[tuple[Clip, Slice]] = []
    skipped: list[tuple[Clip, str]] = []
    for clip in clips:
        try:
            if clip.path in reasons:
                raise InputError(reasons[clip.path])
            kept.append((clip, _cut(clip, slices[clip.path], sample_rate, clips)))
        except InputError as error:
            skipped.append((clip, str(error)))
    return kept, skipped


def _cut(clip: Clip, whole: Slice, sample_rate: int, clips: Clips) -> Slice:
    start = whole.start + round(clip.start_s * sample_rate)
    stop = whole.stop if clip.duration_s is None else start + round(clip.duration_s * sample_rate)
    if not whole.start <= start < stop <= whole.stop:
        raise InputError(
            f"{clips.root / clip.path}: asked for {clip.duration_s} s from {clip.start_s} s, but the file has "
            f"{(whole.stop - whole.start) / sample_rate:.3f} s; accepted: a stretch inside the file"
        )
    return replace(whole, start=start, stop=stop)


def _report(skipped: list[tuple[Clip, str]]) -> str:
    lines = [reason + (f" [{clip.row}]" if clip.row else "") for clip, reason in skipped[:_LISTED]]
    rest = f"\n... and {len(skipped) - _LISTED} more" if len(skipped) > _LISTED else ""
    what = "clip" if len(skipped) == 1 else "clips"
    return f"{len(skipped)} {what} can't be used (--skip-bad sets such clips aside):\n" + "\n".join(lines) + rest


def _build(
    store: Path, root: Path, missing: dict[str, str], sample_rate: int, channel: audio.Channel, quiet: bool
) -> Iterator[tuple[dict[str, Slice], dict[str, str]]]:
    """Decode missing files (by content hash) shard by shard. Yields what each shard holds and what failed."""
    if not missing:
        return

    def one(item: tuple[str, str]) -> tuple[str, audio.Waveform | str]:
        content, path = item
        try:
            return content, audio.read(root / path, sample_rate, channel)
        except InputError as error:
            return content, str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        queue = iter(missing.items())
        done = track(_in_order(pool, one, queue), f"decoding at {sample_rate} Hz", len(missing), quiet=quiet)
        while batch := list(islice(done, FILES_A_SHARD)):
            good = {content: got for content, got in batch if not isinstance(got, str)}
            yield _write(store, good), {content: got for content, got in batch if isinstance(got, str)}


def _in_order(pool: ThreadPoolExecutor, one: Any, queue: Iterator[Any]) -> Iterator[Any]:
    """Like pool.map, but no more than a shard ahead: memory stays bounded whatever the data set."""
    while ahead := list(islice(queue, FILES_A_SHARD)):
        yield from pool.map(one, ahead)


def _write(store: Path, waveforms: dict[str, audio.Waveform]) -> dict[str, Slice]:
    if not waveforms:
        return {}
    stops = np.cumsum([len(waveform) for waveform in waveforms.values()]).tolist()
    sounds = [hashlib.sha256(waveform.data).hexdigest()[:32] for waveform in waveforms.values()]
    contents = dict(zip(waveforms, zip([0, *stops[:-1]], stops, sounds, strict=True), strict=True))
    shard = store / f"{_digest(''.join(waveforms).encode())}.npy"
    try:
        store.mkdir(parents=True, exist_ok=True)
        with write_whole(shard) as partial, partial.open("wb") as file:
            np.save(file, np.concatenate(list(waveforms.values())))
        with write_whole(shard.with_suffix(".json")) as partial:
            partial.write_text(json.dumps(contents))
    except OSError as error:
        shard.unlink(missing_ok=True)
        raise InputError(
            f"{store}: {stops[-1] * 4 / 1e6:.0f} MB of decoded audio can't be written ({error.strerror or error}); "
            f"name a folder with room by --cache or $TINYSCENE_CACHE"
        ) from error
    return {content: Slice(shard, *extent) for content, extent in contents.items()}


@lru_cache(maxsize=4)
def _read_contents(store: Path, changed_ns: int) -> dict[str, Slice]:
    """Every file of every shard, read once until the store changes. A shard of another size than needed is left out."""
    found: dict[str, Slice] = {}
    for index in sorted(store.glob("*.json")):
        shard = index.with_suffix(".npy")
        try:
            contents: dict[str, tuple[int, int, str]] = json.loads(index.read_text())
            whole = np.load(shard, mmap_mode="r").shape == (max(stop for _, stop, _ in contents.values()),)
        except (OSError, ValueError, EOFError):  # cut short, by a crash of the machine
            continue
        if whole:
            found |= {content: Slice(shard, *extent) for content, extent in contents.items()}
    return found


def _content_hashes(root: Path, paths: list[str], folder: Path, quiet: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Content hash of every file; those of unchanged size and time are not read again."""
    memo_path = folder / f"hashes-{_digest(str(root.resolve()).encode())}.json"
    memo = _remembered(memo_path)

    def one(path: str) -> list[Any] | str:
        try:
            stat = (root / path).stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            if path in memo and memo[path][:2] == stamp:
                return memo[path]
            with (root / path).open("rb") as file:
                return [*stamp, hashlib.file_digest(file, "sha256").hexdigest()[:32]]
        except OSError as error:
            return f"{root / path}: {error.strerror or error}; accepted: a sound file ({audio.ACCEPTED})"

    new = any(path not in memo for path in paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        stamps = list(track(pool.map(one, paths), "hashing the files", len(paths), quiet=quiet or not new))
    good = {path: stamp for path, stamp in zip(paths, stamps, strict=True) if not isinstance(stamp, str)}
    if any(memo.get(path) != stamp for path, stamp in good.items()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with write_whole(memo_path) as partial:
                partial.write_text(json.dumps(memo | good))
        except OSError as error:
            raise InputError(
                f"{folder}: can't be written ({error.strerror or error}); name a folder with room by "
                f"--cache or $TINYSCENE_CACHE"
            ) from error
    bad = {path: stamp for path, stamp in zip(paths, stamps, strict=True) if isinstance(stamp, str)}
    return {path: stamp[2] for path, stamp in good.items()}, bad


def _remembered(memo_path: Path) -> dict[str, list[Any]]:
    try:
        memo: dict[str, list[Any]] = json.loads(memo_path.read_text())
    except (OSError, ValueError):  # none yet, or cut short
        return {}
    return memo


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
