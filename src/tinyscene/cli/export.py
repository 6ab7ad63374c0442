"""`tinyscene export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyscene.cli.options import (
    Cache,
    Dataset,
    DropShared,
    Json,
    Pieces,
    SkipBad,
    check_split,
    given,
    load_clips,
    screen,
    write_json,
)
from tinyscene.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from tinyscene.deployment import Artifact, Certificate


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder with model.json and weights.safetensors.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Output, such as scene.onnx, scene.tflite or scene.pte.")
    ],
    front_end: Annotated[
        str, typer.Option(help="inside: waveform to probabilities; outside: features to logits.")
    ] = "outside",
    data: Annotated[Path | None, typer.Option(help="Recordings to compare on, beside generated sounds.")] = None,
    dataset: Dataset = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the recordings: train, validation, test or all [default: test].")
    ] = None,
    pieces: Pieces = None,
    clip_s: Annotated[
        float | None,
        typer.Option(help="Clip length of the file, in seconds [default: the training clips']."),
    ] = None,
    step_s: Annotated[
        float | None, typer.Option(help="Stream in steps of this many seconds, with a state; front end inside.")
    ] = None,
    drop_shared: DropShared = False,
    skip_bad: SkipBad = False,
    cache: Cache = None,
    json_file: Json = None,
) -> None:
    """Write a model as one file for ONNX Runtime, LiteRT or ExecuTorch, at the precision of its weights.

    The file is run and compared with the model before it gets its name, and deleted if it differs. The result is
    written beside it, to FILE.json. A file takes clips of one length; an ONNX file with the front end outside takes
    any. With --step-s it takes the next samples and its state, and gives the probabilities of the last clip's frames
    with the next state.
    """
    import tinyscene as ts

    options = {"split": split, "dataset": dataset, "pieces": pieces, "cache": cache}
    options |= {"drop-shared": drop_shared or None, "skip-bad": skip_bad or None}
    if data is None and (idle := [f"--{name}" for name, value in options.items() if value is not None]):
        raise InputError(f"{', '.join(idle)} without --data; accepted: with --data, the recordings to compare on")
    check_split(split := split or "test")
    classifier, clips = ts.SceneClassifier.load(model), None
    if data:
        source, whole = (classifier.sample_rate, classifier.channel), split == "all"
        clips = load_clips(
            data, dataset, source, given(drop_shared=drop_shared), skip_bad=skip_bad, pieces=pieces, whole=whole
        )
        clips = clips if whole else getattr(clips, split)
    artifact = ts.export(classifier, file, front_end=front_end, clips=clips, clip_s=clip_s, step_s=step_s)  # type: ignore[arg-type]
    if json_file:
        write_json({"file": str(file), "certificate": artifact.certificate.to_json()}, json_file)
        return
    screen().print(table_of(artifact))
    screen().print(_costs(artifact.certificate), highlight=False)


def _costs(certificate: "Certificate") -> str:
    from tinyscene.accounting import get_convention

    ledger, size = certificate.ledger, get_convention("bn2")(certificate.ledger.tensors)
    inside = sum(row.bytes for row in ledger.tensors if row.role == "frontend")
    return (
        f"For a clip of {certificate.clip_s:g} s: {size.parameters:,} parameters, {size.bytes:,} B (bn2), "
        f"{ledger.macs['nessi']:,} MACs (nessi), {ledger.peak_ram_bytes:,} B of peak activations"
        + (f"; the front end inside, not counted: {inside:,} B" if inside else "")
    )


def _takes(artifact: "Artifact") -> str:
    if artifact.step_samples:
        return f"the next {artifact.step_samples:,} samples and a state to probabilities"
    return "waveform to probabilities" if artifact.inside else "features to logits"


def table_of(artifact: "Artifact") -> "Table":
    """The file's difference from the model."""
    from tinyscene.tables import table

    found, certificate = artifact.parity, artifact.certificate
    rows: list[tuple[str, Any, str]] = [
        ("runtime", certificate.runtime, certificate.way),
        ("front end", certificate.front_end, _takes(artifact)),
        ("largest difference", f"{found.largest:.2g}", found.unit),
        ("99.9th percentile", f"{found.p999:.2g}", found.unit),
        ("mean", f"{found.mean:.2g}", found.unit),
        ("accepted", f"{found.bound:.2g}", found.unit),
        ("same decision", f"{found.agreement:.1%}", f"of the clips, {found.ties} of them ties"),
    ]
    if found.integer_layers is not None and found.float_layers is not None:
        layers = found.integer_layers + found.float_layers
        rows.append(("run on integers", found.integer_layers, f"of {layers} layers"))
    if found.accuracy is not None and found.file_accuracy is not None:
        rows.append(("accuracy", f"{found.file_accuracy:.1%}", f"{found.accuracy:.1%} of the model, same clips"))
    rows += [(f"  {kind}", f"{most:.2g}", found.unit) for kind, most in found.by_kind.items()]
    return table(
        f"{artifact.path}, {artifact.bytes_on_disk:,} B, compared with the model on {found.clips} clips",
        [{"what": what, "value": str(value), "unit": unit} for what, value, unit in rows],
    )
