"""Run the modules of an inference package, as the organisers do, and write down what came of each.

    python probe.py REQUEST.json ANSWER.json

A program of its own: it runs in the environment that is to be tested, in which there is no tinyscene. It imports a
module, asks it for the network of every device, counts that network with torchinfo, and has it predict.
"""

import copy
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any


def main(request_file: str, answer_file: str) -> None:
    """Answer a request: {"folder", "module", "without", "functions", "dummy", "devices", "files", "file_devices"}."""
    request = json.loads(Path(request_file).read_text())
    sys.path.insert(0, request["folder"])
    # A name that is None is imported by nobody.
    sys.modules |= dict.fromkeys(request["without"])
    answer: dict[str, Any] = {"step": "import"}
    try:
        _answer(request, answer)
    except BaseException as error:
        # Whatever the package does, SystemExit included, is for the report.
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        answer["error"] = f"{type(error).__name__}: {error} ({place})"
    Path(answer_file).write_text(json.dumps(answer))


def _answer(request: dict[str, Any], answer: dict[str, Any]) -> None:
    module: Any = importlib.import_module(request["module"])
    answer["missing"] = [one for one in request["functions"] if not callable(getattr(module, one, None))]
    if answer["missing"]:
        return
    answer["step"] = "load_model"
    model = module.load_model()
    answer["devices"] = {}
    for device in request["devices"]:
        answer["step"] = f"load_inputs for device {device}"
        inputs = module.load_inputs([request["dummy"]], [device], model)
        answer["step"] = f"get_model_for_device for device {device}"
        network = module.get_model_for_device(model, device)
        answer["step"] = f"counting the network of device {device}"
        answer["devices"][device] = _count(network, tuple(inputs[0].shape))
    answer["step"] = "predict"
    logits, classes = module.predict(request["files"], request["file_devices"])
    answer["classes"] = [str(scene) for scene in classes]
    answer["probabilities"] = [one.double().softmax(-1).tolist() for one in logits]
    del answer["step"]


def _count(network: Any, shape: tuple[int, ...]) -> dict[str, int]:
    """As the organisers count: torchinfo on a float32 copy; bytes of what parameters() returns."""
    import torchinfo

    profile = torchinfo.summary(copy.deepcopy(network).float(), input_size=shape, verbose=0)
    parameters = list(network.parameters())
    return {
        "macs": int(profile.total_mult_adds),
        "bytes": sum(one.numel() * one.element_size() for one in parameters),
        "parameters": sum(one.numel() for one in parameters),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
