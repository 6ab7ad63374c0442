"""The origin of a result: command, commit, seed, versions, data, machine, minutes."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from tinyscene.data import Clips
from tinyscene.training.keys import COMPUTING, PACKAGE, source_fingerprint

_DIRECT = ("tinyscene", "soundfile", *COMPUTING)


def receipt(
    minutes: float, seeds: list[int], clips: Clips, data: str, place: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Everything that a run's results depend on, as plain values. The command names the data by a variable."""
    return {
        "command": command(clips),
        "data": str(clips.root),
        "commit": commit(),
        "source": source_fingerprint()[:12],
        "seeds": seeds,
        "dataset": clips.name,
        "notes": list(clips.notes),
        "data_fingerprint": data,
        "settings": settings,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _DIRECT}},
        "machine": f"{machine()}, {place}",
        "minutes": round(minutes, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def command(clips: Clips) -> str:
    """The command, with the data's folder as a variable, such as $ESC10, and no other folder of this machine."""
    program = "tinyscene" if Path(sys.argv[0]).stem in ("tinyscene", "__main__") else Path(sys.argv[0]).name
    variable = "$" + re.sub(r"\W", "_", clips.name.upper())
    words = [program]
    for before, word in pairwise(sys.argv):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if before == "--data" or (option == "--data" and equals):
            words.append(f"{option}{equals}{variable}")
        else:
            shown = Path(value).name if Path(value).is_absolute() else value
            words.append(shlex.quote(f"{option}{equals}{shown}"))
    return " ".join(words)


def commit() -> str:
    """The package's commit, marked where files differ from it; empty outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", str(PACKAGE / "__init__.py"))
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--", str(PACKAGE)) else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine() -> str:
    """Processor or GPU, and cores."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    if torch.cuda.is_available():
        model = f"{torch.cuda.get_device_name()} on {model}"
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def installed() -> str:
    """Every installed package with its version, as constraints for pip."""
    pairs = {(d.metadata["Name"].lower(), d.version) for d in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(pairs))


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
