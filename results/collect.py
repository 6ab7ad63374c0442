"""Add run folders to results/, and rewrite RESULTS.md: python results/collect.py RUN...

Each run becomes SYSTEM-DATASET.csv, one row for each stage, with its command, commit, seed and machine; a
cross-validation folds-SYSTEM-DATASET.csv. The files'
table, artifacts-DATASET.csv, comes from artifacts.py, that of int8's ranges from int8_ranges.py.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

from tinyscene.tables import markdown

HERE = Path(__file__).parent
PROVENANCE = ("command", "commit", "machine", "minutes", "data_fingerprint", "torch", "finished")


def take(run: Path) -> None:
    """Copy a run's scorecard, its receipt in every row. A run of changed source is refused."""
    receipt = json.loads((run / "receipt.json").read_text())
    if not receipt["commit"] or receipt["commit"].endswith("+changes"):
        sys.exit(f"{run}: commit {receipt['commit'] or 'unknown'}; accepted: a run of a committed state")
    with (run / "scorecard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if (run / "pareto.csv").is_file():
        (HERE / "tried").mkdir(exist_ok=True)
        shutil.copyfile(run / "pareto.csv", HERE / "tried" / f"{rows[0]['system']}-{rows[0]['dataset']}.csv")
    provenance = {name: receipt.get(name, "") for name in PROVENANCE} | {"torch": receipt["versions"]["torch"]}
    target = HERE / f"{rows[0]['system']}-{rows[0]['dataset']}.csv"
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *PROVENANCE])
        writer.writeheader()
        writer.writerows({**row, **provenance} for row in rows)


