"""Exported files against torch, against ONNX's own reference implementation, and against planted faults."""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from scene_files import BANDS, CASES, CLASSES, CLIP_S, FLOAT, INT8, PRECISIONS, at
from torch import nn
from torch.nn import functional

import tinyscene as ts
from soak import SOAK
from tinyscene import audio
from tinyscene.accounting import count
from tinyscene.data import Clip, Clips
from tinyscene.deployment import Artifact, Certificate, export, kernels, layers_by_kernel, onnx_format
from tinyscene.deployment.artifact import describe
from tinyscene.deployment.forms import form_of
from tinyscene.deployment.onnx_format import onnx_model
from tinyscene.deployment.parity import FLOAT_BOUND, INT8_BOUND, Parity, _decisions
from tinyscene.deployment.runtime import unsigned
from tinyscene.errors import InputError
from tinyscene.features.products import SpectrogramByProducts
from tinyscene.models import masks
from tinyscene.models.provenance import Provenance
from tinyscene.rules import get_rules
from tinyscene.systems.count import count_model

Exported = Callable[[str, str], Artifact]
FEATURES = (1, 40, 25)
DTYPES = {"float32": {np.float32}, "float16": {np.float16}, "int8": {np.int8, np.int32, np.float32}}


def features(batch: int, frames: int = FEATURES[2], seed: int = 0, bands: int = FEATURES[1]) -> torch.Tensor:
    return torch.randn(batch, 1, bands, frames, generator=torch.Generator().manual_seed(seed))


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_the_file_holds_the_tensors_as_they_are_stored(exported: Exported, name: str, precision: str) -> None:
    path = exported(name, precision).path
    held, found = at(name, precision).network.state_dict(), initializers(path)
    named = {key: array for key, array in found.items() if key in held}
    for key, array in named.items():
        np.testing.assert_array_equal(array, held[key].numpy())
    wanted = {k for k in held if not k.endswith("num_batches_tracked")}
    assert named.keys() == wanted
    assert {array.dtype.type for array in named.values()} == DTYPES[precision]
    assert all(array.dtype == np.int64 for key, array in found.items() if key not in named)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_any_batch_and_any_length(exported: Exported, name: str, precision: str) -> None:
    file, classifier = exported(name, precision), at(name, precision)
    for batch, frames in ((1, 25), (2, 25), (5, 40), (3, 61)):
        # Of a waveform, as many times its shortest.
        given = features(batch, frames, bands=BANDS.get(name, 40))
        if name == "aemnet":
            given = torch.randn(batch, 1, 1, 256 * frames) / 10
        with torch.inference_mode():
            wanted = classifier.classify(given).numpy()
        found = file.logits(given)
        assert found.shape == (batch, len(CLASSES))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=file.parity.bound * file.parity.step * 1.001)
        assert not np.allclose(wanted[0], 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_reference_implementation_says_the_same(exported: Exported, precision: str) -> None:
    """Neither torch nor ONNX Runtime computes this side."""
    file = exported("cp_mobile", precision)
    given = features(2, 12)
    (found,) = ReferenceEvaluator(str(file.path)).run(None, {"features": given.numpy()})
    with torch.inference_mode():
        wanted = at("cp_mobile", precision).classify(given).numpy()
    tolerance = 1.001 * file.parity.step if precision == "int8" else 1e-5 * float(np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def test_a_file_its_certificate_and_no_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert export(at("baseline2021", "int8"), tmp_path / "scene.onnx").path == tmp_path / "scene.onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.onnx", "scene.onnx.json"]
    assert capfd.readouterr() == ("", "")


def test_small_networks_are_exact(exported: Exported) -> None:
    for name in ("baseline2020", "baseline2021", "cp_mobile"):
        found = exported(name, "int8").parity
        assert found.unit == "output steps"
        assert found.largest <= 1.001
        assert found.agreement == 1
    for name in FLOAT:
        assert exported(name, "float32").parity.largest <= 1e-5


def layers_of(name: str) -> int:
    kinds = torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Linear
    return sum(isinstance(module, kinds) for module in at(name, "float32").network.modules())


@pytest.mark.parametrize("name", INT8)
def test_int8_runs_on_integers(exported: Exported, name: str) -> None:
    assert layers_by_kernel(exported(name, "int8").path) == (layers_of(name), 0)
    kernel = "QGemm" if name == "moments_linear" else "QLinearConv"
    assert kernels(exported(name, "int8").path)[kernel] >= 2


@pytest.mark.parametrize("name", FLOAT)
def test_float_runs_on_floats(exported: Exported, name: str) -> None:
    integers, floats = layers_by_kernel(exported(name, "float32").path)
    # ONNX Runtime may make a convolution of a batch norm that folds into none.
    modules = at(name, "float32").network.modules() if name == "pham_cnn" else ()
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in modules)
    assert integers == 0
    assert layers_of(name) <= floats <= layers_of(name) + norms


