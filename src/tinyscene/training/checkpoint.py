"""The state of a training run after its last complete epoch, in one file that is written completely or not at all."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.training.run import Run


@dataclass
class Progress:
    """Training progress, and the best validation metric so far."""

    epoch: int = 0
    best: float = float("inf")
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoint:
    """Save and restore network, optimiser, best weights and progress. Random numbers need no state: they are keyed."""

    def __init__(self, run: Run, key: str) -> None:
        self.path = Path(run.folder) / "checkpoints" / f"{key}.safetensors"
        self.best_weights: dict[str, Tensor] = {}

    def save(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, averaged: nn.Module | None, progress: Progress
    ) -> None:
        tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        if averaged is not None:
            tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for i, parameter in enumerate(_parameters(optimizer)):
            for name, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{i}.{name}"] = value
        contents = save(
            # Cloned: a shared fake quantizer has two names, and safetensors refuses shared memory.
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            metadata={"progress": json.dumps(asdict(progress))},
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(self.path) as partial:
            partial.write_bytes(contents)

    def restore(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, averaged: nn.Module | None = None, start: int = 0
    ) -> Progress:
        """Load network and optimiser from the file; without one, training starts at epoch `start`.

        Raises:
            InputError: the file is broken.
        """
        if not self.path.is_file():
            return Progress(epoch=start, best_epoch=start - 1)
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "averaged": {}, "optimizer": {}}
        try:
            with safe_open(self.path, "pt") as file:
                progress = Progress(**json.loads(file.metadata()["progress"]))
                for full in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    part, name = full.split(".", 1)
                    parts[part][name] = file.get_tensor(full)
        except SafetensorError as error:
            raise InputError(
                f"{self.path}: broken checkpoint ({error}); accepted: a complete one, or none: without the file, "
                f"training restarts"
            ) from error
        network.load_state_dict(parts["network"])
        if averaged is not None:
            averaged.load_state_dict(parts["averaged"])
        self.best_weights = parts["best"]
        parameters = _parameters(optimizer)
        for full, tensor in parts["optimizer"].items():
            i, name = full.split(".", 1)
            parameter = parameters[int(i)]
            # Adam counts its steps on the host; its moments are on the parameter's device.
            optimizer.state[parameter][name] = tensor if tensor.ndim == 0 else tensor.to(parameter.device)
        return progress

    def keep_best(self, network: nn.Module) -> None:
        self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
