"""The inference package of 2025, run as the organisers run it: in an environment in which there is no tinyscene."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
import torchinfo
from small_submissions import classifier, runs

import tinyscene
from tinyscene.accounting import CONVENTIONS, count
from tinyscene.models.preparation import prepare
from tinyscene.submission import check, get_edition, inference, run_package
from tinyscene.submission.package import needed_sources, write_package

DEVICES = ["a", "b", "s1", "unknown"]
NAME = "VanHove_JKU_task1"


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> str:
    """Python of a fresh environment, with the libraries of this one and without tinyscene."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    # A .pth adds the folder alone: what links to an editable install from it is not followed.
    for site in folder.glob("lib/*/site-packages"):
        (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    found = subprocess.run([python, "-I", "-c", "import tinyscene"], capture_output=True, cwd=folder, check=False)
    if not found.returncode:
        pytest.skip("tinyscene is installed, not linked to, and would be found in any environment")
    return str(python)


def module_of(built, index=1):
    return built.out / "inference" / NAME / f"{NAME}_{index}.py"


def test_it_runs_where_there_is_no_tinyscene(submitted, clean):
    """The package beside the zip: all that is handed in."""
    built = submitted(2025)
    report = check(built.out / f"{NAME}.zip", built.edition, audio=built.audio, python=clean)
    assert report.problems == (), report.text
    assert report.notes == ()


HIDDEN = """

class Hidden(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = [network]

    def forward(self, features):
        return self.network[0].float()(features)
"""
# Two systems are run at once: what each has in place of a line, and what is said of it.
WAYS = [
    ("def predict(", "def forecast(", r"_1.py: has no predict; accepted: the functions predict, load_model"),
    ("model.class_order\n", "['a']\n", r"_2.py, predict: the classes a; accepted: the classes airport"),
    ("import copy\n", "import copy, nothing_of_the_kind\n", r"_1.py, import: ModuleNotFoundError: .*\(\w+_1.py:7\)"),
    (
        "else copy.deepcopy(network)",
        "else nn.Conv2d(7, 1, 999)",
        r"_2.py, counting the network of device a: RuntimeError.*; accepted: a package that runs in a clean",
    ),
    (".classify(batch).float()", ".classify(-batch).float()", r"_1.py, predict, \d+.wav: its probabilities are up to"),
    (
        "else copy.deepcopy(network)",
        "else Hidden(network)",
        r"_2.py, device a, b, .*without parameters|_2.meta.yaml, .*0, as counted from the package",
    ),
    (
        "load_by_device(folder)",
        "{'': SceneClassifier.load(folder)}",
        r"_1.meta.yaml, .* stated; accepted: [\d,]+, as counted from the package|_1.py, predict, \d+.wav: its prob",
    ),
    ("model.class_order\n", "model.class_order, 1\n", r"_2.py, predict: ValueError: too many values to unpack"),
    (
        ".classify(batch).float()",
        ".classify(batch).float().mul(float('nan'))",
        r"_1.py, predict, \d+.wav: its .* nan from",
    ),
    (
        "model.class_order\n",
        "torch.arange(10)\n",
        r"_2.py, predict: the classes tensor\(0\), .*; accepted: the classes",
    ),
    (
        "import copy\n",
        "import copy, os\nprint('no' * 10**6)\nos.write(1, b'\\xff')\nos.write(2, b'bye \\xff\\n')\nos._exit(3)\n",
        r"_1.py: ended with status 3: bye \ufffd; accepted: a package that runs",
    ),
    ("import copy\n", "import copy\nimport tinyscene\n", r"_2.py, import: ModuleNotFoundError: .*tinyscene.*_2.py:8\)"),
]


@pytest.mark.parametrize("ways", [*zip(WAYS[::2], WAYS[1::2], strict=True)], ids=range(len(WAYS) // 2))
def test_a_spoilt_package_is_refused_with_its_reason(submitted, tmp_path, ways):
    built = submitted(2025).copied(tmp_path / "out")
    for index, (old, new, _) in enumerate(ways, 1):
        text = module_of(built, index).read_text()
        assert old in text
        module_of(built, index).write_text(text.replace(old, new) + HIDDEN)
    problems = check(built.out, built.edition, audio=built.audio).problems
    for _, _, said in ways:
        assert any(re.search(said, problem.text) for problem in problems), problems
    assert all(any(re.search(said, problem.text) for _, _, said in ways) for problem in problems), problems


def test_a_package_that_does_not_end(submitted, tmp_path, monkeypatch):
    """Nor does what it started; the other system is looked at all the same, and nothing is written beside it."""
    built = submitted(2025).copied(tmp_path / "out")
    text = module_of(built, 1).read_text()
    endless = f"sleep 99; touch {tmp_path / 'alive'}"
    loop = f"import subprocess, time\nsubprocess.Popen({['sh', '-c', endless]!r})\ntime.sleep(99)\n"
    module_of(built, 1).write_text(text.replace("import copy\n", f"{loop}import copy\n"))
    before = sorted(built.out.rglob("*"))
    monkeypatch.setattr(run_package, "_LONGEST_S", 20)
    report = check(built.out, built.edition, audio=built.audio)
    assert [problem.text for problem in report.problems] == [
        f"{NAME}/{NAME}_1.py: not done after 20 s; accepted: a package that runs in a clean environment"
    ]
    left = subprocess.run(["pgrep", "-f", endless], capture_output=True, text=True, check=False).stdout
    assert not left
    assert sorted(built.out.rglob("*")) == before
    assert "in this environment, whatever its own requirements say" in report.notes[-1]


def test_a_package_that_cannot_be_installed(submitted, tmp_path):
    built = submitted(2025).copied(tmp_path / "out")
    (built.out / "inference" / "setup.py").unlink()
    (problem,) = check(built.out, built.edition).problems
    assert problem.text == "setup.py: missing; accepted: a package that `pip install` takes"


def test_a_package_that_lacks_a_module(submitted, tmp_path):
    built = submitted(2025).copied(tmp_path / "out")
    module_of(built, 1).unlink()
    (built.out / "inference" / NAME / "resources" / "dummy.wav").unlink()
    said = [(problem.file, problem.given) for problem in check(built.out, built.edition).problems]
    assert said == [(f"{NAME}/{NAME}_1.py", "missing"), (f"{NAME}/resources/dummy.wav", "missing")]


def test_a_package_that_lies_elsewhere_or_nowhere(submitted, tmp_path):
    built = submitted(2025)
    (archive := tmp_path / "their.zip").write_bytes((built.out / f"{NAME}.zip").read_bytes())
    report = check(archive, built.edition)
    assert (report.problems, len(report.notes)) == ((), 3)
    assert report.notes[1].startswith("the inference package was not run; it is looked for in inference/")
    said = check(archive, built.edition, inference=tmp_path).problems
    assert {problem.given for problem in said} == {"missing"}


def test_an_environment_that_cannot_be_used(submitted):
    built = submitted(2025)
    problems = check(built.out, built.edition, python="/no/such/python").problems
    assert [problem.given for problem in problems] == 2 * [
        "/no/such/python can't be started (No such file or directory)"
    ]


@pytest.fixture(scope="module")
def by_device(tmp_path_factory):
    """Models of a run: float16, one device with its own."""
    (run,) = runs(tmp_path_factory.mktemp("models"), get_edition(2025), 1)
    return run


def test_a_device_is_heard_by_its_own_model(by_device, submitted):
    audio = submitted(2025).audio
    files = [str(audio / "audio" / f"{number}.wav") for number in range(4)]
    logits, classes = inference.predict(files, DEVICES, str(by_device), use_cuda=False, batch_size=3)
    assert classes == list(get_edition(2025).classes)
    for device, file, row in zip(DEVICES, files, logits, strict=True):
        own = tinyscene.SceneClassifier.load(by_device / "devices" / "a" if device == "a" else by_device)
        assert row.softmax(0).tolist() == pytest.approx(list(own.predict(file).probabilities.values()), abs=1e-6)
    model = inference.load_model(str(by_device))
    assert sorted(model.model) == ["a", "general"]
    assert model.model.state_dict()
    sizes = {d: sum(p.numel() for p in inference.get_model_for_device(model, d).parameters()) for d in DEVICES}
    assert sizes["a"] > sizes["b"] == sizes["s1"] == sizes["unknown"]


def test_int8_weights_are_counted_and_not_hidden():
    """By torchinfo and parameters(), as the organisers count; the graph of integers alone has none."""
    edition = get_edition(2025)
    made = classifier(edition).float()
    fake = prepare(made.network, made.example(1.0))
    fake.set_ranges([torch.randn(4, 1, 40, 41)])
    int8 = fake.convert().eval()
    assert not list(int8.parameters())
    counted = inference.CountedInt8(int8)
    ledger = count(int8, made.example(1.0))
    assert sum(p.numel() * p.element_size() for p in counted.parameters()) == CONVENTIONS["bn2"](ledger.tensors).bytes
    assert {p.dtype for p in counted.parameters()} == {torch.int8, torch.int32}
    profile = torchinfo.summary(counted.float(), input_size=tuple(made.example(1.0).shape), verbose=0)
    assert profile.total_mult_adds == ledger.macs["torchinfo"]
    features = torch.randn(3, 1, 40, 41)
    assert torch.equal(counted(features), int8(features))


def test_the_package_is_whole_and_its_own(submitted):
    built = submitted(2025)
    folder = built.out / "inference"
    assert {path.name for path in folder.iterdir()} == {NAME, "setup.py", "requirements.txt", "README.md"}
    wanted = (folder / "requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in wanted] == [
        "torch",
        "numpy",
        "safetensors",
        "soundfile",
        "soxr",
        "torchinfo",
    ]
    assert all("==" in line and "+" not in line for line in wanted)
    for path in (folder / NAME).rglob("*.py"):
        lines = [line.strip() for line in path.read_text().splitlines()]
        assert not [line for line in lines if line.startswith(("from tinyscene", "import tinyscene"))], path
    here = Path(tinyscene.__file__).parent
    needed = {str(path.relative_to(here)) for path in needed_sources(Path(inference.__file__))}
    assert {"audio.py", "models/classifier.py", "features/logmel.py", "models/quantizer.py"} <= needed
    assert not any(path.startswith(("training", "data", "evaluation", "cli")) for path in needed)


@pytest.mark.skipif(not os.environ.get("TINYSCENE_SOAK"), reason="installs PyTorch anew; TINYSCENE_SOAK=1 runs it")
def test_it_installs_into_an_empty_environment(submitted, tmp_path):
    built = submitted(2025)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", built.out / "inference"], check=True)
    report = check(built.out, built.edition, audio=built.audio, models=built.runs, python=str(python))
    assert report.problems == (), report.text


def test_writing_a_package_needs_no_audio_of_the_challenge(tmp_path):
    edition = get_edition(2025)
    write_package(tmp_path / "inference", NAME, {f"{NAME}_1": {"": classifier(edition)}})
    sys.path.insert(0, str(tmp_path / "inference"))
    try:
        import VanHove_JKU_task1.VanHove_JKU_task1_1 as module
    finally:
        sys.path.remove(str(tmp_path / "inference"))
    dummy = tmp_path / "inference" / NAME / "resources" / "dummy.wav"
    (features,) = module.load_inputs([str(dummy)], ["a"], module.load_model())
    assert tuple(features.shape) == tuple(classifier(edition).example(1.0).shape)
    assert np.isfinite(features.numpy()).all()
