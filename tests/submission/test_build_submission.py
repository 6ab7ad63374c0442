"""A submission of every edition: layout, rows, fields, and figures that are the ledger's."""

import csv
import zipfile

import pytest
import torch
import torchinfo
import yaml
from small_submissions import CLIPS, HEARD, authors_file, classifier

from tinyscene import SceneClassifier
from tinyscene.accounting import count
from tinyscene.compression import MagnitudePruning
from tinyscene.errors import InputError
from tinyscene.rules import RULES
from tinyscene.submission import EDITIONS, build, check, get_edition
from tinyscene.submission.complexity import figures, ledgers_of
from tinyscene.submission.team import read_team

YEARS = [int(year) for year in EDITIONS]
CLASSES = ["airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall"]
CLASSES += ["street_pedestrian", "street_traffic", "tram"]
# Typed from the organisers' validators; of 2025 from the template.
UNTIL_2021 = (
    "input_sampling_rate acoustic_features embeddings data_augmentation machine_learning_method "
    "ensemble_method_subsystem_count decision_making external_data_usage"
)
DESCRIPTION = {
    2020: f"{UNTIL_2021} complexity_management",
    2021: UNTIL_2021,
    2022: f"{UNTIL_2021} complexity_management pipeline framework",
    2023: f"{UNTIL_2021} complexity_management pipeline framework",
    2024: "input_sampling_rate acoustic_features data_augmentation machine_learning_method external_data_usage "
    "complexity_management pipeline framework split_adaptations system_adaptations",
    2025: "input_sampling_rate acoustic_features data_augmentation machine_learning_method external_data_usage "
    "complexity_management pipeline framework device_information num_models_at_inference model_weight_sharing",
}
COMPLEXITY = {
    2020: "total_parameters total_parameters_non_zero model_size",
    2021: "total_parameters total_parameters_non_zero model_size",
    2022: "total_parameters total_parameters_non_zero memory_use macs",
    2023: "total_model_size total_parameters total_parameters_non_zero memory_use macs",
    2024: "total_model_size total_parameters macs",
    2025: "total_model_size total_parameters macs",
}
LAYOUT = {
    2020: "submission/task1b/VanHove_JKU_task1b_2/VanHove_JKU_task1b_2.output.csv",
    2021: "submission/task1a/VanHove_JKU_task1a_2/VanHove_JKU_task1a_2.output.csv",
    2022: "task1/VanHove_JKU_task1_2/VanHove_JKU_task1_2.output.csv",
    2023: "task1/VanHove_JKU_task1_2/VanHove_JKU_task1_2.output.csv",
    2024: "task1/VanHove_JKU_task1_2/VanHove_JKU_task1_2.output.split_5.csv",
    2025: "task1/VanHove_JKU_task1_2/VanHove_JKU_task1_2.output.csv",
}


def meta_of(built, index=1):
    (path,) = built.place(index).glob("*.meta.yaml")
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("year", YEARS)
def test_what_is_built_passes_the_check(submitted, year):
    built = submitted(year)
    report = check(built.out, built.edition, audio=built.audio, models=built.runs, run=False)
    assert (report.problems, report.ok, len(report.systems)) == ((), True, 2), report.text
    assert report.notes == report.notes[: year == 2025]
    assert all(note.startswith("the inference package was not run") for note in report.notes)


@pytest.mark.parametrize("year", YEARS)
def test_the_zip_holds_the_same_in_the_editions_layout(submitted, year):
    built = submitted(year)
    (archive,) = built.out.glob("*.zip")
    names = zipfile.ZipFile(archive).namelist()
    assert LAYOUT[year] in names
    assert LAYOUT[year].replace("output.split_5.csv", "meta.yaml").replace("output.csv", "meta.yaml") in names
    assert sum(name.endswith(".technical_report.pdf") for name in names) == 1
    report = check(archive, built.edition, evaluation=built.list, models=built.runs, run=False)
    assert report.problems == (), report.text


