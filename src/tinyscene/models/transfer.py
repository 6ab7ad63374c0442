"""A trained classifier for other classes: all but its last layer stays."""

import copy
from typing import Any

import torch

from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.registry import kinds
from tinyscene.models.saved import build, build_sized, describe, sizes_beyond


def for_classes(classifier: SceneClassifier, classes: tuple[str, ...], *, seed: int | None = None) -> SceneClassifier:
    """A copy whose last layer gives these classes, with fresh weights from `seed`, or torch's own generator.

    Front end, standardization, all other layers, also pruned ones, and provenance are kept.

    Raises:
        InputError: int8 or 16-bit weights, a network on no menu, or one without an argument `classes`.
    """
    classifier.require_float("training for other classes")
    described = describe(classifier.network, kinds())
    if "classes" not in described["arguments"]:
        raise InputError(
            f"{described['name']} has no argument `classes`, so that its last layer can't be made anew; accepted: a "
            f"network that takes the number of classes by that name"
        )

    def of(number: int) -> dict[str, Any]:
        return described | {"arguments": described["arguments"] | {"classes": number}}

    built = build(described, kinds())
    # The layers whose sizes follow from the number of classes.
    last = sizes_beyond(build(of(len(classifier.classes) + 1), kinds()), built)
    sizes = sizes_beyond(classifier.network, built)
    for path in last:
        named = {name: size for name, size in sizes.get(path, {}).items() if name.startswith("in_")}
        made = sizes_beyond(build(of(len(classes)), kinds()), built).get(path, {})
        sizes |= {path: made | named} if named and made else {}
    network = build_sized({"network": of(len(classes)), "sizes": sizes}, kinds())
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        for path in last:
            network.get_submodule(path).reset_parameters()  # type: ignore[operator]
    held = classifier.network.state_dict()
    kept = {name: tensor for name, tensor in held.items() if name.rpartition(".")[0] not in last}
    masks.register(network, kept)
    network.load_state_dict(kept, strict=False)
    parts = copy.deepcopy((classifier.frontend, classifier.standardize))
    found = SceneClassifier(parts[0], network, classes, parts[1])
    found.provenance = classifier.provenance
    return found.eval()
