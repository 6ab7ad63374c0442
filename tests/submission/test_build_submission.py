"""A submission of each edition: layout, rows, fields, and figures that are the ledger's."""

import csv
import shutil
import zipfile

import pytest
import torch
import torchinfo
import yaml
from small_submissions import CLIP_DEVICES, CLIPS, authors_file, classifier
from torch import nn

from menus import menus
from tinyscene import Quantize, SceneClassifier
from tinyscene.accounting import count
from tinyscene.errors import InputError
from tinyscene.rules import RULES
from tinyscene.submission import EDITIONS, build, check, evaluation_clips, get_edition

YEARS = [int(year) for year in EDITIONS]
CLASSES = ["airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall"]
CLASSES += ["street_pedestrian", "street_traffic", "tram"]
# Typed from the organisers' validator of 2024; of 2025 from the template.
BOTH = (
    "input_sampling_rate acoustic_features data_augmentation machine_learning_method external_data_usage "
    "complexity_management pipeline framework"
)
DESCRIPTION = {
    2024: f"{BOTH} split_adaptations system_adaptations",
    2025: f"{BOTH} device_information num_models_at_inference model_weight_sharing",
}
COMPLEXITY = {"total_model_size", "total_parameters", "macs"}
SPLITS = ["split_5", "split_10", "split_25", "split_50", "split_100"]
BLOCKS = {2024: SPLITS, 2025: ["device_specific", "general"]}
LAYOUT = {
    2024: "task1/VanHove_JKU_task1_2/VanHove_JKU_task1_2.output.split_5.csv",
    2025: "task1/VanHove_JKU_task1_2/VanHove_JKU_task1_2.output.csv",
}


def meta_of(built, index=1):
    (path,) = built.place(index).glob("*.meta.yaml")
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("year", YEARS)
def test_what_is_built_passes_the_check(submitted, year):
    built = submitted(year)
    report = check(built.out, built.edition, clips=built.clips)
    assert (report.problems, len(report.systems)) == ([], 2)
    assert report.notes == ["the inference package was not run"] * (year == 2025)


@pytest.mark.parametrize("year", YEARS)
def test_the_zip_holds_the_same_in_the_editions_layout(submitted, year):
    built = submitted(year)
    (archive,) = built.out.glob("*.zip")
    assert archive.name == "VanHove_JKU_task1.zip"
    names = zipfile.ZipFile(archive).namelist()
    assert LAYOUT[year] in names
    assert LAYOUT[year].replace("output.split_5.csv", "meta.yaml").replace("output.csv", "meta.yaml") in names
    assert "task1/VanHove_JKU_task1.technical_report.pdf" in names
    assert not any(name.startswith("inference") for name in names)
    assert check(archive, built.edition, clips=built.clips).problems == []


