"""Count a system without data: its stages change the untrained network's shape, and nothing is fitted."""

from pathlib import Path

import torch

from tinyscene.accounting import count, get_convention
from tinyscene.compression import HalfPrecision
from tinyscene.evaluation.scorecard import Row
from tinyscene.models import NETWORKS
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.published import create_classifier
from tinyscene.rules import Rules, dcase2024
from tinyscene.systems.system import SYSTEMS, SystemFile, stage_label


def count_system(file: SystemFile, rules: Rules | None = None) -> list[Row]:
    """A row a stage of every variant, the report's figures beside the last one. `rules` judges by another edition."""
    rows = []
    for variant, system in file.variants.items():
        edition = rules or system.rules
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            classifier = system.build(system.rules.classes)
            for index, stage in enumerate(system.stages):
                classifier = stage.shape(classifier)
                rows.append(stage_row(file, variant, index, classifier, edition))
    return rows


def stage_row(file: SystemFile, variant: str, index: int, classifier: SceneClassifier, rules: Rules) -> Row:
    """Count what the stage `index` of a variant left.

    The printed figures stand beside the last one, where the number of classes is the report's.
    """
    system = file.variants[variant]
    ledger = count(classifier.network, classifier.example(rules.clip_s))
    comparable = index == len(system.stages) - 1 and len(classifier.classes) == len(system.rules.classes)
    return Row(
        system=file.name,
        variant=variant,
        index=index,
        stage=stage_label(system.stages[index]),
        ledger=ledger,
        convention=system.reported.convention,
        rules=rules,
        classes=len(classifier.classes),
        reported=system.reported.beside(ledger) if comparable else {},
    )


def is_system(target: str) -> bool:
    """Whether `target` names a system or a system's file, and not a network or a saved model."""
    return target in SYSTEMS or target.endswith(".py") or not (target in NETWORKS or Path(target).is_dir())


def count_model(target: str, rules: Rules | None = None, *, half: bool = False) -> Row:
    """A network of the menu, untrained and behind its published front end, or a saved classifier.

    Counted for a clip of the edition; by that of 2024 where none is named. `half` counts it with 16-bit weights.
    """
    edition = rules or dcase2024
    with torch.random.fork_rng(devices=[]):
        classifier = (
            create_classifier(target, edition.classes) if target in NETWORKS else SceneClassifier.load(Path(target))
        )
    if half:
        classifier = HalfPrecision().shape(classifier)
    convention = next((limit.convention for limit in edition.limits if limit.convention), "bn2")
    return Row(
        system=target,
        variant=target,
        index=0,
        stage="as built" if target in NETWORKS else "as saved",
        ledger=count(classifier.network, classifier.example(edition.clip_s)),
        convention=get_convention(convention),
        rules=edition,
        classes=len(classifier.classes),
    )
