"""Every network of the menu in float, at int8 after training, and at int8 by quantization-aware training.

Each behind its published front end and trained alike, without augmentation: only differences between rows of
one network matter.

    tinyscene reproduce results/int8_menu.py --dataset synthetic --data $SYNTHETIC
"""

from functools import partial

from tinyscene import Adam, Cosine, Fit, Quantize, System
from tinyscene.models import create_classifier
from tinyscene.rules import dcase2024

train = Fit(epochs=20, batch_size=32, optimizer=Adam(lr=1e-3), schedule=Cosine(warmup_epochs=1))
tune = Fit(epochs=5, batch_size=32, optimizer=Adam(lr=1e-4), schedule=Cosine())


def pair(network: str) -> tuple[System, System]:
    """Quantized after training, and trained on while quantized; both from one trained network."""
    build = partial(create_classifier, network)
    return System(dcase2024, build, (train, Quantize())), System(dcase2024, build, (train, Quantize(fit=tune)))


baseline2020_after, baseline2020_qat = pair("baseline2020")
baseline2021_after, baseline2021_qat = pair("baseline2021")
cp_mobile_after, cp_mobile_qat = pair("cp_mobile")
se_resnet_after, se_resnet_qat = pair("se_resnet")
