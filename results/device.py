"""C files on emulated Cortex-M boards: python results/device.py [NAME...]

The models that come along, at their own clip length and in steps of half a second; CP-Mobile and the smallest variant
of each of the five systems, untrained, for clips of 1 s. Every file is exported, which compares it with its classifier,
and run on emulated boards on noise: the outputs are compared with those of the same file on this computer. A row of
device.csv that exists is not measured again.

An emulator counts instructions. A Cortex-M4 takes one cycle for most of them, two for many loads, three for a product
and sum in float and two to four for a jump (Arm's Technical Reference Manual, table 3-1), if its memory doesn't let it
wait: between 1 and 2 cycles on the average. That is an estimate; no board was used.
"""

import csv
import json
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boards
import numpy as np
import torch

import tinyscene as ts
from tinyscene.deployment import Artifact, probes
from tinyscene.deployment.stream import in_whole_steps
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare
from tinyscene.systems import load_system
from tinyscene.systems.receipt import commit, machine
from tinyscene.systems.system import shapes

TABLE = Path(__file__).with_suffix(".csv")
STEP_S, CALLS, SEED = 0.5, 3, 0
SMALLEST = {
    "galindo2021": "ticket_int8",
    "pham2020": "int8",
    "schmidt2022": "int8",
    "byttebier2021": "qat8",
    "singh2021": "singh_29kb",
}


def of_system(name: str, variant: str) -> SceneClassifier:
    """With the shapes and the precision that its stages leave."""
    system = load_system(name).variants[variant]
    built = system.build(system.rules.classes)
    shaped = [built, *shapes(system, built, [])]
    if shaped[-1].precision != "int8":
        return shaped[-1].eval()
    return rounded([one for one in shaped if one.precision != "int8"][-1])


def cp_mobile() -> SceneClassifier:
    classes = load_system("schmidt2022").variants["int8"].rules.classes
    return rounded(ts.create_classifier("cp_mobile", classes))


def rounded(classifier: SceneClassifier) -> SceneClassifier:
    """At int8, with ranges of noise: an activation that is never negative takes no sign."""
    classifier.eval()
    waveforms = 0.1 * torch.randn(8, classifier.sample_rate, generator=torch.Generator().manual_seed(0))
    classifier.standardize.fit([classifier.frontend(waveforms)])
    features = classifier.features(waveforms)
    prepared = prepare(classifier.network, features[:1])
    prepared.set_ranges([features])
    return SceneClassifier(classifier.frontend, prepared.convert(), classifier.classes, classifier.standardize).eval()


MODELS: dict[str, Callable[[], SceneClassifier]] = {
    **{name: lambda name=name: ts.from_pretrained(name) for name in ("esc10-32kb", "esc10-64kb", "esc10-128kb")},
    "cp_mobile": cp_mobile,
    **{
        f"{name}, {variant}": lambda name=name, variant=variant: of_system(name, variant)
        for name, variant in SMALLEST.items()
    },
}
FORMS: dict[str, dict[str, Any]] = {
    "features": {},
    "waveform": {"front_end": "inside"},
    f"steps of {STEP_S:g} s": {"front_end": "inside", "step_s": STEP_S},
}


def calls_of(file: Artifact) -> list[list[np.ndarray]]:
    """Inputs of some calls: noises; of a stream, each with the state before it."""
    length = file.clip_samples or 0
    waveforms = probes.generated(length)[0].waveforms[4 : 4 + CALLS]
    if file.step_samples:
        stream, calls = file.stream(), []
        for at in range(CALLS):
            samples = in_whole_steps(waveforms[:1], file.step_samples)[:, at * file.step_samples :][
                :, : file.step_samples
            ]
            calls.append([samples[0], stream.state[0].copy()])
            stream(samples)
        return calls
    if file.inside:
        return [[one] for one in waveforms]
    return [[one] for one in file.classifier.features(torch.from_numpy(waveforms)).numpy()]


def row_of(name: str, form: str, file: Artifact, board: boards.Board) -> dict[str, Any]:
    calls = calls_of(file)
    found = boards.run(file.path, board, calls)
    here = [np.concatenate([part.flatten() for part in file.run(*(one[None] for one in call))]) for call in calls]
    ledger, memory = file.certificate.ledger, file.format.memory(file.path)
    return {
        "model": name,
        "form": form,
        "clip_s": round(file.certificate.clip_s, 2),
        "precision": file.certificate.precision,
        "core": board.core,
        "macs": ledger.macs["nessi"],
        "instructions": found.instructions,
        "flash": found.flash,
        "weights": sum(row.bytes for row in ledger.tensors if row.role != "frontend"),
        "ram": found.ram,
        "arena": memory["arena"],
        "peak_activations": ledger.peak_ram_bytes,
        "stack": found.stack,
        "difference": float(np.abs(found.outputs - np.array(here)).max()),
        "from_classifier": file.parity.largest,
        "unit": file.parity.unit,
        "seed": SEED,
        "commit": commit(),
        "machine": machine(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    """Add the missing rows."""
    if boards.missing():
        sys.exit(f"{boards.missing()}: not installed; run `make test-device` first")
    rows: list[dict[str, Any]] = []
    if TABLE.is_file():
        with TABLE.open(newline="") as file:
            rows = [*csv.DictReader(file)]
    known = {(row["model"], row["form"], row["core"]) for row in rows}
    for name, make in MODELS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        shipped = name.startswith("esc10")
        for form, settings in FORMS.items():
            # Others are compared where a model is run: on the board that most have.
            wanted = boards.BOARDS if shipped else [one for one in boards.BOARDS if one.core == "Cortex-M4F"]
            wanted = [one for one in wanted if (name, form, one.core) not in known]
            if not wanted or (form != "features" and not shipped):
                continue
            with tempfile.TemporaryDirectory() as folder:
                torch.manual_seed(SEED)  # of the weights of those that are not trained
                file = ts.export(make(), Path(folder) / "scene.c", clip_s=None if shipped else 1.0, **settings)
                for board in wanted:
                    rows.append(row_of(name, form, file, board))
                    print(json.dumps(rows[-1]), flush=True)
            with TABLE.open("w", newline="") as table:
                writer = csv.DictWriter(table, [*rows[-1]], restval="")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
