"""A trained classifier for one's own classes: its last layer is made anew, all layers are trained, and rounded to int8.

    tinyscene fit --data DIR --from esc10-128kb

Nothing is selected, so that the training and the validation part both train: a third of the epochs of `fit` under a
budget, at a quarter of its rate. No report: the recipe is our own.
"""

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from tinyscene.accounting import CONVENTIONS
from tinyscene.data import Clips, decode
from tinyscene.errors import InputError
from tinyscene.evaluation.scorecard import Row
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.transfer import for_classes
from tinyscene.rules import Budget, Rules
from tinyscene.systems.edit import scale_epochs
from tinyscene.systems.fit_under import FINAL, deliver
from tinyscene.systems.reproduce import reproduce
from tinyscene.systems.system import System, SystemFile
from tinyscene.systems.under_budget import epochs_of, recipe
from tinyscene.training.batches import training_length
from tinyscene.training.keys import weights_fingerprint
from tinyscene.training.run import Run

SHARE_OF_EPOCHS, SHARE_OF_RATE = 1 / 3, 1 / 4


@dataclass(frozen=True)
class Tuned:
    """The result of `fine_tune`: the int8 classifier in `folder`/model, and its row: test scores and costs."""

    classifier: SceneClassifier
    row: Row
    folder: Path


def fine_tune(
    start: SceneClassifier, clips: Clips, run: Run, *, budget: Budget | None = None, epochs_scale: float = 1.0
) -> Tuned:
    """Train `start` for the classes of `clips`, round it to int8, and write model, file, scorecard and receipt.

    A killed call resumes when repeated. Test clips are scored once, at the end.

    Args:
        start: float32, such as `from_pretrained(name, trainable=True)`.
        clips: with train and test clips of every class.
        budget: beyond which nothing is delivered; none where None.

    Raises:
        InputError: `start` is rounded or has no last layer to be made anew, a split lacks a class, the folder holds
            another run, or the file exceeds the budget or differs from its classifier.
    """
    if not 0 < epochs_scale < math.inf:
        raise InputError(f"--epochs-scale {epochs_scale:g}; accepted: above 0, such as 0.1")
    for_classes(start, clips.classes)  # refuses before anything is decoded
    waveforms = decode(clips.development, start.sample_rate, start.channel, quiet=run.quiet)
    clip_s = training_length(waveforms, ()) / start.sample_rate
    train, _, quantize = recipe(clip_s)
    fit = replace(train, optimizer=replace(train.optimizer, lr=SHARE_OF_RATE * train.optimizer.lr))
    scale = epochs_of(clips, epochs_scale)
    stages = (scale_epochs(fit, SHARE_OF_EPOCHS * scale), scale_epochs(quantize, scale))
    free = Rules("none", "no budget", clip_s, limits=(), ranked_by="accuracy", notes=(), classes=clips.classes)
    rules = budget.rules(clip_s, clips.classes) if budget else free
    system = System(rules, partial(for_classes, start), stages, counted_by=CONVENTIONS["bn4"])
    file = SystemFile("fine_tune", Path(__file__), (__doc__ or "").strip(), {"tuned": system})
    folder = Path(run.folder)
    limits = None if budget is None else asdict(budget)
    settings = {"epochs_scale": epochs_scale, "clip_s": clip_s, "budget": limits, "start": weights_fingerprint(start)}
    last = replace(run, folder=folder / FINAL)
    before, row = reproduce(file, clips.with_validation_as("train"), last, settings=settings, files="last stage")
    return Tuned(deliver(row, (), folder, before.model), row, folder)
