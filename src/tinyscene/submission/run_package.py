"""Check an inference package of 2025 by running it, in a process and, where asked for, an environment of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyscene.data import Clips
from tinyscene.submission import probe
from tinyscene.submission.edition import META, Edition
from tinyscene.submission.output import Probabilities

# What the organisers' test_complexity.py asks for, and what the evaluation list calls a device that is not known.
DEVICES = ("a", "b", "c", *(f"s{i}" for i in range(1, 11)), "unknown")
_CLIPS = 8
_CLOSE = 1e-3
_LONGEST_S = 600


def run_package(
    folder: Path,
    label: str,
    edition: Edition,
    stated: Mapping[str, float],
    output: Probabilities,
    clips: Clips | None,
    python: str | None,
) -> list[str]:
    """Import a system's module, count the network of every device, and predict; in a process of its own.

    Args:
        folder: holds the package, such as Lastname_Institute_task1.
        stated: complexity by the meta file, compared with what is counted.
        output: probabilities that were handed in, compared with what the package gives for the first of `clips`.
        python: of the environment to run in; where None this one, in which tinyscene is not found.

    Returns:
        A sentence for every problem.
    """
    file = f"{label.rpartition('_')[0]}/{label}.py"
    predicted = list(clips or ())[:_CLIPS]
    request = {
        "module": str(folder.resolve() / file),
        "without": [] if python else ["tinyscene"],
        "devices": DEVICES,
        "files": [str(clips.root.resolve() / clip.path) for clip in predicted] if clips else [],
        "file_devices": [clip.device or "unknown" for clip in predicted],
    }
    # -I: neither this process's paths nor the current folder are searched; -B: no .pyc is left.
    command = [_path(python) if python else sys.executable, "-I", "-B", probe.__file__]
    clean = "accepted: a package that runs in a clean environment"
    try:
        with tempfile.TemporaryDirectory() as elsewhere:
            done = subprocess.run(
                command,
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=_LONGEST_S,
                check=False,
                cwd=elsewhere,
            )
    except subprocess.TimeoutExpired:
        return [f"{file}: not done after {_LONGEST_S} s; {clean}"]
    except OSError as error:
        return [f"{python}: {error.strerror}; accepted: the Python of an environment"]
    if done.returncode:
        return [f"{file}: status {done.returncode}: {' '.join(done.stderr.splitlines()[-1:])}; {clean}"]
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return [f"{file}: ended without predictions, or printed behind them; {clean}"]
    problems = [
        f"{label}.{META}, system.complexity.{field}: {stated[field]}; accepted: {most}, as counted in the package"
        for field, most in answer["counted"].items()
        if stated and stated[field] != most
    ]
    if sorted(answer["classes"]) != sorted(edition.rules.classes):
        classes = ", ".join(answer["classes"])
        return [*problems, f"{file}, predict: the classes {classes}; accepted: {', '.join(edition.rules.classes)}"]
    order = [answer["classes"].index(scene) for scene in edition.rules.classes]
    results = answer["probabilities"]
    # Without clips, the package predicts a file of its own.
    if len(results) != (len(predicted) or 1) or any(np.size(found) != len(order) for found in results):
        sizes = ", ".join(str(np.size(found)) for found in results)
        return [
            *problems,
            f"{file}, predict: results of {sizes or 'no'} probabilities for {len(predicted) or 1} files; accepted: "
            f"{len(order)} for each",
        ]
    for clip, found in zip(predicted, results, strict=False):
        name = Path(clip.path).name
        apart = np.abs(np.ravel(found)[order] - output[name]).max() if name in output else 0.0
        # Not >: what is not a number is no closer.
        if not apart <= _CLOSE:
            differ = f"probabilities up to {apart:.3g} from the output file's"
            problems.append(f"{file}, predict, {name}: {differ}; accepted: within {_CLOSE:g}")
    return problems


def _path(python: str) -> str:
    """Of a program in a folder, from any folder."""
    return str(Path(python).absolute()) if Path(python).name != python else python
