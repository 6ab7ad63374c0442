"""The file of a stage: exported, and compared with its classifier on test clips."""

from pathlib import Path

from tinyscene.accounting import count
from tinyscene.data import Clips
from tinyscene.deployment.export import export
from tinyscene.errors import InputError
from tinyscene.evaluation.scorecard import StageFile
from tinyscene.models.classifier import SceneClassifier
from tinyscene.rules import Rules

FILE = "scene.onnx"


def deploy(classifier: SceneClassifier, clips: Clips, rules: Rules, folder: Path) -> StageFile:
    """Write `scene.onnx` into `folder`; how far it is from the classifier, and whether it is legal.

    A file that fails its check is not written: the figures then hold its fault alone, and the run goes on.
    """
    try:
        artifact = export(classifier, folder / FILE, clips=clips.test)
    except InputError as error:
        return StageFile(fault=str(error))
    verdict = rules.judge(count(classifier.network, classifier.example(rules.clip_s)))
    text = "; ".join(finding.text for finding in verdict.findings)
    return StageFile(artifact.bytes_on_disk, verdict.passed, text, artifact.parity)
