"""LiteRT files on LiteRT's own interpreter; skipped where it is not installed."""

import json
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scene_files import CLIP_S, SMALL, at
from torch import nn

from soak import SOAK
from tinyscene.accounting import CONVENTIONS, count
from tinyscene.deployment import Artifact, export, litert
from tinyscene.deployment.litert import AS_TORCH, CHANNELS_LAST, LiteRT
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare

installed = find_spec("litert_torch") is not None
needs_litert = pytest.mark.skipif(not installed, reason="litert-torch is not installed: pip install -e .[litert]")

# A conversion takes seconds: what differs between networks is shown by these, all of them under soak.
CASES = [
    ("cp_mobile", "int8", "outside"),
    ("moments_linear", "int8", "outside"),
    ("se_resnet", "int8", "inside"),
    ("baseline2021", "float32", "inside"),
    ("pham_cnn", "float16", "outside"),
]
if SOAK:
    CASES = [(n, p, form) for n in SMALL for p in ("float32", "int8") for form in ("outside", "inside")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Artifact]:
    folder = tmp_path_factory.mktemp("litert")

    @cache
    def write(name: str, precision: str, front_end: str) -> Artifact:
        path = folder / f"{name}-{precision}-{front_end}.tflite"
        return export(at(name, precision), path, front_end=front_end, clip_s=CLIP_S)  # type: ignore[arg-type]

    return write


@needs_litert
@pytest.mark.parametrize(("name", "precision", "front_end"), CASES)
def test_a_file_says_what_the_classifier_says(
    written: Callable[..., Artifact], name: str, precision: str, front_end: str, sound: Callable[..., Path]
) -> None:
    file, classifier = Artifact.load(written(name, precision, front_end).path), at(name, precision)
    assert file.parity.faults == ()
    assert file.parity.agreement == 1
    assert file.clip_samples == round(CLIP_S * classifier.sample_rate)
    recording = sound(file.path.with_suffix(".wav"), seconds=CLIP_S, rate=classifier.sample_rate)
    allowed = file.parity.bound * file.parity.step * 1.001
    assert file.predict(recording).probabilities == pytest.approx(
        classifier.predict(recording).probabilities, abs=allowed
    )
    with pytest.raises(InputError, match="for which the file was made"):
        file.probabilities(np.zeros((1, 100), np.float32))


@needs_litert
@pytest.mark.parametrize(("name", "precision", "front_end"), CASES)
def test_it_costs_what_the_classifier_costs(
    written: Callable[..., Artifact], name: str, precision: str, front_end: str
) -> None:
    file, classifier = written(name, precision, front_end), at(name, precision)
    ledger, ours = file.certificate.ledger, count(classifier.network, classifier.example(CLIP_S))
    assert ledger.macs == ours.macs
    wide = {"float32": 4, "float16": 4, "int8": 1}[precision]
    assert {row.itemsize for row in ledger.tensors if row.role == "weight"} == {wide}
    assert any(row.role == "frontend" for row in ledger.tensors) == (front_end == "inside")
    assert CONVENTIONS["bn4"](ledger.tensors).bytes < file.bytes_on_disk


@needs_litert
def test_int8_comes_in_and_goes_out(written: Callable[..., Artifact]) -> None:
    file = written("cp_mobile", "int8", "outside")
    opened = litert._interpreter(file.path, threads=1)
    assert opened.get_input_details()[0]["dtype"] == np.int8
    assert opened.get_output_details()[0]["dtype"] == np.int8
    modules = at("cp_mobile", "float32").network.modules()
    assert file.parity.integer_layers == sum(isinstance(module, nn.Conv2d | nn.Linear) for module in modules)
    assert file.parity.float_layers == 0