@pytest.mark.parametrize("year", YEARS)
def test_rows_are_what_the_model_says(submitted, year):
    built = submitted(year)
    classes = ["indoor", "outdoor", "transportation"] if year == 2020 else CLASSES
    for ending, split in built.edition.outputs.items():
        (path,) = built.place().glob(f"*.{ending}")
        with path.open(newline="") as file:
            header, *rows = csv.reader(file, delimiter="\t")
        assert header == ["filename", "scene_label", *classes]
        assert [row[0] for row in rows] == [f"audio/{number}.wav" for number in range(CLIPS)]
        loaded = {
            device: SceneClassifier.load(built.runs[0] / split / device)
            for device in ("", "devices/a")[: 1 + (year == 2025)]
        }
        for number, (name, label, *values) in enumerate(rows):
            own = year == 2025 and HEARD[number % len(HEARD)] == "a"
            said = loaded["devices/a" if own else ""].predict(built.audio / name)
            assert label == said.label
            assert [float(value) for value in values] == pytest.approx(list(said.probabilities.values()), abs=1e-6)


@pytest.mark.parametrize("year", YEARS)
def test_fields_are_those_of_the_organisers(submitted, year):
    meta = meta_of(submitted(year))
    assert set(DESCRIPTION[year].split()) <= meta["system"]["description"].keys()
    assert meta["system"]["complexity"].keys() == set(COMPLEXITY[year].split())
    assert {"source_code", "external_datasets"} <= meta["system"].keys()
    assert ("energy_consumption" in meta["system"]) == (year == 2023)
    assert meta["submission"]["authors"][1]["corresponding"] is True
    assert meta["system"]["description"]["input_sampling_rate"] == "8kHz"
    development = meta["results"]["development_dataset"]
    blocks = {2024: ["split_5", "split_10", "split_25", "split_50", "split_100"], 2025: ["device_specific", "general"]}
    for block in [development[name] for name in blocks[year]] if year in blocks else [development]:
        assert block.keys() == {"overall", "class_wise"} | ({"device_wise"} if year > 2020 else set())
        assert block["overall"].keys() == {"accuracy", "logloss"}


@pytest.mark.parametrize("year", YEARS)
def test_complexity_is_the_ledgers(submitted, year):
    built = submitted(year)
    rules = RULES[f"dcase{year}"]
    folders = [built.runs[0] / split for split in built.edition.splits] or [built.runs[0]]
    folders += [built.runs[0] / "devices" / "a"] if year == 2025 else []
    ledgers = [count((one := SceneClassifier.load(f)).network, one.example(rules.clip_s)) for f in folders]
    stated = meta_of(built)["system"]["complexity"]
    for finding in zip(*(rules.judge(ledger).findings for ledger in ledgers), strict=True):
        most = max(one.value for one in finding)
        quantity = finding[0].limit.quantity
        field = {"macs": "macs", "parameters": "total_parameters"}.get(quantity, "total_model_size")
        if field == "total_model_size" and year <= 2021:
            assert stated["model_size"] == most / 1024
        else:
            assert stated[field] == most


@pytest.mark.parametrize("year", [2024, 2025])
def test_complexity_is_what_the_organisers_script_counts(submitted, year):
    """torchinfo on a float32 copy, and the bytes of parameters(): complexity.py of both baselines."""
    built = submitted(year)
    largest = SceneClassifier.load(built.runs[0] / ("split_100" if year == 2024 else "devices/a"))
    shape = tuple(largest.example(1.0).shape)
    stated = meta_of(built)["system"]["complexity"]
    assert stated["total_model_size"] == sum(p.numel() * p.element_size() for p in largest.network.parameters())
    assert stated["total_parameters"] == sum(p.numel() for p in largest.network.parameters())
    assert stated["macs"] == torchinfo.summary(largest.network.float(), input_size=shape, verbose=0).total_mult_adds


