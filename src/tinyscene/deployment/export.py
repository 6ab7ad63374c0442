"""A classifier as a file, that gets its name only if it computes what the classifier computes."""

import copy
import json
from importlib.metadata import version
from math import inf, isfinite
from pathlib import Path

from tinyscene.data import Clips
from tinyscene.deployment import probes
from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.certificate import Certificate, certificate_path, sha256
from tinyscene.deployment.described import describe
from tinyscene.deployment.formats import Format
from tinyscene.deployment.forms import Form, FrontEnd, form_of
from tinyscene.deployment.menu import format_of
from tinyscene.deployment.parity import compare
from tinyscene.deployment.probes import Probe
from tinyscene.deployment.reference import Reference
from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier
from tinyscene.training.keys import weights_fingerprint


def export(
    classifier: SceneClassifier,
    path: str | Path,
    *,
    front_end: FrontEnd = "outside",
    clips: Clips | None = None,
    clip_s: float | None = None,
    step_s: float | None = None,
) -> Artifact:
    """Write a classifier as one file, run the file beside it, and keep the file only if both say the same.

    The weights are stored as they are: float32, float16 or int8. Beside the file stands its certificate
    (`Certificate`), as JSON.

    Args:
        path: its suffix says for which runtime: .onnx, .tflite, .pte.
        front_end: inside, the file takes waveforms and gives probabilities; outside, standardized features and logits.
        clips: recordings to compare on, beside generated sounds; best ones that were held out.
        clip_s: length of the clips that the file is for; of those that the classifier was trained on where None. ONNX
            files with the front end outside take any.
        step_s: the file hears a recording in steps of this length, to the nearest whole hop, and carries a state:
            probabilities of as many frames as a clip of `clip_s` has, at every step. The front end is inside then. See
            `StreamingFrontEnd` for what a stream hears otherwise than a clip does.

    Raises:
        InputError: another suffix, a length that is needed and not known, a place or a network that can't be written,
            or a file that differs; none is left then.
    """
    path = Path(path)
    format_ = format_of(path)
    if front_end not in ("inside", "outside"):
        raise InputError(f"export was given front_end={front_end!r}; accepted: inside, outside")
    any_length = format_.any_length and front_end == "outside"
    if clip_s is None:
        clip_s = _length_for(classifier, path, any_length)
    elif not 0 < clip_s < inf:
        raise InputError(f"export was given clip_s={clip_s}; accepted: a length above 0 s")
    classifier = copy.deepcopy(classifier).cpu().eval()
    samples, least = round(clip_s * classifier.sample_rate), classifier.shortest_samples
    if samples < least and not any_length:
        raise InputError(
            f"{path}: clips of {clip_s:g} s; accepted: at least {least / classifier.sample_rate:.2f} s, which the "
            f"network needs"
        )
    samples = max(samples, least)
    step_samples = _step_samples(classifier, front_end, samples, step_s)
    given = probes.generated(samples, any_length)
    if step_samples:
        given += probes.generated(round(probes.LONGER * samples), any_length=False)
    if clips is not None:
        given += probes.of_clips(classifier, clips, None if any_length else samples)
    try:
        form = form_of(classifier, front_end, samples, step_samples)
        return write_checked(classifier, format_, path, form, given, clips)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror or error}); accepted: a name in a folder that can be, with room"
        ) from error


def _step_samples(classifier: SceneClassifier, front_end: FrontEnd, samples: int, step_s: float | None) -> int:
    """Whole hops; 0 where the file takes clips. Raises InputError for a step that the clip does not hold."""
    if step_s is None:
        return 0
    if front_end != "inside":
        raise InputError(f"export was given step_s={step_s:g} and front_end={front_end!r}; accepted: inside")
    hop, rate = int(classifier.frontend.hop_length), classifier.sample_rate  # type: ignore[arg-type]
    longest = (int(classifier.frontend.frames(samples)) - 1) * hop  # type: ignore[operator]
    step_samples = round(step_s * rate / hop) * hop if isfinite(step_s * rate) else 0
    if not 0 < step_samples <= longest:
        raise InputError(
            f"steps of {step_s:g} s; accepted: from {hop / rate:.6g} s, a hop of the front end, to "
            f"{longest / rate:.6g} s, all but one of the clip's frames"
        )
    return step_samples


def _length_for(classifier: SceneClassifier, path: Path, any_length: bool) -> float:
    """In seconds. Raises InputError where a file for one length alone is asked for and nothing says which."""
    if any_length:
        return 1.0  # an example to trace, and the length of the generated sounds
    if classifier.trained_clip_s is None:
        raise InputError(
            f"{path}: takes clips of one length, and the model was not trained; "
            f"accepted: --clip-s SECONDS (clip_s=), best the length of those"
        )
    return classifier.trained_clip_s


def write_checked(
    classifier: SceneClassifier, format_: Format, path: Path, form: Form, given: list[Probe], clips: Clips | None
) -> Artifact:
    """Try the format's ways to write a file in turn. Raises InputError, with what each said, if none is right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if certificate_path(path).is_dir():
        raise InputError(f"{certificate_path(path)}: is a folder; accepted: a place for the file's certificate")
    described = describe(classifier, form, format_.any_length)
    data = "" if clips is None else f"{clips.name}, {len(clips)} clips"
    refused: dict[str, str] = {}
    for way in format_.ways:
        try:
            # Written and compared under other names; the file takes its own first, then the certificate.
            with write_whole(certificate_path(path)) as beside, write_whole(path) as partial:
                format_.write(form, partial, described, way)
                certificate = _certified(classifier, format_, partial, form, given, way, refused, data)
                beside.write_text(json.dumps(certificate.to_json(), indent=1))
        except InputError as error:
            refused[way] = str(error)
            continue
        return Artifact(path, described)
    reasons = "; ".join(f"{way}: {why}" if way else why for way, why in refused.items())
    raise InputError(f"{path}: not written: {reasons}")


def _certified(
    classifier: SceneClassifier,
    format_: Format,
    file: Path,
    form: Form,
    given: list[Probe],
    way: str,
    refused: dict[str, str],
    data: str,
) -> Certificate:
    """Run a file beside its classifier. Raises InputError, saying what differs."""
    format_.check(form, file)
    runners = list(format_.runners(file).values())
    reference, layers = Reference(classifier, form), format_.layers_by_kernel(file)
    found = compare(reference, runners, given, layers, format_.rounds_otherwise, format_.steps)
    if found.faults:
        raise InputError(
            f"the file does not compute what the classifier computes: {'; '.join(found.faults)}; accepted: a network "
            f"that {format_.runtime} runs within these bounds"
        )
    return Certificate(
        file_sha256=sha256(file),
        bytes_on_disk=file.stat().st_size,
        weights=weights_fingerprint(classifier),
        runtime=f"{format_.runtime} {format_.version()}",
        precision=classifier.precision,
        front_end=form.front_end,
        way=way,
        refused=dict(refused),
        data=data,
        versions={name: version(name) for name in ("tinyscene", "torch")},
        parity=found,
        step_samples=form.step_samples,
    )