class Statistics(nn.Module):
    """A convolution, and the deviation over bands and frames of as many channels as there are bands."""

    shortest_frames = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.dense = nn.Linear(16, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mapped = self.conv(features).relu()
        mean = mapped.mean((2, 3))
        deviation = ((mapped - mean[..., None, None]).square().mean((2, 3)) + 1e-5).sqrt()
        return self.dense(torch.cat([mean, deviation], 1))


def quantized(network: nn.Module, keep_float: tuple[str, ...] = ()) -> SceneClassifier:
    """A classifier at int8, its ranges from noise."""
    from tinyscene.features import LogMel

    frontend = LogMel(8000, 256, 8, hop_length=200)
    classifier = SceneClassifier(frontend, network, ("a", "b", "c"))
    noise = 0.1 * torch.randn(8, 4800, generator=torch.Generator().manual_seed(0))
    classifier.standardize.fit([frontend(noise)])
    features = classifier.features(noise)
    prepared = prepare(network.eval(), features[:1], keep_float)
    prepared.set_ranges([features])
    return SceneClassifier(frontend, prepared.convert(), classifier.classes, classifier.standardize).eval()


# A mean over time before it is rounded, and the deviation.
BRANCHES = {
    "joined": lambda mean, deviation: torch.cat([mean, deviation], 1),
    "pooled": lambda mean, _: nn.functional.max_pool2d(mean, (2, 1)),
    "split": lambda mean, _: mean.chunk(2, 1)[0],
    "turned": lambda mean, _: mean.transpose(1, 2),
}


class Branches(nn.Module):
    """What is made of the means over time, and the deviation from them, in float."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by

    def forward(self, mapped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = mapped.mean(3, keepdim=True)
        deviation = ((mapped - mean).square().mean(3, keepdim=True) + 1e-5).sqrt()
        return BRANCHES[self.by](mean, deviation).flatten(1), deviation.flatten(1)


class Branched(nn.Module):
    shortest_frames = 3

    def __init__(self, by: str) -> None:
        super().__init__()
        self.conv, self.pooling = nn.Conv2d(1, 8, 3, padding=1), Branches(by)
        first, second = self.pooling(torch.zeros(1, 8, 8, 3))
        self.first, self.second = nn.Linear(first.shape[1], 3), nn.Linear(second.shape[1], 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        first, second = self.pooling(self.conv(features).relu())
        return self.first(first) + self.second(second)


@needs_litert
@pytest.mark.parametrize("by", BRANCHES)
def test_a_tensor_read_in_float_and_rounded_is_rounded_for_one_reader(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteRT's converter passes a rounding on to the tensor before: these were 82 to 115 steps off."""
    # A network of no menu can't be described.
    monkeypatch.setattr(sys.modules["tinyscene.deployment.export"], "describe", lambda *_: {"tinyscene": "{}"})
    classifier = quantized(Branched(by), keep_float=("pooling",))
    found = export(classifier, tmp_path / "scene.tflite", clip_s=CLIP_S).parity
    assert found.largest <= 1.001
    assert found.integer_layers == 3


@needs_litert
def test_a_planted_fault_of_the_layout_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteRT's rearrangement has confused channels with bands where there are as many: no shape shows it."""
    original = litert.module_of

    class Turned(nn.Module):
        def __init__(self, *form: Any, stored: bool) -> None:
            super().__init__()
            self.right = original(*form, stored=stored)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.right(features.transpose(2, 3).reshape(features.shape))

    # A network of no menu can't be described.
    module = sys.modules["tinyscene.deployment.export"]
    monkeypatch.setattr(module, "describe", lambda *_: {"tinyscene": "{}"})
    monkeypatch.setattr(litert, "module_of", Turned)
    with pytest.raises(InputError, match=r"channels last: .*differs by .*in torch.s layout: .*differs by"):
        export(quantized(Statistics()), tmp_path / "scene.tflite", clip_s=CLIP_S)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(litert, "module_of", original)
    assert export(quantized(Statistics()), tmp_path / "scene.tflite", clip_s=CLIP_S).parity.agreement == 1


@needs_litert
def test_the_second_way_is_tried_where_the_first_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = LiteRT.write

    def wrong_at_first(self: LiteRT, form: object, path: Path, metadata: object, way: str) -> None:
        if way == CHANNELS_LAST:
            raise InputError("planted")
        write(self, form, path, metadata, way)  # type: ignore[arg-type]

    monkeypatch.setattr(LiteRT, "write", wrong_at_first)
    file = export(at("moments_linear", "float32"), tmp_path / "scene.tflite", clip_s=CLIP_S)
    assert file.certificate.way == AS_TORCH
    assert file.certificate.refused == {CHANNELS_LAST: "planted"}


@needs_litert
def test_files_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Artifact.load(tmp_path / "missing.tflite")
    (tmp_path / "noise.tflite").write_bytes(b"\xff" * 50)
    with pytest.raises(InputError, match="not a LiteRT file"):
        Artifact.load(tmp_path / "noise.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"\0\0\1\0TFL3" + b"\xff" * 50)
    with pytest.raises(InputError, match="not a LiteRT file"):
        Artifact.load(tmp_path / "broken.tflite")


def test_without_litert_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("litert_torch", "ai_edge_litert", "ai_edge_litert.schema_py_generated"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r'pip install "tinyscene\[litert\]"'):
        export(at("baseline2021", "float32"), tmp_path / "scene.tflite", clip_s=CLIP_S)
    (tmp_path / "a.tflite").write_bytes(b"\0" * 50)
    with pytest.raises(InputError, match=r'pip install "tinyscene\[litert\]"'):
        Artifact.load(tmp_path / "a.tflite")
    assert not list(tmp_path.glob("scene*"))


@needs_litert
def test_metadata_comes_back(written: Callable[..., Artifact]) -> None:
    file, classifier = written("moments_linear", "int8", "outside"), at("moments_linear", "int8")
    assert LiteRT().metadata(file.path) == file.described
    assert json.loads(file.described["tinyscene"])["frontend"] == {
        "name": "logmel",
        "arguments": json.loads(json.dumps(classifier.frontend.arguments)),
    }
    assert torch.equal(file.classifier.standardize.mean, classifier.standardize.mean)
