"""Export of a classifier to a file, which gets its name only if it computes the same."""

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import inf, isfinite
from pathlib import Path

from tinyscene.accounting import Ledger, count_classifier
from tinyscene.data import Clips
from tinyscene.deployment import probes
from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.certificate import Certificate, certificate_path, sha256
from tinyscene.deployment.described import describe
from tinyscene.deployment.formats import Format
from tinyscene.deployment.forms import Form, Place, form_of
from tinyscene.deployment.menu import format_of
from tinyscene.deployment.parity import compare
from tinyscene.deployment.probes import Probe
from tinyscene.deployment.reference import Reference
from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.keys import weights_fingerprint

ANY_LENGTH = "any length"


def export(
    classifier: SceneClassifier,
    path: str | Path,
    *,
    front_end: Place = "outside",
    clips: Clips | None = None,
    clip_s: float | None = None,
    step_s: float | None = None,
) -> Artifact:
    """Write a classifier as one file, run both, and keep the file only if they agree.

    The weights keep their precision: float32, float16 or int8. The file's certificate is written beside it
    (`Certificate`), as JSON.

    Args:
        path: its suffix selects the runtime: .onnx, .tflite, .pte.
        front_end: "inside": from waveforms to probabilities; "outside": from standardized features to logits.
        clips: recordings to compare on, beside generated sounds; preferably held-out ones.
        clip_s: length of the file's clips; that of the training clips where None. ONNX
            files with the front end outside take any; where the network can't, or would compute something else, only
            this length, with the reason in the certificate.
        step_s: the file takes a recording in steps of this length, to the nearest whole hop, and carries a state:
            probabilities of as many frames as a clip of `clip_s` has, at every step. The front end is inside then. See
            `StreamingFrontEnd` for the differences between streams and clips.

    Raises:
        InputError: another suffix, a required length that is unknown, a path or a network that can't be written,
            or a file that differs, which is deleted.
    """
    path = Path(path)
    format_ = format_of(path)
    if front_end not in ("inside", "outside"):
        raise InputError(f"export was given front_end={front_end!r}; accepted: inside, outside")
    if clip_s is not None and not 0 < clip_s < inf:
        raise InputError(f"export was given clip_s={clip_s}; accepted: a length above 0 s")
    wanted = _Wanted(copy.deepcopy(classifier).cpu().eval(), path, front_end, clips, clip_s, step_s)
    try:
        return write_checked(wanted.classifier, format_, path, wanted.attempts(format_.any_length), clips)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror or error}); accepted: a name in a writable folder with room"
        ) from error


@dataclass(frozen=True)
class Attempt:
    """One possible file of a classifier.

    Attributes:
        name: distinguishes it from the others; empty where there are none.
        given: the sounds it is compared on.
    """

    name: str
    form: Form
    given: list[Probe]


@dataclass(frozen=True)
class _Wanted:
    """The request to `export`."""

    classifier: SceneClassifier
    path: Path
    front_end: Place
    clips: Clips | None
    clip_s: float | None
    step_s: float | None

    def attempts(self, any_length: bool) -> Iterator[Attempt]:
        """The files to try in turn: for clips of any length, then for one length.

        Args:
            any_length: whether the format has such files where the front end is outside.
        """
        known_s = self.classifier.trained_clip_s if self.clip_s is None else self.clip_s
        if not any_length or self.front_end == "inside":
            yield self._one_length(known_s, "")
            return
        rate, least = self.classifier.sample_rate, self.classifier.shortest_samples
        samples = max(round((self.clip_s or 1.0) * rate), least)
        # Captured at a length that the network takes.
        own = max(round((known_s or 1.0) * rate), least)
        form = form_of(self.classifier, self.front_end, own, _step_samples(self, own), any_length=True)
        hop = self.classifier.frontend.hop_length
        yield Attempt(ANY_LENGTH, form, probes.generated(samples, True, hop) + self._of_clips(None))
        if known_s is not None:
            yield self._one_length(known_s, f"only clips of {known_s:g} s")

    def _one_length(self, clip_s: float | None, name: str) -> Attempt:
        """Raise InputError where the length is unknown, or the network needs a longer one."""
        if clip_s is None:
            raise InputError(
                f"{self.path}: takes clips of one length, and the model was not trained; "
                f"accepted: --clip-s SECONDS (clip_s=)"
            )
        rate, least = self.classifier.sample_rate, self.classifier.shortest_samples
        samples = round(clip_s * rate)
        if samples < least:
            raise InputError(
                f"{self.path}: clips of {clip_s:g} s; accepted: at least {least / rate:.2f} s, which the network needs"
            )
        step_samples = _step_samples(self, samples)
        given = probes.generated(samples, any_length=False)
        if step_samples:
            given += probes.generated(round(probes.LONGER * samples), any_length=False)
        form = form_of(self.classifier, self.front_end, samples, step_samples)
        return Attempt(name, form, given + self._of_clips(samples))

    def _of_clips(self, samples: int | None) -> list[Probe]:
        return [] if self.clips is None else probes.of_clips(self.classifier, self.clips, samples)


