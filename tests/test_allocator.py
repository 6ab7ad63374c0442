"""The allocator keeps what is freed: pages are cleared once, and not at every allocation."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tinyscene import allocator

FAULTS = """
import resource, sys
import numpy as np
from tinyscene.allocator import keep_freed_memory
way, values = sys.argv[1], int(sys.argv[2])
if way != "leave":
    assert keep_freed_memory(way == "little")
np.ones(values)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(values)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_pages_are_cleared_once() -> None:
    def faults(way: str, values: int) -> int:
        command = [sys.executable, "-c", FAULTS, way, str(values)]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert faults("keep", 2**23) < faults("leave", 2**23) / 10
    # 16 MB are kept on a small machine too, 64 are returned.
    assert faults("little", 2**21) < faults("leave", 2**21) / 10
    assert faults("little", 2**23) > faults("keep", 2**23) * 10


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("4294967296\n")
    monkeypatch.setattr(allocator, "_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "missing")))
    assert allocator.has_little_memory.__wrapped__()
    (tmp_path / "memory.max").write_text("max\n")
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert allocator.has_little_memory.__wrapped__() == (physical < 12 * 2**30)
