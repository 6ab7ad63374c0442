"""A training that is killed, and whether another ended at the same weights."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook


class KilledError(Exception):
    """Stands for a kill in the middle of an epoch."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The block must die at an optimizer's `step`-th step, counted from 1."""
    steps = itertools.count(1)

    def die(*_: object) -> None:
        if next(steps) == step:
            raise KilledError

    hook = register_optimizer_step_post_hook(die)
    try:
        with pytest.raises(KilledError):
            yield
    finally:
        hook.remove()


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Names, order and every bit."""
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)
