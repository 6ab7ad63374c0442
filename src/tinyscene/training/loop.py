"""The training loop, on Lightning Fabric."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tinyscene.augment import OnBatch
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.metrics import accuracy, log_loss
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.fake_quantize import ActivationQuantize
from tinyscene.progress import Advance, bar, say
from tinyscene.training.batches import BATCH, DROPOUT, AugmentedClips, Plan, batches_of_waveforms, logits_of
from tinyscene.training.checkpoint import Checkpoint, Progress
from tinyscene.training.optimizers import parameter_groups
from tinyscene.training.precision import autocast
from tinyscene.training.run import Run
from tinyscene.training.settings import FitSettings

AfterStep = Callable[[nn.Module, float], dict[str, float] | None]
"""Called after each step with the network and the share of steps done; it may change masks and buffers.

Its result after an epoch's last step is put into that epoch's row of `Run.history`.
"""

Penalty = Callable[[nn.Module], Tensor]
"""A function of the network's parameters, (); added to the loss of every batch."""


class Hooks(NamedTuple):
    """Another stage's additions to a fit's loss and steps."""

    after_step: AfterStep | None = None
    penalty: Penalty | None = None


class Source(Protocol):
    """Yields the batches of a plan as features, with their targets."""

    def __len__(self) -> int: ...

    def start(self, plan: Plan, run: Run) -> None: ...

    def batch(self, clips: list[int], targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]: ...


