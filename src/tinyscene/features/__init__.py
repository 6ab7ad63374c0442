"""Front ends: from waveforms to features."""

from tinyscene.features.front_end import FrontEnd, record_arguments, refuse_taken
from tinyscene.features.gammatone import Gammatone
from tinyscene.features.logmel import LogMel
from tinyscene.features.moments import Moments
from tinyscene.features.raw import Raw
from tinyscene.features.standardize import Standardize

FRONTENDS: dict[str, type[FrontEnd]] = {}


def register_frontend(name: str, frontend: type[FrontEnd]) -> None:
    """Put a front end on the menu, so that classifiers with it can be saved and loaded; call it where it is defined.

    Raises InputError where the name is taken.
    """
    refuse_taken(name, frontend, FRONTENDS.get(name))
    record_arguments(frontend)
    FRONTENDS[name] = frontend


register_frontend("gammatone", Gammatone)
register_frontend("logmel", LogMel)
register_frontend("raw", Raw)

__all__ = ["FRONTENDS", "FrontEnd", "Gammatone", "LogMel", "Moments", "Raw", "Standardize", "register_frontend"]
