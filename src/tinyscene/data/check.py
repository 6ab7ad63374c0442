"""The contents of a data set and its faults: every file is decoded once."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tinyscene import audio
from tinyscene.audio import OTHER_SUFFIXES, SUFFIXES
from tinyscene.data.clips import SPLITS, Clip, Clips
from tinyscene.data.folder import sound_files
from tinyscene.data.tables import missing
from tinyscene.errors import InputError
from tinyscene.progress import track
from tinyscene.tables import APART, table

if TYPE_CHECKING:
    from rich.console import RenderableType

Counts = dict[str, dict[str, int]]
SHOWN = 10
_AHEAD = 1024


@dataclass(frozen=True)
class DataReport:
    """The findings of `check`, each with file, list and row.

    `counts` holds the clips by class, device and city, each by split. `usual` is the majority's (sample_rate in
    Hz, channels, duration_s), and `odd` lists the others. `unreadable` holds broken, truncated, silent and
    non-finite files, and clips that reach beyond the end of theirs.
    """

    name: str
    root: str
    clips: int
    files: int
    counts: dict[str, Counts]
    usual: dict[str, float]
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    leaking: tuple[str, ...]
    absent: tuple[str, ...]
    odd: tuple[str, ...]
    unlisted: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether a run can be trusted on this data. Odd and unlisted files and notes do not matter."""
        return not (self.missing or self.unreadable or self.leaking or self.absent)

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"ok": self.ok}, indent=2)


def check(clips: Clips, *, drop_shared: bool = False, quiet: bool = False) -> DataReport:
    """Decode every file and report contents and faults. Raises nothing for a bad set.

    Args:
        clips: loaded with `strict=False`, so that faulty ones are among them.
        drop_shared: report on what `Clips.drop_shared` leaves.
        quiet: no progress.
    """
    gone = missing(clips)
    absent_paths = {clip.path for clip in gone}
    first = {clip.path: clip for clip in reversed(clips.rows) if clip.path not in absent_paths}
    headers, bad, contents = _decoded(clips, sorted(first), quiet)
    usual, odd = _odd(headers, first)
    if drop_shared:
        clips = clips.drop_shared(contents)
    bad_clips = [f"{reason}{_at(first[path])}" for path, reason in sorted(bad.items())]
    return DataReport(
        name=clips.name,
        root=str(clips.root),
        clips=len(clips),
        files=len({clip.path for clip in clips}),
        counts={
            "class": _counts(clips, lambda clip: clip.scene or "unknown"),
            "device": _counts(clips, lambda clip: clip.device or "unknown"),
            "city": _counts(clips, lambda clip: clip.city or "unknown"),
        },
        usual=usual,
        missing=tuple(f"{clip.path}{_at(clip)}" for clip in gone),
        unreadable=(*bad_clips, *_beyond(clips, headers)),
        leaking=tuple(clips.leaks(contents)),
        absent=tuple(_absent(clips)),
        odd=odd,
        unlisted=tuple(_unlisted(clips)),
        notes=clips.notes,
    )


def tables(report: DataReport) -> "RenderableType":
    """The report for a terminal: clips by split, class, device and city, then every kind of finding."""
    from rich.console import Group
    from rich.text import Text

    usual = ", ".join(f"{key} {value:g}" for key, value in report.usual.items()) or "none"
    # As text: brackets in a file's name are not markup.
    head = f"{report.name}: {report.clips:,} clips in {report.files:,} files at {report.root}\nusual: {usual}"
    parts: list[RenderableType] = [Text(head)]
    for what, counts in report.counts.items():
        if what != "class" and set(counts) <= {"unknown"}:
            continue
        totals = {split: sum(by_split[split] for by_split in counts.values()) for split in SPLITS}
        rows = [_by_split({what: key}, by_split) for key, by_split in counts.items()]
        parts.append(table("", [*rows, APART, _by_split({what: "all"}, totals)]))
    for what in ("missing", "unreadable", "leaking", "absent", "odd", "unlisted", "notes"):
        parts += _findings(what, getattr(report, what))
    return Group(*parts, "ok" if report.ok else "not ok")


def _by_split(row: dict[str, str], clips: Mapping[Any, int]) -> dict[str, str]:
    return row | {split: f"{clips[split]:,}" for split in SPLITS}