class FeatureSource:
    """Features of all clips in memory; each batch is standardized separately, to avoid a second copy."""

    def __init__(self, classifier: SceneClassifier, features: list[Tensor], augment: tuple[OnBatch, ...]) -> None:
        self.classifier, self.features, self.augment = classifier, features, augment

    def __len__(self) -> int:
        return len(self.features)

    def start(self, plan: Plan, run: Run) -> None:
        """Nothing to prepare."""

    def batch(self, clips: list[int], targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """clips -> (batch, channels, bands, frames), (batch, classes)"""
        with torch.no_grad():
            features = self.classifier.standardize(torch.cat([self.features[clip] for clip in clips]))
        return _augment(features, targets, self.augment, rng)


class WaveformSource:
    """Augmented waveforms from the loader's workers; their features are computed on the device."""

    def __init__(
        self,
        classifier: SceneClassifier,
        clips: AugmentedClips,
        on_waveforms: tuple[OnBatch, ...],
        on_features: tuple[OnBatch, ...],
    ) -> None:
        self.classifier, self.clips = classifier, clips
        self.on_waveforms, self.on_features = on_waveforms, on_features
        self.loader: Iterator[Tensor] = iter(())

    def __len__(self) -> int:
        return len(self.clips.waveforms)

    def start(self, plan: Plan, run: Run) -> None:
        """Start the loader's workers at the plan's first epoch."""
        self.loader = batches_of_waveforms(self.clips, plan, run)

    def batch(self, clips: list[int], targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """clips -> (batch, channels, bands, frames), (batch, classes)"""
        waveforms = next(self.loader).to(targets.device)
        waveforms, targets = _augment(waveforms, targets, self.on_waveforms, rng)
        with torch.set_grad_enabled(self.classifier.frontend_learns):
            features = self.classifier.features(waveforms)
        return _augment(features, targets, self.on_features, rng)


class Data(NamedTuple):
    """A fit's training batches, and the features that it monitors."""

    clips: Clips
    source: Source
    validation: Iterable[Tensor]


class _Training(NamedTuple):
    """The constants of all epochs; `wrapped` and `optimizer` as set up by Fabric."""

    fit: FitSettings
    classifier: SceneClassifier
    wrapped: Any
    optimizer: Any
    source: Source
    targets: Tensor
    run: Run
    hooks: Hooks
    averaged: AveragedModel | None


def train(
    fit: FitSettings, classifier: SceneClassifier, data: Data, checkpoint: Checkpoint, run: Run, hooks: Hooks
) -> None:
    """Train `classifier` in place, resuming after the last epoch of an earlier, killed run."""
    fabric, (clips, source, validation) = run.fabric, data
    network = classifier.network
    learned = [parameter for parameter in classifier.frontend.parameters() if parameter.requires_grad]
    groups = parameter_groups(network, fit.optimizer.rates)
    optimizer = fit.optimizer.build([*groups, {"params": learned, "factor": 1.0}] if learned else groups)
    wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
    averaged = _averaged(classifier, fit.average) if fit.average else None
    progress = checkpoint.restore(classifier, optimizer, averaged, fit.start_after)
    scenes = tuple(clip.scene for clip in clips.train) if fit.balanced else ()
    rank, world = fabric.global_rank, fabric.world_size
    plan = Plan(len(source), fit.batch_size, progress.epoch, fit.epochs, run, rank, world, scenes)
    source.start(plan, run)
    targets = _targets(fit, clips.train, run).to(fabric.device)
    training = _Training(fit, classifier, wrapped, wrapped_optimizer, source, targets, run, hooks, averaged)
    found: Any = classifier if averaged is None else averaged.module
    labels = clips.validation.labels
    steps = len(plan)
    quiet = run.quiet or not fabric.is_global_zero
    last = fit.epochs if fit.stop_after is None else fit.stop_after
    if progress.history and (progress.epoch == last or _stopped(fit, progress)):
        say(f"training of {progress.epoch} epochs, reused from {checkpoint.path.parent}", quiet=quiet)
    with bar(_what(fit, progress), last * steps, done=progress.epoch * steps, quiet=quiet) as advance:
        while progress.epoch < fit.epochs and not _stopped(fit, progress):
            started = time.monotonic()
            row = _epoch(training, plan, progress, advance)
            if len(labels):
                probabilities = logits_of(found, validation).softmax(1).double().numpy()
                row["validation_log_loss"] = log_loss(labels, probabilities)
                row["validation_accuracy"] = accuracy(labels, probabilities)
            row["seconds"] = time.monotonic() - started
            # Batch norm statistics differ between devices: the first one's are used for all.
            row = fabric.broadcast(row)
            _judge(fit, row, progress, checkpoint, found)
            progress.history.append(row)
            progress.epoch += 1
            if fabric.is_global_zero:
                checkpoint.save(classifier, optimizer, averaged, progress)
    classifier.load_state_dict(checkpoint.best_weights or found.state_dict())
    classifier.load_state_dict(fabric.broadcast(classifier.state_dict()))
    run.history[:] = progress.history


def _epoch(training: _Training, plan: Plan, progress: Progress, advance: Advance) -> dict[str, float]:
    """One pass over the train split. Returns its mean loss, without the penalty, and the last learning rate."""
    fit, classifier, wrapped, optimizer, source, targets, run, hooks, averaged = training
    epoch, note, network = progress.epoch, _note(progress, fit.epochs), classifier.network
    run.seed_torch(DROPOUT, epoch, plan.rank)
    wrapped.train()
    classifier.frontend.train(classifier.frontend_learns)
    learned = [parameter for parameter in classifier.frontend.parameters() if parameter.requires_grad]
    total, seen, metrics = 0.0, 0, {}
    batches = plan.epoch(epoch)
    removed = masks.removed(network)
    for step, members in enumerate(batches):
        lr = fit.optimizer.lr * fit.schedule.factor(epoch + step / len(batches), fit.epochs)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        inputs, wanted = source.batch(members, targets[members], run.rng(BATCH, epoch, step, plan.rank))
        inputs = classifier.arranged(inputs)
        with autocast(run.precision, network, inputs.device):
            logits = wrapped(inputs)
        loss = fit.objective(classifier.checked(logits, inputs).float(), wanted)
        optimizer.zero_grad()
        run.fabric.backward(loss if hooks.penalty is None else loss + hooks.penalty(network))
        for parameter in learned:
            # DDP does not wrap the front end.
            if parameter.grad is not None:
                parameter.grad = run.fabric.all_reduce(parameter.grad)  # type: ignore[assignment]
        optimizer.step()
        if hooks.after_step is not None:
            metrics = hooks.after_step(network, (epoch + (step + 1) / len(batches)) / fit.epochs) or {}
            removed = masks.removed(network)
        # The optimiser's momentum and weight decay move masked weights away from zero.
        masks.apply(removed)
        if averaged is not None:
            averaged.update_parameters(classifier)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(
                f"the loss became {value} in epoch {epoch}, batch {step}, at a learning rate of {lr:g}; "
                f"try a smaller learning rate"
            )
        total, seen = total + value * len(members), seen + len(members)
        advance(note)
    if averaged is not None:
        _settle(averaged)
    return {"epoch": epoch, "lr": lr, "train_loss": total / seen, **metrics}


def _targets(fit: FitSettings, clips: Clips, run: Run) -> Tensor:
    """(clips, classes), 1 for a clip's class, or with a teacher (clips, 2 x classes), its probabilities behind."""
    if fit.teacher is None:
        return torch.eye(len(clips.classes))[clips.labels]
    taught = torch.from_numpy(fit.teacher.targets(clips, run))
    # A clip without a label has only zeros.
    known = [[float(clip.scene == name) for name in clips.classes] for clip in clips]
    return torch.cat([torch.tensor(known), taught], 1)


def _averaged(classifier: SceneClassifier, decay: float) -> AveragedModel:
    """A moving average of its weights and statistics; integers are taken as they are."""

    def update(averaged: Any, current: Any, steps: Any) -> None:
        share = min(decay, float((1 + steps) / (10 + steps)))
        for kept, new in zip(averaged, current, strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - share)
            else:
                kept.copy_(new)

    return AveragedModel(classifier, multi_avg_fn=torch.no_grad()(update), use_buffers=True)


def _settle(averaged: AveragedModel) -> None:
    """Zero what masks removed since, and take the scales of the averaged ranges."""
    masks.apply(masks.removed(averaged))
    for module in averaged.modules():
        if isinstance(module, ActivationQuantize):
            module.set_range(module.low, module.high)


def _judge(
    fit: FitSettings, row: dict[str, float], progress: Progress, checkpoint: Checkpoint, trained: nn.Module
) -> None:
    """Keep the best epoch; of equal ones, the first."""
    if fit.early_stopping is None:
        return
    monitor = fit.early_stopping.monitor
    metric = row["validation_log_loss"] if monitor == "log_loss" else -row["validation_accuracy"]
    if metric < progress.best:
        progress.best, progress.best_epoch = metric, progress.epoch
        checkpoint.keep_best(trained)


def _stopped(fit: FitSettings, progress: Progress) -> bool:
    if fit.stop_after is not None and progress.epoch >= fit.stop_after:
        return True
    stopping = fit.early_stopping
    return stopping is not None and progress.epoch - progress.best_epoch > stopping.patience


def _augment(
    batch: Tensor, targets: Tensor, augment: tuple[OnBatch, ...], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    for augmentation in augment:
        batch, targets = augmentation(batch, targets, rng)
    return batch, targets


def _what(fit: FitSettings, progress: Progress) -> str:
    """A title: all of the training, the part after `start_after`, or the rest of a killed run."""
    if progress.epoch > fit.start_after:
        return f"training, resumed after epoch {progress.epoch}"
    return f"training from epoch {fit.start_after + 1} on" if fit.start_after else "training"


def _note(progress: Progress, epochs: int) -> str:
    """The current epoch, and the results of the last one."""
    note = f"epoch {progress.epoch + 1}/{epochs}"
    if progress.history:
        row = progress.history[-1]
        note += f", loss {row['train_loss']:.3f}"
        if "validation_log_loss" in row:
            note += f", validation {row['validation_log_loss']:.3f} / {row['validation_accuracy']:.1%}"
    return note
