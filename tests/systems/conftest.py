"""A system and a data set small enough to run a recipe end to end in seconds."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE, SCENES = 8000, ("bus", "park", "tram")
PARTS = {"train": 6, "validation": 2, "test": 4}

SYSTEM = '''"""Two variants of a small network, for the tests.

They share the first fit.
"""

from tinyscene.accounting import CONVENTIONS
from tinyscene.compression import FilterPruning, HalfPrecision, geometric_median, l1_norm
from tinyscene.evaluation import Reported
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import dcase2021
from tinyscene.systems import System
from tinyscene.training import Adam, EarlyStopping, Fit

bn4 = CONVENTIONS["bn4"]


def build(classes):
    frontend = LogMel(8000, n_fft=512, hop_length=200, n_mels=20)
    return SceneClassifier(frontend, Baseline2021(filters=(4, 4, 6), dense=8, classes=len(classes), bands=20), classes)


train = Fit(epochs=3, batch_size=4, optimizer=Adam(lr=1e-2), early_stopping=EarlyStopping(patience=30))
tune = Fit(epochs=4, batch_size=8, optimizer=Adam(lr=1e-2))

large = System(dcase2021, build, (train, HalfPrecision()), Reported(1_000, bn4, "2.0", bn4, accuracy=0.5))
small = System(
    dcase2021,
    build,
    (train, FilterPruning("L2", ratio=0.5, by=l1_norm), tune, HalfPrecision()),
    Reported(900, bn4, "1.8", bn4),
)
'''


@pytest.fixture(scope="session")
def system_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private system with the variants `large` and `small`."""
    path = tmp_path_factory.mktemp("systems") / "pocket2024.py"
    path.write_text(SYSTEM)
    return path


@pytest.fixture
def twins(tone_set: Path, tmp_path: Path) -> Path:
    """The table of clips with a test clip that is a training clip in another format."""
    root = shutil.copytree(tone_set.parent, tmp_path / "twins")
    samples, rate = soundfile.read(root / "bus-train-0.wav", dtype="int16")
    soundfile.write(root / "bus-again.flac", samples, rate)
    with (root / "tones.csv").open("a") as table:
        table.write("bus-again.flac,bus,test,a,lyon,bus-again\n")
    return root / "tones.csv"


@pytest.fixture(scope="session")
def tone_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of clips whose scenes differ in pitch, with devices and cities: 18 to train, 6 to watch, 12 to test."""
    root = tmp_path_factory.mktemp("tones")
    lines = ["filename,label,split,device,city,recording"]
    for number, scene in enumerate(SCENES):
        for part, count in PARTS.items():
            for take in range(count):
                rng = np.random.default_rng([number, take, len(part)])
                time = np.arange(round(0.2 * RATE)) / RATE
                tone = 0.1 * np.sin(2 * np.pi * (500 + 900 * number) * time) + 0.1 * rng.normal(size=len(time))
                name = f"{scene}-{part}-{take}.wav"
                soundfile.write(root / name, tone, RATE)
                device = ("a", "s1", "b", "s4")[take % (4 if part == "test" else 2)]
                lines.append(f"{name},{scene},{part},{device},{('lyon', 'milan')[take % 2]},{scene}-{part}-{take}")
    (root / "tones.csv").write_text("\n".join(lines) + "\n")
    return root / "tones.csv"
