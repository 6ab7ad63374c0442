"""Export of a classifier to a file, which gets its name only if it computes the same."""

import copy
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import NamedTuple

from tinyscene.accounting import count_classifier
from tinyscene.data import Clips
from tinyscene.deployment import probes
from tinyscene.deployment.artifact import Artifact, describe
from tinyscene.deployment.certificate import Certificate, certificate_path, sha256
from tinyscene.deployment.formats import Format
from tinyscene.deployment.forms import Form, Place, form_of
from tinyscene.deployment.menu import format_of
from tinyscene.deployment.parity import compare
from tinyscene.deployment.probes import Probe
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
        path: its suffix selects the runtime: .onnx, .tflite, .pte, .c.
        front_end: "inside": from waveforms to probabilities; "outside": from standardized features to logits.
        clips: recordings to compare on, beside generated sounds; preferably held-out ones.
        clip_s: length of the file's clips; that of the training clips where None. ONNX
            files with the front end outside take any; where the network can't, or would compute something else, only
            this length, with the reason in the certificate.
        step_s: the file takes a recording in steps of this length, to the nearest whole hop above 0, and carries a
            state: probabilities of as many frames as a clip of `clip_s` has, at every step. The front end is inside
            then. See `StreamingFrontEnd` for the differences between streams and clips.

    Raises:
        InputError: another suffix, a required length that is unknown, a path or a network that can't be written,
            or a file that differs, which is deleted.
    """
    path = Path(path)
    format_of(path)
    if front_end not in ("inside", "outside"):
        raise InputError(f"export was given front_end={front_end!r}; accepted: inside, outside")
    for name, seconds in (("clip_s", clip_s), ("step_s", step_s)):
        if seconds is not None and not 0 < seconds < inf:
            raise InputError(f"export was given {name}={seconds}; accepted: a length above 0 s")
    if step_s is not None and front_end == "outside":
        raise InputError(f"export was given step_s={step_s:g} and front_end='outside'; accepted: inside")
    classifier = copy.deepcopy(classifier).cpu().eval()
    attempts = _attempts(classifier, path, front_end, clips, clip_s, step_s or 0.0)
    try:
        return _write_checked(classifier, path, attempts, "" if clips is None else f"{clips.name}, {len(clips)} clips")
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror or error}); accepted: a name in a writable folder with room"
        ) from error


class _Attempt(NamedTuple):
    """One possible file: its name among them, empty where there is one only, and the sounds it is compared on."""

    name: str
    form: Form
    probes: list[Probe]


def _attempts(
    classifier: SceneClassifier,
    path: Path,
    front_end: Place,
    clips: Clips | None,
    clip_s: float | None,
    step_s: float,
) -> Iterator[_Attempt]:
    """The files to try in turn: for clips of any length, where there are such files, then for one length.

    Raises:
        InputError: a file needs one length, which is unknown or less than the network needs.
    """
    known_s = classifier.trained_clip_s if clip_s is None else clip_s
    rate, least, hop = classifier.sample_rate, classifier.shortest_samples, classifier.frontend.hop_length

    def held_out(samples: int | None) -> list[Probe]:
        return [] if clips is None else probes.of_clips(classifier, clips, samples)

    any_length = format_of(path).any_length and front_end == "outside"
    if any_length:
        # Captured at a length that the network takes.
        form = form_of(classifier, "outside", max(round((known_s or 1.0) * rate), least), any_length=True)
        sounds = probes.generated(max(round((clip_s or 1.0) * rate), least), hop)
        yield _Attempt(ANY_LENGTH, form, sounds + held_out(None))
    if known_s is None:
        if any_length:
            return
        raise InputError(
            f"{path}: takes clips of one length, and the model was not trained; accepted: --clip-s SECONDS (clip_s=)"
        )
    samples = round(known_s * rate)
    if samples < least:
        raise InputError(
            f"{path}: clips of {known_s:g} s; accepted: at least {least / rate:.2f} s, which the network needs"
        )
    sounds = probes.generated(samples)
    if step_s:
        sounds += probes.generated(round(probes.LONGER * samples))
    step_samples = max(1, round(step_s * rate / hop)) * hop if step_s else 0
    form = form_of(classifier, front_end, samples, step_samples)
    yield _Attempt(f"only clips of {known_s:g} s" if any_length else "", form, sounds + held_out(samples))


def _write_checked(classifier: SceneClassifier, path: Path, attempts: Iterable[_Attempt], data: str) -> Artifact:
    """Try the attempts in turn, each by the format's ways to write a file.

    Raises:
        InputError: none succeeds, with the reasons.
    """
    format_ = format_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    refused: dict[str, str] = {}
    for attempt, way in ((attempt, way) for attempt in attempts for way in format_.ways):
        name = ", ".join(filter(None, (attempt.name, way)))
        described = describe(classifier, attempt.form)
        try:
            # Written and compared under other names; neighbours take theirs first, then the file, then the certificate.
            with ExitStack() as stack:
                beside, partial = (stack.enter_context(write_whole(one)) for one in (certificate_path(path), path))
                format_.write(attempt.form, partial, described, way)
                certificate = _certified(classifier, format_, partial, attempt)
                certificate = replace(certificate, way=name, refused=refused, data=data)
                beside.write_text(json.dumps(certificate.to_json(), indent=1))
                for place, text in format_.neighbours(path, partial).items():
                    stack.enter_context(write_whole(place)).write_text(text)
        except InputError as error:
            refused[name] = str(error)
        else:
            return Artifact(path, described)
    reasons = "; ".join(f"{name}: {why}" if name else why for name, why in refused.items())
    raise InputError(f"{path}: not written: {reasons}")


def _certified(classifier: SceneClassifier, format_: Format, file: Path, attempt: _Attempt) -> Certificate:
    """Compare a file with its classifier. Raises InputError with the differences."""
    form = attempt.form
    run = format_.checked_runner(file)
    found = compare(classifier, form, run, attempt.probes, format_.layers_by_kernel(file))
    if found.faults:
        raise InputError(
            f"the file does not compute the same as the classifier: {'; '.join(found.faults)}; accepted: a network "
            f"that {format_.runtime} runs within this bound"
        )
    counted = classifier
    if not format_.keeps_halves and classifier.precision == "float16":
        counted = copy.deepcopy(classifier)
        counted.network.float()
    clip_s = form.samples / classifier.sample_rate
    return Certificate(
        file_sha256=sha256(file),
        bytes_on_disk=file.stat().st_size,
        weights=weights_fingerprint(classifier),
        runtime=format_.version(),
        precision=classifier.precision,
        front_end=form.front_end,
        way="",
        refused={},
        data="",
        versions={name: version(name) for name in ("tinyscene", "torch")},
        parity=found,
        clip_s=clip_s,
        ledger=count_classifier(counted, clip_s, inside=form.module.frontend if format_.products else None),
        step_samples=form.step_samples,
    )
