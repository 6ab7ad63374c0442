"""A CNN on gammatone spectrograms, pruned by half or at 8 bits (Pham et al., DCASE 2020 Task 1b).

The gammatone spectrogram of one channel goes into four convolutions that end in a global maximum. From one trained
network, either the kernels of least magnitude, half of every layer, are pruned during training, or everything is
quantized during training.

    tinyscene reproduce pham2020 --dataset tau2020-3class --data $TAU2020_3CLASS

The report gives 93.0 % for `baseline`, 91.9 % for `int8` and 90.5 % for `pruned` on TAU Urban Acoustic Scenes 2020
3Class. Its sizes for these are 245.5, 61.5 and 122.8 KB: the last is half of everything, though biases and batch norm
were hardly pruned. `tinyscene count pham2020` shows that arithmetic beside kept values (127.46 KB), and for int8 one
byte a value (61.38 KB, unlike the print) beside the contents of a file (66.62 KB).

Departures: "channel 1" is taken as the first. The toolkit isn't available: the pruning schedule is polynomial, the
share of 50 % follows from the sizes and grows over the first 75 % of the tuning, which takes 30 epochs at the rate of
training; none of this is in the report. int8 folds no batch norm, since it follows the ReLU. Equation (1) sums over a
batch, while Keras, which they used, takes its mean: as here, with the l2 term as the weight decay of Adam, whose rate
isn't in the report and is 1e-3. Nor is mixup's alpha, here 0.2, or what is added before the decibels, here 1e-6. Batch
norm has torch's momentum and epsilon, 0.1 and 1e-5, where Keras has 0.01 and 1e-3. Frames and the place of batch norm:
see `features/gammatone.py` and `models/pham_cnn.py`.
"""

from dataclasses import replace
from functools import partial

from tinyscene.accounting import CONVENTIONS
from tinyscene.augment import Mixup
from tinyscene.compression import MagnitudePruning, Quantize
from tinyscene.evaluation.scorecard import Reported
from tinyscene.features import Standardize
from tinyscene.models import PhamCNN
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.menu import create_frontend
from tinyscene.rules import dcase2020
from tinyscene.systems.system import System
from tinyscene.training import Adam, Fit, KLDivergence

own, bn4 = CONVENTIONS["pham2020"], CONVENTIONS["bn4"]


def build(classes: tuple[str, ...]) -> SceneClassifier:
    """128 gammatone bands, 428 frames for 10 s; a batch norm in the network replaces standardization."""
    return SceneClassifier(
        create_frontend("pham_cnn"), PhamCNN(classes=len(classes)), classes, Standardize.identity(128)
    )


train = Fit(
    epochs=100,
    batch_size=100,
    optimizer=Adam(lr=1e-3, weight_decay=1e-4),
    loss=KLDivergence(),
    augment=(Mixup(0.2),),
)
tune = replace(train, epochs=30)

submission = partial(System, rules=dcase2020, build=build)

baseline = submission(stages=(train,), reported=Reported(None, bn4, "245.5", own, accuracy=0.930))

pruned = submission(
    stages=(train, MagnitudePruning(0.50, scope="layer", what="weights", fit=tune)),
    reported=Reported(None, bn4, "122.8", own, accuracy=0.905),
)

int8 = submission(stages=(train, Quantize(fit=tune)), reported=Reported(None, bn4, "61.5", own, accuracy=0.919))
