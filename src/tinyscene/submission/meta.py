"""The meta file of a system: what it is called, who made it, what it costs, how well it did in development."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tinyscene.evaluation import Scores
from tinyscene.features import Gammatone, LogMel, Raw
from tinyscene.models.classifier import SceneClassifier
from tinyscene.submission.edition import SCORES, Edition
from tinyscene.submission.problems import Problem, quoted
from tinyscene.submission.team import AFFILIATION, AUTHOR, NAMES, PLACEHOLDER, is_text, placeholders

_FEATURES = {LogMel: "log-mel energies", Gammatone: "gammatone spectrogram", Raw: "raw waveform"}
_LONGEST_ABBREVIATION = 10
# Beyond this, whole numbers are not all floats: nobody's network.
_MOST = 10**15


def meta_of(
    edition: Edition,
    label: str,
    authors: Iterable[dict[str, Any]],
    system: dict[str, Any],
    classifier: SceneClassifier,
    complexity: dict[str, float],
    results: dict[str, Scores | None],
) -> dict[str, Any]:
    """The meta file's content.

    Args:
        system: what the authors' file says of it.
        classifier: the system's, or the first of its splits.
        complexity: fields and figures.
        results: scores on the development set's test part by block ("" where figures stand there directly).
    """
    known = {
        "input_sampling_rate": f"{classifier.sample_rate / 1000:g}kHz",
        "acoustic_features": _FEATURES.get(type(classifier.frontend), PLACEHOLDER),
        "framework": "pytorch",
    }
    own = system.get("description") or {}
    described = {name: own.get(name, known.get(name, PLACEHOLDER)) for name in edition.description}
    blocks = {block: _results(edition, scores) for block, scores in results.items()}
    return {
        "submission": {
            "label": label,
            "name": system.get("name", PLACEHOLDER),
            "abbreviation": system.get("abbreviation", PLACEHOLDER),
            "authors": [_in_order(author) for author in authors],
        },
        "system": {
            "description": described,
            "complexity": {name: int(value) if value == int(value) else value for name, value in complexity.items()},
            **({"energy_consumption": _energy(edition, system)} if edition.energy else {}),
            "external_datasets": system.get("external_datasets") or [],
            **{name: system.get(name) for name in edition.urls},
        },
        "results": {"development_dataset": blocks.get("", blocks)},
    }


def _in_order(author: dict[str, Any]) -> dict[str, Any]:
    """As the template has it: names first, then what else the authors' file says."""
    keys = dict.fromkeys((*(key for key in AUTHOR if key != "affiliation"), "corresponding", "affiliation", *author))
    return {key: author[key] for key in keys if key in author}


def _energy(edition: Edition, system: dict[str, Any]) -> dict[str, Any]:
    given = system.get("energy_consumption") or {}
    return {name: given.get(name) for name in edition.energy}


def _results(edition: Edition, scores: Scores | None) -> dict[str, Any]:
    """Percent, and means over the classes; null where the run was not scored on the edition's development set."""
    by_class = scores.by("scene") if scores else {}
    by_device = scores.by("device") if scores else {}

    def figures(one: Scores | None) -> dict[str, float | None]:
        if one is None:
            return dict.fromkeys(SCORES)
        return {"accuracy": round(100 * one.macro_accuracy, 2), "logloss": round(one.macro_log_loss, 4)}

    found: dict[str, Any] = {"overall": figures(scores)}
    found["class_wise"] = {scene: figures(by_class.get(scene)) for scene in edition.classes}
    if edition.devices:
        found["device_wise"] = {device: figures(by_device.get(device)) for device in edition.devices}
    return found


def check_meta(meta: Any, name: str, label: str, edition: Edition) -> tuple[dict[str, float], list[Problem]]:
    """Compare a meta file with the edition's fields; what is stated of complexity comes back as numbers."""
    if not isinstance(meta, dict):
        accepted = "the blocks submission, system and results"
        return {}, [Problem(name, "", f"holds {type(meta).__name__}, no fields", accepted)]
    stated, problems = _check_system(meta, name, edition)
    problems = [*_check_submission(meta, name, label, edition), *problems, *_check_results(meta, name, edition)]
    for where, value in placeholders(meta):
        problems.append(Problem(name, where, f"{quoted(value)} is a placeholder", "what is yours, or null"))
    return stated, problems


def _block(meta: Any, path: str, name: str, fields: Iterable[str]) -> tuple[dict[str, Any], list[Problem]]:
    """The block at a dotted path, and a problem for every field that it lacks."""
    fields = tuple(fields)
    block = meta
    for key in path.split("."):
        block = block.get(key) if isinstance(block, dict) else None
    if not isinstance(block, dict):
        given = "missing" if block is None else quoted(block)
        return {}, [Problem(name, path, given, f"a block with {', '.join(fields)}")]
    return block, [Problem(name, f"{path}.{key}", "missing", "this field") for key in fields if key not in block]


