"""The speed of int8 in ONNX Runtime on one thread, as a ratio to float32: python benchmarks/int8.py

Above 1 is faster than float32. Every ratio is the median of several rounds in which the two files take turns, on one
clip of one second behind the network's published front end; weights are untrained, which changes no kernel.

Three ways to run the same int8 file, with the same logits: as `Artifact` does, activations made unsigned; signed, with
`session.qdqisint8allowed`; and signed, by ONNX Runtime's default, which leaves some layers in float.
"""

import tempfile
from pathlib import Path

import onnxruntime
import torch
from turns import ROUNDS, ratio

from tinyscene import SceneClassifier, create_classifier
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


def speed(name: str, folder: Path) -> str:
    """The ratio of one network, with the files' sizes and the layers that ran on integers."""
    classifier = create_classifier(name, CLASSES)
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
    files = [export(c, folder / f"{name}-{n}.onnx").path for n, c in (("float32", classifier), ("int8", int8))]
    one = {"features": features[:1].numpy()}
    before = session(files[0], threads=1)
    ways = [
        session(files[1], threads=1),
        signed(files[1], integers=True),
        signed(files[1], integers=False),
    ]

    def run(runtime: object) -> None:
        for _ in range(RUNS):
            runtime.run(None, one)

    faster = [ratio(lambda way=way: run(way), lambda: run(before)) for way in ways]
    integer, in_float = layers_by_kernel(files[1])
    sizes = [file.stat().st_size / 1024 for file in files]
    layers = f"{integer} of {integer + in_float} layers on integers"
    ratios = "".join(f"{one:10.2f}" for one in faster)
    return f"{name:14}{ratios}   {sizes[0]:7.1f} -> {sizes[1]:7.1f} KB   {layers}"


def main() -> None:
    """Print a line a network."""
    print(f"one thread; ratio: float32's time / int8's, median of {ROUNDS} rounds of {RUNS} runs")
    print(f"{'network':14}{'unsigned':>10}{'signed':>10}{'default':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            print(speed(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
