"""Trained systems as files: python results/artifacts.py --data $ESC10 RUN...

From each run of `tinyscene reproduce`, the variant that ends at int8 (otherwise the last one) is exported before 8
bits and at 8 bits: for every runtime, its front end outside and inside. Every file is compared with its
classifier on clips of the test split, counted, judged and timed; one that is refused keeps its row, with the reason.

A killed run resumes: results are in runs/artifacts, one JSON for each file. It writes
artifacts-DATASET.csv beside itself, from which collect.py makes the table.
"""

import argparse
import csv
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tinyscene import SceneClassifier
from tinyscene.accounting import count_classifier, get_convention
from tinyscene.cli.options import load_clips
from tinyscene.data import Clips, decode
from tinyscene.deployment import FORMATS, Artifact, export
from tinyscene.deployment.bench import FORMS, Open, measure
from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.rules import Rules
from tinyscene.systems import load_system
from tinyscene.systems.receipt import commit, machine
from tinyscene.training.keys import weights_fingerprint

HERE = Path(__file__).parent
WORK = Path("runs/artifacts")
LATENCY = "latency.json"
TORCH = "torch"


@dataclass(frozen=True)
class Model:
    """One trained network of a run, in its stage's folder."""

    run: Path
    row: dict[str, Any]
    classifier: SceneClassifier

    @property
    def name(self) -> str:
        return f"{self.row['system']}-{self.row['variant']}-{self.classifier.precision}"

    @property
    def folder(self) -> Path:
        return self.run / self.row["model"]

    @cached_property
    def receipt(self) -> dict[str, Any]:
        return json.loads((self.run / "receipt.json").read_text())

    @property
    def rules(self) -> Rules:
        return load_system(self.row["system"]).variants[self.row["variant"]].rules

    def clips(self, data: Path) -> Clips:
        """The run's own clips. Exits where the data differ, since the held-out clips would be unknown."""
        pieces = re.search(r"-([\d.]+)s$", self.receipt["dataset"])
        dataset = self.receipt["dataset"].removesuffix(pieces[0]) if pieces else self.receipt["dataset"]
        sample_rate_and_channel = self.classifier.sample_rate, self.classifier.channel
        seconds = float(pieces[1]) if pieces else None
        clips = load_clips(data, dataset, sample_rate_and_channel, {}, skip_bad=False, pieces=seconds)
        if decode(clips, *sample_rate_and_channel, quiet=True).fingerprint != self.receipt["data_fingerprint"]:
            sys.exit(f"{self.run}: trained on other data than {data}; accepted: the data of its receipt")
        return clips


def models(run: Path) -> list[Model]:
    """The last in floating point and the last at int8, of the variant that ends at int8 or of the last variant."""
    card = json.loads((run / "scorecard.json").read_text())
    rows = [{"system": card["system"], **row} for row in card["rows"] if row["seed"] == card["rows"][0]["seed"]]
    int8 = {row["model"]: json.loads((run / row["model"] / "model.json").read_text()).get("int8") for row in rows}
    ends = {row["variant"]: int8[row["model"]] for row in rows}
    variant = next((name for name, int8 in ends.items() if int8), list(ends)[-1])
    last = {bool(int8[row["model"]]): row for row in rows if row["variant"] == variant}
    return [Model(run, row, SceneClassifier.load(run / row["model"])) for _, row in sorted(last.items())]


def file_row(model: Model, suffix: str, form: str, clips: Clips, clip_s: float) -> dict[str, Any]:
    """The facts of one file, or why there is none."""
    path = WORK / model.name / f"{form}{suffix}"
    kept, weights = path.with_name(f"{path.name}.row.json"), weights_fingerprint(model.classifier)
    if kept.is_file() and (row := json.loads(kept.read_text()))["weights"] == weights:
        return row
    print(f"{model.name} {form}{suffix}", file=sys.stderr, flush=True)
    started = datetime.now(UTC)
    try:
        artifact = export(model.classifier, path, front_end=form, clips=clips.test, clip_s=clip_s)
        found = figures(artifact, model)
    except InputError as error:
        found = {"fault": str(error).replace(f"{WORK}/", "")}
    finished = datetime.now(UTC)
    row = {
        **{name: model.row[name] for name in ("system", "variant", "stage", "seed", "dataset")},
        "weights_at": model.classifier.precision,
        "format": suffix,
        "runtime": FORMATS[suffix].runtime,
        "front_end": form,
        "clip_s": clip_s,
        "model_accuracy": model.row["accuracy"],
        **found,
        "weights": weights,
        "trained": f"{model.receipt['command']}; commit {model.receipt['commit']}",
        "minutes": round((finished - started).total_seconds() / 60, 2),
        **provenance(),
    }
    write(kept, row)
    return row


