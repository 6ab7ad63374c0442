"""A table of labelled clips with its splits."""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from tinyscene.errors import InputError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
NAMED = 5


class Clip(NamedTuple):
    """One labelled stretch of a sound file."""

    path: str
    """Relative to the data set's folder, with forward slashes."""
    scene: str | None
    """None where the label is unknown, as in the evaluation sets of the challenges."""
    split: Split = "train"
    start_s: float = 0.0
    duration_s: float | None = None
    """None goes to the end of the file."""
    device: str = ""
    city: str = ""
    recording: str = ""
    """The unit that no split may cut: city-location in TAU, the source in ESC, the file elsewhere."""
    row: str = ""
    """Its place in a list, such as "meta.csv:17"."""
    fold: str = ""
    """Of the data set's cross-validation; empty where it has none."""

    @property
    def at(self) -> str:
        """The row in brackets, behind a message; nothing where there is none."""
        return f" [{self.row}]" if self.row else ""


def recording_of(clip: Clip) -> str:
    """The unit that no split may cut: the clip's recording, by name, or its file."""
    return clip.recording or clip.path


@dataclass(frozen=True)
class Clips:
    """Labelled clips of one data set; `train`, `validation` and `test` are views of it."""

    name: str
    root: Path
    classes: tuple[str, ...]
    rows: tuple[Clip, ...]
    notes: tuple[str, ...] = ()
    """A loader's notes on what it left out and why, one sentence each."""
    published: bool = False
    """Whether the test split is a published protocol's, which is used as it is, even if it shares recordings."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.rows)

    def where(self, keep: Callable[[Clip], bool]) -> "Clips":
        """The clips for which `keep` holds."""
        return replace(self, rows=tuple(clip for clip in self.rows if keep(clip)))

    @property
    def train(self) -> "Clips":
        return self.where(lambda clip: clip.split == "train")

    @property
    def validation(self) -> "Clips":
        return self.where(lambda clip: clip.split == "validation")

    @property
    def development(self) -> "Clips":
        """Training and validation part together: all that a stage may see."""
        return self.where(lambda clip: clip.split != "test")

    @property
    def test(self) -> "Clips":
        return self.where(lambda clip: clip.split == "test")

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of every clip, shape (clips,). Raises InputError where a label is unknown."""
        index = {scene: i for i, scene in enumerate(self.classes)}
        unknown = next((clip for clip in self.rows if clip.scene not in index), None)
        if unknown is not None:
            raise InputError(
                f"{unknown.path} ({unknown.row or self.name}): label {unknown.scene!r}; "
                f"accepted: {', '.join(self.classes)}"
            )
        return np.array([index[clip.scene or ""] for clip in self.rows], np.int64)

    def refuse_test(self, who: str) -> None:
        """Raise InputError if a test clip is among these: training, selection and calibration see none."""
        test = next((clip for clip in self.rows if clip.split == "test"), None)
        if test is not None:
            raise InputError(
                f"{who} was given the test clip {test.path} ({test.row or self.name}); "
                f"accepted: clips.train or clips.development, which hold no test clip"
            )

    def require_classes(self, classes: tuple[str, ...]) -> None:
        """Raise InputError unless a classifier of these classes can learn from, or be scored on, these clips."""
        if self.classes != classes:
            raise InputError(
                f"{self.root} ({self.name}) has the classes {', '.join(self.classes)}, the classifier "
                f"{', '.join(classes)}; accepted: the same, in the same order"
            )

    def require_validation(self, who: str) -> None:
        """Raise InputError if there is no validation clip for `who` to monitor or fit on."""
        if not len(self.validation):
            raise InputError(
                f"{who} was given no validation clip; accepted: clips.development of a data set with a validation "
                f"split (clips.with_validation() cuts one by recording)"
            )

    def with_validation(self, fraction: float = 0.15, seed: int = 0) -> "Clips":
        """Cut a validation split out of the training part: by recording, with the classes in proportion.

        Raises:
            InputError: a class has fewer than two recordings to train on.
        """
        return self._set_aside("validation", fraction, seed, "train and validate on")

    def with_validation_as(self, split: Split) -> "Clips":
        """The validation part joined to another one: to "train", on all development clips, or to "test", to select."""
        rows = (clip._replace(split=split) if clip.split == "validation" else clip for clip in self.rows)
        return replace(self, rows=tuple(rows))

    def with_test(self, fraction: float = 0.2, seed: int = 0) -> "Clips":
        """Cut a test split out of all clips: by recording, with the classes in proportion.

        Raises:
            InputError: a class has fewer than three recordings: one each to train, validate and test on.
        """
        untested = replace(self, rows=tuple(clip._replace(split="train") for clip in self.rows))
        return untested._set_aside("test", fraction, seed, "train, validate and test on")

    def _set_aside(self, split: Split, fraction: float, seed: int, purpose: str) -> "Clips":
        if not 0 < fraction <= 0.5:
            raise InputError(f"{split} fraction {fraction}; accepted: above 0, at most 0.5")
        free = [clip for clip in self.rows if clip.split != "test"]
        by_class: dict[str, Counter[str]] = {scene: Counter() for scene in self.classes}
        for clip in free:
            by_class.setdefault(clip.scene or "", Counter())[recording_of(clip)] += 1
        # The rest must still give a training and a validation part.
        keep = 2 if split == "test" else 1
        poorest = min(by_class, key=lambda scene: len(by_class[scene]), default="")
        found = sorted(by_class.get(poorest, ()))
        if len(found) <= keep:
            raise InputError(
                f"{self.root} ({self.name}): class {poorest!r} has {len(found)} recording{'s' * (len(found) != 1)} to "
                f"{purpose} ({', '.join(found) or 'none'}); accepted: at least {keep + 1} recordings of every class"
            )
        held = hold_out(by_class, fraction, seed, keep)
        rows = tuple(
            clip if clip.split == "test" else clip._replace(split=split if recording_of(clip) in held else "train")
            for clip in self.rows
        )
        return replace(self, rows=rows)

    @property
    def folds(self) -> tuple[str, ...]:
        """The folds of the data set's cross-validation, in order."""
        return in_order({clip.fold for clip in self.rows if clip.fold})

    @property
    def recording_hashes(self) -> tuple[str, ...]:
        """A short hash of every clip's recording: what a model stores of its training clips."""
        names = map(recording_of, self.rows)
        return tuple(hashlib.sha256(name.encode()).hexdigest()[:10] for name in names)

    def shared(self, key: Callable[[Clip], Hashable] = recording_of) -> list[tuple[Clip, ...]]:
        """The clips of every recording (or other `key`) that is in more than one split."""
        groups: dict[Hashable, list[Clip]] = {}
        for clip in self.rows:
            groups.setdefault(key(clip), []).append(clip)
        return [tuple(group) for group in groups.values() if len({clip.split for clip in group}) > 1]

    def leaks(self, contents: Mapping[str, str] | None = None) -> list[str]:
        """Recordings and sounds that are in more than one split and must not be.

        Recordings that a published test split shares are allowed. The same sound is one file, or, where the `contents`
        of files by path are given, two of equal content.
        """
        recordings = (self.development if self.published else self).shared()
        listed = {clip for group in recordings for clip in group}
        sounds = [group for group in self.shared(_sound_of(contents)) if not listed.issuperset(group)]
        return [*map(_recording, recordings), *map(_same_sound, sounds)]

    def refuse_leaks(self, contents: Mapping[str, str] | None = None) -> None:
        """Raise InputError if there are `leaks`."""
        if leaks := self.leaks(contents):
            what = "recording is" if len(leaks) == 1 else "recordings are"
            raise InputError(
                f"{self.root} ({self.name}): {len(leaks)} {what} in more than one split, the first is {leaks[0]}; "
                f"accepted: every recording in one split, or --drop-shared (drop_shared=True), which leaves it out of "
                f"training"
            )

    def drop_shared(self, contents: Mapping[str, str] | None = None) -> "Clips":
        """Without what a later split also holds, with a note of what is left out.

        Training and validation clips go if their recording or sound (see `leaks`) is in the test split, training clips
        if it is in the validation split; test clips never.
        """
        gone: dict[Clip, None] = {}
        for group in (*self.shared(), *self.shared(_sound_of(contents))):
            last = max(SPLITS.index(clip.split) for clip in group)
            gone |= {clip: None for clip in group if SPLITS.index(clip.split) < last}
        if not gone:
            return self
        clips = "1 clip is" if len(gone) == 1 else f"{len(gone):,} clips are"
        names = some([f"{clip.path} ({clip.split}, recording {recording_of(clip)})" for clip in gone])
        note = f"{clips} left out of training, since a later split holds their recordings: {names}"
        return replace(self, rows=tuple(clip for clip in self.rows if clip not in gone), notes=(*self.notes, note))

    def note_shared(self) -> "Clips":
        """With a note of the recordings that published splits share, if any."""
        if not (self.published and (shared := self.shared())):
            return self
        what = "1 recording is" if len(shared) == 1 else f"{len(shared):,} recordings are"
        note = f"{what} in both development and test, as published: {some(list(map(_recording, shared)))}"
        return replace(self, notes=(*self.notes, f"{note}; --drop-shared leaves them out of training"))

    def absent(self, splits: Sequence[Split] = SPLITS) -> list[str]:
        """The classes that splits have no clip of, one sentence each."""
        found = []
        for split in splits:
            present = {clip.scene for clip in self.rows if clip.split == split}
            if lacking := [scene for scene in self.classes if scene not in present]:
                found.append(f"the {split} split has no clip of {', '.join(lacking)}")
        return found

    def require(self, *splits: Split) -> "Clips":
        """Raise InputError unless each of these splits holds every class and there are no `leaks`."""
        if absent := self.absent(splits):
            raise InputError(
                f"{self.root} ({self.name}): {absent[0]}; accepted: at least one clip of each class in every split"
            )
        self.refuse_leaks()
        return self


