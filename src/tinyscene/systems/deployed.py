"""The file of a stage: exported, and compared with its classifier on test clips."""

from pathlib import Path

from tinyscene.data import Clips
from tinyscene.deployment.export import export
from tinyscene.errors import InputError
from tinyscene.evaluation.scorecard import StageFile
from tinyscene.models.classifier import SceneClassifier

FILE = "scene.onnx"


def deploy(classifier: SceneClassifier, clips: Clips, folder: Path) -> StageFile:
    """Write `scene.onnx` into `folder`; return its size and difference from the classifier.

    A file that fails its check is not written: only its fault is returned, and the run continues.
    """
    try:
        artifact = export(classifier, folder / FILE, clips=clips.test)
    except InputError as error:
        return StageFile(fault=str(error))
    return StageFile(artifact.bytes_on_disk, artifact.parity)