@pytest.mark.parametrize("vnni", [False, True])
def test_what_runs_unsigned_computes_what_the_file_says(
    exported: Exported, vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ONNX's own reference implementation; kernels without VNNI get unsigned weights as well."""
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    path = exported("baseline2021", "int8").path
    moved = onnx.load_model_from_string(unsigned(path))
    weights = {tensor.name: tensor.data_type for tensor in moved.graph.initializer if tensor.name.endswith(".weight")}
    assert set(weights.values()) == {onnx.TensorProto.INT8 if vnni else onnx.TensorProto.UINT8}
    given = {"features": features(3).numpy()}
    theirs, ours = (ReferenceEvaluator(model).run(None, given)[0] for model in (onnx.load(path), moved))
    np.testing.assert_array_equal(ours, theirs)


def test_metadata_comes_back(exported: Exported) -> None:
    written = exported("baseline2021", "int8")
    loaded, classifier = Artifact.load(written.path), at("baseline2021", "int8")
    assert loaded == written
    assert loaded.classes == CLASSES
    assert loaded.frontend.arguments == classifier.frontend.arguments
    assert torch.equal(loaded.classifier.standardize.mean, classifier.standardize.mean)
    assert torch.equal(loaded.classifier.standardize.std, classifier.standardize.std)
    assert loaded.classifier.shortest_samples == classifier.shortest_samples
    props = {entry.key: entry.value for entry in onnx.load(written.path).metadata_props}
    assert json.loads(props["tinyscene"])["classes"] == list(CLASSES)


def test_a_file_predicts_what_the_classifier_predicts(exported: Exported, sound: Callable[..., Path], tmp_path: Path):
    recording = sound(tmp_path / "street.wav", seconds=1.3, rate=11_025)
    ours = at("cp_mobile", "float32").predict(recording)
    theirs = Artifact.load(exported("cp_mobile", "float32").path).predict(recording)
    assert theirs.label == ours.label
    assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-6)


def test_recordings_to_compare_on(exported: Exported, sound: Callable[..., Path], tmp_path: Path) -> None:
    rows = tuple(Clip(f"{i}.wav", "bus", "test") for i in range(70))
    for i, clip in enumerate(rows):
        sound(tmp_path / clip.path, seconds=0.6 if i % 2 else 0.9)
    clips = Clips("own", tmp_path, CLASSES, rows)
    classifier = at("baseline2021", "float32")
    found = export(classifier, tmp_path / "a.onnx", clips=clips).parity
    assert found.clips == 64 + 18 + 1 + 3 + 7 * 3 + 18
    assert found.by_kind.keys() == {"silence", "impulse", "full scale", "sweep", "noise", "held-out clips"}
    assert max(found.by_kind.values()) == found.largest
    assert found.accuracy == found.file_accuracy
    assert exported("baseline2021", "float32").parity.accuracy is None
    with pytest.raises(InputError, match="ends in .onnx, .tflite"):
        export(classifier, tmp_path / "c.wav")
    with pytest.raises(InputError, match="accepted: inside, outside"):
        export(classifier, tmp_path / "c.onnx", front_end="between")  # type: ignore[arg-type]
    # Those of 0.6 s have zeros behind them.
    assert export(classifier, tmp_path / "c.onnx", front_end="inside", clips=clips, clip_s=0.8).parity.clips == 64 + 18
    assert ts.export is export


def test_the_argument_stays_as_it_is(tmp_path: Path) -> None:
    classifier = at("baseline2021", "float16")
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    classifier.train()
    export(classifier, tmp_path / "a.onnx", clip_s=CLIP_S)
    assert classifier.training
    classifier.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_file_costs_what_the_classifier_costs(exported: Exported, name: str, precision: str) -> None:
    """Bytes are those of the initializers that the file holds."""
    classifier, file = at(name, precision), exported(name, precision)
    ledger = Certificate.load(file.path).ledger
    assert ledger == count(classifier.network, classifier.example(CLIP_S))
    held = classifier.network.state_dict()
    stored = {key: array for key, array in initializers(file.path).items() if key in held}
    assert {row.name: row.bytes for row in ledger.tensors} == {key: array.nbytes for key, array in stored.items()}