def _findings(what: str, found: tuple[str, ...]) -> Iterator["RenderableType"]:
    from rich.text import Text

    if found:
        rest = [f"  ... and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
        yield Text("\n".join([f"{what}: {len(found):,}", *(f"  {line}" for line in found[:SHOWN]), *rest]))


def _decoded(
    clips: Clips, paths: list[str], quiet: bool
) -> tuple[dict[str, audio.AudioInfo], dict[str, str], dict[str, str]]:
    """Each file's format and length, why some can't be used, and a hash of the others' content."""
    contents: dict[str, str] = {}

    def one(path: str) -> audio.AudioInfo | str:
        try:
            header = audio.probe(clips.root / path)
            waveform = audio.read(clips.root / path)
        except InputError as error:
            return str(error)
        contents[path] = hashlib.sha256(waveform.tobytes()).hexdigest()
        return audio.AudioInfo(header.sample_rate, header.channels, len(waveform))

    def in_order(pool: ThreadPoolExecutor) -> Iterator[audio.AudioInfo | str]:
        for start in range(0, len(paths), _AHEAD):
            yield from pool.map(one, paths[start : start + _AHEAD])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(track(in_order(pool), "decoding", len(paths), quiet=quiet))
    found = dict(zip(paths, results, strict=True))
    headers = {path: result for path, result in found.items() if not isinstance(result, str)}
    return headers, {path: result for path, result in found.items() if isinstance(result, str)}, contents


def _odd(headers: dict[str, audio.AudioInfo], first: dict[str, Clip]) -> tuple[dict[str, float], tuple[str, ...]]:
    """The majority's format, and the files that differ."""
    if not headers:
        return {}, ()
    facts = {
        path: {"sample_rate": info.sample_rate, "channels": info.channels, "duration_s": round(info.duration_s, 3)}
        for path, info in headers.items()
    }
    usual: dict[str, Any] = {}
    for key in ("sample_rate", "channels", "duration_s"):
        usual[key] = Counter(fact[key] for fact in facts.values()).most_common(1)[0][0]
    odd = []
    for path, fact in facts.items():
        differing = [f"{key} {fact[key]:g} (usual {usual[key]:g})" for key in usual if fact[key] != usual[key]]
        if differing:
            odd.append(f"{path}: {', '.join(differing)}{_at(first[path])}")
    return usual, tuple(odd)


def _beyond(clips: Clips, headers: dict[str, audio.AudioInfo]) -> Iterator[str]:
    for clip in clips:
        info = headers.get(clip.path)
        if info is not None and _end_s(clip) > info.duration_s + 0.5 / info.sample_rate:
            yield f"{clip.path}: asks for {_end_s(clip):g} s, has {info.duration_s:g} s{_at(clip)}"


def _end_s(clip: Clip) -> float:
    return clip.start_s + (clip.duration_s or 0.0)


def _counts(clips: Clips, key: Callable[[Clip], str]) -> Counts:
    by_key: dict[str, Counter[str]] = {}
    for clip in clips:
        by_key.setdefault(key(clip), Counter())[clip.split] += 1
    return {name: {split: by_key[name][split] for split in SPLITS} for name in sorted(by_key)}


def _absent(clips: Clips) -> Iterator[str]:
    # An evaluation list has no labels, so that no class can be missing.
    if all(clip.scene is None for clip in clips):
        return
    if len(clips.classes) < 2:
        yield f"there is only one class, {', '.join(clips.classes)}"
    for split in SPLITS:
        present = {clip.scene for clip in clips if clip.split == split}
        lacking = [scene for scene in clips.classes if scene not in present]
        if lacking:
            yield f"the {split} split has no clip of {', '.join(lacking)}"


def _unlisted(clips: Clips) -> Iterator[str]:
    listed = {clip.path for clip in clips}
    # A table of files may lie anywhere: only the folders of its files are its own.
    own = {(clips.root / path).parent for path in listed} if clips.name == "csv" else {clips.root}
    known = SUFFIXES + OTHER_SUFFIXES
    found = (path for top in sorted(own) for path in sound_files(top, deep=clips.name != "csv", suffixes=known))
    for path in found:
        name = path.relative_to(clips.root).as_posix()
        if name not in listed:
            yield name


def _at(clip: Clip) -> str:
    return f" [{clip.row}]" if clip.row else ""
