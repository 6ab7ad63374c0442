"""Batches that depend only on seed, epoch and clip."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import median_low

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tinyscene.augment import Crop, OnClip
from tinyscene.augment.waveform import fit_length
from tinyscene.data import Waveforms
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.progress import track
from tinyscene.training.keys import key_of
from tinyscene.training.run import Run

# One stream of random numbers for each purpose.
ORDER, CLIP, BATCH, DROPOUT, INITIAL, RANGES, TICKET = range(7)
# Of the features that a run keeps in memory; beyond, they are recomputed every epoch.
_MOST_BYTES = 2 << 30
_CLIPS_A_STEP = 32
_CLIPS_AT_A_TIME = 2 * _CLIPS_A_STEP


@dataclass(frozen=True)
class Plan:
    """The clips of every batch, over all epochs from `start` on; `rank` of `world` takes its share of each.

    With the `scenes` of all clips, every epoch has as many of each: some clips of rare ones several times, and not all
    of frequent ones.
    """

    clips: int
    batch_size: int
    start: int
    epochs: int
    run: Run
    rank: int = 0
    world: int = 1
    scenes: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(self.clips, self.batch_size)
        return whole + (1 if rest >= max(2, self.world) else 0) or 1

    def epoch(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch. A last batch of one clip, which batch norm can't use, is left out."""
        rng = self.run.rng(ORDER, epoch)
        order = rng.permutation(self.clips)
        if self.scenes:
            drawn = np.array(self.scenes, object)[order]
            kinds = list(dict.fromkeys(self.scenes))
            each = -(-self.clips // len(kinds))
            taken = np.array([np.resize(order[drawn == kind], each) for kind in kinds])
            # One of every scene in turn, so that what is cut off at the end is at most one of each.
            order = rng.permutation(taken.T.flatten()[: self.clips])
        batches = [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]
        return [batch[self.rank :: self.world].tolist() for batch in batches]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.start, self.epochs):
            for batch in self.epoch(epoch):
                yield [(epoch, clip) for clip in batch]


class AugmentedClips(Dataset[Tensor]):
    """Waveforms of one length, augmented by draws that are keyed by (seed, epoch, clip)."""

    def __init__(self, waveforms: Waveforms, augment: tuple[OnClip, ...], seed: int) -> None:
        self.waveforms, self.augment, self.seed = waveforms, augment, seed
        self.length = training_length(waveforms, augment)
        self.crops = any(isinstance(augmentation, Crop) for augmentation in augment)

    def __getitem__(self, epoch_and_clip: tuple[int, int]) -> Tensor:
        """(samples,)"""
        epoch, clip = epoch_and_clip
        rng = np.random.default_rng((self.seed, CLIP, epoch, clip))
        waveform = self.waveforms[clip]
        for augmentation in self.augment:
            waveform = augmentation(waveform, self.waveforms.sample_rate, rng)
        # Without a crop, every epoch takes the same stretch of a longer clip, as where features are kept.
        stretch = rng if self.crops else np.random.default_rng((self.seed, CLIP, 0, clip))
        return torch.from_numpy(np.array(fit_length(waveform, self.length, stretch), np.float32))


def training_length(waveforms: Waveforms, augment: tuple[OnClip, ...]) -> int:
    """Length of training clips in samples: the crop's, or the median of all clips."""
    crops = [crop for crop in augment if isinstance(crop, Crop)]
    return crops[-1].samples(waveforms.sample_rate) if crops else median_low(waveforms.lengths)


def batches_of_waveforms(dataset: AugmentedClips, plan: Plan, run: Run) -> Iterator[Tensor]:
    """(batch, samples), in order over all epochs of the plan."""
    return iter(DataLoader(dataset, batch_sampler=plan, num_workers=run.workers))


class Recomputed:
    """Features that every loop over them recomputes."""

    def __init__(self, compute: Callable[[], Iterator[Tensor]]) -> None:
        self.compute = compute

    def __iter__(self) -> Iterator[Tensor]:
        return self.compute()


