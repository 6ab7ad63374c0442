"""Ledgers as tables for the terminal. Every number stands beside its convention, unit or counter."""

from collections.abc import Iterable

from rich.table import Table

from tinyscene.accounting.conventions import CONVENTIONS, Convention, in_unit
from tinyscene.accounting.counters import COUNTERS
from tinyscene.accounting.ledger import Ledger, by_precision, group_by_layer, total


def layer_table(ledger: Ledger, convention: Convention, counters: Iterable[str] = tuple(COUNTERS)) -> Table:
    """One row a layer, and their sum: values, kept values and bytes by `convention`, MACs by each of `counters`."""
    names = tuple(counters)
    table = Table(
        title=f"Input {_shape(ledger.input_shape)}; parameters by {convention.name}: {convention.description}"
    )
    for heading in ("layer", "type", "output"):
        table.add_column(heading, overflow="fold")
    for heading in ("parameters", "kept", "B", *(f"MACs, {name}" for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)

    counted = convention.counted(ledger.tensors)
    sizes = {layer: total(rows) for layer, rows in group_by_layer(counted).items()}
    ran = {row.layer: row for row in ledger.layers}
    types = {row.layer: row.layer_type for row in ledger.tensors}
    for layer in dict.fromkeys([*ran, *sizes]):
        size = sizes.get(layer, total(()))
        row = ran.get(layer)
        table.add_row(
            layer or "(network)",
            row.layer_type if row else types.get(layer, ""),
            _shape(row.output_shape) if row else "not run",
            *(_number(value) for value in (size.parameters, size.kept, size.bytes)),
            *(_number(row.macs[name] if row else 0) for name in names),
        )
    whole = total(counted)
    table.add_section()
    table.add_row(
        "sum",
        "",
        "",
        *(_number(value) for value in (whole.parameters, whole.kept, whole.bytes)),
        *(_number(ledger.macs[name]) for name in names),
    )
    return table


def size_table(ledger: Ledger) -> Table:
    """One row a convention: parameters, kept ones, B, kB and KB."""
    table = Table(title="Size by convention (kept: without what masks remove; kB = 1000 B, KB = 1024 B)")
    table.add_column("convention")
    for heading in ("parameters", "kept", "B", "kB", "KB", "KB, kept"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bytes by precision")
    table.add_column("what counts", overflow="fold")
    for convention in CONVENTIONS.values():
        size = convention(ledger.tensors)
        table.add_row(
            convention.name,
            *(_number(value) for value in (size.parameters, size.kept, size.bytes)),
            f"{in_unit(size.bytes, 'kB'):,.2f}",
            f"{in_unit(size.bytes, 'KB'):,.2f}",
            f"{in_unit(size.kept_bytes, 'KB'):,.2f}",
            ", ".join(f"{dtype} {n:,}" for dtype, n in by_precision(convention.counted(ledger.tensors)).items()),
            convention.description,
        )
    return table


def work_table(ledger: Ledger) -> Table:
    """One row a MAC counter with the reason why it differs, and the peak RAM."""
    table = Table(title=f"Work for one clip, input {_shape(ledger.input_shape)}")
    table.add_column("counter")
    table.add_column("amount", justify="right")
    table.add_column("unit")
    table.add_column("how it counts", overflow="fold")
    for name, macs in ledger.macs.items():
        table.add_row(name, _number(macs), "MACs", COUNTERS[name].reason)
    table.add_section()
    table.add_row(
        "peak RAM", _number(ledger.peak_ram_bytes), "B", f"largest sum of live activations, held as {ledger.precision}"
    )
    return table


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(str(size) for size in shape)


def _number(value: int) -> str:
    return f"{value:,}" if value else "-"
