"""The base class of stages, and what they need beside their own values."""

import copy
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from tinyscene.allocator import keep_freed_memory
from tinyscene.data import Clips
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.provenance import Provenance
from tinyscene.progress import say
from tinyscene.training.precision import TrainingPrecision, slow_here

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass
class Run:
    """Seed, folder and devices of a run.

    Args:
        seed: all randomness is drawn from seed, epoch and clip, so that neither the number of loader workers
            nor a restart changes a result.
        folder: of checkpoints, from which a killed run resumes when it is started again.
        workers: loader processes beside the main one.
        accelerator, devices: as Lightning Fabric names them ("auto", "cpu", "gpu"); several devices train by DDP.
        precision: "32-true", or "bf16-mixed": activations of 16 bit while training, which is faster where the
            processor has such products (avx512_bf16, AMX, recent GPUs). int8 training stays at 32 bit.
        quiet: show no progress.
    """

    seed: int = 0
    folder: str | Path = "runs/latest"
    workers: int = 0
    accelerator: str = "auto"
    devices: int = 1
    precision: TrainingPrecision = "32-true"
    quiet: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch of the last fit: losses, learning rate, validation metrics."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the last stage; stored with its result."""
    initial: SceneClassifier | None = field(default=None, repr=False)
    """The classifier before its first stage, for a lottery ticket to rewind to; `reproduce` sets it."""
    features: dict[tuple[str, str, str], list[Tensor]] = field(default_factory=dict, repr=False)
    """Computed features by front end, part and clips, so that later stages reuse them."""

    def __post_init__(self) -> None:
        whole = {"seed": 0, "workers": 0, "devices": 1}
        numbers = {name: Numbers(least=least, whole=True) for name, least in whole.items()}
        check(self, **numbers, precision=get_args(TrainingPrecision))

    @cached_property
    def fabric(self) -> "Fabric":
        """Launched on first use, which with several devices starts the other processes."""
        from lightning.fabric import Fabric
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        self._check_launch()
        keep_freed_memory()
        strategy = "ddp" if self.devices > 1 else "auto"
        try:
            fabric = Fabric(accelerator=self.accelerator, devices=self.devices, strategy=strategy)
        except (MisconfigurationException, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.devices} of accelerator {self.accelerator!r}: {' '.join(str(error).split())}; accepted: auto, "
                f"cpu or gpu, and no more devices than this machine has"
            ) from error
        fabric.launch()
        if slow_here(self.precision, fabric.device) and fabric.is_global_zero and not self.quiet:
            _say_slow()
        if fabric.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        return fabric

    def _check_launch(self) -> None:
        """Raise InputError where a launcher started more processes than train together: each would train separately."""
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            started = os.environ.get(name, "")
            if started not in ("", str(self.devices)):
                raise InputError(
                    f"this process was launched as one of {started} ({name}), Run(devices={self.devices}) trains on "
                    f"{self.devices}, on one host; accepted: as many processes as devices (torchrun --nnodes 1 "
                    f"--nproc-per-node {self.devices}), or no launcher: tinyscene starts its own"
                )

    @property
    def place(self) -> str:
        """Kind and number of devices, and precision: the same seed rounds differently with others."""
        place = f"{self.fabric.device.type} x {self.fabric.world_size}"
        return place if self.precision == "32-true" else f"{place}, {self.precision}"

    def rng(self, *key: int) -> np.random.Generator:
        """A generator that depends only on the seed and `key`."""
        return np.random.default_rng((self.seed, *key))

    def seed_torch(self, *key: int) -> None:
        """Seed torch's own generator, which dropout and initial values draw from."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, *key)).generate_state(1)[0]))


@cache
def _say_slow() -> None:
    """Once, of all runs of a process."""
    say("note: this processor has no bfloat16 products, so that bf16-mixed is slower than 32-true")


class Stage(ABC):
    """One step from a classifier to the next: a frozen value that never changes its argument nor sees a test clip.

    Your own stage derives from it and defines `apply`, which other stages also call.
    """

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Change only the structure, without data, for `count`."""
        return classifier

    @abstractmethod
    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Do the work on clips without test clips."""

    def __call__(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Do the work on the development part of the clips, and record that they were used.

        Raises:
            InputError: a test clip is among the clips, or what the stage can't use.
        """
        clips.refuse_test(type(self).__name__)
        run.history.clear()
        run.metrics.clear()
        after = self.apply(classifier, clips, run)
        if after is classifier:
            after = copy.deepcopy(classifier)
        devices = tuple({clip.device for clip in clips if clip.device})
        seen = Provenance(clips.recording_hashes, devices)
        after.provenance = classifier.provenance.merged(after.provenance).merged(seen)
        return after
