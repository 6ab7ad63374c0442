"""What a stage is, and what it needs beside its own values."""

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from tinyscene.allocator import keep_freed_memory
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PACKAGE = Path(__file__).parents[1]
COMPUTING = (
    "torch",
    "numpy",
    "scipy",
    "soxr",
    "lightning",
    "torchao",
    "scikit-learn",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


@dataclass
class Run:
    """Seed, folder and devices of a run.

    Args:
        seed: all randomness is drawn from it, the epoch and the clip, so that neither the number of loader workers
            nor a restart changes a result.
        folder: where checkpoints are kept; a killed run that is started again goes on from there.
        workers: loader processes beside the main one.
        accelerator, devices: as Lightning Fabric names them ("auto", "cpu", "gpu"); several devices train by DDP.
        quiet: show no progress.
    """

    seed: int = 0
    folder: str | Path = "runs/latest"
    workers: int = 0
    accelerator: str = "auto"
    devices: int = 1
    quiet: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch of the last fit: losses, learning rate, validation figures."""
    figures: dict[str, float] = field(default_factory=dict)
    """What the last stage measured of itself; kept with its result."""
    initial: SceneClassifier | None = field(default=None, repr=False)
    """The classifier before its first stage, which a lottery ticket goes back to; `reproduce` sets it."""
    features: dict[str, list[Tensor]] = field(default_factory=dict, repr=False)
    """Features that were computed before, so that no stage computes them again."""

    @cached_property
    def fabric(self) -> "Fabric":
        """Launched on first use: with several devices this starts the other processes."""
        from lightning.fabric import Fabric
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        keep_freed_memory()
        strategy = "ddp" if self.devices > 1 else "auto"
        try:
            fabric = Fabric(accelerator=self.accelerator, devices=self.devices, strategy=strategy)
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.devices} of accelerator {self.accelerator!r}: {' '.join(str(error).split())}; accepted: auto, "
                f"cpu or gpu, and as many as this machine has"
            ) from error
        fabric.launch()
        if fabric.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        return fabric

    @property
    def place(self) -> str:
        """What computes, and how many of it: the same seed rounds differently elsewhere."""
        return f"{self.fabric.device.type} x {self.fabric.world_size}"

    def rng(self, *key: int) -> np.random.Generator:
        """A generator that depends on the seed and `key` alone."""
        return np.random.default_rng((self.seed, *key))

    def seed_torch(self, *key: int) -> None:
        """Seed torch's own generator, which dropout and initial values draw from."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, *key)).generate_state(1)[0]))


@runtime_checkable
class Stage(Protocol):
    """One step from a classifier to the next: a frozen value that never changes its argument nor sees a test clip."""

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Change structure alone, without data: what `count` needs."""
        ...

    def __call__(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Do the work on the development part of the clips."""
        ...


def describe(value: Any) -> Any:
    """A stage, or any nest of frozen values, as JSON: the same text for the same meaning.

    What is defined outside the package is followed by a hash of the file that defines it: an edited criterion of one's
    own is another one.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
        own = {"content": value.content()} if hasattr(value, "content") else {}
        return {"type": type(value).__name__ + _source_hash(type(value)), **fields, **own}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, partial):
        return {"type": "partial", "of": describe(value.func), "with": describe([value.args, *value.keywords.items()])}
    if callable(value):
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}{_source_hash(named)}"
    return str(value) if isinstance(value, Path) else value


def _source_hash(definition: Any) -> str:
    """Of the file that defines a function or class outside the package.

    The line, and what it closes over, tell one lambda from another.
    """
    if definition.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    try:
        source, line = inspect.getsourcefile(definition), inspect.getsourcelines(definition)[1]
    except (OSError, TypeError):  # typed at a prompt, or not written in Python
        return ""
    held = [cell.cell_contents for cell in getattr(definition, "__closure__", None) or ()]
    closed_over = str([describe(value) for value in held if value is not definition])
    return f" {hashlib.sha256(Path(source or '').read_bytes() + closed_over.encode()).hexdigest()[:8]}:{line}"


def key_of(*parts: Any) -> str:
    """A short name for a result that depends on `parts`, on the package's source and on versions."""
    versions = [version(name) for name in COMPUTING]
    text = json.dumps([source_fingerprint(), versions, *map(describe, parts)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_fingerprint(module: nn.Module) -> str:
    """Changes with any value of any tensor."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@cache
def source_fingerprint() -> str:
    """Hash of the package's source: an edited stage finds no stale result."""
    return _hash_files(sorted(PACKAGE.rglob("*.py")))


def _hash_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
