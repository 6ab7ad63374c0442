"""`.cortex_m.pte` files against torch and the classifier's own ledger; their interpreter against ExecuTorch."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scene_files import CLASSES, CLIP_S, SMALL, at
from torch import nn

from soak import SOAK
from tinyscene.accounting import by_precision, count
from tinyscene.deployment import Artifact, cmsis_nn, export, probes
from tinyscene.deployment.cortex_m import CortexM
from tinyscene.deployment.executorch import ExecuTorch
from tinyscene.deployment.forms import Form, form_of
from tinyscene.deployment.menu import format_of
from tinyscene.deployment.parity import compare
from tinyscene.deployment.pte_reference import ReferenceRunner
from tinyscene.deployment.reference import Reference
from tinyscene.errors import InputError

pytest.importorskip("executorch", reason="the extra executorch is not installed")

FORMAT = CortexM()
# A lowering takes 5 to 70 s. The first has dense layers and maxima, the second averages, sums and depthwise layers.
NETWORKS = tuple(SMALL) if SOAK else ("baseline2021", "cp_mobile")
Written = Callable[[str], tuple[Form, Path]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("cortex_m")

    @cache
    def write(name: str) -> tuple[Form, Path]:
        form = form_of(at(name, "int8"), "outside", round(CLIP_S * 8000))
        path = folder / f"{name}.cortex_m.pte"
        FORMAT.write(form, path, {"tinyscene": "{}"}, "")
        return form, path

    return write


def compared(name: str, form: Form, path: Path) -> Any:
    given = probes.generated(round(CLIP_S * 8000), any_length=False)
    runners = list(FORMAT.runners(path).values())
    return compare(Reference(at(name, "int8"), form), runners, given, FORMAT.layers_by_kernel(path), True, 2.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_torch_computes(written: Written, name: str) -> None:
    """Without the scale of an average that the lowering drops, cp_mobile is 9 steps off."""
    found = compared(name, *written(name))
    assert found.faults == ()
    assert found.largest <= max(2.01, found.bound)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_ledger_is_the_classifiers(written: Written, name: str) -> None:
    form, path = written(name)
    found, wanted = FORMAT.ledger(path, tuple(form.example.shape)), count(at(name, "int8").network, form.example)
    assert found.macs["conv_only"] == wanted.macs["conv_only"]
    theirs, ours = (
        by_precision(row for row in ledger.tensors if row.role in ("weight", "bias")) for ledger in (found, wanted)
    )
    # An activation's table has 256 entries.
    tables = [row for row in found.tensors if row.layer_type.endswith("quantized_activation")]
    assert theirs["int8"] - sum(row.bytes for row in tables) == ours["int8"]
    assert 0.5 * ours["int32"] < theirs["int32"] <= ours["int32"] + 4 * max(form.example.shape)
    layers = len({row.layer for row in found.tensors if row.tensor == "weight"})
    assert FORMAT.layers_by_kernel(path) == (layers, 0)
    assert {row.tensor for row in found.tensors if row.role == "scale"} == {"multiplier", "shift"}
    assert found.peak_ram_bytes < path.stat().st_size + 100_000


def test_a_layer_in_float_runs_all_the_same(written: Written) -> None:
    """A map goes into the order of CMSIS-NN and back: moments are in float, beside integer layers."""
    found = compared("moments_linear", *written("moments_linear"))
    assert found.faults == ()


def test_maps_in_another_order_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device refuses them, or takes them for others; torch's own references know no difference."""
    monkeypatch.setattr(cmsis_nn, "_channels_last_for_layers", lambda module: None)
    form, path = form_of(at("pham_cnn", "int8"), "outside", round(CLIP_S * 8000)), tmp_path / "scene.cortex_m.pte"
    FORMAT.write(form, path, {}, "")
    with pytest.raises(InputError, match="whose axes are ordered as in"):
        FORMAT.runners(path)


def test_the_interpreter_computes_what_executorch_computes(tmp_path: Path) -> None:
    """On a program of portable kernels, which both can run."""
    from executorch import exir

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, groups=4))
            self.dense = nn.Linear(4, 3)

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            maps = self.layers(given)
            moments = torch.var_mean(maps, (2, 3), correction=0)
            made: torch.Tensor = self.dense(torch.cat(moments, 1).view(2, 4).sum(0, keepdim=True)).softmax(-1)
            return made

    torch.manual_seed(0)
    path = tmp_path / "scene.pte"
    exported = torch.export.export(Network().eval(), (torch.zeros(1, 1, 12, 10),))
    config = exir.EdgeCompileConfig(_check_ir_validity=False)
    path.write_bytes(exir.to_edge(exported, compile_config=config).to_executorch().buffer)
    given = np.random.default_rng(0).normal(size=(5, 1, 12, 10)).astype(np.float32)
    (found,), (wanted,) = ReferenceRunner(path)(given), ExecuTorch().runners(path)["xnnpack"](given)
    assert len(np.unique(wanted.round(4), axis=0)) == 5
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_export_and_back(tmp_path: Path, sound: Callable[..., Path]) -> None:
    classifier = at("baseline2021", "int8")
    file = export(classifier, tmp_path / "scene.cortex_m.pte", front_end="inside", clip_s=CLIP_S)
    loaded = Artifact.load(file.path)
    assert loaded.certificate.runtime.startswith("ExecuTorch's reference of CMSIS-NN")
    assert loaded.parity.integer_layers == 5
    recording = sound(tmp_path / "a.wav", seconds=CLIP_S, rate=8000)
    allowed = loaded.parity.bound * loaded.parity.step * 1.001
    assert loaded.predict(recording).probabilities == pytest.approx(
        classifier.predict(recording).probabilities, abs=allowed
    )
    assert sum(row.bytes for row in loaded.ledger(CLIP_S).tensors if row.role == "frontend") > 10_000


def test_what_is_refused(written: Written, tmp_path: Path) -> None:
    _, path = written("baseline2021")
    (runner,) = FORMAT.runners(path).values()
    assert runner(np.zeros((0, 1, 40, 25), np.float32))[0].shape == (0, len(CLASSES))
    with pytest.raises(InputError, match=r"runs on \(any batch, 1, 40, 25\)"):
        runner(np.zeros((1, 1, 40, 20), np.float32))
    with pytest.raises(InputError, match="is in float; accepted: an int8 model"):
        FORMAT.write(form_of(at("baseline2021", "float32"), "outside", 4800), tmp_path / "a.cortex_m.pte", {}, "")
    xnnpack = tmp_path / "scene.pte"
    ExecuTorch().write(form_of(at("baseline2021", "int8"), "outside", 4800), xnnpack, {}, "")
    with pytest.raises(InputError, match="not a plain list of instructions"):
        FORMAT.runners(xnnpack)
    with pytest.raises(InputError, match="ExecuTorch can't load it"):
        ExecuTorch().runners(path)


def test_the_longest_suffix_names_the_format() -> None:
    assert isinstance(format_of(Path("scene.cortex_m.pte")), CortexM)
    assert type(format_of(Path("scene.pte"))) is ExecuTorch
