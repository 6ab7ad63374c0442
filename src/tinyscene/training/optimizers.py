"""Optimisers as values; names and defaults are torch's, plus `rates`: learning rates by part of the network."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tinyscene.errors import InputError, Numbers, check
from tinyscene.models.folding import inside
from tinyscene.models.quantized import FakeQuantized

_BETAS, _FACTORS = Numbers(least=0, below=1, items=2), Numbers(least=0, most=1000)

Rates = tuple[tuple[str, float], ...]
"""Patterns over module paths and their learning rates relative to the optimiser's; the first match counts.

`(("body", 0.1),)` trains everything below `body` at a tenth of the rate, and the rest at the full rate; a factor
of 0 freezes it, except for batch norm's statistics.
"""


def parameter_groups(network: nn.Module, rates: Rates) -> list[dict[str, Any]]:
    """The network's parameters in groups for torch's optimisers, each with the `factor` on its rate.

    Raises:
        InputError: a pattern matches nothing.
    """
    root = network.graph if isinstance(network, FakeQuantized) else network
    groups: list[dict[str, Any]] = [{"params": [], "factor": factor} for _, factor in (*rates, ("*", 1.0))]
    for path, parameter in root.named_parameters():
        matches = (i for i, (pattern, _) in enumerate(rates) if inside(path, (pattern,)))
        groups[next(matches, len(rates))]["params"].append(parameter)
    for (pattern, _), group in zip(rates, groups, strict=False):
        if not group["params"]:
            names = ", ".join(dict.fromkeys(path.partition(".")[0] for path, _ in root.named_parameters()))
            raise InputError(
                f"rates: {pattern!r} matches no tensor; accepted: a path in {names}, * for any text, that no earlier "
                f"pattern took"
            )
    return [group for group in groups if group["params"]]


def _check(optimizer: "Optimizer", **more: Numbers) -> None:
    check(optimizer, lr=Numbers(above=0, most=1e30), weight_decay=Numbers(least=0, most=1e30), rates=tuple, **more)
    for pair in optimizer.rates:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and pair[1] in _FACTORS):
            raise InputError(
                f"{type(optimizer).__name__}(rates={optimizer.rates!r}); accepted: pairs of a path and a factor "
                f"{_FACTORS}, such as (('body', 0.1),)"
            )


@dataclass(frozen=True)
class Adam:
    """Adam with l2 weight decay (Kingma and Ba, ICLR 2015)."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    rates: Rates = ()

    def __post_init__(self) -> None:
        _check(self, betas=_BETAS)

    def build(self, parameters: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            parameters,
            float(self.lr),
            (float(self.betas[0]), float(self.betas[1])),
            weight_decay=float(self.weight_decay),
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    lr: float = 1e-3
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    rates: Rates = ()

    def __post_init__(self) -> None:
        _check(self, betas=_BETAS)

    def build(self, parameters: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            float(self.lr),
            (float(self.betas[0]), float(self.betas[1])),
            weight_decay=float(self.weight_decay),
        )


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    rates: Rates = ()

    def __post_init__(self) -> None:
        _check(self, momentum=Numbers(least=0, below=1))
        if self.nesterov and not self.momentum:
            raise InputError(f"{self}; accepted: nesterov with a momentum above 0")

    def build(self, parameters: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


Optimizer = Adam | AdamW | SGD
