"""The candidates of a search under a budget: their table and picture."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyscene.accounting import CONVENTIONS
from tinyscene.evaluation.scorecard import Row
from tinyscene.evaluation.scores import Scores
from tinyscene.files import write_whole
from tinyscene.systems.under_budget import RUNGS, Candidate


@dataclass(frozen=True)
class Trial:
    """A candidate at one rung, pruned and quantized.

    Attributes:
        rung: from 1 on.
        row: of its last stage: the int8 network's costs, and its scores on the validation part.
        stages: folders of all its stages, including those shared with other rungs.
    """

    rung: int
    candidate: Candidate
    row: Row
    stages: tuple[str, ...] = ()

    @property
    def scores(self) -> Scores:
        assert self.row.scores is not None
        return self.row.scores

    @property
    def log_loss(self) -> float:
        """On the validation part, which decides. Accuracy on some tens of clips has too few values for a ranking."""
        return self.scores.log_loss

    @property
    def facts(self) -> dict[str, Any]:
        """As a row of pareto.csv."""
        low, high = self.scores.interval()
        ledger = self.row.ledger
        return {
            "rung": self.rung,
            "candidate": self.candidate.name,
            "network": self.candidate.network,
            "epochs": max(1, round(RUNGS[self.rung - 1] * self.candidate.epochs)),
            "validation_clips": len(self.scores.clips),
            "validation_accuracy": self.scores.accuracy,
            "validation_accuracy_low": low,
            "validation_accuracy_high": high,
            "validation_log_loss": self.log_loss,
            "bytes": CONVENTIONS["bn4"](ledger.tensors).bytes,
            "macs": ledger.macs["torchinfo"],
            "parameters": CONVENTIONS["bn2"](ledger.tensors).parameters,
            "peak_ram_bytes": ledger.peak_ram_bytes,
            "clip_s": self.row.rules.clip_s,
        }

    @property
    def text(self) -> str:
        """One line."""
        kb, mmacs = self.facts["bytes"] / 1000, self.facts["macs"] / 1e6
        return (
            f"  {self.candidate.name}: log loss {self.log_loss:.3f}, {100 * self.scores.accuracy:.1f} % of "
            f"{len(self.scores.clips)} validation clips, {kb:.2f} kB, {mmacs:.2f} MMACs"
        )


def save_tried(tried: Sequence[Trial], left_out: Mapping[str, str], winner: Trial, title: str, folder: Path) -> None:
    """Write pareto.csv, with the left-out candidates and the reasons at its end, and pareto.png."""
    from tinyscene.evaluation.pictures import draw_pareto

    with write_whole(folder / "pareto.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*winner.facts, "winner", "left_out"], restval="")
        writer.writeheader()
        writer.writerows(trial.facts | {"winner": trial is winner} for trial in tried)
        writer.writerows({"candidate": name, "left_out": reason} for name, reason in left_out.items())
    rows = [(f"rung {trial.rung}", trial.row) for trial in tried]
    draw_pareto(rows, winner.row, title, folder / "pareto.png")
