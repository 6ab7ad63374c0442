"""Run a module of an inference package, as the organisers do, and write down what came of it.

    python probe.py REQUEST.json ANSWER.json

A program of its own: it runs in the environment that is to be tested, in which there is no tinyscene. It imports the
module, asks it for the network of every device, counts that network with torchinfo, and has it predict.
"""

import copy
import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(request_file: str, answer_file: str) -> None:
    """Answer a request: {"folder", "module", "without", "dummy", "devices", "files", "file_devices"}."""
    request = json.loads(Path(request_file).read_text())
    sys.path.insert(0, request["folder"])
    # A name that is None is imported by nobody.
    sys.modules |= dict.fromkeys(request["without"])
    module: Any = importlib.import_module(request["module"])
    model = module.load_model()
    counted = {}
    for device in request["devices"]:
        (features,) = module.load_inputs([request["dummy"]], [device], model)
        counted[device] = _count(module.get_model_for_device(model, device), tuple(features.shape))
    logits, classes = module.predict(request["files"], request["file_devices"])
    probabilities = [one.double().softmax(-1).tolist() for one in logits]
    answer = {"counted": counted, "classes": [str(scene) for scene in classes], "probabilities": probabilities}
    Path(answer_file).write_text(json.dumps(answer))


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
    main(*sys.argv[1:])
