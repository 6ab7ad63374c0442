"""The inference package of 2025: models, the module that runs them, and what of tinyscene that module needs.

tinyscene is on no index that an organiser's machine could install it from, so its sources come along, under the
package's own name: another version beside it changes nothing.
"""

import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile

import tinyscene
from tinyscene.models.classifier import SceneClassifier
from tinyscene.submission import inference

FOLDER = "inference"
_SOURCES = Path(tinyscene.__file__).parent
# All that classifiers are made of; imports only go down from there, to single files beside these.
_PARTS = ("models", "features")
# torchinfo is what the organisers' script counts with.
_NEEDED = ("torch", "numpy", "scipy", "safetensors", "soundfile", "soxr", "torchinfo")
_IMPORTS = re.compile(r"^(\s*from )tinyscene(?=[.\s])", re.MULTILINE)


def write_package(folder: Path, name: str, systems: Mapping[str, Mapping[str, SceneClassifier]]) -> None:
    """Write an installable package.

    Args:
        folder: receives setup.py, requirements.txt, README.md and the package.
        name: of the package, such as Lastname_Institute_task1.
        systems: classifiers by device ("" for all others) of every module, such as Lastname_Institute_task1_1.
    """
    package = folder / name
    origin = f"Part of tinyscene {tinyscene.__version__}, which is licensed under Apache-2.0 (apache.org/licenses)."
    for part in _PARTS:
        shutil.copytree(_SOURCES / part, package / "tinyscene" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for source in _SOURCES.glob("*.py"):
        shutil.copy(source, package / "tinyscene")
    (package / "tinyscene" / "__init__.py").write_text(f'"""{origin}"""\n')
    for label, by_device in systems.items():
        for device, classifier in by_device.items():
            models = package / "models" / label
            classifier.save(models / inference.DEVICES / device if device else models)
        shutil.copy(inference.__file__, package / f"{label}.py")
    for source in package.rglob("*.py"):
        source.write_text(_IMPORTS.sub(rf"\g<1>{name}.tinyscene", source.read_text()))
    (package / "resources").mkdir()
    for place in (package, package / "resources"):
        (place / "__init__.py").touch()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 44_100)
    soundfile.write(package / "resources" / "dummy.wav", noise, 44_100)
    # Without a local part such as +cpu, which no index has.
    pinned = [f"{one}=={version(one).split('+')[0]}\n" for one in _NEEDED]
    (folder / "requirements.txt").write_text("".join(pinned))
    (folder / "setup.py").write_text(_SETUP.format(name=name))
    (folder / "README.md").write_text(_README.format(name=name, labels=", ".join(systems), origin=origin))


_SETUP = """from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="{name}",
    version="1.0",
    packages=find_packages(),
    package_data={{"{name}": ["models/**/*", "resources/*"]}},
    install_requires=Path(__file__).with_name("requirements.txt").read_text().split(),
    python_requires=">=3.11",
)
"""
_README = """# {name}

The inference package of {labels} for DCASE 2025 Task 1, by the interface of
https://github.com/CPJKU/dcase2025_task1_inference: `pip install .`, then for example

    python test_complexity.py --submission_name {name} --submission_index 1

{name}/models holds the weights (safetensors, no pickle), {name}/tinyscene what runs them. {origin}
"""