def _sound_of(contents: Mapping[str, str] | None) -> Callable[[Clip], Hashable]:
    known = contents or {}
    return lambda clip: (known.get(clip.path, clip.path), float(clip.start_s))


def _recording(group: tuple[Clip, ...]) -> str:
    count = Counter(clip.split for clip in group)
    return f"{recording_of(group[0])} ({', '.join(f'{count[s]} in {s}' for s in SPLITS if s in count)})"


def _same_sound(group: tuple[Clip, ...]) -> str:
    files = {f"{clip.path} ({clip.split}{f', {clip.row}' if clip.row else ''})": None for clip in group}
    return f"the same sound, {' = '.join(files)}"


def in_order(folds: Iterable[str]) -> tuple[str, ...]:
    """Numbers by value, 9 before 10, and before names."""
    return tuple(sorted(folds, key=lambda fold: (not fold.isdecimal(), int(fold) if fold.isdecimal() else 0, fold)))


def some(names: list[str]) -> str:
    """The first few of several names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def hold_out(by_class: dict[str, Counter[str]], fraction: float, seed: int, keep: int = 1) -> set[str]:
    """Recordings to set aside: about `fraction` of the clips of every class, at least one recording.

    Args:
        by_class: how many clips of a class each recording holds.
        fraction: above 0, at most 0.5.
        seed: of the order in which recordings are drawn.
        keep: the fewest recordings of a class that stay.

    scikit-learn's StratifiedGroupKFold allows no more folds than the smallest class has recordings: with two in one
    class, half of all clips (in trials up to 95 %) would be set aside. So each class is drawn separately.
    """
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    kept: set[str] = set()
    for scene in sorted(by_class, key=lambda scene: (len(by_class[scene]), scene)):
        clips = by_class[scene]
        names = sorted(clips)
        taken, left = held | kept, len(clips.keys() - held)
        free = [names[i] for i in rng.permutation(len(names)) if names[i] not in taken]
        wanted = fraction * clips.total()
        got = sum(clips[name] for name in held & clips.keys())
        for name in free:
            closer = abs(got + clips[name] - wanted) < abs(got - wanted)
            if closer and left > keep:
                held.add(name)
                got, left = got + clips[name], left - 1
        if not got and free:
            held.add(min(free, key=lambda name: clips[name]))
        kept |= clips.keys() - held
    return held
