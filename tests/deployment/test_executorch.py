"""`.pte` files against torch."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_files import CLASSES, CLIP_S, PRECISIONS, SMALL, at

from soak import SOAK
from tinyscene.accounting import count
from tinyscene.deployment import Artifact, export, probes
from tinyscene.deployment.executorch import ExecuTorch
from tinyscene.deployment.forms import Form, form_of
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import create_model
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare

pytest.importorskip("executorch", reason="the extra executorch is not installed")

# A conversion takes 5 to 60 s.
EVERY = [(name, precision, form) for name in SMALL for precision in PRECISIONS for form in ("outside", "inside")]
FEW = [
    ("baseline2021", "int8", "outside"),
    ("baseline2021", "int8", "inside"),
    ("cp_mobile", "int8", "outside"),
    ("moments_linear", "float32", "outside"),
    ("pham_cnn", "float16", "inside"),
]
CASES = EVERY if SOAK else FEW
METADATA = {"tinyscene": '{"classes": ["bus", "Straße"]}', "parity": "{}"}
FORMAT = ExecuTorch()

Written = Callable[[str, str, str], tuple[Form, Path]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("pte")

    @cache
    def write(name: str, precision: str, front_end: str) -> tuple[Form, Path]:
        form = form_of(at(name, precision), front_end, round(CLIP_S * 8000))  # type: ignore[arg-type]
        path = folder / f"{name}-{precision}-{front_end}.pte"
        FORMAT.write(form, path, METADATA, "")
        return form, path

    return write


def inputs(name: str, front_end: str) -> torch.Tensor:
    """Noise at several levels, silence, an impulse, full scale."""
    (probe,) = probes.generated(round(CLIP_S * 8000))
    given = torch.from_numpy(probe.waveforms)
    if front_end == "inside":
        return given
    with torch.no_grad():
        return at(name, "float32").features(given)


def check(form: Form, path: Path, given: torch.Tensor) -> None:
    with torch.inference_mode():
        wanted = form.module(given).numpy()
    (found,) = FORMAT.runner(path)(given.numpy())
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    # Logits that hardly move could not tell.
    assert len(np.unique(wanted.round(4), axis=0)) > 3
    bound = 1e-5 * float(np.abs(wanted).max())
    if form.int8:
        step = form.module.network.output_step or float(np.ptp(wanted)) / 255
        bound = 2 * step  # type: ignore[operator]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=bound)


@pytest.mark.parametrize(("name", "precision", "front_end"), CASES)
def test_it_computes_what_torch_computes(written: Written, name: str, precision: str, front_end: str) -> None:
    check(*written(name, precision, front_end), inputs(name, front_end))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_maps_of_as_many_channels_as_bands(precision: str, tmp_path: Path) -> None:
    """An order of axes that is taken for another shows in no shape there."""
    frontend = LogMel(8000, 256, 32, hop_length=200)
    classifier = SceneClassifier(
        frontend, create_model("cp_mobile", classes=3, **SMALL["cp_mobile"], seed=0), CLASSES
    ).eval()
    torch.manual_seed(0)
    waveforms = torch.randn(16, 4800) * torch.logspace(-3, 0, 16)[:, None]
    classifier.standardize.fit([frontend(waveforms)])
    features = classifier.features(waveforms)
    shapes: set[tuple[int, ...]] = set()
    hook = torch.nn.modules.module.register_module_forward_hook(lambda m, i, o: shapes.add(tuple(o.shape[1:3])))
    classifier.classify(features)
    hook.remove()
    assert any(channels == bands > 1 for channels, bands in (shape for shape in shapes if len(shape) == 2))
    if precision == "int8":
        prepared = prepare(classifier.network, features[:1])
        prepared.set_ranges([features])
        classifier = SceneClassifier(frontend, prepared.convert(), CLASSES, classifier.standardize).eval()
    form = form_of(classifier, "outside", 4800)
    FORMAT.write(form, tmp_path / "scene.pte", {}, "")
    check(form, tmp_path / "scene.pte", features)


def test_metadata_comes_back(written: Written) -> None:
    _, path = written(*FEW[0])
    assert FORMAT.metadata(path) == METADATA
    assert FORMAT.version().count(".") >= 1


def test_threads_change_nothing_and_other_shapes_are_refused(written: Written) -> None:
    _, path = written(*FEW[0])
    given = inputs("baseline2021", "outside").numpy()
    with torch.inference_mode():  # opened there, and run elsewhere
        one = FORMAT.runner(path, 1)
    two = FORMAT.runner(path, 2)
    (first,) = one(given)
    np.testing.assert_array_equal(two(given)[0], first)
    np.testing.assert_array_equal(one(given)[0], first)
    # The same values under strides that axes of one band or clip leave free.
    np.testing.assert_array_equal(one(np.moveaxis(np.moveaxis(given, 1, 3).copy(), 3, 1))[0], first)
    with pytest.raises(InputError, match=r"accepted: \(any batch, 1, 40, 25\)"):
        one(given[..., :20])


def test_export_and_back(tmp_path: Path, sound: Callable[..., Path]) -> None:
    classifier = at("baseline2021", "int8")
    file = export(classifier, tmp_path / "scene.pte", front_end="inside", clip_s=CLIP_S)
    loaded = Artifact.load(file.path)
    assert loaded.parity.faults == ()
    recording = sound(tmp_path / "a.wav", seconds=CLIP_S, rate=8000)
    allowed = loaded.parity.bound * loaded.parity.step * 1.001
    assert loaded.predict(recording).probabilities == pytest.approx(
        classifier.predict(recording).probabilities, abs=allowed
    )
    ledger = loaded.certificate.ledger
    assert ledger.macs == count(classifier.network, classifier.example(CLIP_S)).macs
    assert sum(row.bytes for row in ledger.tensors if row.role == "frontend") > 10_000


def test_a_file_of_another_kind_is_refused(written: Written, tmp_path: Path) -> None:
    text, cut = tmp_path / "text.pte", tmp_path / "cut.pte"
    text.write_text("no program at all, and longer than a header")
    cut.write_bytes(written(*FEW[0])[1].read_bytes()[:2000])
    for path in (tmp_path / "missing.pte", text, cut):
        for call in (FORMAT.metadata, FORMAT.runner):
            with pytest.raises(InputError, match="accepted"):
                call(path)


def test_what_it_says_without_executorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("executorch.exir", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    form = form_of(at("baseline2021", "float32"), "outside", 4800)
    for call in (
        lambda: FORMAT.write(form, tmp_path / "scene.pte", {}, ""),
        lambda: FORMAT.runner(tmp_path / "scene.pte"),
    ):
        with pytest.raises(InputError, match=r'pip install "tinyscene\[executorch\]"'):
            call()
