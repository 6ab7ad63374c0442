"""What DCASE 2024 and 2025 Task 1 ask of a submission, as data; docs/submission.md names the sources."""

from dataclasses import dataclass

from tinyscene.errors import InputError
from tinyscene.rules import Rules, dcase2024, dcase2025

# The third part of a label such as Lastname_Institute_task1_1, and the folder of the zip.
TASK = "task1"
META = "meta.yaml"
MOST_SYSTEMS = 4
DEVICES = ("a", "b", "c", "s1", "s2", "s3", "s4", "s5", "s6")
# The data set that the results block is about.
DEVELOPMENT = "tau2022-mobile"
COMPLEXITY = ("total_model_size", "total_parameters", "macs")
# Fields of system.description: those known from the model, and those of the authors.
FROM_MODEL = ("input_sampling_rate", "acoustic_features", "framework")
_METHOD = ("data_augmentation", "machine_learning_method", "external_data_usage", "complexity_management", "pipeline")


@dataclass(frozen=True)
class Edition:
    """What a system's files hold. Limits, classes and the length of a clip are those of `rules`.

    Attributes:
        description: fields of system.description that the authors fill in.
        results: blocks of results.development_dataset.
        outputs: the ending of each output file, and the split whose model it is of ("" where there are no splits).
        clips: how many the official evaluation set has; None where it is not known here.
        package: whether the inference code is handed in too, and with it models for single devices.
    """

    rules: Rules
    description: tuple[str, ...]
    results: tuple[str, ...]
    outputs: dict[str, str]
    clips: int | None
    package: bool


_SPLITS = ("split_5", "split_10", "split_25", "split_50", "split_100")
EDITIONS = {
    "2024": Edition(
        rules=dcase2024,
        description=(*_METHOD, "split_adaptations", "system_adaptations"),
        results=_SPLITS,
        outputs={f"output.{split}.csv": split for split in _SPLITS},
        clips=135_730,
        package=False,
    ),
    "2025": Edition(
        rules=dcase2025,
        description=(*_METHOD, "device_information", "num_models_at_inference", "model_weight_sharing"),
        results=("device_specific", "general"),
        outputs={"output.csv": ""},
        clips=None,
        package=True,
    ),
}


def get_edition(year: str | int) -> Edition:
    """The edition of `year`. Raises InputError, naming those there are."""
    if str(year) not in EDITIONS:
        raise InputError(f"edition {year}; accepted: {', '.join(EDITIONS)}")
    return EDITIONS[str(year)]
