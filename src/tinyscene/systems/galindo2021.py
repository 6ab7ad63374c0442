"""A CNN on raw waveforms, its lottery ticket at 8 bits (Galindo-Meza et al., DCASE 2021 Task 1a).

Two 1-D convolutions and nine depthwise-separable blocks take the waveform itself, at 16 kHz. After training, the 60 %
of least important values are removed and the others reset to their random start; this ticket is trained again,
then quantized during training. A random ticket of the same size, which the report lacks, is the control:
drawn evenly over all weights, it differs in the share that every layer keeps as well as in the choice within it.

    tinyscene reproduce galindo2021 --dataset tau2020-mobile --data $TAU2020

The report gives 61.49 % for `aemnet`, 58.73 % for `ticket` and 56.50 % for `ticket_int8` on TAU Urban Acoustic Scenes
2020 Mobile. Its 124.64 KB are one byte for each of 127,637 survivors; an int8 file also holds what folding batch norm
leaves, and one scale a channel, and exceeds the limit: `tinyscene count galindo2021` prints both.

The ticket is cut in one shot. `--set ticket.stages.1.rounds=3` cuts it in rounds, and `rewind_epoch=5` rewinds to the
fifth epoch; both train by `fit` of that stage, where your changes of stage 0 must be repeated.

Departures: the report pre-trains the body on AudioSet and then trains it at a tenth of the dense layer's rate. Without
such weights, as here, it trains from its random start at the same rate as the dense layer. If you have weights with
the names of this network, `--set all.stages.0.init=FILE --set 'all.stages.0.optimizer.rates=(("body", 0.1),)'` follows
the report; the ticket rewinds to the random values in either case. Loss, batch size, epochs and the strengths of
noise, gain and mixup aren't in the report: cross entropy, 32, 100 and this package's defaults. Its decay of the
learning rate, 1e-2, is taken as per epoch. Values are ranked by magnitude over the weights of all layers, each
layer's divided by their root mean square; biases and batch norm stay, and count among the 319,093. Its "ReLU in the
classifier" is taken as the one after the embedding. Quantization-aware training takes 20 epochs at a tenth of the rate.
"""

from dataclasses import replace
from functools import partial

from tinyscene.accounting import CONVENTIONS
from tinyscene.augment import Crop, Gain, Mixup, Noise
from tinyscene.compression import LotteryTicket, Quantize
from tinyscene.evaluation.scorecard import Reported
from tinyscene.features import Raw, Standardize
from tinyscene.models import AemNet
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import dcase2021
from tinyscene.systems.system import System
from tinyscene.training import Adam, Fit, InverseTime

own = CONVENTIONS["galindo2021"]


def build(classes: tuple[str, ...]) -> SceneClassifier:
    """Any length from 0.32 s on, without standardization."""
    return SceneClassifier(Raw(16_000), AemNet(classes=len(classes)), classes, Standardize.identity(1))


train = Fit(
    epochs=100,
    batch_size=32,
    optimizer=Adam(lr=1e-4, weight_decay=1e-4),
    schedule=InverseTime(1e-2),
    augment=(Crop(1.0), Noise(), Gain(), Mixup(domain="waveforms")),
)
tune = replace(train, epochs=20, optimizer=Adam(lr=1e-5, weight_decay=1e-4))

submission = partial(System, rules=dcase2021, build=build)

aemnet = submission(stages=(train,), reported=Reported(319_093, own, "1246.45", own, accuracy=0.6149, truncated=True))

ticket = submission(
    stages=(train, LotteryTicket(0.6, fit=train), train),
    reported=Reported(127_637, own, "498.58", own, accuracy=0.5873, truncated=True),
)

ticket_int8 = submission(
    stages=(*ticket.stages, Quantize(fit=tune)),
    reported=Reported(127_637, own, "124.64", own, accuracy=0.5650, truncated=True),
)

random_ticket = submission(stages=(train, LotteryTicket(0.6, by="random"), train), counted_by=own)