def _check_submission(meta: Any, name: str, label: str, edition: Edition) -> list[Problem]:
    block, problems = _block(meta, "submission", name, ("label", "name", "abbreviation", "authors"))
    if "label" in block and block["label"] != label:
        accepted = f"{label}, as the folder and the files are named"
        problems.append(Problem(name, "submission.label", quoted(block["label"]), accepted))
    for key in ("name", "abbreviation"):
        if key in block and (not isinstance(block[key], str) or not block[key].strip()):
            problems.append(Problem(name, f"submission.{key}", quoted(block[key]), "text, in quotes if it is a number"))
    abbreviation = block.get("abbreviation")
    if isinstance(abbreviation, str) and len(abbreviation) > _LONGEST_ABBREVIATION:
        given = f"{quoted(abbreviation)} has {len(abbreviation)} characters"
        problems.append(Problem(name, "submission.abbreviation", given, f"{_LONGEST_ABBREVIATION} at most"))
    authors = block.get("authors")
    if "authors" in block and (not isinstance(authors, list) or not authors):
        return [*problems, Problem(name, "submission.authors", "no list", "a list with at least one author")]
    corresponding = 0
    for number, author in enumerate(authors or []):
        problems += _check_author(author, f"submission.authors[{number}]", name)
        corresponding += isinstance(author, dict) and author.get("corresponding") is True
    if authors and corresponding != 1:
        given = f"{corresponding} corresponding authors"
        problems.append(Problem(name, "submission.authors", given, "corresponding: true at one of them"))
    return problems


def _check_author(author: Any, where: str, name: str) -> Iterator[Problem]:
    if not isinstance(author, dict):
        yield Problem(name, where, quoted(author), f"fields {', '.join(AUTHOR)}")
        return
    for key in AUTHOR:
        value = author.get(key)
        if key in NAMES and not is_text(value):
            yield Problem(
                name, f"{where}.{key}", quoted(value), "text, in quotes where YAML takes it for something else"
            )
        elif not value:
            yield Problem(name, f"{where}.{key}", "missing", "this field")
        elif key == "affiliation" and not isinstance(value, dict | list):
            yield Problem(name, f"{where}.{key}", quoted(value), f"a block with {', '.join(AFFILIATION)}")
    if not isinstance(author.get("corresponding", False), bool | None):
        yield Problem(name, f"{where}.corresponding", quoted(author["corresponding"]), "true or false, without quotes")


def _check_system(meta: Any, name: str, edition: Edition) -> tuple[dict[str, float], list[Problem]]:
    blocks = ("description", "complexity", *(("energy_consumption",) if edition.energy else ()))
    system, problems = _block(meta, "system", name, ("external_datasets", *edition.urls))
    fields = (edition.description, tuple(edition.complexity), edition.energy)
    for key, wanted in zip(blocks, fields, strict=False):
        problems += _block(meta, f"system.{key}", name, wanted)[1]
    datasets = system.get("external_datasets")
    if datasets is not None and not isinstance(datasets, list | dict):
        accepted = "a list, each with name, url and total_audio_length; [] if there are none"
        problems.append(Problem(name, "system.external_datasets", quoted(datasets), accepted))
    for number, one in enumerate(datasets if isinstance(datasets, list) else []):
        lacking = [k for k in ("name", "url", "total_audio_length") if not isinstance(one, dict) or k not in one]
        where = f"system.external_datasets[{number}]"
        problems += [Problem(name, f"{where}.{key}", "missing", "this field") for key in lacking]
    stated, wrong = _check_complexity(system.get("complexity"), name, edition)
    problems += wrong
    if edition.package and system.get("inference_code") is None and "inference_code" in system:
        accepted = "the address of the inference package"
        problems.append(Problem(name, "system.inference_code", "null", accepted))
    return stated, problems


def _check_complexity(block: Any, name: str, edition: Edition) -> tuple[dict[str, float], list[Problem]]:
    stated, problems = {}, []
    for key, value in block.items() if isinstance(block, dict) else ():
        if key not in edition.complexity:
            continue
        # Sizes may be in units of 1000 or 1024 bytes; what is counted one by one is whole.
        whole = edition.complexity[key] in ("parameters", "nonzero", "macs")
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _MOST
        if number and (not whole or value == int(value)):
            stated[key] = float(value)
        else:
            accepted = "a whole number above 0" if whole else "a number above 0"
            problems.append(Problem(name, f"system.complexity.{key}", quoted(value), accepted))
    kept, total = stated.get("total_parameters_non_zero", 0), stated.get("total_parameters", math.inf)
    if kept > total:
        where = "system.complexity.total_parameters_non_zero"
        problems.append(Problem(name, where, f"{kept:,.0f}", f"at most total_parameters, {total:,.0f}"))
    return stated, problems


def _check_results(meta: Any, name: str, edition: Edition) -> list[Problem]:
    parts = {"class_wise": edition.classes, **({"device_wise": edition.devices} if edition.devices else {})}
    problems: list[Problem] = []
    for block in edition.results or ("",):
        path = "results.development_dataset" + (f".{block}" if block else "")
        found, lacking = _block(meta, path, name, ("overall", *parts))
        problems += lacking
        # The whole of a part may be left out (null), as may single figures.
        if found.get("overall") is not None:
            problems += _check_figures(meta, f"{path}.overall", name)
        for part, members in parts.items():
            if found.get(part) is not None:
                problems += _block(meta, f"{path}.{part}", name, members)[1]
                inner = found[part] if isinstance(found[part], dict) else {}
                for member in (one for one in members if one in inner):
                    problems += _check_figures(meta, f"{path}.{part}.{member}", name)
    return problems


def _check_figures(meta: Any, path: str, name: str) -> Iterator[Problem]:
    found, lacking = _block(meta, path, name, SCORES)
    yield from lacking
    for key in SCORES:
        value = found.get(key)
        if value is None:
            continue
        most = 100 if key == "accuracy" else math.inf
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            accepted = "percent, or null" if key == "accuracy" else "a number from 0, or null"
            yield Problem(name, f"{path}.{key}", quoted(value), accepted)
