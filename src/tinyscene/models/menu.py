"""The networks by name."""

import inspect
from typing import Any

import torch
from torch import nn

from tinyscene.errors import InputError
from tinyscene.models.aemnet import AemNet
from tinyscene.models.bc_resnet_mod import BCResNetMod
from tinyscene.models.cp_mobile import CPMobile
from tinyscene.models.dcase_baseline import Baseline2020, Baseline2021
from tinyscene.models.moments_linear import MomentsLinear
from tinyscene.models.pham_cnn import PhamCNN
from tinyscene.models.se_resnet import SEResNet
from tinyscene.models.tandem import Tandem

NETWORKS: dict[str, type[nn.Module]] = {
    "aemnet": AemNet,
    "baseline2020": Baseline2020,
    "baseline2021": Baseline2021,
    "bc_resnet_mod": BCResNetMod,
    "cp_mobile": CPMobile,
    "moments_linear": MomentsLinear,
    "pham_cnn": PhamCNN,
    "se_resnet": SEResNet,
    "tandem": Tandem,
}


def list_models() -> list[str]:
    """The names that `create_model` accepts, in alphabetical order."""
    return sorted(NETWORKS)


def create_model(name: str, *, seed: int | None = None, **arguments: Any) -> nn.Module:
    """A network with fresh weights: (batch, channels, bands, frames) -> (batch, classes), logits.

    They are drawn from `seed`, or where None from torch's own generator: that of a run, where `reproduce` and `fit`
    build the network (`Run.seed_torch`).

    Raises:
        InputError: there is no such network, or it takes no such argument.
    """
    if name not in NETWORKS:
        raise InputError(f"there is no network {name!r}; there are {', '.join(list_models())}")
    network = NETWORKS[name]
    signature = inspect.signature(network)
    try:
        bound = signature.bind(**arguments)
    except TypeError as error:
        accepted = ", ".join(
            parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default}"
            for parameter in signature.parameters.values()
        )
        raise InputError(f"network {name!r}: {error}; it takes {accepted}") from None
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        made = network(**arguments)
    if not hasattr(made, "arguments"):
        # What a class doesn't keep itself is needed to load it.
        bound.apply_defaults()
        made.arguments = bound.arguments  # type: ignore[assignment]
    return made