def figures(artifact: Artifact, model: Model) -> dict[str, Any]:
    """A file's certificate, with the ledger, and the edition's verdict for its clips."""
    found, ledger, rules = artifact.parity, artifact.certificate.ledger, model.rules
    verdict = rules.judge(count_classifier(model.classifier, rules.clip_s))
    return {
        "runtime": artifact.certificate.runtime,
        "way": artifact.certificate.way,
        "unit": found.unit,
        **{
            name: getattr(found, name)
            for name in ("largest", "p999", "mean", "bound", "agreement", "ties", "accuracy", "file_accuracy")
        },
        "compared": found.clips,
        "integer_layers": found.integer_layers,
        "float_layers": found.float_layers,
        "file_bytes": artifact.bytes_on_disk,
        "parameters_bn2": get_convention("bn2")(ledger.tensors).parameters,
        "macs_nessi": ledger.macs["nessi"],
        "peak_ram_bytes": ledger.peak_ram_bytes,
        "rules": rules.name,
        "legal": verdict.passed,
        "verdict": verdict.line,
    }


def latencies(model: Model, rows: list[dict[str, Any]], clip_s: float) -> dict[str, dict[str, Any]]:
    """ms a clip on one thread, by file, and of torch; all files of a model take turns."""
    folder = WORK / model.name
    kept = folder / LATENCY
    if kept.is_file():
        return json.loads(kept.read_text())
    paths = [folder / f"{row['front_end']}{row['format']}" for row in rows if not row.get("fault")]
    openers = {path.name: Open(path, clip_s) for path in paths}
    found = measure({TORCH: Open(model.folder, clip_s), **openers})
    if faults := [f"{row.name}: {row.fault}" for row in found if row.fault]:
        sys.exit(f"{model.name}: not measured: {'; '.join(faults)}; accepted: files that export wrote")
    taken = {row.name: timings(asdict(row)) for row in found}
    write(kept, taken)
    return taken


def timings(measured: dict[str, Any]) -> dict[str, Any]:
    """Flat, as in the CSV."""
    flat = {
        f"{what}_ms{'' if point == 'median' else '_' + point}": (measured[what] or {}).get(point, "")
        for what in ("clip", "network")
        for point in ("median", "p10", "p90")
    }
    return {**flat, "cold_ms": measured["cold_ms"], "resident_peak_bytes": measured["peak_bytes"]}


def rows_of(model: Model, data: Path) -> Iterator[dict[str, Any]]:
    """One a file, and one of the model in torch."""
    clips = model.clips(data)
    sample_rate_and_channel = model.classifier.sample_rate, model.classifier.channel
    clip_s = min(decode(clips.test, *sample_rate_and_channel, quiet=True).lengths) / sample_rate_and_channel[0]
    rows = [file_row(model, suffix, form, clips, clip_s) for suffix in FORMATS for form in FORMS]
    taken = latencies(model, rows, clip_s)
    in_torch = {name: rows[0][name] for name in ("system", "variant", "stage", "seed", "dataset", "weights_at")}
    more = {name: rows[0][name] for name in ("clip_s", "model_accuracy", "trained")}
    yield {**in_torch, "format": TORCH, "runtime": f"torch {torch.__version__}", **more, **taken[TORCH], **provenance()}
    for row in rows:
        yield {**row, **taken.get(f"{row['front_end']}{row['format']}", {})}


def provenance() -> dict[str, Any]:
    """The origin of a row, with the runs' folders by name."""
    words = [word if word.startswith("-") else Path(word).name for word in sys.argv[1:]]
    if "--data" in words:
        words[words.index("--data") + 1] = "$ESC10"
    typed = " ".join(word if word.startswith("$") else shlex.quote(word) for word in words)
    return {
        "command": f"python results/artifacts.py {typed}",
        "commit": commit(),
        "machine": machine(),
        "torch": torch.__version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as partial:
        partial.write_text(json.dumps(value, indent=1))


def main() -> None:
    """Rewrite artifacts-DATASET.csv after every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="The recordings that the runs were trained on.")
    parser.add_argument("--into", type=Path, default=HERE, help="Folder of the CSV.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="Folder of a `tinyscene reproduce`.")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model in (model for run in given.runs for model in models(run)):
        rows += rows_of(model, given.data)
        names = dict.fromkeys(name for row in rows for name in row)
        # Pieces of clips are with the clips.
        dataset = rows[0]["dataset"].partition("-")[0]
        with (given.into / f"artifacts-{dataset}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
