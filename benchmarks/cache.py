"""Reading clips from the decoded cache beside decoding their files with soundfile: python benchmarks/cache.py

60 FLAC files of 5 s. Writes results/speed-cache.csv: soundfile's time over ours.
"""

import tempfile
from pathlib import Path

import numpy as np
import soundfile
from turns import in_turns, keep

from tinyscene.data import Clip, Clips, decode


def main() -> None:
    """Measure, print and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        rows = tuple(Clip(f"{i}.flac", "noise") for i in range(60))
        for clip in rows:
            soundfile.write(folder / clip.path, rng.uniform(-0.5, 0.5, 220_500), 44_100)
        waveforms = decode(Clips("bench", folder, ("noise",), rows), 44_100, folder=folder / "cache", quiet=True)
        found = in_turns(
            {
                "ours": lambda: [np.array(waveforms[i]) for i in range(len(waveforms))],
                "soundfile": lambda: [soundfile.read(folder / clip.path, dtype="float32") for clip in rows],
            }
        )
    row = {f"{way}_ms": f"{1000 * taken:.2f}" for way, taken in found.items()}
    row |= {"ratio": f"{found['soundfile'] / found['ours']:.1f}"}
    keep("cache", "python benchmarks/cache.py", [{"clips": "60 FLAC files of 5 s", **row}])


if __name__ == "__main__":
    main()
