"""The benchmarks still run: one network, one round."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def test_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import int8
    import run

    monkeypatch.setattr(int8, "RUNS", 1)
    monkeypatch.setattr(run, "ROUNDS", 1)
    assert "5 of 5 layers on integers" in int8.speed("moments_linear", tmp_path)
