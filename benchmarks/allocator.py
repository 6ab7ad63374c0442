"""Training with and without keep_freed_memory, in turns, each in its own process: python benchmarks/allocator.py

Prints the speed-up of a training step with it, and the peak memory of both.
"""

import json
import statistics
import subprocess
import sys

ROUNDS, STEPS = 3, 5
STEP = """
import json, resource, sys, time
import torch
from tinyscene.allocator import keep_freed_memory
from tinyscene.models import create_classifier

name, keep, steps = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3])
if keep and not keep_freed_memory():
    sys.exit("this C library has no mallopt")
torch.set_num_threads(1)
classifier = create_classifier(name, tuple("abcdefghij"))
features = classifier.features(torch.randn(16, classifier.sample_rate))
optimizer = torch.optim.SGD(classifier.parameters(), lr=1e-3)
times = []
for _ in range(steps):
    started = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(classifier.classify(features), torch.zeros(16, dtype=torch.long)).backward()
    optimizer.step()
    times.append(time.perf_counter() - started)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([sorted(times)[steps // 2], peak]))
"""


def measure(name: str) -> tuple[float, float, float]:
    """How many times faster, and the peak memory in MB without and with."""
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for keep in (False, True):
            command = [sys.executable, "-c", STEP, name, str(keep), str(STEPS)]
            found[keep].append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    (before, peak_before), (after, peak_after) = (
        [statistics.median(column) for column in zip(*found[keep], strict=True)] for keep in (False, True)
    )
    return before / after, peak_before, peak_after


if __name__ == "__main__":
    print(
        "| a training step of 16 clips of 1 s | times faster | peak, MB | peak with it, MB |\n| --- | --- | --- | --- |"
    )
    for network in ("tandem", "aemnet", "cp_mobile", "baseline2021"):
        print("| {} | {:.2f} | {:.0f} | {:.0f} |".format(network, *measure(network)), flush=True)
