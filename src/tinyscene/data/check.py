"""The contents of a data set and its faults: every file is decoded once."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tinyscene import audio
from tinyscene.audio import OTHER_SUFFIXES, SUFFIXES
from tinyscene.data.cache import in_order
from tinyscene.data.clips import SPLITS, Clips
from tinyscene.data.folder import sound_files
from tinyscene.data.tables import missing
from tinyscene.progress import track
from tinyscene.tables import APART, table

if TYPE_CHECKING:
    from rich.console import RenderableType

Counts = dict[str, dict[str, int]]
Facts = dict[str, float]
KEYS = ("sample_rate", "channels", "duration_s")
SHOWN = 10


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
    usual: Facts
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
    first = {clip.path: clip for clip in reversed(clips.rows)}
    for path in {clip.path for clip in gone}:
        del first[path]
    facts, bad, contents = _decoded(clips, sorted(first), quiet)
    usual = {key: Counter(one[key] for one in facts.values()).most_common(1)[0][0] for key in KEYS if facts}
    if drop_shared:
        clips = clips.drop_shared(contents)
    absent = clips.absent()
    if all(clip.scene is None for clip in clips):  # an evaluation list has no labels
        absent = []
    elif len(clips.classes) < 2:
        absent.insert(0, f"there is only one class, {', '.join(clips.classes)}")
    return DataReport(
        name=clips.name,
        root=str(clips.root),
        clips=len(clips),
        files=len({clip.path for clip in clips}),
        counts={what: _counts(clips, what) for what in ("class", "device", "city")},
        usual=usual,
        missing=tuple(f"{clip.path}{clip.at}" for clip in gone),
        unreadable=(*(f"{bad[path]}{first[path].at}" for path in sorted(bad)), *_beyond(clips, facts)),
        leaking=tuple(clips.leaks(contents)),
        absent=tuple(absent),
        odd=tuple(
            f"{path}: {', '.join(differing)}{first[path].at}"
            for path, one in facts.items()
            if (differing := [f"{key} {one[key]:g} (usual {usual[key]:g})" for key in KEYS if one[key] != usual[key]])
        ),
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
        total: dict[str, int] = {split: sum(by_split[split] for by_split in counts.values()) for split in SPLITS}
        rows = [
            {what: key} | {split: f"{number:,}" for split, number in by_split.items()}
            for key, by_split in (*counts.items(), ("all", total))
        ]
        parts.append(table("", [*rows[:-1], APART, rows[-1]]))
    for what in ("missing", "unreadable", "leaking", "absent", "odd", "unlisted", "notes"):
        if found := getattr(report, what):
            rest = [f"  ... and {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
            parts.append(Text("\n".join([f"{what}: {len(found):,}", *(f"  {one}" for one in found[:SHOWN]), *rest])))
    return Group(*parts, "ok" if report.ok else "not ok")


def _decoded(clips: Clips, paths: list[str], quiet: bool) -> tuple[dict[str, Facts], dict[str, str], dict[str, str]]:
    """By path, each file's format and length, why some can't be used, and a hash of the others' samples."""

    def one(path: str) -> tuple[Facts, str]:
        header, waveform = audio.probe(clips.root / path), audio.read(clips.root / path)
        values = (header.sample_rate, header.channels, round(len(waveform) / header.sample_rate, 3))
        return dict(zip(KEYS, values, strict=True)), hashlib.sha256(waveform.tobytes()).hexdigest()

    results = dict(zip(paths, track(in_order(one, paths), "decoding", len(paths), quiet=quiet), strict=True))
    good = {path: found for path, found in results.items() if not isinstance(found, str)}
    bad = {path: found for path, found in results.items() if isinstance(found, str)}
    return {path: facts for path, (facts, _) in good.items()}, bad, {path: sound for path, (_, sound) in good.items()}


def _beyond(clips: Clips, facts: dict[str, Facts]) -> Iterator[str]:
    for clip in clips:
        end_s = clip.start_s + (clip.duration_s or 0.0)
        # The length is rounded to a millisecond.
        if clip.path in facts and end_s > facts[clip.path]["duration_s"] + 1e-3:
            yield f"{clip.path}: asks for {end_s:g} s, has {facts[clip.path]['duration_s']:g} s{clip.at}"


def _counts(clips: Clips, what: str) -> Counts:
    by_key: dict[str, Counter[str]] = {}
    for clip in clips:
        key = {"class": clip.scene, "device": clip.device, "city": clip.city}[what]
        by_key.setdefault(key or "unknown", Counter())[clip.split] += 1
    return {name: {split: by_key[name][split] for split in SPLITS} for name in sorted(by_key)}


def _unlisted(clips: Clips) -> Iterator[str]:
    """Sound files beside the listed ones."""
    listed = {clip.path for clip in clips}
    for top in sorted({(clips.root / path).parent for path in listed}):
        for path in sound_files(top, deep=False, suffixes=SUFFIXES + OTHER_SUFFIXES):
            name = path.relative_to(clips.root).as_posix()
            if name not in listed:
                yield name