def test_masks_are_counted(tmp_path: Path) -> None:
    classifier = copy.deepcopy(at("baseline2021", "float32"))
    kept = torch.rand(classifier.network.L2.weight.shape, generator=torch.Generator().manual_seed(0)) > 0.4
    masks.attach(classifier.network, "L2.weight", kept)
    file = export(classifier, tmp_path / "masked.onnx", clip_s=CLIP_S)
    row = next(row for row in file.certificate.ledger.tensors if row.name == "L2.weight")
    assert (row.values, row.kept) == (kept.numel(), int(kept.sum()))
    assert row.nonzero == np.count_nonzero(initializers(file.path)["L2.weight"])


# Planted faults


@cache
def translated(precision: str) -> onnx.ModelProto:
    """What `export` would write, for faults to be planted into copies."""
    classifier = at("baseline2021", precision)
    form = form_of(classifier, "outside", round(CLIP_S * classifier.sample_rate), any_length=True)
    model = onnx_model(form)
    onnx.helper.set_model_props(model, describe(classifier, form))
    return model


def _weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "L2.weight")
    array = numpy_helper.to_array(tensor).copy()
    array.flat[7] += 1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _operator(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Abs"


def _padding(model: onnx.ModelProto) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    pads = next(attribute for attribute in conv.attribute if attribute.name == "pads")
    pads.ints[:] = [2, 3, 4, 3]


def _frames(model: onnx.ModelProto) -> None:
    """The number of frames of the example, written into the kernel: right for clips of that length alone."""
    reduce = next(node for node in model.graph.node if node.op_type == "ReduceMax")
    before = reduce.input[0]
    model.graph.node.insert(
        list(model.graph.node).index(reduce),
        onnx.helper.make_node("Slice", [before, "_start", "_end", "_axis"], ["_cut"]),
    )
    reduce.input[0] = "_cut"
    for name, value in (("_start", 0), ("_end", 5), ("_axis", 3)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_weight, r"L2\.weight in the file"),
        (_operator, "differs by"),
        (_padding, "differs by"),
        (_frames, "differs by"),
    ],
)
def test_a_file_that_computes_something_else_gets_no_name(
    fault: Callable[[onnx.ModelProto], None],
    said: str,
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> onnx.ModelProto:
        model = copy.deepcopy(translated(precision))
        fault(model)
        return model

    classifier = at("baseline2021", precision)
    path = tmp_path / "scene.onnx"
    path.write_bytes(b"an earlier file")
    monkeypatch.setattr(onnx_format, "onnx_model", broken)
    # Of a length that is known, the file with `_frames` would be right.
    with pytest.raises(InputError, match=said):
        export(classifier, path)
    assert [file.name for file in tmp_path.iterdir()] == ["scene.onnx"]
    assert path.read_bytes() == b"an earlier file"


def test_what_onnx_runtime_cannot_run_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> onnx.ModelProto:
        model = copy.deepcopy(translated("float32"))
        model.graph.node[0].op_type = "Nonsense"
        return model

    monkeypatch.setattr(onnx_format, "onnx_model", broken)
    with pytest.raises(InputError, match="can't run"):
        export(at("baseline2021", "float32"), tmp_path / "scene.onnx", clip_s=CLIP_S)
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_fault_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the fault that is refused, and not that the graph comes from `translated`."""
    monkeypatch.setattr(onnx_format, "onnx_model", lambda *_: copy.deepcopy(translated("int8")))
    assert export(at("baseline2021", "int8"), tmp_path / "scene.onnx", clip_s=CLIP_S).path.is_file()


def test_a_place_that_can_not_be_written_is_named_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_format, "onnx_model", lambda *_: copy.deepcopy(translated("float32")))
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    for name, what in (
        ("folder.onnx", "Is a directory"),
        ("file/scene.onnx", "exists"),
        ("file/a/b.onnx", "Not a dir"),
    ):
        with pytest.raises(InputError, match=f"^{tmp_path / name}: can't be written .*{what}.*accepted") as caught:
            export(at("baseline2021", "float32"), tmp_path / name, clip_s=CLIP_S)
        assert "partial" not in str(caught.value)
    with pytest.raises(InputError, match=r"^/proc/scene\.onnx: can't be written"):
        export(at("baseline2021", "float32"), "/proc/scene.onnx", clip_s=CLIP_S)


def test_a_tie_within_the_bound_is_the_same_decision() -> None:
    ours = np.array([[3.0, 2.0, 0.0], [3.0, 2.5, 0.0], [0.0, 1.0, 5.0]], np.float32)
    theirs = np.array([[3.0, 3.5, 0.0], [2.9, 3.0, 0.0], [0.0, 1.0, 5.0]], np.float32)
    assert _decisions(ours, theirs, 0.601) == (pytest.approx(2 / 3), 1)
    assert _decisions(ours, theirs, 1.001) == (1.0, 2)
    assert _decisions(ours, ours, 0.0) == (1.0, 0)


def test_what_a_file_is_refused_for() -> None:
    clean = Parity(8, "output steps", 0.1, 4.000001, 3.0, 0.1, 1.0, 0, 3, 0, bound=INT8_BOUND)
    wide = {"unit": "of the largest logit", "bound": FLOAT_BOUND}
    assert clean.faults == ()

    def faults(**changed: object) -> str:
        return " ".join(replace(clean, **changed).faults)  # type: ignore[arg-type]

    assert "differs by up to 5 output steps (at most 4 is accepted)" in faults(largest=5.0)
    assert "up to 0.0011 of the largest logit" in faults(largest=1.1e-3, **wide)
    assert not faults(largest=0.99e-3, **wide)
    assert "differs by up to nan" in faults(largest=float("nan"))
    assert "50.0% of 8 decisions differ" in faults(agreement=0.5)
    assert "no layer runs on integers" in faults(integer_layers=0)
    assert not faults(integer_layers=None, float_layers=None)


def test_no_file_holds_masks() -> None:
    """ExecuTorch would store what nothing reads."""
    pruned = copy.deepcopy(at("baseline2021", "float32"))
    weight = next(name for name, _ in pruned.network.named_parameters() if name.endswith("weight"))
    kept = torch.rand_like(pruned.network.get_parameter(weight)) > 0.5
    masks.attach(pruned.network, weight, kept)
    held = form_of(pruned, "outside", 8000).module.network.state_dict()
    assert held.keys() == at("baseline2021", "float32").network.state_dict().keys()
    torch.testing.assert_close(held[weight], pruned.network.get_parameter(weight).detach())
    assert masks.masks_of(pruned.network).keys() == {weight}


def test_a_fault_of_the_products_is_no_excuse_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sound is heard three samples late, by the file and by the torch module that it is written from."""
    forward = SpectrogramByProducts.forward
    monkeypatch.setattr(SpectrogramByProducts, "forward", lambda self, given: forward(self, given.roll(3, -1)))
    with pytest.raises(InputError, match="does not compute the same as the classifier"):
        export(at("baseline2021", "int8"), tmp_path / "scene.onnx", front_end="inside", clip_s=CLIP_S)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Artifact.load(tmp_path / "missing.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(InputError, match="not an ONNX file"):
        Artifact.load(tmp_path / "noise.onnx")
    bare = copy.deepcopy(translated("float32"))
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(InputError, match="not a file of tinyscene"):
        Artifact.load(tmp_path / "bare.onnx")


def test_the_certificate_is_of_this_file_alone(exported: Exported, tmp_path: Path) -> None:
    written = exported("baseline2021", "int8")
    shutil.copy(written.path, tmp_path / "scene.onnx")
    shutil.copy(written.certificate_path, tmp_path / "scene.onnx.json")
    file = Artifact.load(tmp_path / "scene.onnx")
    certificate = Certificate.load(file.path)
    assert certificate.file_sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert certificate.parity == written.parity
    assert certificate.precision == "int8"
    file.path.write_bytes(file.path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="not the certificate of this scene.onnx"):
        Certificate.load(file.path)
    file.certificate_path.write_text("{}")
    with pytest.raises(InputError, match="no certificate"):
        Certificate.load(file.path)
    file.certificate_path.unlink()
    with pytest.raises(InputError, match="is not beside it"):
        Certificate.load(file.path)


INSIDE = [("aemnet", "float32"), ("baseline2021", "float16"), ("cp_mobile", "int8"), ("moments_linear", "int8")]
INSIDE = list(product(("aemnet", "cp_mobile", "moments_linear"), PRECISIONS)) if SOAK else INSIDE


@pytest.mark.parametrize(("name", "precision"), INSIDE)
def test_the_front_end_inside(name: str, precision: str, tmp_path: Path, sound: Callable[..., Path]) -> None:
    classifier = at(name, precision)
    file = export(classifier, tmp_path / "scene.onnx", front_end="inside", clip_s=CLIP_S)
    loaded = Artifact.load(file.path)
    assert loaded.clip_samples == round(CLIP_S * classifier.sample_rate)
    exactly = sound(tmp_path / "exactly.wav", seconds=CLIP_S, rate=classifier.sample_rate)
    ours, theirs = classifier.predict(exactly), loaded.predict(exactly)
    allowed = file.parity.bound * file.parity.step * 1.001
    assert theirs.probabilities == pytest.approx(ours.probabilities, abs=allowed)
    longer = sound(tmp_path / "longer.wav", seconds=1.5 * CLIP_S, rate=classifier.sample_rate)
    waveform = audio.read(longer, classifier.sample_rate, classifier.channel)
    parts = [waveform[: loaded.clip_samples], waveform[-loaded.clip_samples :]]
    mean = np.mean([list(classifier.predict(p, classifier.sample_rate).probabilities.values()) for p in parts], 0)
    np.testing.assert_allclose(list(loaded.predict(longer).probabilities.values()), mean, atol=allowed)
    short = sound(tmp_path / "short.wav", seconds=CLIP_S / 2, rate=classifier.sample_rate)
    with pytest.raises(InputError, match=r"0\.30 s; accepted: at least 0\.60 s"):
        loaded.predict(short)
    with pytest.raises(InputError, match="its front end is inside"):
        _ = loaded.classifier
    ledger, trained = loaded.certificate.ledger, count(classifier.network, classifier.example(CLIP_S))
    inside = {row.name: row.bytes for row in ledger.tensors if row.role == "frontend"}
    assert replace(ledger, tensors=tuple(row for row in ledger.tensors if row.role != "frontend")) == trained
    if name != "aemnet":
        assert set(inside.values()) <= {array.nbytes for array in initializers(file.path).values()}


def test_a_file_of_another_length_is_not_judged(inside: Artifact, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"counted for clips of 0\.6 s, but dcase2021 counts clips of 10 s"):
        count_model(str(inside.path), get_rules("dcase2021"))
    assert count_model(str(inside.path)).ledger == inside.certificate.ledger
    for clip_s in (1e-9, float("inf")):
        with pytest.raises(InputError, match="accepted: "):
            export(at("cp_mobile", "float32"), tmp_path / "scene.onnx", front_end="inside", clip_s=clip_s)


# Networks for clips of one length


class Thirds(nn.Module):
    """A pooling to three places in time, which no dynamic file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(12, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(functional.adaptive_avg_pool2d(self.conv(x).relu(), (1, 3)).flatten(1))


class Flat(nn.Module):
    """A dense layer that reads all of 25 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(40 * 25, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("kind", [Thirds, Flat])
def test_what_takes_no_other_length_is_written_for_the_trained_one(kind: type[nn.Module], tmp_path: Path) -> None:
    of = at("baseline2021", "float32")
    torch.manual_seed(0)
    classifier = ts.SceneClassifier(of.frontend, kind(), CLASSES, of.standardize).eval()
    classifier.provenance = Provenance(clip_s=CLIP_S)
    file = export(classifier, tmp_path / "scene.onnx")
    samples = round(CLIP_S * 8000)
    assert file.clip_samples == samples
    assert file.certificate.way == "only clips of 0.6 s"
    assert file.certificate.refused.keys() == {"any length"}
    given = features(3)
    with torch.inference_mode():
        expected = classifier.classify(given).numpy()
    np.testing.assert_allclose(file.logits(given), expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="accepted: 4800, for which the file was made"):
        file.probabilities(np.zeros((1, samples + 1), np.float32))
    with pytest.raises(InputError, match="can't run the file on"):
        file.logits(features(1, frames=26))
    # A longer recording is heard as clips side by side.
    waves = 0.1 * np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    np.testing.assert_allclose(file.classify_recording(waves.reshape(-1)), file.probabilities(waves).mean(0), rtol=1e-5)
    other = export(classifier, tmp_path / "longer.onnx", clip_s=1.2) if kind is Thirds else file
    assert other.clip_samples == (9600 if kind is Thirds else samples)


def test_without_a_known_length_the_reason_stands_alone(tmp_path: Path) -> None:
    of = at("baseline2021", "float32")
    classifier = ts.SceneClassifier(of.frontend, Flat(), CLASSES, of.standardize).eval()
    with pytest.raises(InputError, match=r"not written: any length: .*accepted"):
        export(classifier, tmp_path / "scene.onnx")
    assert not [*tmp_path.iterdir()]