def test_only_the_early_editions_leave_out_pruned_weights():
    counted = {}
    for year in YEARS:
        edition = get_edition(year)
        pruned = MagnitudePruning(0.5).shape(classifier(edition).float())
        counted[year] = figures(edition, ledgers_of(edition, [pruned]))
    for year in (2020, 2021, 2022, 2023):
        assert counted[year]["total_parameters_non_zero"] < 0.8 * counted[year]["total_parameters"]
    for year in (2020, 2021):
        assert counted[year]["model_size"] == 4 * counted[year]["total_parameters_non_zero"] / 1024
    assert counted[2024]["total_model_size"] == 4 * counted[2024]["total_parameters"]


def test_nothing_is_left_of_a_build_that_fails(submitted, tmp_path):
    built = submitted(2022)
    given = {"audio": built.audio, "authors": built.authors, "quiet": True}
    short = tmp_path / "list.csv"
    short.write_text("filename\naudio/0.wav\naudio/99.wav\n")
    with pytest.raises(InputError, match=r"1 of 2 listed files are missing: audio/99.wav"):
        build(built.runs, built.edition, **given, out=tmp_path / "out", evaluation=short)
    with pytest.raises(InputError, match="2 systems, while 1 runs were given; accepted: one for each"):
        build(built.runs[:1], built.edition, **given, out=tmp_path / "out")
    with pytest.raises(InputError, match="5 runs; accepted: 1 to 4"):
        build([*built.runs, *built.runs, *built.runs][:5], built.edition, **given, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


def test_a_folder_is_not_overwritten_unasked(submitted, tmp_path):
    built = submitted(2022)
    (out := tmp_path / "out").mkdir()
    (out / "mine.txt").write_text("precious")
    given = {"audio": built.audio, "authors": built.authors, "out": out, "quiet": True}
    with pytest.raises(InputError, match=r"out: is there already; accepted: another folder, or --overwrite"):
        build(built.runs, built.edition, **given)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(
        InputError, match=r"out: mine.txt would be deleted; accepted with --overwrite: a folder with a sub"
    ):
        build(built.runs, built.edition, **given, overwrite=True)
    # Somebody's zip is not one of ours.
    (out / "mine.txt").rename(out / "data.zip")
    with pytest.raises(InputError, match=r"out: data.zip would be deleted"):
        build(built.runs, built.edition, **given, overwrite=True)
    (out / "data.zip").rename(out / "Hu_JKU_task1.zip")
    build(built.runs, built.edition, **given, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["VanHove_JKU_task1.zip", "task1"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("year", YEARS)
def test_an_example_of_the_authors_file_is_written_and_its_placeholders_are_refused(submitted, tmp_path, year):
    built = submitted(year)
    authors = tmp_path / "authors.yaml"
    given = {"audio": built.audio, "authors": authors, "out": tmp_path / "out", "quiet": True}
    with pytest.raises(InputError, match=f"an example for {year} was written to it"):
        build(built.runs, built.edition, **given)
    text = (
        authors.read_text().replace("lastname: xxx", "lastname: Hu").replace("abbreviation: xxx\n", "abbreviation: A\n")
    )
    authors.write_text(text)
    found = check(build(built.runs, built.edition, **given), built.edition, evaluation=built.list, run=False)
    named = {problem.where for problem in found.problems}
    assert {"submission.authors[0].email", "submission.name", "system.description.machine_learning_method"} <= named
    assert {problem.accepted for problem in found.problems} == {"what is yours, or null"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("authors:", "people:", "no list of authors"),
        ("lastname: Van Hove", "name: Van Hove", r"authors\[1\] has no lastname"),
        ("abbreviation: JKU", "short: JKU", r"has no affiliation.abbreviation"),
        ("lastname: Van Hove", "lastname: 范", "accepted: both with letters from a to z"),
        ("authors:", "authors: [", r"authors.yaml:\d+: .*accepted: YAML in UTF-8"),
        ("authors:", "a: &a [*a]\nauthors:", r"authors.yaml: is nested too deeply, or holds itself; accepted: YAML"),
        ("lastname: Van Hove", "lastname: No", r"authors\[1\].lastname is False; accepted: text, in quotes"),
        ("description:", "description: CNN\n  old:", r"systems\[0\].description is 'CNN'; accepted: a block of fields"),
    ],
)
def test_broken_authors_files(submitted, tmp_path, old, new, said):
    built = submitted(2021)
    path = authors_file(tmp_path / "authors.yaml", built.edition)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=said):
        build(built.runs, built.edition, audio=built.audio, authors=path, out=tmp_path / "out", quiet=True)


def test_letters_under_accents_stay_in_the_label(submitted, tmp_path):
    path = authors_file(tmp_path / "authors.yaml", get_edition(2021))
    path.write_text(path.read_text().replace("Van Hove", "Müller-Núñez").replace("JKU", "ÉTS"))
    assert read_team(path, get_edition(2021), 2).name == "Muller-Nunez_ETS"


def test_runs_that_do_not_fit_the_edition(submitted, tmp_path):
    built = submitted(2024)
    given = {"audio": built.audio, "authors": built.authors, "out": tmp_path / "out", "quiet": True}
    with pytest.raises(
        InputError, match="has no folder split_5, split_10.*accepted for 2024: the model of every split"
    ):
        build([built.runs[0] / "split_5"], built.edition, **given)
    with pytest.raises(InputError, match="has the classes airport.*accepted for 2020: indoor, outdoor, transportation"):
        build([built.runs[0] / "split_5"], get_edition(2020), **given)
    with pytest.raises(InputError, match="models for single devices; accepted for 2023: one model"):
        build([submitted(2025).runs[0]], get_edition(2023), **given)
    with pytest.raises(InputError, match="holds 0 models"):
        build([tmp_path], get_edition(2023), **given)
    with pytest.raises(InputError, match="edition 2019; accepted: 2020, 2021"):
        get_edition(2019)


def test_results_come_from_a_run_on_the_editions_own_data(submitted, tmp_path):
    from tinyscene.data import Clip, Clips
    from tinyscene.evaluation import Scores

    edition = get_edition(2022)
    run = tmp_path / "run"
    place = run / "small" / "seed-0"
    classifier(edition).save(place)
    rows = tuple(Clip(f"{n}.wav", edition.classes[n % 10], "test", device="ab"[n % 2]) for n in range(40))
    probabilities = (
        torch.randn(40, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1).numpy()
    )
    scores = Scores(Clips("x", run, edition.classes, rows), probabilities)
    scores.save(place / "predictions.csv")
    built = submitted(2022)
    authors = authors_file(tmp_path / "authors.yaml", edition, 1)
    for dataset in ("synthetic", "tau2022-mobile"):
        (run / "receipt.json").write_text(f'{{"dataset": "{dataset}"}}')
        build([run], edition, audio=built.audio, authors=authors, out=tmp_path / dataset, quiet=True)
        found = meta_of(built._replace(out=tmp_path / dataset))["results"]["development_dataset"]
        if dataset == "synthetic":
            assert found["overall"] == {"accuracy": None, "logloss": None}
        else:
            assert found["overall"]["accuracy"] == pytest.approx(100 * scores.macro_accuracy, abs=0.005)
            assert found["device_wise"]["b"]["logloss"] == pytest.approx(
                scores.by("device")["b"].macro_log_loss, abs=1e-4
            )
            assert found["device_wise"]["s6"]["accuracy"] is None
            assert check(tmp_path / dataset, edition, evaluation=built.list, models=[run]).problems == ()


def test_every_edition_says_where_it_comes_from():
    for edition in EDITIONS.values():
        assert edition.sources
        assert all("http" in source for source in edition.sources)
        assert edition.unverified
