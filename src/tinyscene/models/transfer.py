"""A trained classifier for other classes: all but its last layer stays."""

import copy
from typing import Any

import torch
from torch import nn

from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.registry import kinds
from tinyscene.models.saved import build, build_sized, describe, sizes_beyond


def for_classes(classifier: SceneClassifier, classes: tuple[str, ...], *, seed: int | None = None) -> SceneClassifier:
    """A copy on the CPU whose last layer gives these classes, with fresh weights from `seed`, or torch's own generator.

    Front end, standardization, all other layers, also pruned ones, and provenance are kept.

    Raises:
        InputError: int8 or 16-bit weights, a network on no menu, one without an argument `classes`, or one with other
            tensors of that size.
    """
    classifier.require_float("training for other classes")
    classifier = copy.deepcopy(classifier).cpu()
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
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        fresh = build(of(len(classes)), kinds())
        sizes = sizes_beyond(classifier.network, built)
        narrow = [path for path in last if path in sizes]
        for path in narrow:
            sizes[path] |= _outputs(fresh.get_submodule(path))
        network = build_sized({"network": of(len(classes)), "sizes": sizes}, kinds())
        for path in narrow:
            layer = network.get_submodule(path)
            initialise = getattr(network, "initialise", None)
            if initialise is None:
                layer.reset_parameters()  # type: ignore[operator]
            else:
                initialise(layer)
    state = fresh.state_dict()
    held = {name: tensor for name, tensor in state.items() if _layer(name) in last and _layer(name) not in narrow}
    held |= {name: t for name, t in classifier.network.state_dict().items() if _layer(name) not in last}
    masks.register(network, held)
    wanted = network.state_dict()
    if others := [name for name, tensor in held.items() if name in wanted and wanted[name].shape != tensor.shape]:
        raise InputError(
            f"{described['name']}: the size of {others[0]} follows from the number of classes, and it belongs to no "
            f"layer that can be made anew; accepted: a network with its classes in convolutions, dense layers and norms"
        )
    network.load_state_dict(held, strict=False)
    found = SceneClassifier(classifier.frontend, network, classes, classifier.standardize)
    found.provenance = classifier.provenance
    return found.eval()


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _outputs(layer: nn.Module) -> dict[str, int]:
    return {name: getattr(layer, name) for name in ("out_channels", "out_features") if hasattr(layer, name)}