def features_of_clips(
    classifier: SceneClassifier, waveforms: Waveforms, run: Run, what: str, length: int | None = None
) -> list[Tensor] | Recomputed:
    """Features of every clip, not standardized, each (1, channels, bands, frames).

    With `length`, other clips are cut or repeated to it. They are a list, which the run keeps for its later stages,
    where the front end does not learn and there is room beside those of other parts. Features of another
    front end, or of other clips of the same part, are dropped first: they belong to an earlier stage.
    """
    recomputed = Recomputed(partial(_features, classifier, waveforms, run, what, length))
    if classifier.frontend_learns:
        return recomputed
    frontend, part = classifier.frontend, f"{what} {length}"
    made_by = key_of(frontend)
    key = (made_by, part, f"{waveforms.fingerprint} {run.seed}")
    if key not in run.features:
        for other in [one for one in run.features if one[0] != made_by or one[1] == part]:
            del run.features[other]
        kept = sum(one.nbytes for some in run.features.values() for one in some)
        lengths = waveforms.lengths if length is None else [length] * len(waveforms)
        if kept + _bytes(classifier, lengths) > _MOST_BYTES:
            return recomputed
        run.features[key] = list(_packed(_features(classifier, waveforms, run, what, length)))
    return run.features[key]


def _bytes(classifier: SceneClassifier, lengths: Sequence[int]) -> int:
    """Bytes of the features of clips of these lengths in samples."""
    frames = sum(classifier.frontend.frames(samples) * clips for samples, clips in Counter(lengths).items())
    return frames * classifier.standardize.mean.numel() * 4


def _packed(features: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same, several in one block of memory: single ones would leave gaps of their own size."""
    while some := list(islice(features, _CLIPS_AT_A_TIME)):
        block = torch.cat([one.flatten() for one in some])
        for part, one in zip(torch.split(block, [one.numel() for one in some]), some, strict=True):
            yield part.view(one.shape)


@torch.no_grad()
def _features(
    classifier: SceneClassifier, waveforms: Waveforms, run: Run, what: str, length: int | None
) -> Iterator[Tensor]:
    device = classifier.standardize.mean.device
    for i in track(range(len(waveforms)), f"features of the {what} part", len(waveforms), quiet=run.quiet):
        waveform = waveforms[i] if length is None else fit_length(waveforms[i], length, run.rng(CLIP, 0, i))
        yield classifier.frontend(torch.from_numpy(np.array(waveform)).to(device)[None])


def fit_standardization(
    classifier: SceneClassifier, waveforms: Waveforms, run: Run, kept: list[Tensor] | None = None
) -> None:
    """Fit it in place, unless an earlier stage did: on the features `kept`, or on those of all the waveforms."""
    if not classifier.standardize.fitted:
        classifier.standardize.fit(kept or features_of_clips(classifier, waveforms, run, "train"))


def refuse_short(shortest: int, waveforms: Waveforms) -> None:
    """Raise InputError, naming it, for a clip of fewer than `shortest` samples."""
    for clip, length in zip(waveforms.clips, waveforms.lengths, strict=True):
        if length < shortest:
            raise InputError(
                f"{waveforms.clips.root / clip.path} ({clip.row or waveforms.clips.name}): "
                f"{length / waveforms.sample_rate:.3f} s; accepted: at least "
                f"{shortest / waveforms.sample_rate:.3f} s for this network"
            )


@torch.inference_mode()
def logits_of(classifier: SceneClassifier, features: Iterable[Tensor]) -> Tensor:
    """Logits of clips of any lengths, (clips, classes), with only some in memory at a time."""
    classifier.eval()
    left = iter(features)
    return torch.cat([_logits(classifier, some) for some in iter(lambda: list(islice(left, _CLIPS_AT_A_TIME)), [])])


def _logits(classifier: SceneClassifier, features: list[Tensor]) -> Tensor:
    """Each batch holds clips of one length, unpadded."""
    by_frames: dict[int, list[int]] = {}
    for i, one in enumerate(features):
        by_frames.setdefault(one.shape[-1], []).append(i)
    logits = torch.empty(len(features), len(classifier.classes))
    for members in by_frames.values():
        for some in torch.split(torch.tensor(members), _CLIPS_A_STEP):
            batch = torch.cat([features[i] for i in some.tolist()]).to(classifier.standardize.mean.device)
            batch = classifier.standardize(batch)
            logits[some] = classifier.classify(batch).float().cpu()
    return logits
