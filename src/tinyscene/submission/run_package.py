"""Check an inference package of 2025 by running it, in a process and, where asked for, an environment of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.submission import probe
from tinyscene.submission.edition import META, Edition
from tinyscene.submission.meta import block, complexity_block, problems_of
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
        stated: figures of the meta file, compared with what is counted.
        output: probabilities that were handed in, compared with what the package gives for the first of `clips`.
        python: the interpreter of the environment to run in; where None this one, in which tinyscene is not found.
    """
    package = label.rpartition("_")[0]
    file = f"{package}/{label}.py"
    # The other process runs elsewhere: relative paths would lead it astray.
    dummy = folder.resolve() / package / "resources" / "dummy.wav"
    predicted = list(clips or ())[:_CLIPS]
    request = {
        "folder": str(folder.resolve()),
        "module": f"{package}.{label}",
        "without": [] if python else ["tinyscene"],
        "dummy": str(dummy),
        "devices": DEVICES,
        "files": [str(clips.root.resolve() / clip.path) for clip in predicted] if clips else [str(dummy)],
        "file_devices": [clip.device or "unknown" for clip in predicted] or ["unknown"],
    }
    try:
        answer = _ask(request, python or sys.executable)
    except InputError as error:
        return [f"{file}: {error}; accepted: a package that runs in a clean environment"]
    counted = {f"device {device}": found for device, found in answer["counted"].items()}
    # What stands in no parameter, no counter sees: 0 is refused too.
    problems = problems_of(block(dict.fromkeys(counted, complexity_block(edition))), counted, file)
    for field, value in stated.items():
        most = max((found[field] for found in counted.values() if field in found), default=value)
        if value != most:
            problems.append(
                f"{label}.{META}, system.complexity.{field}: {value}; accepted: {most}, as counted in the package"
            )
    return [*problems, *_predictions(file, answer, edition, output, [Path(clip.path).name for clip in predicted])]


def _ask(request: dict[str, Any], python: str) -> dict[str, Any]:
    """The probe's answer. Raises InputError where there is none."""
    with tempfile.TemporaryDirectory() as place:
        question, answered = Path(place, "request.json"), Path(place, "answer.json")
        question.write_text(json.dumps(request))
        # -I: neither this process's paths nor the folder that one happens to be in are seen; -B: no .pyc is left.
        command = [python, "-I", "-B", probe.__file__, str(question), str(answered)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LONGEST_S, cwd=place)
            return dict(json.loads(answered.read_text()))
        except subprocess.CalledProcessError as error:
            last = error.stderr.strip().splitlines()[-1:]
            raise InputError(f"status {error.returncode}: {' '.join(last)}") from error
        except subprocess.TimeoutExpired as error:
            raise InputError(f"not done after {_LONGEST_S} s") from error
        except OSError as error:
            raise InputError(f"{python}: {error.strerror}") from error


def _predictions(
    file: str, answer: dict[str, Any], edition: Edition, output: Probabilities, names: Sequence[str]
) -> Iterator[str]:
    classes, probabilities = answer["classes"], answer["probabilities"]
    shapes = [np.shape(one) for one in probabilities]
    wanted = [(len(edition.rules.classes),)] * (len(names) or 1)
    if sorted(classes) != sorted(edition.rules.classes):
        yield f"{file}, predict: the classes {', '.join(classes)}; accepted: {', '.join(edition.rules.classes)}"
    elif shapes != wanted:
        given = f"{len(shapes)} results of shape {', '.join(map(str, sorted(set(shapes))))}"
        yield f"{file}, predict: {given}; accepted: {len(wanted)}, each of shape {wanted[0]}"
    else:
        order = [classes.index(scene) for scene in edition.rules.classes]
        for name, found in zip(names, probabilities, strict=False):
            apart = np.abs(np.array(found)[order] - output[name]).max() if name in output else 0.0
            # Of logits that are not numbers, no difference is either.
            if not apart <= _CLOSE:
                apart_by = f"up to {apart:.3g} from the output file's"
                yield f"{file}, predict, {name}: probabilities {apart_by}; accepted: within {_CLOSE:g}"
