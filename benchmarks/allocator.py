"""Training steps as freed memory is kept or returned, in turns, each in its own process: python benchmarks/allocator.py

Two threads; pham_cnn at its report's batch. Writes results/speed-allocator.csv: ms of a step and peak memory by glibc's
default, with everything kept, and as on a machine of less than 12 GB (`tinyscene.allocator`).
"""

import json
import os
import statistics
import subprocess
import sys

from turns import keep

ROUNDS, STEPS, THREADS = 3, 5, 2
# The batch and the seconds of a clip.
BATCHES = {
    "cp_mobile": (64, 1.0),
    "baseline2021": (32, 10.0),
    "tandem": (64, 1.0),
    "se_resnet": (32, 10.0),
    "aemnet": (16, 10.0),
    "pham_cnn": (100, 10.0),
}
WAYS = {"default": {}, "kept": {}, "little": {"THP_MEM_ALLOC_ENABLE": "1"}}
STEP = """
import json, resource, sys, time
import torch
from tinyscene.allocator import keep_freed_memory
from tinyscene.models import create_classifier

name, way = sys.argv[1:3]
batch, samples, steps, threads = map(int, sys.argv[3:])
if way != "default" and not keep_freed_memory(way == "little"):
    sys.exit("this C library has no mallopt")
torch.set_num_threads(threads)
classifier = create_classifier(name, tuple("abcdefghij"))
with torch.no_grad():
    features = classifier.arranged(torch.cat([classifier.features(torch.randn(1, samples)) for _ in range(batch)]))
network, labels = classifier.network.train(), torch.arange(batch) % 10
optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
times = []
for _ in range(steps):
    started = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(features), labels).backward()
    optimizer.step()
    times.append(time.perf_counter() - started)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([sorted(times[2:])[(steps - 2) // 2], peak]))
"""


def measure(name: str, way: str) -> tuple[float, float]:
    """Seconds of a step and peak MB."""
    from tinyscene.models import create_classifier

    batch, clip_s = BATCHES[name]
    samples = round(clip_s * create_classifier(name, ("a", "b")).sample_rate)
    command = [sys.executable, "-c", STEP, name, way, *map(str, (batch, samples, STEPS, THREADS))]
    done = subprocess.run(command, env=os.environ | WAYS[way], stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def main() -> None:
    """Measure, print and write the table."""
    rows = []
    for name, (batch, clip_s) in BATCHES.items():
        found = {way: list[tuple[float, float]]() for way in WAYS}
        for _ in range(ROUNDS):
            for way, taken in found.items():
                taken.append(measure(name, way))
        row = {"network": name, "threads": str(THREADS), "batch": f"{batch} x {clip_s:g} s"}
        for way, taken in found.items():
            seconds, peak = (statistics.median(column) for column in zip(*taken, strict=True))
            row |= {f"{way}_ms": f"{1000 * seconds:.0f}", f"{way}_peak_MB": f"{peak:.0f}"}
        rows.append(row)
        print(row, flush=True)
    keep("allocator", "python benchmarks/allocator.py", rows, ROUNDS)


if __name__ == "__main__":
    main()
