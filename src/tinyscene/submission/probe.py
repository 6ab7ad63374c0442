"""Run a module of an inference package, as the organisers do: python probe.py < REQUEST.json

A program of its own: it runs in the environment that is to be tested, in which there is no tinyscene. It imports the
module, asks it for the network of every device, counts that network with torchinfo, and has it predict. The answer is
the last line that it prints.
"""

import copy
import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer a request: {"module", "without", "devices", "files", "file_devices"}."""
    request = json.load(sys.stdin)
    file = Path(request["module"])
    sys.path.insert(0, str(file.parents[1]))
    # A name that is None can't be imported.
    sys.modules |= dict.fromkeys(request["without"])
    module: Any = importlib.import_module(f"{file.parent.name}.{file.stem}")
    model = module.load_model()
    dummy = str(file.with_name("resources") / "dummy.wav")
    counted = []
    for device in request["devices"]:
        (features,) = module.load_inputs([dummy], [device], model)
        counted.append(_count(module.get_model_for_device(model, device), tuple(features.shape)))
    logits, classes = module.predict(request["files"] or [dummy], request["file_devices"] or ["unknown"])
    answer = {
        "counted": {field: max(one[field] for one in counted) for field in counted[0]},
        "classes": [str(scene) for scene in classes],
        "probabilities": [one.double().softmax(-1).tolist() for one in logits],
    }
    print(json.dumps(answer))


def _count(network: Any, shape: tuple[int, ...]) -> dict[str, int]:
    """As the organisers count: torchinfo on a float32 copy; bytes of what parameters() returns."""
    import torchinfo

    profile = torchinfo.summary(copy.deepcopy(network).float(), input_size=shape, verbose=0)
    parameters = list(network.parameters())
    return {
        "total_model_size": sum(one.numel() * one.element_size() for one in parameters),
        "total_parameters": sum(one.numel() for one in parameters),
        "macs": int(profile.total_mult_adds),
    }


if __name__ == "__main__":
    main()
