"""The speed of int8 in ONNX Runtime on one thread, as a ratio to float32: python benchmarks/int8.py

Writes results/speed-int8.csv. Above 1 is faster than float32, on one clip of one second behind the network's published
front end; weights are untrained, which changes no kernel.

Three ways to run the same int8 file, with the same logits: as `Artifact` does, activations made unsigned; signed, with
`session.qdqisint8allowed`; and signed, by ONNX Runtime's default, which leaves some layers in float.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from turns import in_turns, keep

from tinyscene import InputError, SceneClassifier, create_classifier
from tinyscene.deployment import export, layers_by_kernel
from tinyscene.deployment.probes import generated
from tinyscene.deployment.runtime import session
from tinyscene.models import NETWORKS
from tinyscene.models.preparation import prepare

CLASSES = tuple("abcdefghij")
RUNS = 5


def signed(file: Path, *, integers: bool) -> onnxruntime.InferenceSession:
    """The file as it is, on one thread, with all graph optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if integers:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def speed(name: str, folder: Path) -> dict[str, str]:
    """The ratios of one network, with the files' sizes and the layers that ran on integers."""
    classifier = create_classifier(name, CLASSES, seed=0)
    (probe,) = generated(max(classifier.sample_rate, classifier.shortest_samples))
    sounds = classifier.frontend(torch.from_numpy(probe.waveforms))
    classifier.standardize.fit([sounds])
    # Fitted batch norm keeps the activations within the range of int8.
    with torch.no_grad():
        for _ in range(30):
            classifier.network.train()(classifier.standardize(sounds))
    classifier.eval()
    features = classifier.standardize(sounds)
    prepared = prepare(classifier.network, features[:1])
    prepared.set_ranges([features])
    int8 = SceneClassifier(classifier.frontend, prepared.convert(), CLASSES, classifier.standardize).eval()
    try:
        files = [export(c, folder / f"{name}-{n}.onnx").path for n, c in (("float32", classifier), ("int8", int8))]
    except InputError as error:
        return {"network": name, "layers_on_integers": str(error).partition("not written: ")[2]}
    one = {"features": features[:1].numpy()}
    ways = {
        "float32": session(files[0], threads=1),
        "unsigned": session(files[1], threads=1),
        "signed": signed(files[1], integers=True),
        "default": signed(files[1], integers=False),
    }

    def run(runtime: Any) -> None:
        for _ in range(RUNS):
            runtime.run(None, one)

    found = in_turns({way: partial(run, runtime) for way, runtime in ways.items()})
    integer, in_float = layers_by_kernel(files[1])
    before = found.pop("float32")
    row = {"network": name, "threads": "1", "float32_ms": f"{1000 * before / RUNS:.2f}"}
    row |= {way: f"{before / taken:.2f}" for way, taken in found.items()}
    row |= {f"{n}_KB": f"{file.stat().st_size / 1024:.1f}" for n, file in zip(("float32", "int8"), files, strict=True)}
    return row | {"layers_on_integers": f"{integer} of {integer + in_float}"}


def main() -> None:
    """Measure, print and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        keep("int8", "python benchmarks/int8.py", [speed(name, Path(folder)) for name in NETWORKS])


if __name__ == "__main__":
    main()
