"""Networks and front ends of a test's own, on the menus for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from tinyscene.features import FRONTENDS, FrontEnd, register_frontend
from tinyscene.models import NETWORKS, register_network


@contextmanager
def menus(**kinds: type[nn.Module]) -> Iterator[None]:
    """Registered by these names; forgotten at the end, with all else that was registered meanwhile."""
    before = dict(NETWORKS), dict(FRONTENDS)
    made = {kind: vars(kind).get("__init__") for kind in kinds.values()}
    try:
        for name, kind in kinds.items():
            register_frontend(name, kind) if issubclass(kind, FrontEnd) else register_network(name, kind)
        yield
    finally:
        for menu, held in zip((NETWORKS, FRONTENDS), before, strict=True):
            menu.clear()
            menu.update(held)
        for kind, init in made.items():
            if init:
                kind.__init__ = init
            else:
                del kind.__init__
