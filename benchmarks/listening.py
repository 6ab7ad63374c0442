"""How many times faster than real time `tinyscene run` is: python benchmarks/listening.py [NETWORK...]

An hour of noise (44.1 kHz, 16 bit, one channel), with networks of the menu on initial weights: the saved model, its
ONNX file with the front end outside and inside, and both models with `--stream`, a decision a second. Writes
results/speed-listening.csv: seconds of the whole command, its start included, the ratio to real time, peak memory.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from turns import keep

import tinyscene as ts
from tinyscene.models import create_classifier

HOUR_S, RATE, ROUNDS, CLIP_S = 3600, 44_100, 3, 1.0
NETWORKS = ("cp_mobile", "baseline2021", "pham_cnn", "se_resnet", "aemnet", "tandem")
SLOW_S = 120  # a round of all ways; one is enough then
CLASSES = tuple("abcdefghij")
# In a small process of its own: a command started from here would begin with the peak of this one.
MEASURE = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def written(folder: Path) -> Path:
    """An hour of noise."""
    path, rng = folder / "hour.wav", np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(HOUR_S):
            file.write(rng.uniform(-0.1, 0.1, RATE).astype(np.float32))
    return path


def ways(name: str, folder: Path) -> dict[str, list[str]]:
    """The arguments of `run` by what is run."""
    classifier = create_classifier(name, CLASSES, seed=0).eval()
    model = classifier.save(folder / name)
    found = {"model": [str(model)], "model, --stream": [str(model), "--stream", f"--clip-s={CLIP_S}"]}
    for form in ("outside", "inside"):
        file = ts.export(classifier, folder / f"{name}-{form}.onnx", front_end=form, clip_s=CLIP_S).path
        found[f".onnx, front end {form}"] = [str(file)]
    found[".onnx, --stream"] = [*found[".onnx, front end outside"], "--stream", f"--clip-s={CLIP_S}"]
    return found


def measured(arguments: list[str], hour: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak MB of one command."""
    command = [sys.executable, "-m", "tinyscene.cli", "run", *arguments, str(hour), "--out", str(out)]
    out.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-c", MEASURE, *command], stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def main() -> None:
    """Measure, print and write the table."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        hour = written(folder)
        for name in sys.argv[1:] or NETWORKS:
            commands = ways(name, folder)
            found = {way: list[tuple[float, float]]() for way in commands}
            for done in range(ROUNDS):
                if done and sum(taken[0][0] for taken in found.values()) > SLOW_S:
                    break
                for way, arguments in commands.items():
                    found[way].append(measured(arguments, hour, folder / "table.csv"))
            for way, taken in found.items():
                seconds, peak = (statistics.median(column) for column in zip(*taken, strict=True))
                rows.append(
                    {
                        "network": name,
                        "run": way,
                        "cores": str(os.cpu_count()),
                        "measured": str(len(taken)),
                        "s": f"{seconds:.2f}",
                        "times_real_time": f"{HOUR_S / seconds:.0f}",
                        "peak_MB": f"{peak:.0f}",
                    }
                )
                print(rows[-1], flush=True)
    keep("listening", " ".join(["python benchmarks/listening.py", *sys.argv[1:]]), rows, f"up to {ROUNDS}")


if __name__ == "__main__":
    main()
