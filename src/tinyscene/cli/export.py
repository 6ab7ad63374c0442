"""`tinyscene export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyscene.cli.options import Cache, Dataset, Json, SkipBad, load_clips, screen, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from tinyscene.deployment import Artifact


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder with model.json and weights.safetensors.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to write, such as scene.onnx.")],
    data: Annotated[Path | None, typer.Option(help="Recordings to compare on; else edge cases of sound.")] = None,
    dataset: Dataset = None,
    clip_s: Annotated[float, typer.Option(help="Length of the edge cases, in seconds.")] = 1.0,
    skip_bad: SkipBad = False,
    cache: Cache = None,
    json_file: Json = None,
) -> None:
    """Write a model as one file for ONNX Runtime: float32, 16 bits or int8, as its weights are stored.

    The file is run beside the model before it gets its name; one that computes anything else is not kept.
    """
    import tinyscene as ts
    from tinyscene.accounting import count
    from tinyscene.deployment import differences

    classifier = ts.SceneClassifier.load(model)
    rate, channel = classifier.sample_rate, classifier.channel
    clips = load_clips(data, dataset, rate, skip_bad, cache, None, None, channel) if data else None
    artifact = ts.export(classifier, file, clips=clips, clip_s=clip_s)
    ledger = artifact.ledger(clip_s)
    apart = differences(ledger, count(classifier.network, classifier.example(clip_s), precision=ledger.precision))
    if json_file:
        facts = {"file": str(file), "bytes_on_disk": artifact.bytes_on_disk, "parity": artifact.parity.to_json()}
        write_json({**facts, "ledger": ledger.to_json(), "differences": list(apart)}, json_file)
        return
    screen().print(table_of(artifact))
    same = "The file's ledger is the model's." if not apart else "The file's ledger differs from the model's:"
    screen().print("\n  ".join([same, *apart]), highlight=False)


def table_of(artifact: "Artifact") -> "Table":
    """How far the file is from the model."""
    from rich.table import Table

    found = artifact.parity
    table = Table(title=f"{artifact.path}, {artifact.bytes_on_disk:,} B, beside the model on {found.clips} clips")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("unit")
    rows: list[tuple[str, Any, str]] = [
        ("largest difference, node by node", f"{found.exact:.2g}", found.unit),
        ("largest difference, optimised", f"{found.largest:.2g}", found.unit),
        ("99.9th percentile", f"{found.p999:.2g}", found.unit),
        ("mean", f"{found.mean:.2g}", found.unit),
        ("accepted", f"{found.bound:.2g}", found.unit),
        ("same decision", f"{found.agreement:.1%}", f"of the clips, {found.ties} of them ties"),
        ("run on integers", found.integer_layers, f"of {found.integer_layers + found.float_layers} layers"),
    ]
    for what, value, unit in rows:
        table.add_row(what, str(value), unit)
    return table
