"""The settings of a fit, checked before anything is computed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from tinyscene.augment import Augmentation
from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.training.losses import CrossEntropy, Loss
from tinyscene.training.optimizers import Adam, Optimizer
from tinyscene.training.schedules import Constant, Cosine, Schedule

if TYPE_CHECKING:
    from tinyscene.models.provenance import Provenance

# Methods that a fit calls on its parts, which may be a user's own.
_PARTS = {
    "optimizer": ("build", "Adam(), AdamW() or SGD()"),
    "schedule": ("factor", "Constant(), Cosine(), InverseTime(), Linear(), Step() or Triangular2()"),
    "loss": ("__call__", "CrossEntropy(), KLDivergence() or a function of logits and targets"),
}


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` epochs without a better validation metric, and keep the best epoch's weights."""

    monitor: Literal["log_loss", "accuracy"] = "log_loss"
    patience: int = 30

    def __post_init__(self) -> None:
        check(self, monitor=("log_loss", "accuracy"), patience=Numbers(least=1, whole=True))


class Teaching(Protocol):
    """What a `Fit` needs of its teacher (`tinyscene.Teacher`)."""

    @property
    def temperature(self) -> float: ...

    @property
    def weight(self) -> float: ...

    @property
    def provenance(self) -> "Provenance":
        """Of all that it was trained on, which the student has then learned from as well."""
        ...

    def targets(self, clips: Clips, run: Any) -> npt.NDArray[np.float32]:
        """(clips, classes): its probabilities at the temperature."""
        ...


@dataclass(frozen=True)
class FitSettings:
    """The settings of a `Fit`.

    Args:
        epochs: passes over the train split.
        batch_size: clips a step, over all devices.
        optimizer: Adam, AdamW or SGD, with its learning rate and weight decay.
        schedule: the factor on that rate over the epochs.
        loss: of logits and targets.
        augment: in order; those of clips before those of batches of waveforms before those of features.
        early_stopping: None trains all epochs and keeps the final weights.
        teacher: trained classifiers whose decisions the network learns beside the labels (`tinyscene.Teacher`).
        average: decay a step of a moving average of all weights and statistics, which is validated and kept; it is
            lower at first, (1 + steps) / (10 + steps). 0 keeps the weights as trained.
        init: a safetensors file with published weights to start from, named as the network's tensors; a part of
            the network that it lacks entirely keeps its own. A network with masks is refused. None starts from the
            classifier's weights.
        stop_after: stop after this many epochs, with the schedule of all.
        start_after: treat this many epochs as done: schedule and random draws are those of the later ones.
            The optimiser's state is new.
        balanced: every epoch has as many clips of each scene: those of rare ones are repeated, of frequent ones some
            are left out, others in every epoch.
    """

    epochs: int = 100
    batch_size: int = 32
    optimizer: Optimizer = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=Constant)
    loss: Loss = field(default_factory=CrossEntropy)
    augment: tuple[Augmentation, ...] = ()
    early_stopping: EarlyStopping | None = None
    teacher: Teaching | None = None
    average: float = 0.0
    init: str | Path | None = None
    stop_after: int | None = None
    start_after: int = 0
    balanced: bool = False

    def __post_init__(self) -> None:
        check(self, epochs=Numbers(least=1, whole=True), batch_size=Numbers(least=2, whole=True))
        if self.stop_after is not None:
            check(self, stop_after=Numbers(least=0, most=self.epochs, whole=True))
        last = self.epochs if self.stop_after is None else self.stop_after
        check(self, start_after=Numbers(least=0, most=last, whole=True))
        check(self, average=Numbers(least=0, below=1))
        check(self, balanced=bool, early_stopping=EarlyStopping | None, init=str | Path | None, augment=tuple | list)
        for name, (method, accepted) in _PARTS.items():
            _refuse_kind(self, name, getattr(self, name), method, accepted)
        if self.teacher is not None:
            _refuse_kind(self, "teacher", self.teacher, "targets", "Teacher((FOLDER, ...))")
        for augmentation in self.augment:
            _refuse_kind(self, "augment", augmentation, "__call__", "values such as Mixup(), or your own functions")
            domain = getattr(augmentation, "domain", "clips")
            if domain not in ("clips", "waveforms", "features"):
                raise InputError(f'{augmentation}: domain {domain!r}; accepted: none, "waveforms" or "features"')
        if isinstance(self.schedule, Cosine) and not self.schedule.warmup_epochs < self.epochs:
            raise InputError(
                f"Fit(epochs={self.epochs}, schedule={self.schedule}); accepted: a warm-up of fewer epochs"
            )

    def require_train(self, clips: Clips) -> None:
        """Raise InputError unless every class has a training clip; with a teacher, one of any or no label will do."""
        taught = self.teacher is not None and len(clips.train)
        clips.train.require(*(() if taught else ("train",)))

    def objective(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(batch, classes), (batch, classes) -> (); with a teacher, its probabilities follow in the targets' rows."""
        if self.teacher is None:
            return self.loss(logits, targets)
        known, taught = targets[:, : logits.shape[1]], targets[:, logits.shape[1] :]
        temperature, weight = self.teacher.temperature, self.teacher.weight
        soft = temperature**2 * F.cross_entropy(logits / temperature, taught)
        labelled = known.sum(1) > 0
        if not labelled.any():
            return weight * soft
        hard = labelled.float().mean() * self.loss(logits[labelled], known[labelled])
        return weight * soft + (1 - weight) * hard


def _refuse_kind(fit: FitSettings, name: str, given: object, method: str, accepted: str) -> None:
    """Raise InputError for a value without this method, such as a class instead of its instance."""
    if isinstance(given, type) or not callable(getattr(given, method, None)):
        shown = repr(given) if "\n" not in repr(given) else type(given).__name__
        raise InputError(f"Fit({name}={shown}); accepted: {accepted}")
