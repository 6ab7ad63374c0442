"""The meta file of a system as a pydantic model, and the authors' file, from which most of it comes."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic import field_validator as validator

from tinyscene.errors import InputError
from tinyscene.submission.edition import COMPLEXITY, DEVICES, FROM_MODEL, META, Edition

_TO_FILL_IN = "xxx"
_PLACEHOLDERS = re.compile(rf"{_TO_FILL_IN}|\byour[_ ]|\bTODO\b|\bTB[AD]\b|@example\.", re.IGNORECASE)


class _Block(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    @validator("*")
    @classmethod
    def _filled_in(cls, value: Any) -> Any:
        if _PLACEHOLDERS.search(str(value)):
            raise ValueError(f"{value!r:.80} is a placeholder; accepted: what is yours, or null")
        return value


_Text = Annotated[str, Field(min_length=1)]
_Positive = Annotated[float, Field(gt=0)]
_OneOrMore = BeforeValidator(lambda given: given if isinstance(given, list) else [given])


class _Author(_Block):
    lastname: _Text
    firstname: _Text
    email: _Text
    corresponding: bool | None = None
    affiliation: Any


def _one_corresponding(authors: list[_Author]) -> list[_Author]:
    corresponding = sum(author.corresponding is True for author in authors)
    if corresponding != 1:
        raise ValueError(f"{corresponding} corresponding authors; accepted: corresponding: true at one of them")
    return authors


def _begins_labels(team: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+_[A-Za-z0-9-]+", team):
        raise ValueError(f"{team!r}; accepted: Lastname_Institute, in letters from a to z, digits and hyphens")
    return team


_Authors = Annotated[list[_Author], Field(min_length=1), AfterValidator(_one_corresponding)]
_NAMES = {"name": _Text, "abbreviation": Annotated[str, Field(min_length=1, max_length=10)]}


def _block(**fields: Any) -> Any:
    """The model of a block that holds all of these fields, each of its kind."""
    kinds: dict[str, Any] = {name: (kind, ...) for name, kind in fields.items()}
    return create_model("Block", __base__=_Block, **kinds)


def _system(edition: Edition, *from_model: str) -> dict[str, Any]:
    """Fields of the system block, but for its complexity."""
    description = _block(**dict.fromkeys((*from_model, *edition.description), Any))
    fields = {"description": description, "external_datasets": Any, "source_code": Any}
    return fields | ({"inference_code": Annotated[list[_Text], _OneOrMore]} if edition.package else {})


def check_meta(path: Path, edition: Edition) -> tuple[dict[str, float], list[str]]:
    """The complexity block of a meta file, where the whole is as it should be, and a sentence for every problem."""
    if not path.is_file():
        return {}, []
    size, macs = (Annotated[_Positive, Field(le=limit.at_most)] for limit in edition.rules.limits)
    scores = _block(accuracy=Annotated[float, Field(ge=0, le=100)] | None, logloss=_Positive | None)
    result = _block(
        overall=scores | None,
        class_wise=_block(**dict.fromkeys(edition.rules.classes, scores)) | None,
        device_wise=_block(**dict.fromkeys(DEVICES, scores)) | None,
    )
    complexity = _block(**dict(zip(COMPLEXITY, (size, _Positive, macs), strict=True)))
    meta = _block(
        submission=_block(label=Literal[path.name.removesuffix(f".{META}")], **_NAMES, authors=_Authors),
        system=_block(**_system(edition, *FROM_MODEL), complexity=complexity),
        results=_block(development_dataset=_block(**dict.fromkeys(edition.results, result))),
    )
    given, problems = _read(path, meta)
    return {} if problems else given["system"]["complexity"], problems


def _read(path: Path, model: type[BaseModel]) -> tuple[Any, list[str]]:
    """What a file holds, and a sentence for every field that is missing, wrong, or still a placeholder."""
    try:
        given = yaml.safe_load(path.read_bytes())
        model.model_validate(given)
    except ValidationError as error:
        return given, [f"{path.name}{_sentence(one)}" for one in error.errors(include_url=False)]
    except (yaml.YAMLError, ValueError) as error:  # a ValueError of what looks like a date and is none
        return None, [f"{path.name}: {' '.join(str(error).split())}; accepted: YAML in UTF-8"]
    return given, []


def _sentence(error: Any) -> str:
    """Such as: , submission.authors[0].email: missing; accepted: this field"""
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error["loc"]).replace(".", ", ", 1)
    if error["type"] == "missing":
        return f"{place}: missing; accepted: this field"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    accepted = re.sub(r"^\w+ should (be|have) | after validation.*| or instance of \w+", "", error["msg"])
    return f"{place}: {error['input']!r:.80}; accepted: {accepted}"


def write_yaml(path: Path, value: Any) -> None:
    """Write plain values in their order."""
    # Through JSON: YAML would write what occurs twice as a reference to the first.
    plain = json.loads(json.dumps(value, default=str))
    path.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8")


def read_authors(path: Path, edition: Edition, systems: int) -> dict[str, Any]:
    """Read an authors' file: team (Lastname_Institute, how all labels begin), authors, and a block for each system.

    Where there is none, an example for this edition is written and named in the error.

    Raises:
        InputError: there was none, or what is in it can't be used; every such field is named.
    """
    system = _NAMES | _system(edition)
    if not path.exists():
        affiliation = dict.fromkeys(("abbreviation", "institute", "department", "location"), _TO_FILL_IN)
        author = dict.fromkeys(("lastname", "firstname", "email"), _TO_FILL_IN) | {"corresponding": True}
        description = dict.fromkeys(edition.description, _TO_FILL_IN)
        own = dict.fromkeys(system, _TO_FILL_IN) | {"description": description, "external_datasets": []}
        authors = [author | {"affiliation": affiliation}]
        write_yaml(path, {"team": _TO_FILL_IN, "authors": authors, "systems": [own] * systems})
        raise InputError(
            f"{path}: not found; an example for {edition.rules.name} was written there: replace every {_TO_FILL_IN} "
            f"and repeat the command"
        )
    of_systems: Any = list[_block(**system)]  # type: ignore[misc]  # made here
    listed = Annotated[of_systems, Field(min_length=systems, max_length=systems)]
    model = _block(team=Annotated[str, AfterValidator(_begins_labels)], authors=_Authors, systems=listed)
    given, problems = _read(path, model)
    if problems:
        raise InputError("\n".join(problems))
    return dict(given)
