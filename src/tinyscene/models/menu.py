"""Every network of the menu behind its published front end.

Departures: features are standardized per band, which the baselines of 2020 to 2022 do and that of 2024 does not;
waveforms, bands without their time mean, and inputs that a network normalises itself are unchanged. Centred frames are
padded with zeros; the baseline of 2024 reflects.
"""

from functools import partial
from typing import Any

import torch

from tinyscene.errors import InputError
from tinyscene.features import FrontEnd, Gammatone, LogMel, Raw
from tinyscene.models.aemnet import AemNet
from tinyscene.models.bc_resnet_mod import BCResNetMod
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.cp_mobile import CPMobile
from tinyscene.models.dcase_baseline import Baseline2020, Baseline2021
from tinyscene.models.moments_linear import MomentsLinear
from tinyscene.models.pham_cnn import PhamCNN
from tinyscene.models.plain_cnn import PlainCNN
from tinyscene.models.registry import create_model, entry, register_network
from tinyscene.models.se_resnet import SEResNet
from tinyscene.models.tandem import Tandem

_BASELINE: dict[str, Any] = {
    "sample_rate": 44_100,
    "window_s": 0.040,
    "hop_s": 0.020,
    "n_fft": 2048,
    "n_mels": 40,
    "window": "hamming",
}
_SCHMIDT: dict[str, Any] = {
    "sample_rate": 16_000,
    "n_fft": 2048,
    "hop_length": 480,
    "window": "hamming",
    "n_mels": 256,
    "log": "log10",
    "floor": 1e-8,
}
register_network("aemnet", AemNet, frontend=partial(Raw, sample_rate=16_000), standardized=False)
register_network("baseline2020", Baseline2020, frontend=partial(LogMel, **_BASELINE))
register_network("baseline2021", Baseline2021, frontend=partial(LogMel, **_BASELINE))
register_network("bc_resnet_mod", BCResNetMod, frontend=partial(LogMel, **_SCHMIDT))
register_network(
    "cp_mobile",
    CPMobile,
    frontend=partial(
        LogMel,
        sample_rate=32_000,
        win_length=3072,
        hop_length=500,
        n_fft=4096,
        n_mels=256,
        floor=1e-5,
        mel="htk",
    ),
)
register_network("moments_linear", MomentsLinear, frontend=partial(LogMel, **_SCHMIDT))
register_network(
    "pham_cnn",
    PhamCNN,
    frontend=partial(
        Gammatone,
        sample_rate=48_000,
        n_fft=4096,
        bands=128,
        win_length=2048,
        hop_length=1024,
        f_min_hz=10.0,
        frames_per_s=42.8,
        channel=0,
    ),
    standardized=False,
)
register_network(
    "plain_cnn",
    PlainCNN,
    frontend=partial(LogMel, sample_rate=32_000, n_fft=2048, hop_length=640, n_mels=64, floor=1e-5),
)
register_network(
    "se_resnet",
    SEResNet,
    frontend=partial(
        LogMel,
        sample_rate=44_100,
        window_s=0.030,
        hop_s=0.010,
        n_fft=4096,
        n_mels=128,
        power=1,
        floor=1e-5,
        subtract_mean=True,
    ),
    standardized=False,
)
register_network("tandem", Tandem, frontend=partial(LogMel, **_SCHMIDT))


def create_frontend(name: str) -> FrontEnd:
    """The front end of a network of the menu. Raises InputError where none is known."""
    made = entry(name).frontend
    if made is None:
        raise InputError(
            f"{name!r} has no front end; try SceneClassifier(front end, network, classes), or "
            f"register_network({name!r}, ..., frontend=), such as frontend=lambda: LogMel(...)"
        )
    return made()


def create_classifier(
    name: str, classes: tuple[str, ...], *, seed: int | None = None, **arguments: Any
) -> SceneClassifier:
    """An untrained classifier around a network of the menu, its initial values drawn as by `create_model`.

    `arguments` are the network's own, such as `filters`.

    Raises InputError for an unknown name, or a network without a front end.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        frontend, network = create_frontend(name), create_model(name, classes=len(classes), **arguments)
    classifier = SceneClassifier(frontend, network, classes)
    if not entry(name).standardized:
        classifier.standardize.fitted.fill_(True)  # it stays the identity
    return classifier