def take_folds(run: Path) -> None:
    """Copy the table of a cross-validation, with costs from the first fold and the origin of all its runs."""
    receipts = [json.loads(path.read_text()) for path in sorted(run.glob("fold-*/receipt.json"))]
    commits = {receipt["commit"] for receipt in receipts}
    if len(commits) != 1 or not all(commits) or any(commit.endswith("+changes") for commit in commits):
        sys.exit(f"{run}: commits {', '.join(commits)}; accepted: one committed state for all folds")
    with (run / "folds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with next(iter(sorted(run.glob("fold-*/scorecard.csv")))).open(newline="") as file:
        costs = {(row["variant"], row["stage"]): row for row in csv.DictReader(file)}
    some = next(iter(costs.values()))
    origin = {name: receipts[0][name] for name in ("command", "commit", "machine", "finished")}
    origin |= {"torch": receipts[0]["versions"]["torch"], "minutes": round(sum(one["minutes"] for one in receipts), 1)}
    for row in rows:
        cost = costs[row["variant"], row["stage"]]
        row |= {name: cost[name] for name in ("bytes", "convention", "macs", "file_bytes")}
        row |= {"system": some["system"], "dataset": some["dataset"], **origin}
    with (HERE / f"folds-{some['system']}-{some['dataset']}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def folds_table(path: Path) -> list[str]:
    """A cross-validation: means over seeds by fold, and over all."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = rows[0]
    folds = [name for name in first if name.startswith("fold_")]
    table_rows = [
        {
            "variant": row["variant"],
            "stage": row["stage"],
            "seeds": row["seeds"],
            **{name.replace("_", " ") + " %": f"{100 * float(row[name]):.1f}" for name in folds},
            "accuracy %": f"{100 * float(row['accuracy']):.2f} ± {100 * float(row['deviation']):.2f}",
            "log loss": f"{float(row['log_loss']):.3f}",
            "ECE": f"{float(row['ece']):.3f}",
            "kB": f"{int(row['bytes']) / 1000:.2f} ({row['convention']})",
            "MMACs of 1 s": f"{int(row['macs']) / 1e6:.2f}",
        }
        for row in rows
    ]
    title = path.stem.removeprefix("folds-").replace("_", " ").replace("-", " on ")
    lines = [f"## Cross-validation: {title}, {first['clips']} test clips", ""]
    facts = f"`{first['command']}`; commit {first['commit']}, {first['machine']}, torch {first['torch']}, "
    facts += f"{first['minutes']} min, {first['finished'][:10]}; ± is the deviation over folds and seeds."
    return [*lines, *markdown(table_rows), "", facts, ""]


def table(path: Path) -> list[str]:
    """One data set's results as Markdown, with their origin."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = rows[0]
    synthetic = " (synthetic: rendered, not recorded)" if first["dataset"] == "synthetic" else ""
    groups = [group for group in ("real", "seen", "unseen") if any(row[f"accuracy_{group}"] for row in rows)]
    heads = ["variant", "stage", "seed", "accuracy % (95 %)", "log loss", "ECE", *(f"{g} devices %" for g in groups)]
    files = any(row.get("file_bytes") for row in rows)
    heads += [
        "parameters",
        "KB",
        *(["file, B", "largest difference", "same decisions"] if files else []),
    ]
    heads += ["report: size, accuracy, log loss"]
    table_rows = []
    for row in rows:
        low, high = 100 * float(row["accuracy_low"]), 100 * float(row["accuracy_high"])
        mark = ", *optimistic*" if row.get("optimistic") == "True" else ""
        cells = [row["variant"], row["stage"] + mark, row["seed"]]
        cells += [f"{100 * float(row['accuracy']):.1f} ({low:.1f}-{high:.1f})"]
        cells += [f"{float(row['log_loss']):.3f}", f"{float(row['ece']):.3f}"]
        cells += [f"{100 * float(row[f'accuracy_{g}']):.1f}" if row[f"accuracy_{g}"] else "" for g in groups]
        cells += [f"{int(row['nonzero']):,} ({row['convention']})", f"{float(row['kb']):.2f}"]
        cells += [*(file_cells(row) if files else []), printed(row)]
        table_rows.append(dict(zip(heads, cells, strict=True)))
    lines = [f"## {first['system']} on {first['dataset']}{synthetic}", "", *markdown(table_rows)]
    metrics = {f"- {row['stage']}, seed {row['seed']}: {row['metrics']}": None for row in rows if row.get("metrics")}
    lines += ["", *metrics] if metrics else []
    if any(row.get("optimistic") == "True" for row in rows):
        lines += ["", "*optimistic*: scored on recordings that the model was trained, stopped or calibrated on."]
    lines += tried(HERE / "tried" / path.name)
    facts = f"`{first['command']}`; commit {first['commit']}, {first['machine']}, torch {first['torch']}"
    return [*lines, "", f"{facts}, {first['minutes']} min, {first['finished'][:10]}.", ""]


def tried(path: Path) -> list[str]:
    """The candidates of a fit under a budget, on the validation part; nothing for other runs."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    clips = f"{rows[0]['validation_clips']} validation clips"
    table_rows = [
        {
            "rung": row["rung"],
            "candidate": row["candidate"],
            "epochs": row["epochs"],
            f"accuracy % on {clips}": f"{100 * float(row['validation_accuracy']):.1f}",
            "log loss": f"{float(row['validation_log_loss']):.3f}",
            "kB": f"{int(row['bytes']) / 1000:.2f}",
            "MMACs": f"{int(row['macs']) / 1e6:.2f}",
            "winner": "yes" if row["winner"] == "True" else "",
        }
        for row in rows
    ]
    return ["", *markdown(table_rows)]


def file_cells(row: dict[str, str]) -> list[str]:
    """Bytes on disk, the largest difference on ONNX Runtime, and the share of decisions that agree."""
    if not row["file_bytes"]:
        return ["refused", row["file_fault"], ""]
    steps = row["file_unit"] == "output steps"
    largest = f"{float(row['file_largest']):{'.2f' if steps else '.0e'}}"
    unit = "steps" if steps else "of the largest logit"
    return [f"{int(row['file_bytes']):,}", f"{largest} {unit}", f"{100 * float(row['file_agreement']):.0f} %"]


def printed(row: dict[str, str]) -> str:
    """The report's numbers for the last stage, on its own data set."""
    parameters, kb, mmacs, loss = (row.get(f"reported_{n}", "") for n in ("parameters", "kb", "mmacs", "log_loss"))
    if not (parameters or kb):
        return ""
    size = [f"{int(parameters):,}"] if parameters else []
    size += [f"{kb} KB"] if kb else []
    size += [f"{mmacs} MMACs"] if mmacs else []
    accuracy = f"{100 * float(row['reported_accuracy']):.2f} %" if row["reported_accuracy"] else ""
    return ", ".join([*size, *filter(None, (accuracy, loss))])


ARTIFACT_HEADS = (
    "network",
    "file",
    "front end",
    "difference: largest, mean",
    "same decisions",
    "accuracy %: file, model",
    "B",
    "ms a clip (10-90 %)",
    "network alone, ms",
    "activations, B",
    "verdict",
)


def artifact_table(path: Path) -> list[str]:
    """Systems by formats as Markdown: a file's facts, or why there is none."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table_rows, faults = [], list[str]()
    for row in rows:
        if row.get("fault"):
            faults.append(f"{row['system']}, {row['weights_at']}, {row['format']}, {row['front_end']}: {row['fault']}")
        table_rows.append(dict(zip(ARTIFACT_HEADS, artifact_cells(row, len(faults)), strict=True)))
    lines = [f"## Files of the five systems, {rows[0]['dataset'].split('-')[0]}", "", *markdown(table_rows)]
    lines += ["", *(f"{number}. {fault}" for number, fault in enumerate(faults, 1))]
    for trained in dict.fromkeys(row["trained"] for row in rows):
        lines.append(f"- trained by `{trained.replace('; commit ', '`; commit ')}")
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    first = rows[0]
    facts = f"`{first['command']}`; commit {commits}, {first['machine']}, torch {first['torch']}, seed {first['seed']}"
    return [*lines, "", f"{facts}, {first['finished'][:10]}.", ""]


def artifact_cells(row: dict[str, str], fault: int) -> list[str]:
    """One file's cells; for the network in torch, its time; for a refused file, the number of its reason."""
    network = f"{row['system']} {row['variant']}, {row['weights_at']}, {float(row['clip_s']):.2f} s"
    if row.get("fault"):
        return [network, row["format"], row["front_end"], f"refused ({fault})", *[""] * (len(ARTIFACT_HEADS) - 4)]
    taken = [""]
    if row["clip_ms"]:  # Cortex-M's kernels do not run here
        taken = [f"{float(row['clip_ms']):.1f} ({float(row['clip_ms_p10']):.1f}-{float(row['clip_ms_p90']):.1f})"]
    taken += [f"{float(row['network_ms']):.1f}" if row["network_ms"] else ""]
    if not row["unit"]:
        return [network, "in torch", "", "", "", f"{100 * float(row['model_accuracy']):.1f}", "", *taken, "", ""]
    sign, unit = (".2f", "steps") if row["unit"] == "output steps" else (".0e", "of the largest logit")
    return [
        network,
        row["format"],
        row["front_end"],
        f"{float(row['largest']):{sign}}, {float(row['mean']):{sign}} {unit}",
        f"{100 * float(row['agreement']):.0f} %" + (f", {row['ties']} ties" if row["ties"] != "0" else ""),
        ", ".join(f"{100 * float(row[name]):.1f}" for name in ("file_accuracy", "accuracy")),
        f"{int(row['file_bytes']):,}",
        *taken,
        f"{int(row['peak_ram_bytes']):,}",
        f"{row['rules']}: {row['verdict']}",
    ]


RANGES = (("128", "0"), ("128", "1"), ("all", "0"), ("32", "0"))  # of int8_ranges.py: clips, one of them louder
WAYS = (("False", "after training"), ("True", "QAT"))


def ranges_table(path: Path) -> list[str]:
    """The loss of int8 against float, in points with 95 % intervals, by the clips that set its ranges."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {tuple(row[name] for name in ("dataset", "network", "ranges", "louder", "qat")): row for row in rows}
    table_rows = []
    for dataset, network in dict.fromkeys((row["dataset"], row["network"]) for row in rows):
        line = {
            f"{clips} clips{', one louder' * (louder == '1')}, {way}": found.get((dataset, network, clips, louder, qat))
            for clips, louder in RANGES
            for qat, way in WAYS
        }
        accuracy = 100 * float(next(filter(None, line.values()))["float"])
        shown = {head: difference(row) for head, row in line.items()}
        table_rows.append({"data": dataset, "network": network, "float %": f"{accuracy:.1f}", **shown})
    lines = ["## int8 against float, by the clips that set its ranges", "", *markdown(table_rows)]
    worse = [row for row in rows if float(row["difference_high"]) < -0.01]
    lines += ["", f"{len(worse)} of {len(rows)} lose significantly more than one point."]
    first = rows[0]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    facts = f"`{first['command']}`; commit {commits}, {first['machine']}, torch {first['torch']}, seed {first['seed']}"
    return [*lines, "", f"{facts}, {first['finished'][:10]}.", ""]


def difference(row: dict[str, str] | None) -> str:
    """Points of accuracy, with the paired interval; empty where it wasn't measured."""
    if row is None:
        return ""
    mean, low, high = (100 * float(row[name]) for name in ("difference", "difference_low", "difference_high"))
    return f"{mean:+.1f} ({low:+.1f} ... {high:+.1f})"


def ablation_table(path: Path) -> list[str]:
    """What each part of a recipe is worth alone, with paired 95 % intervals."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table_rows = []
    for row in rows:
        accuracy, loss = (
            [float(row[f"{metric}_{part}"]) for part in ("mean", "low", "high")] for metric in ("accuracy", "log_loss")
        )
        table_rows.append(
            {
                "changed": row["change"],
                "accuracy %": f"{100 * float(row['accuracy']):.1f}",
                "log loss": f"{float(row['log_loss']):.3f}",
                "ECE": f"{float(row['ece']):.3f}",
                "accuracy, difference in points": "{:+.1f} ({:+.1f} ... {:+.1f})".format(
                    *(100 * one for one in accuracy)
                ),
                "log loss, difference": "{:+.3f} ({:+.3f} ... {:+.3f})".format(*loss),
                "other microphones %": f"{100 * float(row['accuracy_devices']):.1f}" if row["accuracy_devices"] else "",
                "log loss there": f"{float(row['log_loss_devices']):.3f}" if row["log_loss_devices"] else "",
            }
        )
    first = rows[0]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    commands = " and ".join(dict.fromkeys(f"`{row['command']}`" for row in rows))
    facts = f"{commands}; commit {commits}, {first['machine']}, seed {first['seed']}, {first['clips']} test "
    facts += f"clips, {first['epochs']} epochs where nothing else is said, {rows[-1]['finished'][:10]}."
    return ["## What the ESC recipe was chosen by", "", *markdown(table_rows), "", facts, ""]


def devices_table(path: Path) -> list[str]:
    """Test clips through microphones that training never heard, beside the clips as recorded."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table_rows = [
        {
            "variant": row["variant"],
            "seed": row["seed"],
            "as recorded %": f"{100 * float(row['accuracy']):.1f}",
            f"through {row['microphones']} microphones %": f"{100 * float(row['accuracy_devices']):.1f}",
            "difference, points": difference(row),
            "worst microphone": f"{row['worst_device'].replace('_', ' ')}: {100 * float(row['worst']):.1f} %",
            "log loss": f"{float(row['log_loss']):.3f}, through microphones {float(row['log_loss_devices']):.3f}",
        }
        for row in rows
    ]
    first = rows[0]
    facts = f"`{first['command']}`; commit {first['commit']}, {first['machine']}, {first['clips']} test clips, "
    facts += f"{first['finished'][:10]}."
    return ["## Microphones that training never heard", "", *markdown(table_rows), "", facts, ""]


ORIGIN = ("rounds", "command", "commit", "machine", "torch", "librosa")


def speed_table(path: Path) -> list[str]:
    """A table of benchmarks/ as it is, with its origin."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [{name.replace("_", " "): cell for name, cell in row.items() if name not in ORIGIN} for row in rows]
    first = rows[0]
    facts = f"`{first['command']}`; commit {first['commit']}, {first['machine']}, torch {first['torch']}, librosa "
    facts += f"{first['librosa']}; medians of {first['rounds']} rounds in turns."
    return [f"## Speed: {path.stem.partition('-')[2]}", "", *markdown(shown), "", facts, ""]


def device_table(path: Path) -> list[str]:
    """C files on emulated boards."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    table_rows = [
        {
            "model": row["model"],
            "input": row["form"],
            "core": row["core"],
            "M instructions": f"{int(row['instructions']) / 1e6:.1f}",
            "a MAC": f"{int(row['instructions']) / int(row['macs']):.2f}",
            "flash, B": f"{int(row['flash']):,}",
            "of it weights": f"{int(row['weights']):,}",
            "RAM, B": f"{int(row['ram']):,}",
            "of it the arena": f"{int(row['arena']):,}",
            "ledger's peak": f"{int(row['peak_activations']):,}",
            "stack, B": row["stack"],
            "from this computer": f"{float(row['difference']):.1g}",
            "from the classifier": f"{float(row['from_classifier']):.2g} {row['unit']}",
        }
        for row in rows
    ]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    facts = (
        f"`device.py`; commit {commits}, {rows[0]['machine']}, {rows[-1]['finished'][:10]}. Largest differences: of "
    )
    facts += "the board's outputs from those of the same file on this computer, and of the file from its classifier."
    return ["## C files on emulated Cortex-M boards", "", *markdown(table_rows), "", facts, ""]


TABLES = {
    "ablation": ablation_table,
    "artifacts": artifact_table,
    "device": device_table,
    "devices": devices_table,
    "folds": folds_table,
    "int8_ranges": ranges_table,
    "speed": speed_table,
}


def main() -> None:
    """Add the named runs, then write RESULTS.md from all tables."""
    for run in sys.argv[1:]:
        (take_folds if Path(run, "folds.csv").is_file() else take)(Path(run))
    lines = ["# Results", "", (HERE / "intro.md").read_text().strip(), ""]
    for path in sorted(HERE.glob("*.csv")):
        lines += TABLES.get(path.stem.split("-")[0], table)(path)
    (HERE / "RESULTS.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
