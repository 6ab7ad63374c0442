"""Reading clips from the decoded cache beside decoding their files with soundfile: python benchmarks/cache.py

60 FLAC files of 5 s. Prints soundfile's time over ours.
"""

import tempfile
from pathlib import Path

import numpy as np
import soundfile
from turns import ROUNDS, ratio

from tinyscene.data import Clip, Clips, decode


def main() -> None:
    """Print the ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        rows = tuple(Clip(f"{i}.flac", "noise") for i in range(60))
        for clip in rows:
            soundfile.write(folder / clip.path, rng.uniform(-0.5, 0.5, 220_500), 44_100)
        waveforms = decode(Clips("bench", folder, ("noise",), rows), 44_100, folder=folder / "cache", quiet=True)
        faster = ratio(
            lambda: [np.array(waveforms[i]) for i in range(len(waveforms))],
            lambda: [soundfile.read(folder / clip.path, dtype="float32") for clip in rows],
        )
    print(f"cache read, beside soundfile decoding: {faster:.1f} (median of {ROUNDS} rounds)")


if __name__ == "__main__":
    main()
