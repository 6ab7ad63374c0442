"""Check an inference package of 2025 by running it, in a process and, where asked for, an environment of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyscene.data import Clips
from tinyscene.submission import probe
from tinyscene.submission.complexity import misstated, stated_over_limits
from tinyscene.submission.edition import META, Edition
from tinyscene.submission.output import Output
from tinyscene.submission.package import FUNCTIONS
from tinyscene.submission.problems import Problem

# What the organisers' test_complexity.py asks for, and what the evaluation list calls a device that is not known.
DEVICES = ("a", "b", "c", *(f"s{i}" for i in range(1, 11)), "unknown")
_CLIPS = 8
_CLOSE = 1e-3
_LONGEST_S = 600
_RUNS = "a package that runs in a clean environment"


def run_package(
    folder: Path,
    labels: Sequence[str],
    edition: Edition,
    stated: Mapping[str, dict[str, float]],
    outputs: Mapping[str, Output],
    clips: Clips | None,
    python: str | None,
) -> list[Problem]:
    """Import the systems' modules, count the network of every device, and predict; all in one process.

    Args:
        folder: holds the package, such as Lastname_Institute_task1.
        stated: figures of each meta file, compared with what is counted.
        outputs: probabilities that were handed in, compared with what the package gives for some of `clips`.
        python: the interpreter of the environment to run in; this one where None.
    """
    # The other process is elsewhere: relative paths would lead it astray.
    folder = folder.resolve()
    problems = [problem for label in labels for problem in _missing(folder, label)]
    there = [label for label in labels if not _missing(folder, label)]
    if not there:
        return problems
    dummy = _dummy(folder, there[0])
    heard = list(clips)[:_CLIPS] if clips is not None else []
    request = {
        "folder": str(folder),
        "modules": [f"{_package(label)}.{label}" for label in there],
        "functions": FUNCTIONS,
        "dummy": str(dummy),
        "devices": DEVICES,
        "files": [str(clips.root.resolve() / clip.path) for clip in heard] if clips is not None else [str(dummy)],
        "file_devices": [clip.device or "unknown" for clip in heard] or ["unknown"],
    }
    answers, failed = _ask(request, python or sys.executable)
    if failed:
        return [*problems, Problem(_package(there[0]), "", failed, _RUNS)]
    names = [Path(clip.path).name for clip in heard]
    for label in there:
        answer = answers[f"{_package(label)}.{label}"]
        problems += _check_answer(label, answer, edition, stated.get(label, {}), outputs.get(label), names)
    return problems


def _package(label: str) -> str:
    return label.rpartition("_")[0]


def _dummy(folder: Path, label: str) -> Path:
    return folder / _package(label) / "resources" / "dummy.wav"


def _missing(folder: Path, label: str) -> list[Problem]:
    package = _package(label)
    if not (folder / package / f"{label}.py").is_file():
        return [Problem(f"{package}/{label}.py", "", "missing", f"a module with {', '.join(FUNCTIONS)}")]
    if not _dummy(folder, label).is_file():
        accepted = "a recording, with which complexity is counted"
        return [Problem(f"{package}/resources/dummy.wav", "", "missing", accepted)]
    return []


def _ask(request: dict[str, Any], python: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The answers by module, or why there are none."""
    with tempfile.TemporaryDirectory() as place:
        question, answered = Path(place) / "request.json", Path(place) / "answer.json"
        question.write_text(json.dumps(request))
        # -I: neither this process's paths nor the folder that one happens to be in are seen.
        command = [python, "-I", probe.__file__, str(question), str(answered)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, cwd=place, check=False)
        except subprocess.TimeoutExpired:
            return {}, f"not done after {_LONGEST_S} s"
        except OSError as error:
            return {}, f"{python} can't be started ({error.strerror})"
        if not answered.is_file():
            last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
            return {}, f"ended with status {ended.returncode}: {last}"
        return json.loads(answered.read_text()), ""


def _check_answer(
    label: str,
    answer: dict[str, Any],
    edition: Edition,
    stated: dict[str, float],
    output: Output | None,
    names: Sequence[str],
) -> list[Problem]:
    file = f"{_package(label)}/{label}.py"
    if missing := answer.get("missing"):
        accepted = f"the functions {', '.join(FUNCTIONS)}"
        return [Problem(file, "", f"has no {', '.join(missing)}", accepted)]
    if "error" in answer:
        return [Problem(file, answer["step"], answer["error"], _RUNS)]
    problems = _check_counts(file, f"{label}.{META}", answer["devices"], edition, stated)
    return [*problems, *_check_predictions(file, answer, edition, output, names)]


def _check_counts(
    file: str, meta: str, devices: dict[str, dict[str, int]], edition: Edition, stated: dict[str, float]
) -> list[Problem]:
    problems = []
    for device, counted in devices.items():
        if not counted["bytes"]:
            given = f"the network of device {device} has no parameters: its weights stand where no counter looks"
            problems.append(Problem(file, "get_model_for_device", given, "a network whose weights are parameters()"))
        by_field = {name: float(counted[what]) for name, what in edition.complexity.items() if what in counted}
        over = stated_over_limits(edition, by_field, file)
        problems += [Problem(file, f"device {device}", one.given, one.accepted) for one in over]
    most = {
        name: float(max(counted[what] for counted in devices.values()))
        for name, what in edition.complexity.items()
        if what in ("macs", "bytes", "parameters")
    }
    return problems + misstated(edition, stated, most, meta, "the package")


def _check_predictions(
    file: str, answer: dict[str, Any], edition: Edition, output: Output | None, names: Sequence[str]
) -> list[Problem]:
    classes, probabilities = answer["classes"], answer["probabilities"]
    if sorted(classes) != sorted(edition.classes):
        accepted = f"the classes {', '.join(edition.classes)}"
        return [Problem(file, "predict", f"the classes {', '.join(map(str, classes))}", accepted)]
    files = len(names) or 1
    if len(probabilities) != files or any(np.shape(one) != (len(classes),) for one in probabilities):
        given = f"{len(probabilities)} results of shape {np.shape(probabilities[0]) if probabilities else ()}"
        return [Problem(file, "predict", given, f"{files}, one for each file, of shape ({len(classes)},)")]
    problems = []
    order = [classes.index(scene) for scene in edition.classes]
    for name, found in zip(names, probabilities, strict=False):
        handed_in = output.probabilities.get(name) if output else None
        apart = 0.0 if handed_in is None else float(np.abs(np.array(found)[order] - handed_in).max())
        if apart > _CLOSE:
            given = f"its probabilities are up to {apart:.3g} from the output file's"
            problems.append(Problem(file, f"predict, {name}", given, f"the same, within {_CLOSE:g}"))
    return problems
