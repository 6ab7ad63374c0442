"""Filter pruning of the DCASE 2021 baseline (Singh, Devalraju and Rajan, DCASE 2021 Task 1a).

Log-mel energies go into three 7x7 convolutions and a dense layer. Filters with a low l1 norm, or close to the geometric
median of their layer, are removed with their readers' inputs; the rest is fine-tuned and stored at 16 bits.

    tinyscene reproduce singh2021 --dataset tau2020-mobile --data $TAU2020

The report gives 47.7 to 49.1 % on TAU Urban Acoustic Scenes 2020 Mobile, in at most 200 epochs; this code's results
on available data sets are in results/RESULTS.md.

Departures: the distance from the geometric median is used, as in the text, and not from the geometric mean, as in the
authors' script. Batch sizes and the patience of early stopping aren't in the report: 16 and 30 are the baseline's and
ours. Features are standardized per band on the training part, which the baseline does and the report doesn't mention.
"""

from dataclasses import replace
from functools import partial

from tinyscene.accounting import CONVENTIONS
from tinyscene.compression import FilterPruning, HalfPrecision, ReplaceDense, geometric_median, l1_norm
from tinyscene.evaluation.scorecard import Reported
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import dcase2021
from tinyscene.systems.system import System
from tinyscene.training import Adam, EarlyStopping, Fit

bn4, bn2, bn0 = CONVENTIONS["bn4"], CONVENTIONS["bn2"], CONVENTIONS["bn0"]


def build(classes: tuple[str, ...]) -> SceneClassifier:
    """The unpruned network: 40 bands, 500 frames for 10 s."""
    frontend = LogMel(
        sample_rate=44_100, window_s=0.040, hop_s=0.020, n_fft=2048, n_mels=40, window="hamming", drop_last_frame=True
    )
    return SceneClassifier(frontend, Baseline2021(filters=(16, 16, 32), dense=100, classes=len(classes)), classes)


train = Fit(epochs=200, batch_size=16, optimizer=Adam(lr=1e-3), early_stopping=EarlyStopping("log_loss", patience=30))
tune = replace(train, batch_size=64)

submission = partial(System, rules=dcase2021, build=build)

unpruned = submission(
    stages=(train, HalfPrecision()), reported=Reported(46_246, bn4, "90.1", bn2, accuracy=0.4859, log_loss=1.425)
)

singh_29kb = submission(
    stages=(
        train,
        FilterPruning("L2", ratio=0.50, by=l1_norm),
        tune,
        FilterPruning("L3", ratio=0.50, by=l1_norm),
        tune,
        ReplaceDense(units=32),
        tune,
        HalfPrecision(),
    ),
    reported=Reported(14_754, bn0, "28.8", bn0, accuracy=0.4774, log_loss=1.383),
)

singh_53kb = submission(
    stages=(train, FilterPruning("L2", ratio=0.50, by=geometric_median), tune, HalfPrecision()),
    reported=Reported(27_166, bn0, "53.06", bn0, accuracy=0.4848, log_loss=1.394),
)

singh_74kb = submission(
    stages=(train, FilterPruning("L3", ratio=0.25, by=geometric_median), tune, HalfPrecision()),
    reported=Reported(38_110, bn0, "74.43", bn0, accuracy=0.4905, log_loss=1.395),
)

singh_71kb = submission(
    stages=(train, FilterPruning("L2", ratio=0.25, by=geometric_median), tune, HalfPrecision()),
    reported=Reported(36_818, bn4, "71.44", bn0, accuracy=0.4865, log_loss=1.413),
)
