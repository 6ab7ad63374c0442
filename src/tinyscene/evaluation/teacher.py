"""Teachers: trained classifiers whose decisions others learn from."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyscene.data import Clips, decode
from tinyscene.deployment import Artifact
from tinyscene.errors import InputError, Numbers, check
from tinyscene.evaluation.evaluate import probabilities_of
from tinyscene.files import write_whole
from tinyscene.listening import open_model
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.provenance import Provenance
from tinyscene.training.keys import key_of
from tinyscene.training.run import Run

_LEAST = 1e-9


@dataclass(frozen=True)
class Teacher:
    """What a student learns beside its labels: the loss is (1 - weight) that of the labels + weight T^2 times the cross
    entropy to the teacher's probabilities at temperature T (Hinton, Vinyals and Dean, 2015, section 2).

    The mean of several teachers' logits counts. They hear every training clip once, whole and unaugmented; where clips
    are mixed, so are their probabilities, and crops of a clip share them. Clips without a label take part by the
    teacher alone.

    Args:
        models: folders of saved classifiers, exported files, or either in memory; their classes in any order, and
            perhaps more than the student's.
        temperature: T; a higher one shows more of the classes that are not chosen.
        weight: 0 for the labels alone, 1 for the teacher alone.
    """

    models: tuple[str | Path | SceneClassifier | Artifact, ...]
    temperature: float = 2.0
    weight: float = 0.8

    def __post_init__(self) -> None:
        check(self, models=tuple | list, temperature=Numbers(above=0, most=100), weight=Numbers(least=0, most=1))
        if not self.models:
            raise InputError("Teacher(models=()); accepted: at least one trained classifier or exported file")

    @cached_property
    def opened(self) -> tuple[SceneClassifier | Artifact, ...]:
        """The models."""
        return tuple(open_model(one) if isinstance(one, str | Path) else one for one in self.models)

    @property
    def provenance(self) -> Provenance:
        """All that they were trained on; exported files don't tell."""
        known = [one.provenance for one in self.opened if isinstance(one, SceneClassifier)]
        return reduce(Provenance.merged, known, Provenance())

    def content(self) -> str:
        """Changes with any weight of any teacher; part of the key of a stored result."""
        return key_of([one if isinstance(one, SceneClassifier) else one.path.read_bytes() for one in self.opened])

    def targets(self, clips: Clips, run: Run) -> npt.NDArray[np.float32]:
        """(clips, classes): probabilities at the temperature, computed once and kept in the run's folder.

        Raises:
            InputError: a teacher lacks a class, or can't take a clip.
        """
        rate, channel = self.opened[0].sample_rate, self.opened[0].channel
        data = decode(clips, rate, channel, quiet=run.quiet).fingerprint
        path = Path(run.folder) / "teachers" / f"{key_of(self.content(), data)}.npy"
        if path.is_file():
            logits = np.load(path)
        else:
            logits = np.mean([_logits(one, clips, run) for one in self.opened], 0)
            if run.fabric.is_global_zero:
                path.parent.mkdir(parents=True, exist_ok=True)
                with write_whole(path) as partial, partial.open("wb") as file:
                    np.save(file, logits)
        scaled = logits / self.temperature
        shares: npt.NDArray[np.float32] = np.exp(scaled - scaled.max(1, keepdims=True)).astype(np.float32)
        shares /= shares.sum(1, keepdims=True)
        return shares


def _logits(teacher: SceneClassifier | Artifact, clips: Clips, run: Run) -> npt.NDArray[np.float64]:
    """Logarithms of probabilities, in the order of the clips' classes."""
    columns = _columns(teacher.classes, clips.classes)
    if isinstance(teacher, SceneClassifier):
        teacher = copy.deepcopy(teacher).to(run.fabric.device)
    # The run keeps the student's features, for which the teacher's would have to go.
    students, run.features = run.features, {}
    try:
        _, probabilities = probabilities_of(teacher, clips, run)
    finally:
        run.features = students
    found: npt.NDArray[np.float64] = np.log(np.maximum(probabilities[:, columns], _LEAST))
    return found


def _columns(known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    if lacking := [name for name in wanted if name not in known]:
        raise InputError(f"a teacher of {', '.join(known)} lacks {', '.join(lacking)}; accepted: one that knows them")
    return [known.index(name) for name in wanted]
