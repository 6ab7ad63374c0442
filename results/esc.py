"""A plain CNN on short excerpts, for ESC-10 and ESC-50 under 32, 64 and 128 kB.

    tinyscene reproduce results/esc.py --variant kb128 --data $ESC10 --folds all --seeds 0 1 2 --precision bf16-mixed

No report: the recipe is our own. Network and augmentation were chosen by hand on fold 4 of ESC-50, with training on
folds 2 and 3. Sounds at equal levels and batches of 32 followed after a cross-validation on ESC-10 without them
(docs/what-did-not-work.md): its test clips took part in that choice, so that later figures on ESC-10 favour it.
"""

from functools import partial

from tinyscene.accounting import CONVENTIONS
from tinyscene.augment import BetweenClass, Crop, Excerpt, SpecAugment
from tinyscene.compression import Quantize
from tinyscene.models import create_classifier
from tinyscene.rules import dcase2024
from tinyscene.systems import System
from tinyscene.training import AdamW, Cosine, Fit

# An excerpt of a second out of 1.2, at other speeds and pitches, of two sounds at equal levels.
augment = (Crop(1.2), BetweenClass(0.3), Excerpt(0.83, speed=0.2, shift=0.03), SpecAugment(bands=8, frames=10))
train = Fit(
    epochs=300,
    batch_size=32,
    optimizer=AdamW(lr=4e-3, weight_decay=0.02),
    schedule=Cosine(warmup_epochs=15),
    augment=augment,
)
int8 = Quantize(
    fit=Fit(
        epochs=30,
        batch_size=32,
        optimizer=AdamW(lr=2e-4, weight_decay=0.02),
        schedule=Cosine(),
        augment=augment,
    )
)


def build(width: int, classes: tuple[str, ...]):
    """64 log-mel bands at 32 kHz, 50 frames a second."""
    return create_classifier("plain_cnn", classes, width=width)


sized = partial(System, dcase2024, stages=(train, int8), counted_by=CONVENTIONS["bn4"])
kb128 = sized(build=partial(build, 25))
kb64 = sized(build=partial(build, 17))
kb32 = sized(build=partial(build, 12))
