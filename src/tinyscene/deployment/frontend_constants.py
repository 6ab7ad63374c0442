"""Which constants of a file are its front end's: those that what it says of its front end gives."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tinyscene.deployment.described import MODEL, classifier_of
from tinyscene.errors import InputError
from tinyscene.features.products import as_products


def is_of_frontend(values: npt.NDArray[Any], described: Mapping[str, str]) -> bool:
    """Whether `values`, in order, are a constant of the front end or of the standardization, turned or not.

    A name says nothing: weights under a front end's name would be a network that costs nothing. A single number may be
    anybody's.

    Args:
        described: the file's metadata.

    Raises:
        InputError: metadata that describe no front end, or a standardization of other bands than its.
    """
    if values.size < 2:
        return False
    found = values.astype(np.float64).ravel()
    return any(
        len(known) == len(found) and np.allclose(known, found, rtol=1e-5, atol=1e-9)
        for known in _constants(tuple(sorted(described.items())))
    )


@lru_cache(maxsize=8)
def _constants(described: tuple[tuple[str, str], ...]) -> list[npt.NDArray[np.float64]]:
    """Every constant, and what converters make of it, flat."""
    try:
        facts = json.loads(dict(described).get(MODEL, "{}"))
        if facts.get("front_end") != "inside":
            return []
        classifier = classifier_of(dict(described), nn.Identity())
        bands = int(classifier.frontend.bands)  # type: ignore[arg-type]
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"metadata that describe no classifier ({error!r}); accepted: a file of export") from error
    mean, std = classifier.standardize.mean.double().numpy(), classifier.standardize.std.double().numpy()
    if mean.shape != (1, bands, 1) or std.shape != (1, bands, 1):
        raise InputError(
            f"metadata of a standardization of {mean.shape} behind a front end of {bands} bands; accepted: one mean "
            f"and one deviation a band"
        )
    held = [tensor.double().numpy() for _, tensor in as_products(classifier.frontend).named_buffers()]
    held += [part for tensor in held if tensor.ndim == 3 for part in tensor]  # cosines and sines apart
    held += [mean, -mean, std, 1 / std, -mean / std]
    return [turned.ravel() for values in held for turned in (values, np.swapaxes(values, 0, -1))]
