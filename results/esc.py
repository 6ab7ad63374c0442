"""A plain CNN on short excerpts, for ESC-10 and ESC-50 under 32, 64 and 128 kB.

    tinyscene reproduce results/esc.py --data $ESC10 --folds all --train-on-all

No report: the recipe, that of `tinyscene fit`, is our own. It was chosen by results/ablation.py on classes of ESC-50
that are not in ESC-10; network, front end, rate and batches before that by hand, on fold 4 of ESC-50 with training on
folds 2 and 3, and once after a cross-validation on ESC-10 (docs/what-did-not-work.md), whose clips took part in
that choice of batches.
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
