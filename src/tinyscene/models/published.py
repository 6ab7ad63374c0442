"""Every network of the menu behind the front end that it was published with.

Departures: features are standardized per band, which the baselines of 2020 to 2022 do and that of 2024 does not;
waveforms, bands without their time mean, and what a network normalises itself are left as they are. Centred frames are
padded with zeros, where those of 2024 are reflected.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from tinyscene.errors import InputError
from tinyscene.features import Gammatone, LogMel, Raw, Standardize
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
_SCHMIDT: dict[str, Any] = {
    "sample_rate": 16_000,
    "n_fft": 2048,
    "hop_length": 480,
    "window": "hamming",
    "n_mels": 256,
    "log": "log10",
    "floor": 1e-8,
}
FRONTENDS_OF: dict[str, Callable[[], nn.Module]] = {
    "aemnet": partial(Raw, sample_rate=16_000),
    "baseline2020": partial(LogMel, **_BASELINE),
    "baseline2021": partial(LogMel, **_BASELINE),
    "bc_resnet_mod": partial(LogMel, **_SCHMIDT),
    "cp_mobile": partial(
        LogMel,
        sample_rate=32_000,
        win_length=3072,
        hop_length=500,
        n_fft=4096,
        n_mels=256,
        floor=1e-5,
        mel="htk",
    ),
    "moments_linear": partial(LogMel, **_SCHMIDT),
    "pham_cnn": partial(
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
    "se_resnet": partial(
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
    "tandem": partial(LogMel, **_SCHMIDT),
}
# As published.
_NOT_STANDARDIZED = {"aemnet", "pham_cnn", "se_resnet"}


def create_classifier(
    name: str, classes: tuple[str, ...], *, seed: int | None = None, **arguments: Any
) -> SceneClassifier:
    """An untrained classifier around a network of the menu, its initial values drawn as by `create_model`.

    `arguments` are the network's own, such as `filters`.

    Raises InputError for a name that is on no menu, or that no front end stands beside.
    """
    if name not in NETWORKS:
        raise InputError(f"no network {name!r}; accepted: {', '.join(NETWORKS)}")
    if name not in FRONTENDS_OF:
        raise InputError(
            f"no front end is known for {name!r}; accepted: SceneClassifier(front end, network, classes), or one in "
            f"tinyscene.models.published.FRONTENDS_OF[{name!r}], such as lambda: LogMel(...)"
        )
    network = create_model(name, seed=seed, classes=len(classes), **arguments)
    frontend = FRONTENDS_OF[name]()
    standardize = Standardize.identity(int(frontend.bands)) if name in _NOT_STANDARDIZED else None  # type: ignore[arg-type]
    return SceneClassifier(frontend, network, classes, standardize)
