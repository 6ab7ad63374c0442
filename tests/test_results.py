"""The scripts in results/ that need no recordings: they run, and say what the code does."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tinyscene.compression import FeatureSelection
from tinyscene.compression.admm import ADMM
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import Tandem
from tinyscene.models.classifier import SceneClassifier
from tinyscene.systems import schmidt2022

RESULTS = Path(__file__).resolve().parents[1] / "results"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(sys, "path", [*sys.path])
    return SimpleNamespace(**runpy.run_path(str(RESULTS / "pruning.py")))


def shorten(script: SimpleNamespace, **values: object) -> None:
    script.main.__globals__.update(values)


def test_a_short_run_writes_every_table_with_its_receipt(script: SimpleNamespace, tmp_path: Path) -> None:
    """Data seed 0 is found at the rates that test_feature_selection has; its cell is one of six here."""
    small = SimpleNamespace(
        build=lambda classes: SceneClassifier(
            LogMel(16_000, 1024, 64, hop_length=1024), Tandem(len(classes), bands=64, width=1), classes
        ),
        select=FeatureSelection(keep=32),
        prune=replace(schmidt2022.prune, parameters=8000, macs=400_000),
    )
    seeds = {"DATA_SEEDS": range(1), "WEIGHT_SEEDS": range(1)}
    shorten(script, HERE=tmp_path, RHOS=(0.1,), MASK_RATES=(30.0,), schmidt2022=small, **seeds)
    script.main()
    text = (tmp_path / "pruning.md").read_text()
    assert "| 30 | 1/1 (1.8) |" in text
    assert "`python results/pruning.py`; commit " in text
    for way in ("over their layer's mean | 0 |", "over their layer's mean | 0.25 |", "raw | 0 |", "raw | 0.25 |"):
        assert f"| {way}" in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    published = (RESULTS / "pruning.md").read_text()
    assert headings == [line for line in published.splitlines() if line.startswith("#")]
    assert "+changes" not in published


@pytest.mark.parametrize("pull", [1e-3, 1e-1, 1.0])
@pytest.mark.parametrize("dual_rate", [0.03, 0.3, 1.0])
def test_the_spectral_radius_says_whether_admm_diverges(script: SimpleNamespace, pull: float, dual_rate: float) -> None:
    """Of torch's own SGD and the stage's own updates, with a consensus of zero."""
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    admm = ADMM(("weight",), lambda values: {name: 0 * value for name, value in values.items()}, 1.0, dual_rate)
    admm.attach(network)
    network.get_buffer("weight_consensus").zero_()
    optimizer, diverged = torch.optim.SGD(network.parameters(), pull, momentum=script.MOMENTUM), False
    try:
        for _ in range(2000):
            optimizer.zero_grad()
            admm.penalty(network).backward()
            optimizer.step()
            admm.update(network, 0.5)
    except InputError:
        diverged = True
    assert diverged == (script.radius(pull, dual_rate) > 1)
    assert diverged or abs(float(network.weight.detach())) < 0.1
