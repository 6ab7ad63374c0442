"""Numbers in docs/pruning.md and docs/what-did-not-work.md, without recordings: python results/pruning.py

It writes pruning.md beside itself, in minutes: how often ADMM finds the bands that matter (tests/compression/
planted_bands.py), what a threshold leaves of schmidt2022's tandem, and the dual rates at which ADMM is stable.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from tinyscene.progress import track
from tinyscene.systems import schmidt2022
from tinyscene.systems.receipt import commit, machine

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests" / "compression"))

from planted_bands import CLASSES, PARTS, PLANTED, SELECTION, TRAIN, linear_model, run_in, write_clips  # noqa: E402

DATA_SEEDS, WEIGHT_SEEDS = range(6), range(8)
RHOS, MASK_RATES = (0.03, 0.1, 0.3, 1.0, 3.0), (30.0, 100.0)
MOMENTUM, PULLS, DUAL_RATES = 0.9, (1e-3, 1e-2, 1e-1, 1.0), (0.03, 0.1, 0.3, 1.0)
SCENES = tuple("abcdefghij")
# A step is a batch of the planted problem; epochs of updates before the cut.
STEPS = len(CLASSES) * PARTS["train"] // SELECTION.fit.batch_size
UPDATES = round(SELECTION.updates * SELECTION.fit.epochs)


def planted_bands() -> Iterator[str]:
    """The share of data sets in which exactly the three planted bands stay."""
    found = {(mask_rate, rho): 0 for mask_rate in MASK_RATES for rho in RHOS}
    for seed in track(DATA_SEEDS, "planted bands", len(DATA_SEEDS)):
        with tempfile.TemporaryDirectory() as name:
            clips, run = write_clips(Path(name), seed), run_in(Path(name))
            trained = TRAIN(linear_model(), clips.train, run)
            for mask_rate, rho in found:
                selected = replace(SELECTION, mask_rate=mask_rate, rho=rho)(trained, clips.train, run)
                found[mask_rate, rho] += selected.frontend.arguments["kept"] == PLANTED
    fit = SELECTION.fit
    rates = [fit.optimizer.lr * fit.schedule.factor(step / STEPS, fit.epochs) for step in range(UPDATES * STEPS)]
    exponent = sum(rates) / (1 - fit.optimizer.momentum)
    yield "## Planted bands that ADMM finds"
    yield (
        f"Data seeds {DATA_SEEDS[0]} to {DATA_SEEDS[-1]}, {len(rates)} steps before the cut. In brackets, the exponent "
        f"rho x mask_rate x sum of all learning rates / (1 - momentum):"
    )
    yield table(
        ("mask_rate", *(f"rho {rho:g}" for rho in RHOS)),
        [
            (
                f"{mask_rate:g}",
                *(f"{found[mask_rate, rho]}/{len(DATA_SEEDS)} ({rho * mask_rate * exponent:.1f})" for rho in RHOS),
            )
            for mask_rate in MASK_RATES
        ],
    )


def thresholds() -> Iterator[str]:
    """The result of pruning default weights to schmidt2022's budget, by a threshold only and filled up."""
    prune, rows = replace(schmidt2022.prune, fit=None), []
    ways = [(normalise, fill) for normalise in (True, False) for fill in (0.0, prune.fill)]
    left = {way: [] for way in ways}
    for seed in track(WEIGHT_SEEDS, "thresholds", len(WEIGHT_SEEDS)):
        torch.manual_seed(seed)
        classifier = schmidt2022.select.shape(schmidt2022.build(SCENES))
        for normalise, fill in ways:
            costs = replace(prune, normalise=normalise, fill=fill).plan(classifier).costs
            left[normalise, fill].append((costs["parameters"], costs["macs"] / 1e6))
    for (normalise, fill), costs in left.items():
        parameters, mmacs = zip(*costs, strict=True)
        rows.append(
            (
                "over their layer's mean" if normalise else "raw",
                f"{fill:g}",
                f"{min(parameters):,} to {max(parameters):,}",
                f"{min(mmacs):.2f} to {max(mmacs):.2f}",
            )
        )
    budget = f"{prune.parameters:,} parameters and {prune.macs / 1e6:.2f} MMACs"
    yield "## What a threshold leaves of a budget"
    yield (
        f"schmidt2022's tandem at {schmidt2022.select.keep} bands and {len(SCENES)} scenes, default weights of seeds "
        f"{WEIGHT_SEEDS[0]} to {WEIGHT_SEEDS[-1]}, pruned to {budget} (bn2, torchinfo):"
    )
    yield table(("filter norms", "fill", "parameters", "MMACs"), rows)


def dual_rates() -> Iterator[str]:
    """Whether ADMM is stable at one step of gradient descent for each projection, without another pull."""
    yield "## Stable dual rates of ADMM"
    yield f"Spectral radius of a step on rho / 2 ||W - Z + U||^2, Z = 0, momentum {MOMENTUM:g}; above 1 it diverges:"
    yield table(
        ("dual_rate", *(f"lr x rho {pull:g}" for pull in PULLS)),
        [(f"{rate:g}", *(f"{radius(pull, rate):.4f}" for pull in PULLS)) for rate in DUAL_RATES],
    )


def radius(pull: float, dual_rate: float) -> float:
    """Spectral radius of the map of (weight, velocity, dual) by one step; `pull` is the learning rate times rho."""
    velocity = np.array([-pull, MOMENTUM, -pull])
    weight = np.array([1.0, 0.0, 0.0]) + velocity
    dual = np.array([0.0, 0.0, 1.0]) + dual_rate * weight
    return float(abs(np.linalg.eigvals([weight, velocity, dual])).max())


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """As Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


def main() -> None:
    """Write pruning.md."""
    parts = [*planted_bands(), *thresholds(), *dual_rates()]
    place = f"commit {commit()}, {machine()}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}"
    text = "\n\n".join(("# Pruning without recordings", f"`python results/pruning.py`; {place}.", *parts)) + "\n"
    (HERE / "pruning.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
