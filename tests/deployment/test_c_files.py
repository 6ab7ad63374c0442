"""C files: compiled, with and without sanitizers, against the classifier; their parts against brute force and torch."""

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_files import CLASSES, CLIP_S, SMALL, at
from torch import nn

from soak import SOAK
from tinyscene.deployment import Artifact, c_format, c_network, export
from tinyscene.deployment.c_format import SHIPPED, C, _Program
from tinyscene.deployment.c_network import ALIGNED, Buffer, arranged
from tinyscene.deployment.c_source import literal, number, table
from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, FrontEnd, Gammatone, LogMel, Standardize, register_frontend
from tinyscene.models import Network
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")

# The generator and two compilations take seconds a file. Convolutions with and without padding, depthwise, pointwise,
# strided and on waveforms; a float network; 16 bits; statistics over time; under soak everything.
CASES = [
    ("cp_mobile", "int8", "outside"),
    ("moments_linear", "int8", "outside"),
    ("aemnet", "int8", "inside"),
    ("baseline2021", "float32", "inside"),
    ("pham_cnn", "float16", "outside"),
]
if SOAK:
    CASES = [*itertools.product(SMALL, ("float32", "float16", "int8"), ("outside", "inside"))]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Artifact]:
    folder = tmp_path_factory.mktemp("c")

    @cache
    def write(name: str, precision: str, front_end: str) -> Artifact:
        path = folder / f"{name}_{precision}_{front_end}.c"
        return export(at(name, precision), path, front_end=front_end, clip_s=CLIP_S)  # type: ignore[arg-type]

    return write


@pytest.mark.parametrize(("name", "precision", "front_end"), CASES)
def test_a_file_computes_what_the_classifier_does_to_the_bit_on_integers(
    written: Callable[..., Artifact], name: str, precision: str, front_end: str, sound: Callable[..., Path]
) -> None:
    file, classifier = Artifact.load(written(name, precision, front_end).path), at(name, precision)
    assert file.parity.faults == ()
    assert file.parity.agreement == 1
    # Steps of the output; with the front end inside, through the logarithm of a probability.
    if precision == "int8":
        assert file.parity.largest <= (0 if front_end == "outside" else 1e-3)
        assert file.parity.integer_layers
    recording = sound(file.path.with_suffix(".wav"), seconds=CLIP_S, rate=classifier.sample_rate)
    allowed = file.parity.bound * file.parity.step * 1.001
    assert file.predict(recording).probabilities == pytest.approx(
        classifier.predict(recording).probabilities, abs=allowed
    )
    with pytest.raises(InputError, match="for which the file was made"):
        file.probabilities(np.zeros((1, 100), np.float32))


def test_a_stream_carries_the_state_of_the_other_formats(tmp_path: Path) -> None:
    ours = export(at("pham_cnn", "float32"), tmp_path / "scene.c", front_end="inside", clip_s=CLIP_S, step_s=0.1)
    onnx = export(at("pham_cnn", "float32"), tmp_path / "scene.onnx", front_end="inside", clip_s=CLIP_S, step_s=0.1)
    assert ours.parity.faults == ()
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 11 * ours.step_samples)).astype(np.float32)
    streams = [file.stream(2) for file in (ours, onnx)]
    for start in range(0, samples.shape[1], ours.step_samples):
        one, other = (stream(samples[:, start : start + ours.step_samples]) for stream in streams)
        np.testing.assert_allclose(one, other, atol=1e-4)
        np.testing.assert_allclose(*(stream.state for stream in streams), rtol=1e-3, atol=1e-5)


class Nothing(Network):
    """The features themselves as logits, so that the front end is seen."""

    def __init__(self, bands: int, frames: int) -> None:
        super().__init__()
        self.bands, self.frames = bands, frames

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1)


FRONT_ENDS = {
    "power of four": LogMel(8000, 256, 20, hop_length=100),
    "power of two, window shorter": LogMel(8000, 512, 20, win_length=300, hop_length=128, window="hamming"),
    "threes and fives": LogMel(8000, 480, 16, hop_length=160, center=False, log="db"),
    "odd": LogMel(8000, 225, 12, hop_length=90, drop_last_frame=True, power=1),
    "a large prime": LogMel(8000, 2 * 97, 12, hop_length=90, subtract_mean=True),
    "magnitudes": Gammatone(8000, 256, 12, hop_length=100, f_min_hz=100),
    "some bands": LogMel(8000, 256, 20, hop_length=100, kept=(1, 4, 19), log=None),
}