@pytest.mark.parametrize("year", YEARS)
def test_rows_are_what_the_model_predicts(submitted, year):
    built = submitted(year)
    for ending, split in built.edition.outputs.items():
        (path,) = built.place().glob(f"*.{ending}")
        with path.open(newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t")
        assert header == ["filename", "scene_label", *CLASSES]
        assert [row[0] for row in rows] == [f"audio/{number}.wav" for number in range(CLIPS)]
        loaded = {
            device: SceneClassifier.load(built.runs[0] / split / device)
            for device in ("", "devices/a")[: 1 + (year == 2025)]
        }
        for number, (name, label, *values) in enumerate(rows):
            own = year == 2025 and CLIP_DEVICES[number % len(CLIP_DEVICES)] == "a"
            said = loaded["devices/a" if own else ""].predict(built.audio / name)
            assert label == said.label
            assert [float(value) for value in values] == pytest.approx(list(said.probabilities.values()), abs=1e-6)


@pytest.mark.parametrize("year", YEARS)
def test_fields_are_those_of_the_organisers(submitted, year):
    meta = meta_of(submitted(year))
    assert meta["submission"]["label"] == "VanHove_JKU_task1_1"
    assert meta["submission"]["authors"][1]["corresponding"] is True
    assert meta["system"]["description"].keys() == set(DESCRIPTION[year].split())
    assert meta["system"]["description"]["input_sampling_rate"] == "8kHz"
    assert meta["system"]["complexity"].keys() == COMPLEXITY
    assert {"source_code", "external_datasets"} <= meta["system"].keys()
    assert ("inference_code" in meta["system"]) == (year == 2025)
    development = meta["results"]["development_dataset"]
    assert list(development) == BLOCKS[year]
    for block in development.values():
        assert block.keys() == {"overall", "class_wise", "device_wise"}
        assert block["class_wise"].keys() == set(CLASSES)
        assert block["device_wise"].keys() == {"a", "b", "c", "s1", "s2", "s3", "s4", "s5", "s6"}
        assert block["overall"] == {"accuracy": None, "logloss": None}


@pytest.mark.parametrize("year", YEARS)
def test_complexity_is_the_ledgers(submitted, year):
    built = submitted(year)
    rules = RULES[f"dcase{year}"]
    folders = [built.runs[0] / split for split in SPLITS]
    if year == 2025:
        folders = [built.runs[0], built.runs[0] / "devices" / "a"]
    ledgers = [count((one := SceneClassifier.load(f)).network, one.example(rules.clip_s)) for f in folders]
    stated = meta_of(built)["system"]["complexity"]
    for finding in zip(*(rules.judge(ledger).findings for ledger in ledgers), strict=True):
        field = {"macs": "macs", "bytes": "total_model_size"}[finding[0].limit.quantity]
        assert stated[field] == max(one.value for one in finding)


@pytest.mark.parametrize("year", YEARS)
def test_complexity_is_what_the_organisers_script_counts(submitted, year):
    """torchinfo on a float32 copy, and the bytes of parameters(): complexity.py of both baselines."""
    built = submitted(year)
    largest = SceneClassifier.load(built.runs[0] / ("split_100" if year == 2024 else "devices/a"))
    shape = tuple(largest.example(1.0).shape)
    stated = meta_of(built)["system"]["complexity"]
    assert stated["total_model_size"] == sum(p.numel() * p.element_size() for p in largest.network.parameters())
    assert stated["total_parameters"] == sum(p.numel() for p in largest.network.parameters())
    assert stated["macs"] == torchinfo.summary(largest.network.float(), input_size=shape, verbose=0).total_mult_adds


def test_nothing_is_left_of_a_build_that_fails(submitted, tmp_path):
    built = submitted(2024)
    given = {"authors": built.authors, "out": tmp_path / "out"}
    short = tmp_path / "list.csv"
    short.write_text("filename\naudio/0.wav\naudio/99.wav\n")
    with pytest.raises(InputError, match=r"1 of 2 listed files are missing: audio/99.wav"):
        evaluation_clips(built.audio, built.edition, short)
    with pytest.raises(InputError, match=r"authors.yaml, systems: .*; accepted: at most 1 item"):
        build(built.runs[:1], built.edition, built.clips, **given)
    with pytest.raises(InputError, match="5 runs; accepted: 1 to 4"):
        build([*built.runs, *built.runs, *built.runs][:5], built.edition, built.clips, **given)
    clips = built.clips
    broken = evaluation_clips(shutil.copytree(built.audio, tmp_path / "audio"), built.edition)
    (tmp_path / "audio" / "audio" / "3.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"3\.wav"):
        build(built.runs, built.edition, broken, **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio", "list.csv"]
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"out: already exists; try a new folder"):
        build(built.runs, built.edition, clips, **given)


@pytest.mark.parametrize("year", YEARS)
def test_an_example_of_the_authors_file_is_written_and_its_placeholders_are_refused(submitted, tmp_path, year):
    built = submitted(year)
    authors = tmp_path / "authors.yaml"
    given = {"authors": authors, "out": tmp_path / "out"}
    with pytest.raises(InputError, match=f"an example for dcase{year} was written there"):
        build(built.runs, built.edition, built.clips, **given)
    example = yaml.safe_load(authors.read_text())
    assert len(example["systems"]) == 2
    assert example["systems"][0]["description"]["pipeline"] == "xxx"
    with pytest.raises(InputError) as refused:
        build(built.runs, built.edition, built.clips, **given)
    assert "authors.yaml, team: 'xxx'; accepted: Lastname_Institute" in str(refused.value)
    for field in ("authors[0].email", "systems[0].name", "systems[1].description.pipeline", "systems[0].source_code"):
        assert f"authors.yaml, {field}: 'xxx' is a placeholder; accepted: what is yours" in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("authors:", "people:", r"authors.yaml, authors: missing; accepted: this field"),
        ("lastname: Van Hove", "name: Van Hove", r"authors\[1\].lastname: missing"),
        ("team: VanHove_JKU", "team: Van Hove JKU", r"team: 'Van Hove JKU'; accepted: Lastname_Institute, in letters"),
        ("authors:", "authors: [", r"authors.yaml: .*line \d+.*; accepted: YAML in UTF-8"),
        ("lastname: Van Hove", "lastname: No", r"authors\[1\].lastname: False; accepted: a valid string"),
        ("description:", "description: CNN\n  old:", r"systems\[0\].description: 'CNN'; accepted: a valid dictionary"),
        ("pipeline: pruning", "line: pruning", r"systems\[0\].description.pipeline: missing"),
        ("corresponding: true", "corresponding: false", r"authors.yaml, authors: 0 corresponding authors; accepted: "),
    ],
)
def test_broken_authors_files(submitted, tmp_path, old, new, said):
    built = submitted(2024)
    path = authors_file(tmp_path / "authors.yaml", built.edition)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=said):
        build(built.runs, built.edition, built.clips, authors=path, out=tmp_path / "out")


