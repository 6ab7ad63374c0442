"""The meta file of a system, as a model, and the authors' file, which the most of it comes from."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from tinyscene.errors import InputError
from tinyscene.submission.edition import DEVICES, Edition

PLACEHOLDER = "xxx"
_PLACEHOLDERS = re.compile(rf"{PLACEHOLDER}|\byour[_ ]|\bTODO\b|\bTB[AD]\b|@example\.", re.IGNORECASE)
_LONGEST = 80


class _Block(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def _filled_in(value: Any) -> Any:
    if _PLACEHOLDERS.search(str(value)):
        raise ValueError(f"{_shown(value)} is a placeholder; accepted: what is yours, or null")
    return value


def _present(address: Any) -> Any:
    if not address:
        raise ValueError(f"{address}; accepted: the address of the inference package")
    return address


def _begins_labels(team: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+_[A-Za-z0-9-]+", team):
        raise ValueError(f"{team!r}; accepted: Lastname_Institute, in letters from a to z, digits and hyphens")
    return team


def _blocks(*fields: str) -> AfterValidator:
    """A block with these fields, or a list of such blocks."""

    def check(given: Any) -> Any:
        for one in given if isinstance(given, list) else [given]:
            if not isinstance(one, dict) or not one.keys() >= {*fields}:
                raise ValueError(f"{_shown(one)}; accepted: a block with {', '.join(fields)}, or a list of these")
        return given

    return AfterValidator(check)


def _one_corresponding(authors: "list[_Author]") -> "list[_Author]":
    corresponding = sum(author.corresponding is True for author in authors)
    if corresponding != 1:
        raise ValueError(f"{corresponding} corresponding authors; accepted: corresponding: true at one of them")
    return authors


_Any = Annotated[Any, AfterValidator(_filled_in)]
_Text = Annotated[str, Field(min_length=1), AfterValidator(_filled_in)]
_Positive = Annotated[float, Field(gt=0)]


class _Author(_Block):
    lastname: _Text
    firstname: _Text
    email: _Text
    corresponding: bool | None = None
    affiliation: Annotated[_Any, _blocks("abbreviation")]


_Authors = Annotated[list[_Author], Field(min_length=1), AfterValidator(_one_corresponding)]


class _OwnSystem(_Block):
    description: dict[str, Any]


def block(fields: Mapping[str, Any]) -> Any:
    """The model of a block that holds all of these fields, each of its kind."""
    kinds: dict[str, Any] = {name: (kind, ...) for name, kind in fields.items()}
    return create_model("Block", __base__=_Block, **kinds)


def complexity_block(edition: Edition) -> Any:
    """The model of system.complexity: positive numbers within the edition's limits."""
    size, macs = edition.rules.limits
    return block(
        {
            "total_model_size": Annotated[_Positive, Field(le=size.at_most)],
            "total_parameters": Annotated[_Positive, Field(multiple_of=1)],
            "macs": Annotated[_Positive, Field(le=macs.at_most, multiple_of=1)],
        }
    )


def meta_model(edition: Edition, label: str) -> Any:
    """The model of a system's meta file."""
    scores = block({"accuracy": Annotated[float, Field(ge=0, le=100)] | None, "logloss": _Positive | None})
    result = {
        "overall": scores | None,
        "class_wise": block(dict.fromkeys(edition.rules.classes, scores)) | None,
        "device_wise": block(dict.fromkeys(DEVICES, scores)) | None,
    }
    submission = {
        "label": Literal[label],
        "name": _Text,
        "abbreviation": Annotated[str, Field(min_length=1, max_length=10), AfterValidator(_filled_in)],
        "authors": _Authors,
    }
    system = {
        "description": block(dict.fromkeys(edition.description, _Any)),
        "complexity": complexity_block(edition),
        "external_datasets": Annotated[_Any, _blocks("name", "url", "total_audio_length")] | None,
        "source_code": _Any,
        **({"inference_code": Annotated[_Any, AfterValidator(_present)]} if edition.package else {}),
    }
    results = {"development_dataset": block(dict.fromkeys(edition.results, block(result)))}
    return block({"submission": block(submission), "system": block(system), "results": block(results)})


def problems_of(model: type[BaseModel], given: Any, file: str) -> list[str]:
    """A sentence for every field that is missing, not what is accepted there, or still a placeholder."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        return [f"{', '.join(filter(None, (file, _dotted(one['loc']))))}: {_message(one)}" for one in errors]
    return []


def _message(error: Any) -> str:
    """In our words what pydantic found."""
    if error["type"] == "missing":
        return "missing; accepted: this field"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    accepted = re.sub(r"^\w+ should (be|have) | after validation.*", "", error["msg"])
    if error["type"] in ("model_type", "dict_type"):
        accepted = "a block of fields"
    return f"{_shown(error['input'])}; accepted: {accepted}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _dotted(path: Iterable[Any]) -> str:
    """submission.authors[0].email"""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file. Raises InputError, with file and row, where it is none."""
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError is of what looks like a date and is none, such as 2021-13-45.
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise InputError(f"{where}: {getattr(error, 'problem', None) or error}; accepted: YAML in UTF-8") from error


def write_yaml(path: Path, value: Any) -> None:
    """Write plain values in their order; what stands twice is written twice, as a person would."""

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
        def ignore_aliases(self, _: Any) -> bool:
            return True

    text = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(text, encoding="utf-8")


def read_authors(path: Path, edition: Edition, systems: int) -> dict[str, Any]:
    """Read an authors' file: team (Lastname_Institute, how all labels begin), authors, and a block for each system.

    Where there is none, an example for this edition is written, and the error says so.

    Raises:
        InputError: there was none, or what is in it can't be used; every such field is named.
    """
    if not path.exists():
        write_yaml(path, _example(edition, systems))
        raise InputError(
            f"{path}: was not there; an example for {edition.year} was written to it: put what is yours in place of "
            f"{PLACEHOLDER}, then give the same command again"
        )
    given = read_yaml(path)
    team = Annotated[str, AfterValidator(_begins_labels)]
    listed = Annotated[list[_OwnSystem], Field(min_length=systems, max_length=systems)]
    if problems := problems_of(block({"team": team, "authors": _Authors, "systems": listed}), given, str(path)):
        raise InputError("\n".join(problems))
    return dict(given)


def _example(edition: Edition, systems: int) -> dict[str, Any]:
    affiliation = dict.fromkeys(("abbreviation", "institute", "department", "location"), PLACEHOLDER)
    author = dict.fromkeys(("lastname", "firstname", "email"), PLACEHOLDER)
    system = {
        "name": PLACEHOLDER,
        "abbreviation": f"{PLACEHOLDER} (10 characters at most)",
        "description": {field: f"{PLACEHOLDER} ({hint})" for field, hint in edition.description.items() if hint},
        "external_datasets": [],
        **dict.fromkeys(("source_code", "inference_code")[: 1 + edition.package], PLACEHOLDER),
    }
    return {
        "team": f"{PLACEHOLDER} (Lastname_Institute of the corresponding author)",
        "authors": [author | {"corresponding": True, "affiliation": affiliation}],
        "systems": [system] * systems,
    }
