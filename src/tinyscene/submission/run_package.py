"""Check an inference package of 2025 by running it, in a process and, where asked for, an environment of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    file, classes = f"{label.rpartition('_')[0]}/{label}.py", edition.rules.classes
    predicted = list(clips or ())[:_CLIPS]
    request = {
        "module": str(folder.resolve() / file),
        "without": [] if python else ["tinyscene"],
        "devices": DEVICES,
        "files": [str(clips.root.resolve() / clip.path) for clip in predicted] if clips else [],
        "file_devices": [clip.device or "unknown" for clip in predicted],
    }
    answer = _answer(file, request, python)
    if isinstance(answer, str):
        return [answer]
    problems = [
        f"{label}.{META}, system.complexity.{field}: {stated[field]}; accepted: {most}, as counted in the package"
        for field, most in answer["counted"].items()
        if stated and stated[field] != most
    ]
    theirs, results = answer["classes"], answer["probabilities"]
    # Without clips, the package predicts a file of its own.
    expected = len(predicted) or 1
    wrong = ""
    if sorted(theirs) != sorted(classes):
        wrong = f"the classes {', '.join(theirs)}; accepted: {', '.join(classes)}"
    elif [np.size(found) for found in results] != [len(classes)] * expected:
        sizes = ", ".join(str(np.size(found)) for found in results) or "no"
        wrong = f"results of {sizes} probabilities for {expected} files; accepted: {len(classes)} for each"
    if wrong:
        return [*problems, f"{file}, predict: {wrong}"]
    order = [theirs.index(scene) for scene in classes]
    for clip, found in zip(predicted, results, strict=False):
        name = Path(clip.path).name
        apart = np.abs(np.ravel(found)[order] - output[name]).max() if name in output else 0.0
        # Not >: NaN is no closer.
        if not apart <= _CLOSE:
            differ = f"probabilities up to {apart:.3g} from the output file's"
            problems.append(f"{file}, predict, {name}: {differ}; accepted: within {_CLOSE:g}")
    return problems


def _answer(file: str, request: Mapping[str, Any], python: str | None) -> dict[str, Any] | str:
    """The answer of `probe.py`, run in an empty folder, or the problem that kept it from one."""
    program = str(Path(python).absolute()) if python and Path(python).name != python else python or sys.executable
    # -I: neither this process's paths nor the current folder are searched; -B: no .pyc is left.
    command = [program, "-I", "-B", probe.__file__]
    clean = "accepted: a package that runs in a clean environment"
    try:
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(
                command, input=json.dumps(request), capture_output=True, text=True, timeout=_LONGEST_S, cwd=empty
            )
        if done.returncode:
            return f"{file}: status {done.returncode}: {' '.join(done.stderr.splitlines()[-1:])}; {clean}"
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    except subprocess.TimeoutExpired:
        return f"{file}: not done after {_LONGEST_S} s; {clean}"
    except OSError as error:
        return f"{python}: {error.strerror}; accepted: the Python of an environment"
    except (ValueError, IndexError):
        return f"{file}: ended without predictions, or printed after them; {clean}"
