"""Who hands in what: the authors' file, which a person writes."""

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tinyscene.errors import InputError
from tinyscene.submission.edition import Edition
from tinyscene.submission.problems import quoted

AUTHOR = ("lastname", "firstname", "email", "affiliation")
AFFILIATION = ("abbreviation", "institute", "department", "location")
NAMES = ("lastname", "firstname", "email")
PLACEHOLDER = "xxx"
# References can make some lines of YAML more values than a memory holds.
_MOST_VALUES = 100_000
YAML = "YAML in UTF-8, such as `name: value` lines"
# Filled in from the model, unless the file says otherwise.
FROM_MODEL = ("input_sampling_rate", "acoustic_features", "framework")
_HINTS = {
    "embeddings": "such as OpenL3, or null",
    "data_augmentation": "such as mixup, freq-mixstyle, or null",
    "machine_learning_method": "such as CNN, RNN, ensemble",
    "ensemble_method_subsystem_count": "how many, or null",
    "decision_making": "such as average, or null",
    "external_data_usage": "such as pre-trained model, or null",
    "complexity_management": "such as pruning, weight quantization",
    "pipeline": "such as training, pruning, fine-tuning",
    "split_adaptations": "what differs between the splits, or null",
    "system_adaptations": "what was adapted to little data, or null",
    "device_information": "such as per-device fine-tuning, or null",
    "num_models_at_inference": "1, and one more for each device with its own",
    "model_weight_sharing": "fully shared, partially shared or fully device-specific",
}


class Fault(NamedTuple):
    """Why a file is no YAML: in which row (0 if in none), and what the parser says."""

    row: int
    said: str


@dataclass(frozen=True)
class Team:
    """The authors, and what each system's meta file says beyond what can be counted.

    Attributes:
        authors: as the meta file has them.
        systems: one mapping a system: name, abbreviation, description, addresses, energy, external datasets.
    """

    authors: tuple[dict[str, Any], ...]
    systems: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        """Lastname_Institute of the corresponding author, in letters, digits and hyphens."""
        author = next((one for one in self.authors if one.get("corresponding")), self.authors[0])
        parts = (str(author["lastname"]), str(author["affiliation"]["abbreviation"]))
        # Accents go, and the letters under them stay.
        letters = [unicodedata.normalize("NFKD", part) for part in parts]
        plain = [re.sub(r"[^\w-]|_", "", part, flags=re.ASCII) for part in letters]
        if not all(plain):
            raise InputError(
                f"the corresponding author has lastname {parts[0]!r} and affiliation.abbreviation {parts[1]!r}; "
                f"accepted: both with letters from a to z or digits, which the label is made of"
            )
        return "_".join(plain)


def read_team(path: Path, edition: Edition, systems: int) -> Team:
    """Read an authors' file.

    Where there is none yet, an example for this edition is written, and the error says so.

    Raises:
        InputError: there was none, it is not YAML, or it lacks authors or one of the systems.
    """
    if not path.exists():
        path.write_text(example(edition, systems), encoding="utf-8")
        raise InputError(
            f"{path}: was not there; an example for {edition.year} was written to it: put what is yours in place of "
            f"{PLACEHOLDER}, then give the same command again"
        )
    found, fault = read_yaml(path)
    if fault:
        where = f"{path}:{fault.row}" if fault.row else path
        raise InputError(f"{where}: {fault.said}; accepted: {YAML}")
    authors, listed = (found.get(key) if isinstance(found, dict) else None for key in ("authors", "systems"))
    if not isinstance(authors, list) or not authors or not all(isinstance(one, dict) for one in authors):
        raise InputError(f"{path}: no list of authors; accepted: authors, each with {', '.join(AUTHOR)}")
    for number, author in enumerate(authors):
        if wrong := [key for key in NAMES if not is_text(author.get(key, ""))]:
            # YAML takes No for false: that is a name, too.
            given = f"authors[{number}].{wrong[0]} is {quoted(author[wrong[0]])}"
            raise InputError(f"{path}: {given}; accepted: text, in quotes where YAML takes it for something else")
        lacking = [key for key in AUTHOR if not author.get(key)]
        if lacking or not isinstance(author["affiliation"], dict) or not author["affiliation"].get("abbreviation"):
            what = ", ".join(lacking) or "affiliation.abbreviation"
            raise InputError(
                f"{path}: authors[{number}] has no {what}; accepted: {', '.join(AUTHOR)}, and an affiliation with "
                f"{', '.join(AFFILIATION)}"
            )
    if not isinstance(listed, list) or len(listed) != systems or not all(isinstance(one, dict) for one in listed):
        held = len(listed) if isinstance(listed, list) else "no list of"
        raise InputError(f"{path}: {held} systems, while {systems} runs were given; accepted: one for each, in order")
    for number, system in enumerate(listed):
        for key in ("description", *(("energy_consumption",) if edition.energy else ())):
            if not isinstance(system.get(key) or {}, dict):
                given = f"systems[{number}].{key} is {quoted(system[key])}"
                raise InputError(f"{path}: {given}; accepted: a block of fields, as in the example")
    return Team(tuple(authors), tuple(listed))


