"""Speed beside peers, in one run, as ratios: python benchmarks/run.py

Above 1 is faster than the peer. Every ratio is the median of several rounds in which the two take turns, on the
default number of threads of torch.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch

from tinyscene import LogMel
from tinyscene.data import Clip, Clips, decode

ROUNDS = 7


def ratio(ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    """Their time over ours, the two in turns; the first round warms up."""
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS + 1):
        for i, call in enumerate((ours, theirs)):
            started = time.perf_counter()
            call()
            times[i].append(time.perf_counter() - started)
    return statistics.median(times[1][1:]) / statistics.median(times[0][1:])


def logmel(clips: int) -> float:
    """LogMel of a batch beside librosa clip by clip, 10 s at 44.1 kHz, the settings of singh2021."""
    waveforms = np.random.default_rng(0).standard_normal((clips, 441_000), dtype=np.float32)
    frontend, batch = LogMel(44_100, 2048, 40, window_s=0.04, hop_s=0.02, window="hamming"), torch.from_numpy(waveforms)
    settings = {"sr": 44_100, "n_fft": 2048, "win_length": 1764, "hop_length": 882, "window": "hamming", "n_mels": 40}
    with torch.inference_mode():
        return ratio(
            lambda: frontend(batch),
            lambda: [librosa.power_to_db(librosa.feature.melspectrogram(y=w, **settings)) for w in waveforms],
        )


def cache() -> float:
    """Reading clips from the cache beside decoding their files with soundfile, 60 FLAC files of 5 s."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        rows = tuple(Clip(f"{i}.flac", "noise") for i in range(60))
        for clip in rows:
            soundfile.write(folder / clip.path, rng.uniform(-0.5, 0.5, 220_500), 44_100)
        waveforms = decode(Clips("bench", folder, ("noise",), rows), 44_100, folder=folder / "cache", quiet=True)
        return ratio(
            lambda: [np.array(waveforms[i]) for i in range(len(waveforms))],
            lambda: [soundfile.read(folder / clip.path, dtype="float32") for clip in rows],
        )


def main() -> None:
    """Print the ratios."""
    print(f"threads: {torch.get_num_threads()}; ratio: peer's time / ours, median of {ROUNDS} rounds")
    print(f"LogMel, 1 clip of 10 s, beside librosa:    {logmel(1):.2f}")
    print(f"LogMel, 32 clips of 10 s, beside librosa:  {logmel(32):.2f}")
    print(f"cache read, beside soundfile decoding:     {cache():.1f}")


if __name__ == "__main__":
    main()