def test_runs_that_do_not_fit_the_edition(submitted, tmp_path):
    built = submitted(2024)
    given = {"clips": built.clips, "authors": built.authors, "out": tmp_path / "out"}
    with pytest.raises(InputError, match="split_5: 0 models in it; accepted: a model's folder, or a run with one"):
        build([built.runs[0] / "split_5", built.runs[1]], built.edition, **given)
    run = shutil.copytree(built.runs[0], tmp_path / "run")
    made = classifier(built.edition)
    SceneClassifier(made.frontend, made.network, tuple("abcdefghij")).save(run / "split_25")
    with pytest.raises(InputError, match="split_25: the classes a, b, .*; accepted: airport, bus"):
        build([run, built.runs[1]], built.edition, **given)
    classifier(built.edition, filters=(64, 64, 64)).save(run / "split_25")
    with pytest.raises(InputError, match=r"run/split_25: dcase2024: not legal\n.*does not fit: [\d,]+ of 128,000 B"):
        build([run, built.runs[1]], built.edition, **given)
    with pytest.raises(InputError, match="edition 2023; accepted: 2024, 2025"):
        get_edition(2023)


class Own(nn.Module):
    """A network outside tinyscene, which no inference package holds."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(1, 4, 3), nn.Linear(4, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.dense(self.conv(features).relu().mean((2, 3)))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_network_of_ones_own_is_refused_for_the_inference_package(submitted, tmp_path, precision):
    built = submitted(2025)
    given = {"clips": built.clips, "authors": built.authors, "out": tmp_path / "out"}
    made = classifier(built.edition)
    with menus(own=Own):
        own = SceneClassifier(made.frontend, Own(), made.classes, made.standardize)
        own = own if precision == "float32" else Quantize().shape(own)
        own.save(tmp_path / "own")
        with pytest.raises(InputError, match="own: Own is your own, and the inference package holds tinyscene alone"):
            build([tmp_path / "own", built.runs[1]], built.edition, **given)


def test_results_come_from_a_run_on_the_challenges_own_data(submitted, tmp_path):
    from tinyscene.data import Clip, Clips
    from tinyscene.evaluation import Scores

    edition = get_edition(2025)
    run = tmp_path / "run"
    place = run / "small" / "seed-0"
    classifier(edition).save(place)
    rows = tuple(Clip(f"{n}.wav", CLASSES[n % 10], "test", device="ab"[n % 2]) for n in range(40))
    probabilities = (
        torch.randn(40, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1).numpy()
    )
    scores = Scores(Clips("x", run, tuple(CLASSES), rows), probabilities)
    scores.save(place / "predictions.csv")
    built = submitted(2025)
    authors = authors_file(tmp_path / "authors.yaml", edition, 1)
    for dataset in ("synthetic", "tau2022-mobile"):
        (run / "receipt.json").write_text(f'{{"dataset": "{dataset}"}}')
        out = build([run], edition, built.clips, authors=authors, out=tmp_path / dataset)
        found = meta_of(built._replace(out=out))["results"]["development_dataset"]
        assert found["device_specific"]["overall"] == {"accuracy": None, "logloss": None}
        if dataset == "synthetic":
            assert found["general"]["overall"] == {"accuracy": None, "logloss": None}
        else:
            general = found["general"]
            assert general["overall"]["accuracy"] == pytest.approx(100 * scores.macro_accuracy, abs=0.005)
            by_device = scores.by("device")
            assert general["device_wise"]["b"]["logloss"] == pytest.approx(by_device["b"].macro_log_loss, abs=1e-4)
            assert general["device_wise"]["s6"]["accuracy"] is None
            assert check(out, edition, clips=built.clips).problems == []