@pytest.mark.parametrize("frontend", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_the_front_end_in_c_is_the_front_end(frontend: Any, tmp_path: Path) -> None:
    samples = 2400
    bands, frames = frontend.bands, frontend.frames(samples)
    standardize = Standardize(bands)
    standardize.mean.uniform_(-3, 3, generator=torch.Generator().manual_seed(0))
    standardize.std.uniform_(0.5, 4, generator=torch.Generator().manual_seed(1))
    standardize.fitted.fill_(True)
    classes = tuple(f"feature {i}" for i in range(bands * frames))
    classifier = SceneClassifier(frontend, Nothing(bands, frames), classes, standardize)
    path = tmp_path / "scene.c"
    with pytest.MonkeyPatch.context() as patch:
        # The logits, rather than probabilities.
        template = (c_format.TEMPLATES / "scene.c.j2").read_text()
        own = tmp_path / "templates"
        shutil.copytree(str(c_format.TEMPLATES), own)
        (own / "scene.c.j2").write_text(template.replace("    softmax(probabilities);", "    (void)softmax;"))
        patch.setattr("tinyscene.deployment.c_source.TEMPLATES", own)
        write(classifier, path, samples)
    rng = np.random.default_rng(0)
    waveforms = (rng.uniform(-1, 1, (3, samples)) * [[1], [0.03], [0]]).astype(np.float32)
    with torch.no_grad():
        wanted = classifier.features(torch.from_numpy(waveforms)).flatten(1).numpy()
    (made,) = _Program(path, SHIPPED)(waveforms)
    np.testing.assert_allclose(made, wanted, atol=2e-4 * np.abs(wanted).max())


def write(classifier: SceneClassifier, path: Path, samples: int) -> None:
    from tinyscene.deployment.artifact import describe
    from tinyscene.deployment.forms import form_of

    form = form_of(classifier, "inside", samples)
    C().write(form, path, describe(classifier, form), "")


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(-1, 12), st.integers(0, 6)), max_size=30),
)
def test_buffers_in_use_together_share_no_byte(drawn: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(f"b{i}", size, first, first + more) for i, (size, first, more) in enumerate(drawn)]
    offsets, size = arranged(buffers)
    used: dict[tuple[int, int], str] = {}
    for one in buffers:
        assert offsets[one.name] % ALIGNED == 0
        for time in range(one.first, one.last + 1):
            for byte in range(offsets[one.name], offsets[one.name] + one.size):
                assert used.setdefault((time, byte), one.name) == one.name
    assert size == max((byte + 1 for _, byte in used), default=0)


def test_the_arena_is_not_larger_than_two_values_and_the_rows(written: Callable[..., Artifact]) -> None:
    # Alone, without rounding to words: a chain of layers has its input and its output at a time.
    text = written("pham_cnn", "float16", "outside").path.read_text()
    values = dict(re.findall(r"^    float \(\*const (tmp\w+)\)((?:\[\d+\])+) = ", text, re.M))
    sizes = {name: 4 * int(np.prod([int(axis) for axis in shape[1:-1].split("][")])) for name, shape in values.items()}
    (words,) = re.findall(r"ARENA_WORDS (\d+)", text)
    scratch = [4 * int(size) for size in re.findall(r"float scratch\[(\d+)\]", text)]
    pairs = [a + b for a, b in itertools.pairwise(sizes.values())]
    assert 8 * int(words) <= max(pairs) + max(scratch) + 3 * ALIGNED


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_the_same(value: float) -> None:
    text = number(value)
    assert text.endswith("f")
    assert {*".e"} & {*text}
    assert np.float32(text[:-1]) == np.float32(value)


