"""Published weights as the starting point of training."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.models import masks

# A classifier saved by `SceneClassifier.save`: only its network is used.
_PREFIX = "network."
_MOST_NAMED = 5


def content_of(path: str | Path) -> str:
    """A hash of the file. Raises InputError if there is none."""
    return hashlib.sha256(_read(path)).hexdigest()[:12]


def start_from(network: nn.Module, path: str | Path) -> None:
    """Load `network` in place from a safetensors file, by name; masks in the file are ignored.

    A part of the network that the file lacks entirely, such as the dense layer, keeps its values.

    Raises:
        InputError: there is no such file, or a name or shape in it is not the network's.
    """
    try:
        tensors = load(_read(path))
    except SafetensorError as error:
        raise InputError(
            f"{path}: not a safetensors file ({error}); accepted: weights by name, without pickle"
        ) from error
    if any(name.startswith(_PREFIX) for name in tensors):
        tensors = {n.removeprefix(_PREFIX): t for n, t in tensors.items() if n.startswith(_PREFIX)}
    wanted = {name: tensor for name, tensor in network.state_dict().items() if _is_value(name)}
    tensors = {name: tensor for name, tensor in tensors.items() if _is_value(name)}
    _refuse_others(path, wanted, tensors)
    network.load_state_dict(tensors, strict=False)


def _is_value(name: str) -> bool:
    return not name.endswith((masks.SUFFIX, "num_batches_tracked"))


def _refuse_others(path: str | Path, wanted: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    parts = {name.partition(".")[0] for name in given}
    faults = {
        "missing": [name for name in wanted if name not in given and name.partition(".")[0] in parts],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {tuple(given[name].shape)}, here {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }
    text = "; ".join(f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names)
    if text or not given:
        raise InputError(
            f"{path}: its tensors are not the network's ({text or 'it holds none'}); accepted: the names and shapes of "
            f"{_some(list(wanted))}, whole parts of the network left out or not"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); accepted: a safetensors file") from error