def is_text(value: Any) -> bool:
    """Whether a name or an address is there, or nothing yet."""
    return value is None or isinstance(value, str)


def read_yaml(path: Path) -> tuple[Any, Fault | None]:
    """Plain values of a YAML file, or why it can't be read; nothing in it is executed."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except ValueError as error:
                # Looks like a date or a number and is none, such as 2021-13-45.
                raise yaml.MarkedYAMLError(None, None, f"{quoted(node.value)}: {error}", node.start_mark) from error

    try:
        value = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
        if _size(value, {}) > _MOST_VALUES:
            return None, Fault(0, f"comes to more than {_MOST_VALUES:,} values")
        return value, None
    except RecursionError:
        return None, Fault(0, "is nested too deeply, or holds itself")
    except OSError as error:
        return None, Fault(0, f"can't be read ({error.strerror})")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        return None, Fault(mark.line + 1 if mark else 0, said)


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values a walk through all references meets; RecursionError where one holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(_size(one, known) for one in (value.values() if isinstance(value, dict) else value))
    return known[id(value)]


def as_yaml(value: Any) -> str:
    """Plain values as YAML, in their order; what stands twice is written twice, as a person would."""
    import yaml

    # Through JSON, nothing is one object in two places, which YAML would write as a reference.
    return str(
        yaml.safe_dump(json.loads(json.dumps(value, default=str)), sort_keys=False, allow_unicode=True, width=100)
    )


def is_placeholder(value: Any) -> bool:
    """Whether a person has yet to write something here."""
    text = str(value).strip()
    return bool(re.search(r"xxx|\byour[_ ]|\bTODO\b|\bTB[AD]\b|@example\.", text, re.IGNORECASE)) or (
        bool(re.fullmatch(r"\[.*\]|<.*>|\?+|\.\.\.", text)) and not isinstance(value, list | dict)
    )


def placeholders(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Dotted paths, each with its value, of what is still to be written."""
    if isinstance(value, dict):
        inner = [(f"{path}.{key}" if path else str(key), one) for key, one in value.items()]
    elif isinstance(value, list):
        inner = [(f"{path}[{number}]", one) for number, one in enumerate(value)]
    else:
        return [(path, str(value))] if isinstance(value, str) and is_placeholder(value) else []
    return [found for where, one in inner for found in placeholders(one, where)]


def example(edition: Edition, systems: int) -> str:
    """An authors' file with placeholders."""
    lines = [
        f"# Who hands in what to DCASE {edition.year} Task 1: put yours in place of every {PLACEHOLDER}; null where a",
        "# field does not apply. Complexity, sampling rate and results are filled in from the models.",
        "authors:",
        f"  - lastname: {PLACEHOLDER}",
        f"    firstname: {PLACEHOLDER}",
        f"    email: {PLACEHOLDER}",
        "    corresponding: true        # of one author; name and institute make the label",
        "    affiliation:",
        *(f"      {key}: {PLACEHOLDER}" for key in AFFILIATION),
        f"systems:                       # one for each run, in the order of the command: {systems}",
    ]
    for _ in range(systems):
        lines += [
            f"  - name: {PLACEHOLDER}",
            f"    abbreviation: {PLACEHOLDER}          # 10 characters at most",
            "    description:",
        ]
        own = [name for name in edition.description if name not in FROM_MODEL]
        lines += [f"      {name}: {PLACEHOLDER}".ljust(50) + f"# {_HINTS[name]}" for name in own]
        if edition.energy:
            lines += ["    energy_consumption:          # kWh", *(f"      {name}: null" for name in edition.energy)]
        lines += ["    external_datasets: []        # each with name, url, total_audio_length (minutes)"]
        lines += [f"    {name}: {'null' if name == 'source_code' else PLACEHOLDER}" for name in edition.urls]
    return "\n".join(lines) + "\n"
