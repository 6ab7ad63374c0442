"""Two trainings beside each other on the same cores: python benchmarks/busy.py

Writes results/speed-busy.csv: seconds of some training steps of CP-Mobile (batch 64, clips of 1 s), alone and with a
second process that does the same, as OpenMP's threads wait for each other: by default, or spinning less.
"""

import os
import statistics
import subprocess
import sys

from turns import keep

STEPS, ROUNDS, THREADS = 12, 3, 2
STEP = """
import sys, time
import torch
from tinyscene.allocator import keep_freed_memory
from tinyscene.models import create_classifier
keep_freed_memory()
torch.set_num_threads(int(sys.argv[1]))
classifier = create_classifier("cp_mobile", tuple("abcdefghij"))
with torch.no_grad():
    features = classifier.arranged(classifier.features(torch.randn(64, classifier.sample_rate)))
network, optimizer = classifier.network.train(), torch.optim.SGD(classifier.network.parameters(), lr=1e-3)
for step in range(int(sys.argv[2]) + 2):
    if step == 2:
        print("ready", flush=True)
        input()
        started = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(features), torch.zeros(64, dtype=torch.long)).backward()
    optimizer.step()
print(time.perf_counter() - started)
"""
SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP's default": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
}


def seconds(processes: int, environment: dict[str, str]) -> float:
    """The longest time of that many processes that begin together."""
    cleared = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    command = [sys.executable, "-c", STEP, str(THREADS), str(STEPS)]
    started = [
        subprocess.Popen(command, env=cleared | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for one in started:
        one.stdout.readline()
    for one in started:
        one.stdin.write("\n")
        one.stdin.flush()
    return max(float(one.communicate()[0]) for one in started)


def main() -> None:
    """Measure, print and write the table."""
    found = {(name, count): list[float]() for name in SETTINGS for count in (1, 2)}
    for _ in range(ROUNDS):
        for name, count in found:
            found[name, count].append(seconds(count, SETTINGS[name]))
    rows = []
    for name in SETTINGS:
        alone, beside = (statistics.median(found[name, count]) for count in (1, 2))
        times = {"alone_s": f"{alone:.2f}", "beside_s": f"{beside:.2f}", "ratio": f"{beside / alone:.2f}"}
        rows.append({"setting": name, "threads": str(THREADS), "steps": str(STEPS), **times})
    keep("busy", "python benchmarks/busy.py", rows, rounds=ROUNDS)


if __name__ == "__main__":
    main()
