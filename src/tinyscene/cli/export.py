"""`tinyscene export`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyscene.cli.options import Json, Recordings, show, with_recordings
from tinyscene.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from tinyscene.deployment import Artifact, Certificate


@dataclass(frozen=True)
class Comparison(Recordings):
    """None without `data`."""

    data: Annotated[Path | None, typer.Option(help="Recordings to compare on, beside generated sounds.")] = None  # type: ignore[assignment]


@with_recordings
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder with model.json, or a name (`list models`).")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Output, such as scene.onnx, scene.tflite, scene.pte or scene.c.")
    ],
    recordings: Comparison,
    front_end: Annotated[
        str, typer.Option(help="inside: waveform to probabilities; outside: features to logits.")
    ] = "outside",
    split: Annotated[
        str | None, typer.Option(help="Split of the recordings: train, validation, test or all [default: test].")
    ] = None,
    clip_s: Annotated[
        float | None,
        typer.Option(help="Clip length of the file, in seconds [default: the training clips']."),
    ] = None,
    step_s: Annotated[
        float | None, typer.Option(help="Stream in steps of this many seconds, with a state; front end inside.")
    ] = None,
    json_file: Json = None,
) -> None:
    """Write a model as one file for ONNX Runtime, LiteRT or ExecuTorch, or as C, at the precision of its weights.

    The file is run and compared with the model before it gets its name, and deleted if it differs. The result is
    written beside it, to FILE.json. A file takes clips of one length; an ONNX file with the front end outside takes
    any. With --step-s it takes the next samples and its state, and gives the probabilities of the last clip's frames
    with the next state.
    """
    import tinyscene as ts

    idle = [f"--{name.replace('_', '-')}" for name, value in (asdict(recordings) | {"split": split}).items() if value]
    if recordings.data is None and idle:
        raise InputError(f"{', '.join(idle)} without --data; accepted: with --data, the recordings to compare on")
    classifier = ts.from_pretrained(model)
    clips = recordings.load(classifier, split or "test") if recordings.data else None
    artifact = ts.export(classifier, file, front_end=front_end, clips=clips, clip_s=clip_s, step_s=step_s)  # type: ignore[arg-type]
    certificate = artifact.certificate
    plain = {"file": str(file), "certificate": certificate.to_json()}
    show(plain, json_file, table_of(artifact), _costs(certificate))


def _costs(certificate: "Certificate") -> str:
    from tinyscene.accounting import get_convention

    ledger, size = certificate.ledger, get_convention("bn2")(certificate.ledger.tensors)
    inside = sum(row.bytes for row in ledger.tensors if row.role == "frontend")
    return (
        f"For a clip of {certificate.clip_s:g} s: {size.parameters:,} parameters, {size.bytes:,} B (bn2), "
        f"{ledger.macs['nessi']:,} MACs (nessi), {ledger.peak_ram_bytes:,} B of peak activations"
        + (f"; the front end inside, not counted: {inside:,} B" if inside else "")
    )


def table_of(artifact: "Artifact") -> "Table":
    """The file's difference from the model."""
    from tinyscene.tables import table

    found, certificate = artifact.parity, artifact.certificate
    takes = "waveform to probabilities" if artifact.inside else "features to logits"
    if artifact.step_samples:
        takes = f"the next {artifact.step_samples:,} samples and a state to probabilities"
    rows: list[tuple[str, Any, str]] = [
        ("runtime", certificate.runtime, certificate.way),
        ("front end", certificate.front_end, takes),
        ("largest difference", f"{found.largest:.2g}", found.unit),
        ("99.9th percentile", f"{found.p999:.2g}", found.unit),
        ("mean", f"{found.mean:.2g}", found.unit),
        ("accepted", f"{found.bound:.2g}", found.unit),
        ("same decision", f"{found.agreement:.1%}", f"of the clips, {found.ties} of them ties"),
    ]
    if found.integer_layers is not None and found.float_layers is not None:
        layers = found.integer_layers + found.float_layers
        rows.append(("run on integers", found.integer_layers, f"of {layers} layers"))
    for name, size in artifact.format.memory(artifact.path).items():
        rows.append((name, f"{size:,}", "B of the caller's"))
    if found.accuracy is not None and found.file_accuracy is not None:
        rows.append(("accuracy", f"{found.file_accuracy:.1%}", f"{found.accuracy:.1%} of the model, same clips"))
    rows += [(f"  {kind}", f"{most:.2g}", found.unit) for kind, most in found.by_kind.items()]
    return table(
        f"{artifact.path}, {artifact.bytes_on_disk:,} B, compared with the model on {found.clips} clips",
        [{"what": what, "value": str(value), "unit": unit} for what, value, unit in rows],
    )
