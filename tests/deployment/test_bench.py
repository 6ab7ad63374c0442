"""`tinyscene bench`: each in a process of its own, in turns."""

import copy
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scene_files import CLIP_S, at

from tinyscene.cli import bench as verb
from tinyscene.deployment import FORMATS, Artifact, bench
from tinyscene.deployment.bench import RUNS, WARM_UP, Measured, Open, Opened, Timing, measure
from tinyscene.errors import InputError
from tinyscene.models.provenance import Provenance

MIB = 1024**2


@dataclass(frozen=True)
class Planted:
    """Something that takes time, memory or its own process when it is opened, run, or both."""

    sleep_s: float = 0.0
    opens_s: float = 0.0
    holds_mib: int = 0
    ends: bool = False
    refuses: str = ""
    turns: Path | None = None

    def __call__(self, threads: int) -> Opened:
        time.sleep(self.opens_s)
        if self.refuses:
            raise InputError(self.refuses)
        held = np.ones(self.holds_mib * MIB // 8)

        def run() -> int:
            if self.ends:
                os._exit(3)
            if self.turns:
                with self.turns.open("a") as file:
                    file.write(f"{os.getpid()} {torch.get_num_threads()} {threads}\n")
            time.sleep(self.sleep_s)
            return len(held)

        return Opened(run, None, {"clip_s": 1.0})


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Measured], list[list[str]]]:
    """All of them measured at once, and what each run wrote: its process and its threads."""
    turns = tmp_path_factory.mktemp("turns") / "turns.txt"
    openers = {
        "quick": Planted(turns=turns),
        "slow and large": Planted(sleep_s=0.02, opens_s=0.5, holds_mib=200, turns=turns),
        "ends": Planted(ends=True),
        "refuses": Planted(refuses="its runtime is missing; accepted: another"),
    }
    # A parent that holds a lot is not its children's baseline, nor their peak.
    mine = np.ones(300 * MIB // 8)
    found = measure(openers, threads=2, rounds=6, quiet=True)
    assert mine.all()
    return {one.name: one for one in found}, [line.split() for line in turns.read_text().splitlines()]


def test_a_delay_is_seen_where_it_is(planted: tuple[dict[str, Measured], list[list[str]]]) -> None:
    found, _ = planted
    slow, quick = found["slow and large"], found["quick"]
    assert slow.clip is not None
    assert quick.clip is not None
    assert slow.cold_ms is not None
    assert slow.clip.p90 >= slow.clip.median >= slow.clip.p10 >= 20
    assert quick.clip.p10 < 20
    assert slow.cold_ms >= 520
    ratio = verb.speed_ups(slow, list(found.values()))
    assert ratio["clip_speed_up"] == pytest.approx(quick.clip.median / slow.clip.median)
    assert ratio["network_speed_up"] is None


def test_each_has_its_own_process_and_threads_and_turns_come_in_no_fixed_order(
    planted: tuple[dict[str, Measured], list[list[str]]],
) -> None:
    _, lines = planted
    assert {tuple(threads) for _, *threads in lines} == {("2", "2")}
    quick, slow = dict.fromkeys(process for process, *_ in lines)
    assert str(os.getpid()) not in (quick, slow)
    # One run of a turn is not timed. Before the turns: the first run, then the warm-up and one more.
    turns = [process for process, *_ in lines][2 * (2 + WARM_UP) :: RUNS + 1]
    firsts = turns[::2]
    assert {quick, slow} == set(firsts)
    assert [{a, b} for a, b in zip(turns[::2], turns[1::2], strict=True)] == [{quick, slow}] * 6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_what_the_process_itself_takes(planted: tuple[dict[str, Measured], list[list[str]]]) -> None:
    found, _ = planted
    assert found["slow and large"].peak_bytes is not None
    assert found["quick"].peak_bytes is not None
    assert 200 * MIB <= found["slow and large"].peak_bytes < 230 * MIB
    assert 0 <= found["quick"].peak_bytes < 30 * MIB


def test_what_cannot_be_measured_says_so_beside_the_others(
    planted: tuple[dict[str, Measured], list[list[str]]],
) -> None:
    found, _ = planted
    assert found["refuses"].fault == "its runtime is missing; accepted: another"
    assert "its process ended, killed or" in found["ends"].fault
    assert found["ends"].clip is found["refuses"].clip is None


def test_a_process_ends_when_the_one_that_measures_is_gone() -> None:
    """A killed one closes its end of the pipe."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=bench._serve, args=(theirs, Planted(), 1), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == {}
    ours.close()
    process.join(60)
    assert process.exitcode == 0


def test_ratios_are_to_the_first_row_of_as_many_threads_and_of_the_same_length() -> None:
    def row(threads: int, ms: float, clip_s: float = 1.0, fault: str = "") -> Measured:
        timing = None if fault else Timing(ms, ms, ms)
        return Measured("x", threads, {"clip_s": clip_s}, clip=timing, network=timing, fault=fault)

    rows = [row(1, 8.0), row(1, 2.0), row(1, 2.0, clip_s=2.0), row(2, 6.0), row(2, 2.0), row(2, 1.0, fault="no")]
    assert [verb.speed_ups(one, rows)["clip_speed_up"] for one in rows] == [1, 4, None, 1, 3, None]
    assert [verb.speed_ups(one, rows)["network_speed_up"] for one in rows] == [1, 4, None, 1, 3, None]


def test_a_model_in_torch_and_as_files(
    tinyscene: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two formats, the second's runtime is missing: its rows say so, and the others stand."""

    def missing(*_: object) -> None:
        raise InputError("its runtime is not installed; accepted: pip install")

    first, second, *others = FORMATS.values()
    monkeypatch.setattr(second, "write", missing)
    for other in others:
        monkeypatch.delitem(FORMATS, other.suffix)
    classifier = copy.deepcopy(at("baseline2021", "float32"))
    classifier.provenance = Provenance(clip_s=CLIP_S)
    model, facts, kept = classifier.save(tmp_path / "m"), tmp_path / "f.json", tmp_path / "kept"
    asked = ("--runtimes", "all", "--keep", kept, "--rounds", 1, "--json", facts)
    status, said = tinyscene("bench", model, *asked)
    assert status == 0, said
    found = json.loads(facts.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert found["machine"]
    names = [f"float32-{form}{format_.suffix}" for format_ in (first, second) for form in bench.FORMS]
    assert list(rows) == [str(model), *names]
    for name in names[2:]:
        assert "its runtime is not installed" in rows[name]["fault"]
    for name in names[:2]:
        row, artifact = rows[name], Artifact.load(kept / name)
        assert row["facts"]["bytes"] == artifact.bytes_on_disk
        assert row["facts"]["precision"] == "float32"
        assert row["facts"]["clip_s"] == CLIP_S
        assert row["facts"]["runtime"] == first.version()
        assert (row["network"] is None) == artifact.inside
        assert min(row["clip"]["median"], row["cold_ms"]) > 0
    assert rows[str(model)]["clip_speed_up"] == 1
    assert rows[str(model)]["facts"]["clip_s"] == CLIP_S


def test_what_is_opened_says_what_the_classifier_says(exported: Callable[[str, str], Artifact], tmp_path: Path) -> None:
    """What is timed is the work itself, and not a part of it."""
    artifact, folder = exported("baseline2021", "float32"), at("baseline2021", "float32").save(tmp_path / "m")
    file, model = Open(artifact.path, CLIP_S)(1), Open(folder, CLIP_S)(1)
    assert file.network is not None
    assert model.network is not None
    np.testing.assert_allclose(file.clip(), model.clip(), atol=1e-4)  # type: ignore[call-overload]
    np.testing.assert_allclose(file.network(), model.network(), atol=1e-3)  # type: ignore[call-overload]
    np.testing.assert_allclose(torch.tensor(file.network()).softmax(-1), file.clip(), atol=1e-6)  # type: ignore[call-overload]


def test_the_table_shows_what_there_is() -> None:
    facts = {"runtime": "Abacus 1", "precision": "int8", "front_end": "inside", "clip_s": 1.0, "bytes": 12_345}
    rows = [
        Measured("a.abc", 1, facts, 25.0, Timing(2.0, 1.5, 2.5), Timing(1.0, 0.5, 1.5), 3 * MIB),
        Measured("b.abc", 1, facts, 25.0, Timing(0.5, 0.25, 0.75)),
        Measured("c.abc", 1, fault="Abacus is not installed"),
    ]
    said = StringIO()
    Console(file=said, width=200).print(verb.table_of(rows, "title"))
    first, second, third = [line for line in said.getvalue().splitlines() if ".abc" in line]
    for what in ("Abacus 1", "12,345", "2.000 (1.500-2.500)", "1.000 (0.500-1.500)", " 3.0 ", " 25 "):
        assert what in first
    assert " 4.00 " in second
    assert "not measured" in third


def test_what_it_says_to_wrong_input(
    tinyscene: Callable[..., tuple[int, str]], exported: Callable[[str, str], Artifact], tmp_path: Path
) -> None:
    file = exported("baseline2021", "float32").path
    for wrong in (
        (tmp_path / "missing.onnx",),
        (tmp_path / "scene.wav",),
        (tmp_path,),
        (file, "--keep", tmp_path),
        (file, "--threads", "0"),
        (file, "--clip-s", "0"),
        (file, "--clip-s", "inf"),
        (tmp_path, "--runtimes", "abacus"),
        (tmp_path, "--runtimes", "all"),
    ):
        status, said = tinyscene("bench", *wrong)
        assert status == 2, wrong
        assert "accepted" in said, wrong
