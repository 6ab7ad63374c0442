"""Ledgers as tables for the terminal. Every number stands beside its convention, unit or counter."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from tinyscene.accounting.conventions import CONVENTIONS, Convention, in_unit
from tinyscene.accounting.counters import COUNTERS
from tinyscene.accounting.ledger import Ledger, Role, Uncounted, by_precision, group_by_layer, total

_ITEMS: dict[Role, str] = {
    "weight": "weights",
    "bias": "biases",
    "norm": "batch norm, scale and shift",
    "statistic": "batch norm, running statistics",
    "scale": "quantization scales",
    "zero_point": "zero points",
    "constant": "constants",
    "frontend": "front end",
}
# Uncounted operations that a line names.
_NAMED = 3


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
    table.caption = "\n".join(
        f"uncounted by {name}: {uncounted_text(missed)}" for name in names if (missed := ledger.missed_by(name))
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


def item_table(ledger: Ledger, convention: Convention) -> Table:
    """One row a kind of value, and their sum: kept values x bytes each, by `convention`.

    Where layers are int8, what weights and biases there are in floating point layers stand apart.
    """
    table = Table(title=f"{convention.name}, item by item: {convention.description}")
    table.add_column("item")
    table.add_column("type")
    for heading in ("values", "B each", "B"):
        table.add_column(heading, justify="right", no_wrap=True)
    counted = convention.counted(ledger.tensors)
    whole_numbers = {row.layer for row in counted if row.role == "weight" and row.dtype == "int8"}
    items: dict[tuple[str, str, int], int] = {}
    for row in counted:
        floating = whole_numbers and row.role in ("weight", "bias") and row.layer not in whole_numbers
        kind = (_ITEMS[row.role] + (", floating point layers" if floating else ""), row.dtype, row.itemsize)
        items[kind] = items.get(kind, 0) + row.kept
    for (item, dtype, each), values in items.items():
        table.add_row(item, dtype, _number(values), str(each), _number(values * each))
    size = convention(ledger.tensors)
    table.add_section()
    table.add_row("sum", f"{in_unit(size.kept_bytes, 'KB'):,.2f} KB", _number(size.kept), "", _number(size.kept_bytes))
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
        if missed := ledger.missed_by(name):
            table.add_row("", "", "", f"uncounted: {uncounted_text(missed)}")
    table.add_section()
    table.add_row(
        "peak RAM", _number(ledger.peak_ram_bytes), "B", f"largest sum of live activations, held as {ledger.precision}"
    )
    return table


def uncounted_text(missed: Sequence[Uncounted]) -> str:
    """Such as '1 operation, 1.20 MMACs known: einsum in attention (1,200,000 MACs)'; the first few are named."""
    known = sum(one.macs or 0 for one in missed)
    more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
    named = ", ".join(str(one) for one in missed[:_NAMED])
    operations = f"{len(missed)} operation{'s' if len(missed) > 1 else ''}"
    return f"{operations}, {known / 1e6:,.2f} MMACs known: {named}{more}"


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(str(size) for size in shape)


def _number(value: int) -> str:
    return f"{value:,}" if value else "-"