def _step_samples(wanted: _Wanted, samples: int) -> int:
    """Whole hops; 0 where the file takes clips. Raises InputError for a step longer than the clip."""
    step_s, front_end, frontend = wanted.step_s, wanted.front_end, wanted.classifier.frontend
    if step_s is None:
        return 0
    if front_end != "inside":
        raise InputError(f"export was given step_s={step_s:g} and front_end={front_end!r}; accepted: inside")
    hop, rate = frontend.hop_length, wanted.classifier.sample_rate
    longest = (frontend.frames(samples) - 1) * hop
    step_samples = round(step_s * rate / hop) * hop if isfinite(step_s * rate) else 0
    if not 0 < step_samples <= longest:
        raise InputError(
            f"steps of {step_s:g} s; accepted: from {hop / rate:.6g} s, a hop of the front end, to "
            f"{longest / rate:.6g} s, all but one of the clip's frames"
        )
    return step_samples


def write_checked(
    classifier: SceneClassifier, format_: Format, path: Path, attempts: Iterable[Attempt], clips: Clips | None
) -> Artifact:
    """Try the attempts in turn, each by the format's ways to write a file.

    Raises:
        InputError: none succeeds, with the reasons.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if certificate_path(path).is_dir():
        raise InputError(f"{certificate_path(path)}: is a folder, where the certificate goes; try another file name")
    data = "" if clips is None else f"{clips.name}, {len(clips)} clips"
    refused: dict[str, str] = {}
    for attempt in attempts:
        described = describe(classifier, attempt.form)
        for way in format_.ways:
            name = ", ".join(filter(None, (attempt.name, way)))
            try:
                # Written and compared under other names; the file takes its own first, then the certificate.
                with write_whole(certificate_path(path)) as beside, write_whole(path) as partial:
                    format_.write(attempt.form, partial, described, way)
                    certificate = _certified(classifier, format_, partial, attempt)
                    certificate = replace(certificate, way=name, refused=dict(refused), data=data)
                    beside.write_text(json.dumps(certificate.to_json(), indent=1))
            except InputError as error:
                refused[name] = str(error)
                continue
            return Artifact(path, described)
    reasons = "; ".join(f"{name}: {why}" if name else why for name, why in refused.items())
    raise InputError(f"{path}: not written: {reasons}")


def _certified(classifier: SceneClassifier, format_: Format, file: Path, attempt: Attempt) -> Certificate:
    """Compare a file with its classifier. Raises InputError with the differences."""
    form = attempt.form
    # One thread, so that sums are split the same way on every machine.
    run = format_.runner(file, threads=1)
    found = compare(Reference(classifier, form), run, attempt.given, format_.layers_by_kernel(file))
    if found.faults:
        raise InputError(
            f"the file does not compute the same as the classifier: {'; '.join(found.faults)}; accepted: a network "
            f"that {format_.runtime} runs within this bound"
        )
    return Certificate(
        file_sha256=sha256(file),
        bytes_on_disk=file.stat().st_size,
        weights=weights_fingerprint(classifier),
        runtime=f"{format_.runtime} {format_.version()}",
        precision=classifier.precision,
        front_end=form.front_end,
        way="",
        refused={},
        data="",
        versions={name: version(name) for name in ("tinyscene", "torch")},
        parity=found,
        clip_s=form.samples / classifier.sample_rate,
        ledger=_ledger(classifier, format_, form),
        step_samples=form.step_samples,
    )


def _ledger(classifier: SceneClassifier, format_: Format, form: Form) -> Ledger:
    """The classifier's cost at the format's precision, with the front end where it is inside."""
    counted = classifier
    if not format_.keeps_halves and classifier.precision == "float16":
        counted = copy.deepcopy(classifier)
        counted.network.float()
    return count_classifier(counted, form.samples / classifier.sample_rate, inside=form.frontend)
