"""The six editions, each a value.

The organisers published a validator for every edition up to 2024, and for 2025 an inference package; their code was
read, and its checks, typed anew, were run on what `build` writes; none of it is here. Where a fact is in neither, it
stands under `unverified`.
"""

from tinyscene.errors import InputError
from tinyscene.rules import dcase2020, dcase2021, dcase2022, dcase2023, dcase2024, dcase2025
from tinyscene.submission.edition import Edition

DEVICES = ("a", "b", "c", "s1", "s2", "s3", "s4", "s5", "s6")
_VALIDATOR = "https://github.com/toni-heittola/dcase{}_task1_submission_validator (main.py, validators.py)"
_PAGE = "https://dcase.community/challenge{}/submission"
_UP_TO_2023 = (
    "input_sampling_rate",
    "acoustic_features",
    "embeddings",
    "data_augmentation",
    "machine_learning_method",
    "ensemble_method_subsystem_count",
    "decision_making",
    "external_data_usage",
    "complexity_management",
)
_REPORT = (
    "The technical report's place and name in the zip: beside the systems' folders, as TEAM_TASK.technical_report.pdf."
)
_MEMORY = (
    "The unit of memory_use: written in bytes, as the parameters are stored. The validator wants a number; the "
    "organisers' template could not be read."
)

edition2020 = Edition(
    year=2020,
    rules=dcase2020,
    task="task1b",
    folder="submission/task1b",
    clips=8640,
    development="tau2020-3class",
    description=_UP_TO_2023,
    complexity={"total_parameters": "parameters", "total_parameters_non_zero": "nonzero", "model_size": "KB"},
    sources=(
        _VALIDATOR.format(2020),
        "https://github.com/brain-bzh/dcase-2020-task1-subtaskB (a filled-in meta file of a participant)",
        _PAGE.format(2020),
    ),
    unverified=(
        "The names of the zip's outer folders: the validator reads the system's label at the third level alone.",
        "input_channels, which a participant's meta file has and the validator does not want, is left out.",
        _REPORT,
    ),
)

edition2021 = Edition(
    year=2021,
    rules=dcase2021,
    task="task1a",
    folder="submission/task1a",
    clips=7920,
    development="tau2020-mobile",
    description=_UP_TO_2023,
    complexity={"total_parameters": "parameters", "total_parameters_non_zero": "nonzero", "model_size": "KB"},
    devices=DEVICES,
    sources=(
        _VALIDATOR.format(2021),
        "https://github.com/valeoai/SP4ASC (the template, and a whole submission: folders, meta and output files)",
        _PAGE.format(2021),
    ),
    unverified=(_REPORT,),
)

edition2022 = Edition(
    year=2022,
    rules=dcase2022,
    clips=118_800,
    development="tau2022-mobile",
    description=(*_UP_TO_2023, "pipeline", "framework"),
    complexity={
        "total_parameters": "parameters",
        "total_parameters_non_zero": "nonzero",
        "memory_use": "bytes",
        "macs": "macs",
    },
    devices=DEVICES,
    sources=(_VALIDATOR.format(2022), _PAGE.format(2022)),
    unverified=(_MEMORY, _REPORT),
)

edition2023 = Edition(
    year=2023,
    rules=dcase2023,
    clips=118_800,
    development="tau2022-mobile",
    description=(*_UP_TO_2023, "pipeline", "framework"),
    complexity={
        "total_model_size": "bytes",
        "total_parameters": "parameters",
        "total_parameters_non_zero": "nonzero",
        "memory_use": "bytes",
        "macs": "macs",
    },
    energy=("training", "inference", "baseline_inference"),
    devices=DEVICES,
    sources=(_VALIDATOR.format(2023), _PAGE.format(2023)),
    unverified=(
        _MEMORY,
        "The unit of total_model_size: written in bytes, as the templates of 2024 and 2025 say.",
        "The unit of energy: kWh by the task's text, from memory. Nothing here measures it: it comes from you.",
        _REPORT,
    ),
)

edition2024 = Edition(
    year=2024,
    rules=dcase2024,
    clips=135_730,
    development="tau2022-mobile",
    description=(
        "input_sampling_rate",
        "acoustic_features",
        "data_augmentation",
        "machine_learning_method",
        "external_data_usage",
        "complexity_management",
        "pipeline",
        "framework",
        "split_adaptations",
        "system_adaptations",
    ),
    complexity={"total_model_size": "bytes", "total_parameters": "parameters", "macs": "macs"},
    splits=("split_5", "split_10", "split_25", "split_50", "split_100"),
    results=("split_5", "split_10", "split_25", "split_50", "split_100"),
    devices=DEVICES,
    sources=(
        _VALIDATOR.format(2024),
        "https://github.com/CPJKU/dcase2024_task1_baseline",
        "https://github.com/seanyeo300/dcase2024_task1 (the meta template, filled in: total_model_size in bytes, MACs "
        "by NeSsi, null where a result is lacking; the report beside the systems as TEAM_TASK.technical_report.pdf)",
        _PAGE.format(2024),
    ),
    unverified=(
        "Whether a split may be missing: refused here, since the ranking averages over all five.",
        "Complexity where the splits' models differ: the largest figure, as the template of 2025 says of devices.",
        "How many systems: four, by the submission page and the validator; the template's comment says three.",
    ),
)

edition2025 = Edition(
    year=2025,
    rules=dcase2025,
    clips=None,
    development="tau2022-mobile",
    description=(
        "input_sampling_rate",
        "acoustic_features",
        "data_augmentation",
        "machine_learning_method",
        "external_data_usage",
        "complexity_management",
        "pipeline",
        "framework",
        "device_information",
        "num_models_at_inference",
        "model_weight_sharing",
    ),
    complexity={"total_model_size": "bytes", "total_parameters": "parameters", "macs": "macs"},
    urls=("inference_code", "source_code"),
    results=("device_specific", "general"),
    devices=DEVICES,
    package=True,
    sources=(
        "https://github.com/CPJKU/dcase2025_task1_inference (README, complexity.py, test_complexity.py, "
        "evaluate_submission.py), read in the participants' copies turquenite/ and wa976/dcase2025_task1_inference",
        "https://github.com/wa976/dcase2025_task1_inference (the meta template, filled in)",
        _PAGE.format(2025),
    ),
    unverified=(
        "Names in the zip: the organisers' script writes LABEL/output.csv, which its README says to hand in; the "
        "task's page could not be read to its end. LABEL.output.csv and LABEL.meta.yaml as in the years before.",
        "The number of evaluation clips: rows are compared with the list alone.",
        _REPORT,
    ),
)

EDITIONS: dict[str, Edition] = {
    str(edition.year): edition
    for edition in (edition2020, edition2021, edition2022, edition2023, edition2024, edition2025)
}


def get_edition(year: str | int) -> Edition:
    """The edition of `year`. Raises InputError, naming those there are."""
    if str(year) not in EDITIONS:
        raise InputError(f"edition {year}; accepted: {', '.join(EDITIONS)}")
    return EDITIONS[str(year)]
