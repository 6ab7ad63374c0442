"""The inference package of 2025: models, the module that runs them, and what of tinyscene that module needs.

tinyscene is on no index that an organiser's machine could install it from, so its sources come along, under the
package's own name: another version beside it changes nothing.
"""

import ast
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import tinyscene
from tinyscene.models.classifier import SceneClassifier
from tinyscene.submission import inference

FOLDER = "inference"
FUNCTIONS = ("predict", "load_model", "load_inputs", "get_model_for_device")
_SOURCES = Path(tinyscene.__file__).parent
# torchinfo is what the organisers' script counts with.
_NEEDED = ("torch", "numpy", "safetensors", "soundfile", "soxr", "torchinfo")
_IMPORTS = re.compile(r"^(\s*from )tinyscene(?=[.\s])", re.MULTILINE)


def write_package(folder: Path, name: str, systems: Mapping[str, Mapping[str, SceneClassifier]]) -> None:
    """Write an installable package.

    Args:
        folder: receives setup.py, requirements.txt, README.md and the package.
        name: of the package, such as Lastname_Institute_task1.
        systems: classifiers by device ("" for all others) of every module, such as Lastname_Institute_task1_1.
    """
    import soundfile

    package = folder / name
    (package / "resources").mkdir(parents=True)
    for place in (package, package / "resources"):
        (place / "__init__.py").write_text("")
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 44_100)
    soundfile.write(package / "resources" / "dummy.wav", noise, 44_100)
    for label, by_device in systems.items():
        for device, classifier in by_device.items():
            models = package / "models" / label
            classifier.save(models / inference.DEVICES / device if device else models)
        (package / f"{label}.py").write_text(_renamed(Path(inference.__file__).read_text(), name))
    for source in needed_sources(Path(inference.__file__)):
        copied = package / "tinyscene" / source.relative_to(_SOURCES)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(_renamed(source.read_text(), name))
        for parent in copied.relative_to(package).parents:
            (package / parent / "__init__.py").touch()
    origin = f"Part of tinyscene {tinyscene.__version__}, which is licensed under Apache-2.0 (apache.org/licenses)."
    (package / "tinyscene" / "__init__.py").write_text(f'"""{origin}"""\n')
    int8 = any(one.precision == "int8" for by_device in systems.values() for one in by_device.values())
    pinned = [_pinned(needed) for needed in (*_NEEDED, *(("torchao",) if int8 else ()))]
    (folder / "requirements.txt").write_text("\n".join(pinned) + "\n")
    (folder / "setup.py").write_text(_SETUP.format(name=name))
    (folder / "README.md").write_text(_README.format(name=name, labels=", ".join(systems), origin=origin))


def needed_sources(first: Path) -> list[Path]:
    """Files of tinyscene that a module imports, directly or not."""
    found: dict[Path, None] = {}
    waiting = [first]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("tinyscene"):
                continue
            modules = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            for path in filter(None, map(_source, modules)):
                if path not in found:
                    found[path] = None
                    waiting.append(path)
    return sorted(found)


def _source(module: str) -> Path | None:
    """The file of a module of tinyscene; None for the root, whose names the package has no use for."""
    path = _SOURCES.joinpath(*module.split(".")[1:])
    if path == _SOURCES:
        return None
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


def _renamed(text: str, name: str) -> str:
    return _IMPORTS.sub(rf"\g<1>{name}.tinyscene", text)


def _pinned(needed: str) -> str:
    try:
        # Without a local part such as +cpu, which no index has.
        return f"{needed}=={version(needed).split('+')[0]}"
    except PackageNotFoundError:
        return needed


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
https://github.com/CPJKU/dcase2025_task1_inference:

```
pip install .
python test_complexity.py --submission_name {name} --submission_index 1
python evaluate_submission.py --submission_name {name} --submission_index 1 --dev_set_dir DIR --eval_set_dir DIR
```

`{name}/models` holds the weights (safetensors, no pickle); {name}/tinyscene is what runs them. {origin}
"""
