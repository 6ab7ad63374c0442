"""Times of several ways to do one thing, in turns in one process, and tables of them with their origin."""

import csv
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from tinyscene.systems.receipt import commit, machine

ROUNDS = 7
RESULTS = Path(__file__).resolve().parents[1] / "results"


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int | None = None) -> dict[str, float]:
    """The median time of each way in seconds; in every round all take their turn, and the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range((rounds or ROUNDS) + 1):
        for name, call in ways.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(some[1:]) for name, some in times.items()}


def keep(name: str, command: str, rows: list[dict[str, str]], rounds: int | str | None = None) -> None:
    """Write results/speed-NAME.csv, every row with its command, commit, machine and versions, and print the rows."""
    origin = {"rounds": str(rounds or ROUNDS), "command": command, "commit": commit(), "machine": machine()}
    origin |= {package: version(package) for package in ("torch", "librosa")}
    columns = max(rows, key=len)
    with (RESULTS / f"speed-{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, *origin], restval="")
        writer.writeheader()
        writer.writerows(row | origin for row in rows)
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
