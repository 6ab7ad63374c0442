"""Count a system without data: its stages only change the untrained network's shape."""

from dataclasses import replace

import torch

from tinyscene.accounting import Ledger, Precision, count_classifier
from tinyscene.compression import HalfPrecision
from tinyscene.deployment import FORMATS, Artifact
from tinyscene.errors import InputError
from tinyscene.evaluation.scorecard import Row
from tinyscene.models import NETWORKS
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.menu import create_classifier
from tinyscene.models.pretrained import located, names
from tinyscene.progress import bar
from tinyscene.rules import Rules, dcase2024
from tinyscene.systems.system import SYSTEMS, Shaped, SystemFile, shapes, stage_label

EXPORTED = tuple(FORMATS)


def count_system(
    file: SystemFile, rules: Rules | None = None, *, precision: Precision | None = None, quiet: bool = False
) -> list[Row]:
    """One row for each stage of every variant, the report's numbers beside the last one.

    Args:
        rules: judge by another edition than the report's.
        precision: of the activations, for the peak RAM; the network's own where None.
    """
    rows = []
    shaped: Shaped = []
    # Variants share stages, and training changes no structure: by the classifier, which `shaped` keeps.
    ledgers: dict[tuple[int, float], Ledger] = {}
    total = sum(len(system.stages) for system in file.variants.values())
    with bar(f"counting {file.name}", total, quiet=quiet) as advance:
        for variant, system in file.variants.items():
            edition = rules or system.rules
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                after = shapes(system, system.build(system.rules.classes), shaped)
            for index, classifier in enumerate(after):
                key = id(classifier), edition.clip_s
                if key not in ledgers:
                    ledgers[key] = count_classifier(classifier, edition.clip_s, precision=precision)
                rows.append(stage_row(file, variant, index, ledgers[key], edition))
                advance(variant)
    return rows


def stage_row(
    file: SystemFile, variant: str, index: int, ledger: Ledger, rules: Rules, classes: int | None = None
) -> Row:
    """The row of stage `index` of a variant, for the edition's number of classes, or `classes`.

    The report's numbers are beside the last one, where the number of classes is the report's.
    """
    system = file.variants[variant]
    classes = len(system.rules.classes) if classes is None else classes
    comparable = index == len(system.stages) - 1 and classes == len(system.rules.classes)
    reported = system.reported.beside(ledger) if system.reported and comparable else {}
    label = stage_label(system.stages[index])
    return Row(file.name, variant, index, label, ledger, system.convention, rules, classes, reported)


def is_system(target: str) -> bool:
    """Whether `target` names a system or its file, rather than a network, a saved model or an exported file.

    Raises:
        InputError: it is none of these.
    """
    system = target in SYSTEMS or target.endswith(".py")
    if not system and target not in NETWORKS and not located(target).is_dir() and not target.endswith(EXPORTED):
        raise InputError(
            f"no system, network or saved model {target!r}; accepted: {', '.join([*SYSTEMS, *NETWORKS, *names()])}, "
            f"the path of a system's .py file, the folder of a model, or an exported file ({', '.join(EXPORTED)})"
        )
    return system


def count(
    classifier: SceneClassifier,
    rules: Rules = dcase2024,
    *,
    name: str = "classifier",
    half: bool = False,
    precision: Precision | None = None,
) -> Row:
    """Count a classifier for a clip of an edition, and judge it; printed, the row is its ledger layer by layer.

    Args:
        half: count it with 16-bit weights.
        precision: of the activations, for the peak RAM; the network's own where None.
    """
    if not isinstance(classifier, SceneClassifier):
        raise InputError(
            f"count was given {type(classifier).__name__}; accepted: a SceneClassifier. A bare network is counted by "
            f"tinyscene.accounting.count(network, example)"
        )
    if half:
        classifier = HalfPrecision().shape(classifier)
    ledger = count_classifier(classifier, rules.clip_s, precision=precision)
    return Row(name, name, 0, "", ledger, rules.convention, rules, len(classifier.classes))


def count_model(
    target: str, rules: Rules | None = None, *, half: bool = False, precision: Precision | None = None
) -> Row:
    """`count` a network of the menu, behind its published front end, a saved classifier by its folder, or a file.

    By the edition of 2024 where none is named. A file's costs are in the certificate beside it.
    """
    edition = rules or dcase2024
    if not target.endswith(EXPORTED):
        network = target in NETWORKS
        classifier = create_classifier(target, edition.classes) if network else SceneClassifier.load(located(target))
        return count(classifier, edition, name=target, half=half, precision=precision)
    artifact = Artifact.load(target)
    ledger, clip_s = artifact.certificate.ledger, artifact.certificate.clip_s
    if artifact.step_samples:
        raise InputError(
            f"{target}: takes steps with a state, but {edition.name} judges files that take clips; accepted: the same "
            f"model exported without --step-s"
        )
    if rules is not None and abs(clip_s - rules.clip_s) * artifact.sample_rate > 0.5:
        raise InputError(
            f"{target}: counted for clips of {clip_s:g} s, but {rules.name} counts clips of {rules.clip_s:g} s; "
            f"accepted: a file exported with --clip-s {rules.clip_s:g}, or no rules"
        )
    if half or precision not in (None, ledger.precision):
        raise InputError(f"{target}: half or precision with an exported file; accepted: a file at its own precision")
    judged = replace(edition, clip_s=clip_s)
    return Row(target, target, 0, "", ledger, edition.convention, judged, len(artifact.classes))
