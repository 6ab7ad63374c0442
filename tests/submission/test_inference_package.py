"""The inference package of 2025, run as the organisers run it: in an environment in which there is no tinyscene."""

import os
import re
import subprocess
import sys
import sysconfig
import venv

import pytest
import torch
import torchinfo
from small_submissions import classifier, runs

import tinyscene
from tinyscene.accounting import CONVENTIONS, count
from tinyscene.models.preparation import prepare
from tinyscene.submission import check, get_edition, inference, run_package

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
    """The package and the zip: all that is handed in."""
    built = submitted(2025)
    archive = built.out / f"{NAME}.zip"
    report = check(archive, built.edition, clips=built.clips, inference=built.inference, python=clean)
    assert (report.problems, report.notes) == ([], [])


HIDDEN = """

class Hidden(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = [network]

    def forward(self, features):
        return self.network[0].float()(features)
"""
# Two systems are run at once: what each has in place of a line, and what is reported.
WAYS = [
    (
        "def predict(",
        "def forecast(",
        r"_1.py: status 1: AttributeError: .* no attribute 'predict'; accepted: a package",
    ),
    ('list(model.classifiers[""].classes)\n', "['a']\n", r"_2.py, predict: the classes a; accepted: airport"),
    (".classify(batch).float()", ".classify(-batch).float()", r"_1.py, predict, \d+.wav: probabilities up to 0"),
    (
        "else copy.deepcopy(network)",
        "else Hidden(network)",
        r"_2.meta.yaml, .*accepted: 0, as counted in the package",
    ),
    (
        "load_by_device(folder)",
        "{'': SceneClassifier.load(folder)}",
        r"_1.meta.yaml, system.*; accepted: \d+, as counted in the package|_1.py, predict, \d+.wav: prob",
    ),
    (
        "return list(logits),",
        "return list(logits)[1:],",
        r"_2.py, predict: results of [10, ]+ probabilities for \d+ files; accepted: 10 for each",
    ),
    (
        ".classify(batch).float()",
        ".classify(batch).float().mul(float('nan'))",
        r"_1.py, predict, \d+.wav: probabilities up to nan from",
    ),
    ("import copy\n", "import copy\nimport tinyscene\n", r"_2.py: status 1: ModuleNotFoundError: .*tinyscene"),
]


@pytest.mark.parametrize("ways", [*zip(WAYS[::2], WAYS[1::2], strict=True)], ids=range(len(WAYS) // 2))
def test_a_spoilt_package_is_refused_with_its_reason(submitted, tmp_path, ways):
    built = submitted(2025).copied(tmp_path / "out")
    for index, (old, new, _) in enumerate(ways, 1):
        text = module_of(built, index).read_text()
        assert old in text
        module_of(built, index).write_text(text.replace(old, new) + HIDDEN)
    problems = check(built.out, built.edition, clips=built.clips, inference=built.inference).problems
    for _, _, said in ways:
        assert any(re.search(said, problem) for problem in problems), problems
    assert all(any(re.search(said, problem) for _, _, said in ways) for problem in problems), problems


def test_a_figure_that_is_not_the_packages(submitted, tmp_path):
    built = submitted(2025).copied(tmp_path / "out", systems=1)
    (file,) = built.place().glob("*.meta.yaml")
    file.write_text(file.read_text().replace("total_parameters: ", "total_parameters: 1"))
    (problem,) = check(built.out, built.edition, inference=built.inference).problems
    found = re.fullmatch(
        rf"{NAME}_1.meta.yaml, system.complexity.total_parameters: 1(\d+); accepted: (\d+), as counted in the package",
        problem,
    )
    assert found[1] == found[2]


def test_a_package_that_does_not_end(submitted, tmp_path, monkeypatch):
    """The other system is looked at all the same, and nothing is written beside it."""
    built = submitted(2025).copied(tmp_path / "out")
    for index, does in ((1, "time.sleep(99)"), (2, "sys.exit(3)")):
        text = module_of(built, index).read_text()
        module_of(built, index).write_text(text.replace("import copy\n", f"import copy, sys, time\n{does}\n"))
    before = sorted(built.out.rglob("*"))
    monkeypatch.setattr(run_package, "_LONGEST_S", 3)
    assert check(built.out, built.edition, clips=built.clips, inference=built.inference).problems == [
        f"{NAME}/{NAME}_1.py: not done after 3 s; accepted: a package that runs in a clean environment",
        f"{NAME}/{NAME}_2.py: status 3: ; accepted: a package that runs in a clean environment",
    ]
    assert sorted(built.out.rglob("*")) == before


def test_a_package_that_cannot_be_installed(submitted, tmp_path):
    built = submitted(2025).copied(tmp_path / "out", systems=1)
    (built.inference / "setup.py").unlink()
    (built.inference / NAME / "resources" / "dummy.wav").unlink()
    missing, failed = check(built.out, built.edition, inference=built.inference).problems
    assert missing.endswith("inference/setup.py: missing; accepted: a package that `pip install` takes")
    assert "dummy.wav" in failed


def test_an_environment_that_cannot_be_used(submitted):
    built = submitted(2025)
    problems = check(built.out, built.edition, inference=built.inference, python="/no/such/python").problems
    assert problems == 2 * ["/no/such/python: No such file or directory; accepted: the Python of an environment"]


@pytest.fixture(scope="module")
def by_device(tmp_path_factory):
    """Models of a run: float16, one device with its own."""
    (run,) = runs(tmp_path_factory.mktemp("models"), get_edition(2025), 1)
    return run


def test_a_device_has_its_own_model(by_device, submitted):
    audio = submitted(2025).audio
    files = [str(audio / "audio" / f"{number}.wav") for number in range(4)]
    logits, classes = inference.predict(files, DEVICES, str(by_device), use_cuda=False, batch_size=3)
    assert classes == list(get_edition(2025).rules.classes)
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
    folder = submitted(2025).inference
    assert {path.name for path in folder.iterdir()} == {NAME, "setup.py", "requirements.txt", "README.md"}
    for path in (folder / NAME).rglob("*.py"):
        lines = [line.strip() for line in path.read_text().splitlines()]
        assert not [line for line in lines if line.startswith(("from tinyscene", "import tinyscene"))], path


def test_requirements_are_all_that_is_imported(submitted):
    folder = submitted(2025).inference
    wanted = (folder / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in wanted)
    sources = "".join(path.read_text() for path in (folder / NAME).rglob("*.py"))
    imported = {*re.findall(r"^ *(?:import|from) (\w+)(?:\.[\w.]+)?(?: import .*| as \w+)?$", sources, re.MULTILINE)}
    # rich draws bars, of training alone.
    third = imported - sys.stdlib_module_names - {NAME, "rich"}
    assert third | {"torchinfo"} == {line.split("==")[0] for line in wanted}


@pytest.mark.skipif(not os.environ.get("TINYSCENE_SOAK"), reason="installs PyTorch anew; TINYSCENE_SOAK=1 runs it")
def test_it_installs_into_an_empty_environment(submitted, tmp_path):
    built = submitted(2025)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", built.out / "inference"], check=True)
    report = check(built.out, built.edition, clips=built.clips, inference=built.inference, python=str(python))
    assert report.problems == []
