"""The file of a stage: exported, compared with its classifier on test clips, and counted by reading it."""

from pathlib import Path
from typing import Any

from tinyscene.accounting import count, total
from tinyscene.data import Clips
from tinyscene.deployment import differences, export
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Rules

FILE = "scene.onnx"


def deploy(classifier: SceneClassifier, clips: Clips, rules: Rules, folder: Path) -> dict[str, Any]:
    """Write `scene.onnx` into `folder`; what it costs and how far it is from the classifier, as plain values.

    A file that fails its check is not written: the figures then hold its fault alone, and the run goes on.
    """
    try:
        artifact = export(classifier, folder / FILE, clips=clips.test)
    except InputError as error:
        return {"fault": str(error)}
    ledger = artifact.ledger(rules.clip_s)
    trained = count(classifier.network, classifier.example(rules.clip_s))
    verdict = rules.judge(ledger)
    return {
        "bytes": artifact.bytes_on_disk,
        "weight_bytes": total(ledger.tensors).bytes,
        "legal": verdict.passed,
        "verdict": "; ".join(finding.text for finding in verdict.findings),
        "differences": list(differences(ledger, trained)),
        "parity": artifact.parity.to_json(),
    }
