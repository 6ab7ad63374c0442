"""DCASE 2025 Task 1: the inference module of a submission, written by tinyscene.

The four functions are those of https://github.com/CPJKU/dcase2025_task1_inference. The models lie in `models/`, in a
folder called as this module is: one for all devices, and one in `devices/ID` for each device that has its own.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tinyscene import audio
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.quantized import Int8Network

MODELS = Path(__file__).parent / "models" / Path(__file__).stem
DEVICES = "devices"


class DeviceModels(nn.Module):
    """A classifier for every device: its own, or the general one.

    Attributes:
        model: the networks by device ("general" for all others), whose weights the organisers' script saves.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.classifiers = load_by_device(folder)
        self.model = nn.ModuleDict({device or "general": one.network for device, one in self.classifiers.items()})

    def classifier(self, device_id: str) -> SceneClassifier:
        return self.classifiers.get(device_id, self.classifiers[""])


class CountedInt8(nn.Module):
    """An int8 network whose integers are parameters of the layers that they belong to.

    The challenge's counter reads `parameters()` and hooks layers, and would see nothing of a graph of integers: the
    layers run beside the graph, to be counted. The logits are the graph's.
    """

    def __init__(self, network: Int8Network) -> None:
        super().__init__()
        # Kept out of the modules: its tensors are to be counted once.
        self.integers = [network]
        self.layers = network.origin.folded()
        for path, module in self.layers.named_modules():
            stored = network.get_submodule(path) if path else network
            for name in dict(module.named_parameters(recurse=False)):
                tensor = getattr(stored, name)  # None where it is shared with another layer, and stored there
                own = None if tensor is None else nn.Parameter(tensor.detach().clone(), requires_grad=False)
                module.register_parameter(name, own)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, bands, frames) -> (batch, classes)"""
        wide = {name: values.float() for name, values in self.layers.named_parameters()}
        torch.func.functional_call(self.layers, wide, (features,))
        logits: Tensor = self.integers[0](features)
        return logits


def load_by_device(folder: Path) -> dict[str, SceneClassifier]:
    """The classifiers of a folder by device, "" for the one of all others. Raises InputError for what is no model."""
    own = sorted((folder / DEVICES).glob("*/model.json"))
    return {"": SceneClassifier.load(folder)} | {path.parent.name: SceneClassifier.load(path.parent) for path in own}


def load_model(model_file_path: str | None = None) -> DeviceModels:
    """The models of this package, or those of a folder of the same layout."""
    return DeviceModels(Path(model_file_path) if model_file_path else MODELS).eval()


@torch.inference_mode()
def load_inputs(file_paths: Sequence[str], device_ids: Sequence[str], model: DeviceModels) -> list[Tensor]:
    """Standardized features of every file, each (1, channels, bands, frames), in the given order."""
    inputs = []
    for path, device_id in zip(file_paths, device_ids, strict=True):
        classifier = model.classifier(device_id)
        waveform = audio.read(Path(path), classifier.sample_rate, classifier.channel)
        samples = torch.from_numpy(np.require(waveform, requirements=["C", "W"]))[None]
        inputs.append(classifier.features(samples.to(classifier.standardize.mean.device)).cpu())
    return inputs


def get_model_for_device(model: DeviceModels, device_id: str) -> nn.Module:
    """The network for this device, alone: (1, channels, bands, frames) -> (1, classes)."""
    network = model.classifier(device_id).network
    return CountedInt8(network).eval() if isinstance(network, Int8Network) else copy.deepcopy(network)


@torch.inference_mode()
def predict(
    file_paths: Sequence[str],
    device_ids: Sequence[str],
    model_file_path: str | None = None,
    use_cuda: bool = True,
    batch_size: int = 64,
) -> tuple[list[Tensor], list[str]]:
    """Logits of every file, each (classes,), in the given order; and the names of the classes in theirs."""
    model = load_model(model_file_path)
    place = torch.device("cuda" if use_cuda and torch.cuda.is_available() else "cpu")
    for classifier in model.classifiers.values():
        classifier.to(place)
    logits = torch.empty(len(file_paths), len(model.classifiers[""].classes))
    for device_id in set(device_ids):
        mine = [i for i, one in enumerate(device_ids) if one == device_id]
        for part in (mine[start : start + batch_size] for start in range(0, len(mine), batch_size)):
            batch = torch.cat(load_inputs([file_paths[i] for i in part], [device_id] * len(part), model)).to(place)
            logits[part] = model.classifier(device_id).classify(batch).float().cpu()
    return list(logits), list(model.classifiers[""].classes)
