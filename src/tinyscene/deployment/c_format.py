"""C99: one file for a microcontroller, compiled and run here before it gets its name."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tinyscene.deployment.c_network import TEMPLATES
from tinyscene.deployment.c_source import GENERATOR, source
from tinyscene.deployment.formats import Format, Runner, Values, clip_by_clip
from tinyscene.deployment.forms import Form
from tinyscene.deployment.runtime import FLOAT_LAYERS, INTEGER_LAYERS
from tinyscene.errors import InputError

# As in c/scene.mk.
COMPUTES = ("-std=c99", "-fno-strict-aliasing", "-ffp-contract=off")
WARNS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Werror")
SHIPPED = ("-O2",)
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# A name that make takes, and what is in every neighbour.
_STEM, _OURS = re.compile(r"\w[\w.-]*", re.ASCII), "SCENE_SAMPLE_RATE"
_HEADER = re.compile(r"^#ifndef SCENE_H$.*?^#endif\n(?=\n*#include <float)", re.M | re.S)


class C(Format):
    """Float32, or int8 computed on integers; 16-bit weights become 32 bits wide. One clip at a time, of one length.

    Beside FILE.c come FILE.h, FILE_main.c, which names the scenes of PCM, and FILE.mk, which builds it.
    """

    suffix, runtime, package, products = ".c", "C99", GENERATOR, False

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        path.write_text(source(form, metadata))

    def neighbours(self, path: Path, written: Path) -> dict[Path, str]:
        if not _STEM.fullmatch(path.stem):
            raise InputError(f"{path}: make can't take this name; accepted: letters, digits, _, - and .")
        texts = {path.with_suffix(".h"): header_of(written)}
        for given, suffix in (("scene_main.c", "_main.c"), ("scene.mk", ".mk")):
            text = (TEMPLATES / given).read_text()
            text = re.sub(r"\bscene(?=\.[chm]|_main|:|`)", path.stem, text)
            texts[path.with_name(path.stem + suffix)] = text
        for place in texts:
            if place.exists() and _OURS not in place.read_text(errors="replace"):
                raise InputError(f"{place}: not written by tinyscene, and would be replaced; accepted: another name")
        return texts

    def metadata(self, path: Path) -> dict[str, str]:
        found = re.search(r"^ \* tinyscene: (.*)$", path.read_text(errors="replace"), re.M)
        if not found:
            raise InputError(f"{path}: not a C file of tinyscene; accepted: one that export wrote")
        described: dict[str, str] = json.loads(found[1])
        return described

    def runner(self, path: Path, threads: int = 1) -> Runner:
        return _Program(path, SHIPPED)

    def checked_runner(self, path: Path) -> Runner:
        """Compiled as it ships, and with sanitizers, which must give the same bits."""
        shipped, watched = _Program(path, SHIPPED), _Program(path, SANITIZED)

        def run(*given: Values) -> tuple[Values, ...]:
            outputs = shipped(*given)
            for one, other in zip(outputs, watched(*given), strict=True):
                if not np.array_equal(one, other, equal_nan=True):
                    raise InputError("the file computes something else with sanitizers; try another compiler (CC)")
            return outputs

        return run

    def memory(self, path: Path) -> dict[str, int]:
        sizes = _sizes(header_of(path))
        found = {"arena": 8 * sizes["ARENA_WORDS"], "input": 4 * sizes["INPUTS"], "output": 4 * sizes["CLASSES"]}
        return found | ({"state": 4 * sizes["STATE_FLOATS"]} if "STATE_FLOATS" in sizes else {})

    def layers_by_kernel(self, path: Path) -> tuple[int | None, int | None]:
        found = re.findall(r"^ \* OpType: (\w+)$", path.read_text(), re.M)
        return sum(name in INTEGER_LAYERS for name in found), sum(name in FLOAT_LAYERS for name in found)

    def version(self) -> str:
        compiler = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True).stdout
        return f"{GENERATOR} {version(GENERATOR)}, {compiler.splitlines()[0]}"


def header_of(path: Path) -> str:
    """The header of a C file, which stands in it. Raises InputError for another file."""
    found = _HEADER.search(path.read_text(errors="replace"))
    if found is None:
        raise InputError(f"{path}: not a C file of tinyscene; accepted: one that export wrote")
    return found[0]


def _sizes(header: str) -> dict[str, int]:
    return {name: int(size) for name, size in re.findall(r"^#define SCENE_(\w+) (\d+)$", header, re.M)}


def _compiler() -> str:
    """The C compiler's command. Raises InputError where there is none."""
    command = os.environ.get("CC", "gcc")
    if shutil.which(command) is None:
        raise InputError(f"{command}: no such C compiler, which has to check the file; install gcc, or set CC to yours")
    return command


class _Program:
    """A file compiled with c/harness.c, and running: it reads a clip and writes its outputs."""

    def __init__(self, path: Path, flags: Sequence[str]) -> None:
        header = header_of(path)
        sizes = _sizes(header)
        shape = ("INPUTS",) if "#define SCENE_TAKES_SAMPLES" in header else ("CHANNELS", "BANDS", "FRAMES")
        state = [(1, sizes["STATE_FLOATS"])] if "STATE_FLOATS" in sizes else []
        self.path, self.given = path, [(1, *(sizes[name] for name in shape)), *state]
        self.made: list[tuple[int, ...]] = [(1, sizes["CLASSES"]), *state]
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "scene.h").write_text(header)
            (place / "scene.c").write_bytes(path.read_bytes())
            (place / "harness.c").write_text((TEMPLATES / "harness.c").read_text())
            command = [_compiler(), *COMPUTES, *WARNS, *flags, "scene.c", "harness.c", "-lm", "-o", "program"]
            built = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
            if built.returncode:
                raise InputError(
                    f"{path}: {command[0]} can't compile it ({_fault(built.stderr)}); try another one (CC)"
                )
            pipe = subprocess.PIPE
            self.process = subprocess.Popen([place / "program"], stdin=pipe, stdout=pipe, stderr=pipe)
        weakref.finalize(self, _end, self.process)

    def __call__(self, *given: Values) -> tuple[Values, ...]:
        return clip_by_clip(self.path, given, self.given, self._once)

    def _once(self, *clip: Values) -> list[Values]:
        process = self.process
        assert process.stdin
        assert process.stdout
        assert process.stderr
        with contextlib.suppress(BrokenPipeError):  # then its output is missing too
            for values in clip:
                process.stdin.write(np.ascontiguousarray(values, np.float32).tobytes())
            process.stdin.flush()
        sizes = [int(np.prod(shape)) for shape in self.made]
        content = process.stdout.read(4 * sum(sizes))
        if len(content) < 4 * sum(sizes):
            fault = _fault(process.stderr.read().decode(errors="replace")) or f"exit status {process.wait()}"
            raise InputError(f"{self.path}: the compiled program ends: {fault}; try another compiler (CC)")
        parts = np.split(np.frombuffer(content, np.float32), np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.made, strict=True)]


def _fault(text: str) -> str:
    """The first line of a compiler's or a sanitizer's output that says what is wrong."""
    return next((line.strip()[:200] for line in text.splitlines() if "error" in line.lower()), "")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream
        with contextlib.suppress(OSError):  # what was not read any more
            stream.close()
