"""Every network of the menu behind the front end that it was published with.

Departures: features are standardized per band, which the baselines of 2020 to 2022 do and that of 2024 does not;
those without their time mean are left as they are, as published. Centred frames are padded with zeros, where those of
2024 are reflected.
"""

from typing import Any

from tinyscene.errors import InputError
from tinyscene.features import LogMel, Standardize
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.menu import NETWORKS, create_model

_BASELINE: dict[str, Any] = {
    "sample_rate": 44_100,
    "window_s": 0.040,
    "hop_s": 0.020,
    "n_fft": 2048,
    "n_mels": 40,
    "window": "hamming",
}
FRONTENDS_OF: dict[str, dict[str, Any]] = {
    "baseline2020": _BASELINE,
    "baseline2021": _BASELINE,
    "cp_mobile": {
        "sample_rate": 32_000,
        "win_length": 3072,
        "hop_length": 500,
        "n_fft": 4096,
        "n_mels": 256,
        "floor": 1e-5,
        "mel": "htk",
    },
    "se_resnet": {
        "sample_rate": 44_100,
        "window_s": 0.030,
        "hop_s": 0.010,
        "n_fft": 4096,
        "n_mels": 128,
        "power": 1,
        "floor": 1e-5,
        "subtract_mean": True,
    },
}


def create_classifier(name: str, classes: tuple[str, ...], *, seed: int = 0, **arguments: Any) -> SceneClassifier:
    """An untrained classifier around a network of the menu, its initial values drawn from `seed`.

    `arguments` are the network's own, such as `filters`.

    Raises InputError, naming those there are, for another name.
    """
    if name not in NETWORKS:
        raise InputError(f"no network {name!r}; accepted: {', '.join(NETWORKS)}")
    network = create_model(name, seed=seed, classes=len(classes), **arguments)
    frontend = LogMel(**FRONTENDS_OF[name])
    standardize = Standardize.identity(frontend.bands) if frontend.subtract_mean else None
    return SceneClassifier(frontend, network, classes, standardize)
