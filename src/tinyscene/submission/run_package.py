"""Check an inference package of 2025 by running it, in a process and, where asked for, an environment of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL
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
_LONGEST_LINE = 2000
_INSTALLED_BY = ("setup.py", "pyproject.toml")
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
    """Import every system's module, count the network of every device, and predict; each in a process of its own.

    Args:
        folder: holds the package, such as Lastname_Institute_task1.
        stated: figures of each meta file, compared with what is counted.
        outputs: probabilities that were handed in, compared with what the package gives for some of `clips`.
        python: the interpreter of the environment to run in; where None this one, in which tinyscene is not found.
    """
    # The other process is elsewhere: relative paths would lead it astray.
    folder = folder.resolve()
    problems: list[Problem] = []
    if not any((folder / name).is_file() for name in _INSTALLED_BY):
        problems.append(Problem(_INSTALLED_BY[0], "", "missing", "a package that `pip install` takes"))
    heard = list(clips)[:_CLIPS] if clips is not None else []
    names = [Path(clip.path).name for clip in heard]
    for label in labels:
        if missing := _missing(folder, label):
            problems += missing
            continue
        dummy = _dummy(folder, label)
        answer, failed = _ask(
            {
                "folder": str(folder),
                "module": f"{_package(label)}.{label}",
                "without": [] if python else ["tinyscene"],
                "functions": FUNCTIONS,
                "dummy": str(dummy),
                "devices": DEVICES,
                "files": [str(clips.root.resolve() / clip.path) for clip in heard] if clips else [str(dummy)],
                "file_devices": [clip.device or "unknown" for clip in heard] or ["unknown"],
            },
            python or sys.executable,
        )
        if failed:
            problems.append(Problem(_file(label), "", failed, _RUNS))
        else:
            problems += _check_answer(label, answer, edition, stated.get(label, {}), outputs.get(label), names)
    return problems


def _file(label: str) -> str:
    return f"{_package(label)}/{label}.py"


def _package(label: str) -> str:
    return label.rpartition("_")[0]


def _dummy(folder: Path, label: str) -> Path:
    return folder / _package(label) / "resources" / "dummy.wav"


def _missing(folder: Path, label: str) -> list[Problem]:
    package = _package(label)
    if not (folder / package / f"{label}.py").is_file():
        return [Problem(_file(label), "", "missing", f"a module with {', '.join(FUNCTIONS)}")]
    if not _dummy(folder, label).is_file():
        accepted = "a recording, with which complexity is counted"
        return [Problem(f"{package}/resources/dummy.wav", "", "missing", accepted)]
    return []


def _ask(request: dict[str, Any], python: str) -> tuple[dict[str, Any], str]:
    """The answer, or why there is none."""
    with tempfile.TemporaryDirectory() as place:
        question, answered, said = (Path(place) / name for name in ("request.json", "answer.json", "stderr.txt"))
        question.write_text(json.dumps(request))
        # -I: neither this process's paths nor the folder that one happens to be in are seen; -B: no .pyc is left.
        command = [python, "-I", "-B", probe.__file__, str(question), str(answered)]
        try:
            with said.open("wb") as errors:
                process = subprocess.Popen(
                    command, stdin=DEVNULL, stdout=DEVNULL, stderr=errors, cwd=place, start_new_session=True
                )
        except OSError as error:
            return {}, f"{python} can't be started ({error.strerror})"
        try:
            status = process.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            return {}, f"not done after {_LONGEST_S} s"
        finally:
            # With all that it started.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if not answered.is_file():
            return {}, f"ended with status {status}: {_last_line(said)}"
        return dict(json.loads(answered.read_text())), ""


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_LINE))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word")


def _check_answer(
    label: str,
    answer: dict[str, Any],
    edition: Edition,
    stated: dict[str, float],
    output: Output | None,
    names: Sequence[str],
) -> list[Problem]:
    file = _file(label)
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
    # Devices that have one network among them are named together.
    alike: dict[tuple[str, str], list[str]] = {}
    for device, counted in devices.items():
        by_field = {name: float(counted[what]) for name, what in edition.complexity.items() if what in counted}
        over = [(one.given, one.accepted) for one in stated_over_limits(edition, by_field, file)]
        if not counted["bytes"]:
            given = "a network without parameters: its weights stand where no counter looks"
            over.append((given, "a network whose weights are parameters()"))
        for said in over:
            alike.setdefault(said, []).append(device)
    problems = [Problem(file, f"device {', '.join(named)}", *said) for said, named in alike.items()]
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
        return [Problem(file, "predict", f"the classes {', '.join(classes)}", accepted)]
    files = len(names) or 1
    if len(probabilities) != files or any(np.shape(one) != (len(classes),) for one in probabilities):
        given = f"{len(probabilities)} results of shape {np.shape(probabilities[0]) if probabilities else ()}"
        return [Problem(file, "predict", given, f"{files}, one for each file, of shape ({len(classes)},)")]
    problems = []
    order = [classes.index(scene) for scene in edition.classes]
    for name, found in zip(names, probabilities, strict=False):
        handed_in = output.probabilities.get(name) if output else None
        apart = 0.0 if handed_in is None else float(np.abs(np.array(found)[order] - handed_in).max())
        # Of logits that are not numbers, no difference is either.
        if not apart <= _CLOSE:
            given = f"its probabilities are up to {apart:.3g} from the output file's"
            problems.append(Problem(file, f"predict, {name}", given, f"the same, within {_CLOSE:g}"))
    return problems
