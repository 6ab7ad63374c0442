"""Which constants of a file are its front end's: those that what it says of its front end gives."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tinyscene.deployment.described import MODEL, classifier_of
from tinyscene.features.products import as_products


def is_of_frontend(values: npt.NDArray[Any], described: Mapping[str, str]) -> bool:
    """Whether `values`, in whatever order and shape, are a constant of the front end or of the standardization.

    A name says nothing: weights under a front end's name would be a network that costs nothing.

    Args:
        described: the file's metadata.
    """
    if json.loads(described.get(MODEL, "{}")).get("front_end") != "inside":
        return False
    found = np.sort(values.astype(np.float64), axis=None)
    for known in _constants(tuple(sorted(described.items()))):
        if len(known) == len(found) and np.allclose(known, found, rtol=1e-5, atol=1e-9):
            return True
    return False


@lru_cache(maxsize=8)
def _constants(described: tuple[tuple[str, str], ...]) -> list[npt.NDArray[np.float64]]:
    """Sorted values of every constant, and of those that converters make of them."""
    classifier = classifier_of(dict(described), nn.Identity())
    frontend: Any = as_products(classifier.frontend)
    held = [tensor.double().numpy() for _, tensor in frontend.named_buffers()]
    held += [part for tensor in held if tensor.ndim == 3 for part in tensor]  # cosines and sines apart
    mean, std = classifier.standardize.mean.double().numpy(), classifier.standardize.std.double().numpy()
    held += [mean, -mean, std, 1 / std, -mean / std]
    inner = getattr(frontend, "frontend", frontend)
    held += [np.array([float(getattr(inner, name) or 0)]) for name in ("floor", "log_factor") if hasattr(inner, name)]
    return [np.sort(values, axis=None) for values in held]
