"""results/collect.py on the table of files: what is refused keeps its row, and its reason."""

import csv
import runpy
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"
MODEL = {
    "system": "singh2021",
    "variant": "singh_53kb",
    "weights_at": "int8",
    "dataset": "esc10",
    "seed": "0",
    "clip_s": "5.0",
    "model_accuracy": "0.8125",
    "trained": "tinyscene reproduce singh2021; commit abc",
    "command": "python results/artifacts.py --data $ESC10 singh-esc",
    "commit": "def",
    "machine": "an abacus",
    "torch": "2",
    "finished": "2026-01-01T00:00:00",
}
TIMED = {"clip_ms": "2.04", "clip_ms_p10": "1.96", "clip_ms_p90": "3.0", "network_ms": "1.0"}
FOUND = {
    "unit": "output steps",
    "exact": "1.0",
    "largest": "2.0",
    "mean": "0.25",
    "agreement": "1.0",
    "ties": "3",
    "accuracy": "0.75",
    "file_accuracy": "0.5",
    "file_bytes": "12345",
    "peak_ram_bytes": "4096",
    "rules": "dcase2021",
    "verdict": "fits: 1 of 2 KB",
}


def test_every_file_has_a_row_and_a_refused_one_its_reason(tmp_path: Path) -> None:
    rows = [
        MODEL | {"format": "torch"} | TIMED,
        MODEL | {"format": ".abc", "front_end": "outside"} | FOUND | TIMED,
        MODEL | {"format": ".abc", "front_end": "inside", "fault": "it differs by 3 steps, 1 is allowed"},
    ]
    path = tmp_path / "artifacts-esc10.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)
    collect = runpy.run_path(str(RESULTS / "collect.py"))
    lines = collect["artifact_table"](path)
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    heads, _, in_torch, written, refused = table
    assert len({len(cells) for cells in table}) == 1
    assert dict(zip(heads, in_torch, strict=True))["ms a clip (10-90 %)"] == "2.0 (2.0-3.0)"
    assert dict(zip(heads, in_torch, strict=True))["accuracy %: file, model"] == "81.2"
    assert dict(zip(heads, written, strict=True)) == {
        "network": "singh2021 singh_53kb, int8, 5.00 s",
        "file": ".abc",
        "front end": "outside",
        "difference: largest, mean": "2.00, 0.25 steps",
        "same decisions": "100 %, 3 ties",
        "accuracy %: file, model": "50.0, 75.0",
        "B": "12,345",
        "ms a clip (10-90 %)": "2.0 (2.0-3.0)",
        "network alone, ms": "1.0",
        "activations, B": "4,096",
        "verdict": "dcase2021: fits: 1 of 2 KB",
    }
    assert refused[:4] == ["singh2021 singh_53kb, int8, 5.00 s", ".abc", "inside", "refused (1)"]
    assert "1. singh2021, int8, .abc, inside: it differs by 3 steps, 1 is allowed" in lines
    assert "`python results/artifacts.py --data $ESC10 singh-esc`; commit def, an abacus, torch 2, seed 0" in lines[-2]


def test_a_loss_of_int8_is_told_with_its_interval_and_one_beyond_a_point_is_counted(tmp_path: Path) -> None:
    row = {"dataset": "esc50", "network": "aemnet", "ranges": "128", "louder": "0", "qat": "False", "float": "0.5"}
    row |= {"difference": "-0.005", "difference_low": "-0.02", "difference_high": "0.01"}
    lost = {
        "ranges": "all",
        "qat": "True",
        "difference": "-0.05",
        "difference_low": "-0.09",
        "difference_high": "-0.02",
    }
    path = tmp_path / "int8_ranges.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*row, *MODEL])
        writer.writeheader()
        writer.writerows(MODEL | one for one in (row, row | lost))
    lines = runpy.run_path(str(RESULTS / "collect.py"))["ranges_table"](path)
    heads, _, cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    found = {head: cell for head, cell in zip(heads, cells, strict=True) if cell}
    assert found == {
        "data": "esc50",
        "network": "aemnet",
        "float %": "50.0",
        "128 clips, after training": "-0.5 (-2.0 ... +1.0)",
        "all clips, QAT": "-5.0 (-9.0 ... -2.0)",
    }
    assert "1 of 2 lose significantly more than one point." in lines
