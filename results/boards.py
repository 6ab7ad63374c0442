"""C files on emulated Cortex-M boards: compiled by arm-none-eabi-gcc, run by qemu-system-arm.

An emulator counts instructions, and no cycles.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyscene.deployment.c_format import COMPUTES, SHIPPED, header_of

HERE = Path(__file__).parent / "board"
GCC, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"


@dataclass(frozen=True)
class Board:
    """A core, a machine of QEMU that runs its code, and where that has megabytes of memory."""

    core: str
    machine: str
    flags: tuple[str, ...]
    memory: int = 0x21000000


HARD = "-mfloat-abi=hard"
BOARDS = (
    # No machine of QEMU has a Cortex-M0+ and this much memory; its instructions are a subset of the Cortex-M3's.
    Board("Cortex-M0+", "mps2-an385", ("-mcpu=cortex-m0plus",)),
    Board("Cortex-M3", "mps2-an385", ("-mcpu=cortex-m3",)),
    Board("Cortex-M4F", "mps2-an386", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", HARD)),
    Board("Cortex-M7", "mps2-an500", ("-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", HARD), 0x60000000),
    Board("Cortex-M55", "mps3-an547", ("-mcpu=cortex-m55", HARD)),
)


@dataclass(frozen=True)
class Measured:
    """A file on a board.

    Attributes:
        outputs: of every call, (calls, floats).
        instructions: of the slowest call.
        stack: bytes, at the deepest.
        flash, ram: bytes of a program that does nothing else: code and constants; arena, input, output and state.
    """

    outputs: np.ndarray
    instructions: int
    stack: int
    flash: int
    ram: int


def missing() -> str:
    """What has to be installed; empty where nothing has."""
    return ", ".join(name for name in (GCC, QEMU) if shutil.which(name) is None)


def run(path: Path, board: Board, calls: Sequence[Sequence[np.ndarray]]) -> Measured:
    """Run a C file on a board, on the inputs of several calls."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "scene.h").write_text(header_of(path))
        (place / "scene.c").write_bytes(path.read_bytes())
        for source in HERE.iterdir():
            shutil.copy(source, place)
        flags = [*COMPUTES, *SHIPPED, "-std=gnu99", "-mthumb", *board.flags, "-ffunction-sections", "-fdata-sections"]
        link = ["-nostartfiles", "-Wl,--gc-sections", "-T", "board.ld", "-lm"]
        link.append(f"-Wl,--defsym=MEMORY_AT={board.memory:#x}")

        def made(program: str, *more: str) -> None:
            subprocess.run([GCC, *flags, "scene.c", *more, *link, "-o", program], cwd=place, check=True)

        made("run.elf", "start.c", "run.c", "--specs=rdimon.specs")
        made("bare.elf", "bare.c", "--specs=nosys.specs", "-Wl,-e,main")
        text, data, bss, *_ = map(int, _said(["arm-none-eabi-size", "bare.elf"], place).splitlines()[1].split()[:3])
        content = b"".join(np.asarray(values, np.float32).tobytes() for call in calls for values in call)
        (place / "in.bin").write_bytes(content)
        emulated = [QEMU, "-M", board.machine, "-icount", "shift=0", "-display", "none", "-monitor", "none"]
        emulated += ["-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel", "run.elf"]
        shown = re.search(r"instructions (\d+) stack (\d+)", _said(emulated, place))
        if not shown:
            raise RuntimeError(f"{path.name} on {board.core}: no result")
        outputs = np.fromfile(place / "out.bin", np.float32).reshape(len(calls), -1)
    return Measured(outputs, int(shown[1]), int(shown[2]), text + data, data + bss)


def _said(command: list[str], place: Path) -> str:
    return subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