@pytest.mark.parametrize(
    "text", ["plain", 'quo"te', "back\\slash", "Straße", "??/", "*/", "12", "café1", "tab\t", "", "日本"]
)
def test_a_label_reads_back_as_the_same(text: str, tmp_path: Path) -> None:
    source = tmp_path / "label.c"
    source.write_text(f'#include <stdio.h>\nint main(void) {{ fputs({literal(text)} "1", stdout); return 0; }}\n')
    subprocess.run(["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", source, "-o", tmp_path / "label"], check=True)
    shown = subprocess.run([tmp_path / "label"], capture_output=True, check=True).stdout
    assert shown.decode() == text + "1"


def test_tables_of_numbers_and_of_pairs() -> None:
    assert table("int32_t", "few", [1, -2]) == "static const int32_t few[2] = {\n    1, -2\n};"
    assert "{1.0f, 2.5f}, {0.0f, -1.0f}" in table("point", "pairs", np.array([[1.0, 2.5], [0.0, -1.0]]))


def test_the_program_beside_it_names_the_scenes_of_pcm(written: Callable[..., Artifact], tmp_path: Path) -> None:
    file = written("baseline2021", "float32", "inside")
    for suffix in (".c", ".h", "_main.c", ".mk"):
        shutil.copy(file.path.with_name(file.path.stem + suffix), tmp_path)
    name = file.path.stem
    subprocess.run(["make", "-f", f"{name}.mk"], cwd=tmp_path, check=True, capture_output=True)
    pcm = np.random.default_rng(0).integers(-32768, 32767, (2, file.clip_samples), np.int16, endpoint=True)
    shown = subprocess.run([tmp_path / name], input=pcm.astype("<i2").tobytes(), capture_output=True, check=True)
    wanted = file.probabilities((pcm / 32768).astype(np.float32))
    lines = shown.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == [CLASSES[i] for i in wanted.argmax(1)]
    short = subprocess.run([tmp_path / name], input=b"12", capture_output=True, check=False)
    assert short.returncode == 1
    assert f"fewer than {file.clip_samples} values in" in short.stderr.decode()
    for line, shares in zip(lines, wanted, strict=True):
        words = line.split()[1:]
        assert words[::2] == [*CLASSES]
        np.testing.assert_allclose([float(share) for share in words[1::2]], shares, atol=6e-4)


def test_every_optimisation_gives_the_same_bits(written: Callable[..., Artifact]) -> None:
    file = written("cp_mobile", "int8", "outside")
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3, 1, 40, at("cp_mobile", "int8").frontend.frames(file.clip_samples)))
    outputs = [_Program(file.path, (level,))(features.astype(np.float32))[0] for level in ("-O0", "-O2", "-O3", "-Os")]
    for other in outputs[1:]:
        np.testing.assert_array_equal(outputs[0], other)


def test_a_wrong_weight_or_a_write_past_the_arena_is_refused(
    written: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = written("cp_mobile", "int8", "outside").path.read_text()
    faults = {
        "does not compute the same": lambda one: one.replace("first = bias[oc_global];", "first = bias[0];"),
        "AddressSanitizer": lambda one: one.replace(
            "    unsigned char *const memory = (unsigned char *)arena;",
            "    static volatile int more = 64;\n    unsigned char *const memory = (unsigned char *)arena + more;",
        ),
        "can't compile": lambda one: one.replace("int32_t zero", "int32_t"),
    }
    for message, change in faults.items():
        spoiled = change(text)
        assert spoiled != text
        monkeypatch.setattr(c_format, "source", lambda form, metadata, spoiled=spoiled: spoiled)
        with pytest.raises(InputError, match=message):
            export(at("cp_mobile", "int8"), tmp_path / "scene.c", clip_s=CLIP_S)
        assert not list(tmp_path.iterdir())


class MyFrontEnd(FrontEnd):
    sample_rate, bands, hop_length = 8000, 1, 100

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return waveforms[:, None, None, ::100]


def test_what_cannot_be_done_is_said(
    written: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c_network, "_FUSIONS", [])
    with pytest.raises(InputError, match="no C for this network .*FusedGemm"):
        export(at("baseline2021", "float32"), tmp_path / "scene.c", clip_s=CLIP_S)
    register_frontend("my_front_end", MyFrontEnd)
    own = MyFrontEnd()
    classifier = SceneClassifier(own, Nothing(1, 24), tuple(map(str, range(24))), Standardize.identity(1))
    with pytest.raises(InputError, match="MyFrontEnd has no C; accepted: .*front end outside"):
        export(classifier, tmp_path / "scene.c", clip_s=0.3, front_end="inside")
    del FRONTENDS["my_front_end"]
    (tmp_path / "other.c").write_text("int main(void) { return 0; }\n")
    with pytest.raises(InputError, match="not a C file of tinyscene"):
        Artifact.load(tmp_path / "other.c")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InputError, match="no such C compiler.*install gcc"):
        written("cp_mobile", "int8", "outside").format.runner(written("cp_mobile", "int8", "outside").path)


