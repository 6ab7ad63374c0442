"""Time and memory as data sets, clips, bands and batches grow: python benchmarks/growth.py

Writes results/speed-growth.csv: seconds and peak MB (each in its own process), and the exponent of the time over the
sizes, 1 for linear. "open" finds every clip of a set that is decoded already; the set of 230,350 clips of the
DCASE task of 2022 is opened as well; every clip is 0.1 s long.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from turns import keep

ROUNDS, CLIPS, TAU2022 = 3, (1_000, 10_000, 100_000), 230_350
MEASURE = """
import json, resource, sys, time
import numpy as np, torch
from pathlib import Path
from tinyscene import data
from tinyscene.data import decode
from tinyscene.features import LogMel
from tinyscene.models import create_classifier
torch.set_num_threads(2)
what, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
if what in ("decode", "open"):
    clips = data.load(folder / "meta.csv")
    def call():
        decode(clips, 8_000, folder=folder / "cache", quiet=True)
elif what == "list":
    def call():
        data.load(folder / "meta.csv")
elif what == "clip, s":
    classifier = create_classifier("cp_mobile", ("a", "b")).eval()
    waveform = 0.1 * np.random.default_rng(0).standard_normal(size * classifier.sample_rate).astype(np.float32)
    def call():
        classifier.predict(waveform, classifier.sample_rate)
elif what == "bands":
    frontend = LogMel(32_000, 4096, size, win_length=3072, hop_length=500)
    waveforms = 0.1 * torch.randn(64, frontend.sample_rate)
    def call():
        frontend(waveforms)
else:
    classifier = create_classifier("cp_mobile", ("a", "b")).eval()
    waveforms = 0.1 * torch.randn(size, classifier.sample_rate)
    @torch.inference_mode()
    def call():
        classifier(waveforms)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if what in ("clip, s", "bands", "batch"):
    call()
started = time.perf_counter()
call()
taken = time.perf_counter() - started
print(json.dumps([taken, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""


def written(folder: Path, clips: int) -> Path:
    """A table of that many WAV files of 0.1 s."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["filename,label,split"]
    for i in range(clips):
        (folder / f"{i // 1000}").mkdir(exist_ok=True)
        soundfile.write(folder / f"{i // 1000}/{i}.wav", rng.uniform(-0.5, 0.5, 800), 8_000)
        lines.append(f"{i // 1000}/{i}.wav,{'ab'[i % 2]},{'test' if i % 8 < 2 else 'train'}")
    (folder / "meta.csv").write_text("\n".join(lines))
    return folder


def measured(what: str, size: int, folder: Path, rounds: int) -> dict[str, str]:
    """A row of the table, without the exponent."""
    taken = []
    for _ in range(rounds):
        command = [sys.executable, "-c", MEASURE, what, str(size), str(folder)]
        taken.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    seconds, peak = (statistics.median(column) for column in zip(*taken, strict=True))
    row = {"what": what, "size": f"{size:,}", "s": f"{seconds:.4g}", "more_MB": f"{peak:.0f}"}
    print(row, flush=True)
    return row


def with_exponent(rows: list[dict[str, str]], sizes: Iterable[int]) -> list[dict[str, str]]:
    """Of seconds over sizes, by least squares of the logarithms."""
    logs = [math.log(float(row["s"])) for row in rows]
    slope = statistics.linear_regression([math.log(size) for size in sizes], logs).slope
    return [row | {"exponent": f"{slope:.2f}"} for row in rows]


def main() -> None:
    """Measure, print and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        sets = {clips: written(Path(name) / f"{clips}", clips) for clips in (*CLIPS, TAU2022)}
        for what, rounds in (("list", ROUNDS), ("decode", 1), ("open", ROUNDS)):
            some = [measured(what, clips, folder, rounds) for clips, folder in sets.items()]
            rows += with_exponent(some, sets)
        for what, sizes in (("clip, s", (1, 10, 100)), ("bands", (32, 64, 128, 256)), ("batch", (1, 8, 64, 256))):
            rows += with_exponent([measured(what, size, Path(name), ROUNDS) for size in sizes], sizes)
    keep("growth", "python benchmarks/growth.py", rows, ROUNDS)


if __name__ == "__main__":
    main()