def test_classes_and_metadata_may_be_called_anything(tmp_path: Path) -> None:
    classes = ("a */ b", "/* ??/", "Straße\n\\")
    classifier = SceneClassifier(LogMel(8000, 256, 4, hop_length=800), Nothing(1, 3), classes, Standardize.identity(4))
    classifier.network = nn.Sequential(nn.Flatten(), nn.Linear(4 * 4, len(classes)))
    export(classifier, tmp_path / "scene.c", clip_s=0.3)
    assert Artifact.load(tmp_path / "scene.c").classes == classes


def test_a_users_own_files_are_not_replaced(written: Callable[..., Artifact], tmp_path: Path) -> None:
    classifier = at("cp_mobile", "int8")
    (tmp_path / "audio.h").write_text("int mine;")
    with pytest.raises(InputError, match=r"audio\.h: not written by tinyscene.*accepted: another name"):
        c_format.C().neighbours(tmp_path / "audio.c", written("cp_mobile", "int8", "outside").path)
    with pytest.raises(InputError, match=r"my scene\.c: make can't take this name"):
        c_format.C().neighbours(tmp_path / "my scene.c", written("cp_mobile", "int8", "outside").path)
    # Nothing is left where a neighbour can't be written.
    (tmp_path / "other.mk").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        text = written("cp_mobile", "int8", "outside").path.read_text()
        patch.setattr(c_format, "source", lambda form, metadata: text)
        with pytest.raises(InputError, match=r"other\.c: can't be written"):
            export(classifier, tmp_path / "other.c", clip_s=CLIP_S)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio.h", "other.mk"]


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
def test_clang_compiles_it_to_the_same_bits(written: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    file = written("cp_mobile", "int8", "outside")
    features = np.random.default_rng(0).standard_normal((2, *_Program(file.path, SHIPPED).given[0][1:]))
    outputs = []
    for compiler in ("gcc", "clang"):
        monkeypatch.setenv("CC", compiler)
        outputs.append(_Program(file.path, SHIPPED)(features.astype(np.float32))[0])
    np.testing.assert_array_equal(*outputs)


class Convolutions(nn.Module):
    """Of all kinds: padded on one side or none, strided, dilated, grouped, depthwise, pointwise, along one axis."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, (3, 5), (1, 2), (1, 2)),
            nn.Conv2d(8, 8, 3, padding=(0, 1), groups=8),
            nn.Conv2d(8, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, (2, 1), (2, 0), dilation=2, groups=2, bias=False),
            nn.Conv2d(6, 12, 1, (2, 3)),
            nn.ReLU6(),
            nn.Conv2d(12, 4, (1, 4), padding="same"),
            nn.Conv2d(4, 7, (4, 1), padding=(3, 0), dilation=(2, 1)),
        )
        self.dense = nn.Linear(7, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.dense(self.layers(features).mean((2, 3)))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_convolutions_of_every_kind(precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    frontend, network = LogMel(8000, 256, 24, hop_length=200), Convolutions(len(CLASSES)).eval()
    classifier = SceneClassifier(frontend, network, CLASSES, Standardize.identity(24))
    if precision == "int8":
        features = classifier.features(0.1 * torch.randn(8, round(CLIP_S * 8000)))
        prepared = prepare(network, features[:1])
        prepared.set_ranges([features])
        classifier = SceneClassifier(frontend, prepared.convert(), CLASSES, classifier.standardize).eval()
    parity = export(classifier, tmp_path / "scene.c", clip_s=CLIP_S).parity
    assert parity.largest <= (0 if precision == "int8" else 1e-6)
