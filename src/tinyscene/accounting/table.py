"""Ledgers as tables for the terminal. Every number is beside its convention, unit or counter."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tinyscene.accounting.conventions import CONVENTIONS, Convention, in_unit
from tinyscene.accounting.counters import COUNTERS
from tinyscene.accounting.ledger import Ledger, Role, Size, Uncounted, by_precision, total
from tinyscene.tables import APART, table

if TYPE_CHECKING:
    from rich.table import Table

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
# The most uncounted operations that a line names.
_NAMED = 3


def layer_table(ledger: Ledger, convention: Convention, counters: Iterable[str] = tuple(COUNTERS)) -> "Table":
    """One row a layer, and their sum: values, kept values and bytes by `convention`, MACs by each of `counters`."""
    names = tuple(counters)
    counted = convention.counted(ledger.tensors)
    sizes = {one.layer: total(row for row in counted if row.layer == one.layer) for one in counted}
    ran = {row.layer: row for row in ledger.layers}
    types = {row.layer: row.layer_type for row in ledger.tensors}
    rows = [
        {
            "layer": layer or "(network)",
            "type": ran[layer].layer_type if layer in ran else types.get(layer, ""),
            "output": _shape(ran[layer].output_shape) if layer in ran else "not run",
            **_size(sizes.get(layer, total(()))),
            **{f"MACs, {name}": _number(ran[layer].macs[name] if layer in ran else 0) for name in names},
        }
        for layer in dict.fromkeys([*ran, *sizes])
    ]
    macs = {f"MACs, {name}": _number(ledger.macs[name]) for name in names}
    missed = [f"uncounted by {name}: {uncounted_text(ones)}" for name in names if (ones := ledger.missed_by(name))]
    return table(
        f"Input {_shape(ledger.input_shape)}; parameters by {convention.name}: {convention.description}",
        [*rows, APART, {"layer": "sum", **_size(total(counted)), **macs}],
        caption="\n".join(missed),
    )


def size_table(ledger: Ledger) -> "Table":
    """One row a convention: parameters, kept ones, B, kB and KB."""
    rows = []
    for convention in CONVENTIONS.values():
        size, precisions = convention(ledger.tensors), by_precision(convention.counted(ledger.tensors))
        rows.append(
            {
                "convention": convention.name,
                **_size(size),
                "kB": f"{in_unit(size.bytes, 'kB'):,.2f}",
                "KB": f"{in_unit(size.bytes, 'KB'):,.2f}",
                "KB, kept": f"{in_unit(size.kept_bytes, 'KB'):,.2f}",
                "bytes by precision": ", ".join(f"{dtype} {n:,}" for dtype, n in precisions.items()),
                "what counts": convention.description,
            }
        )
    return table("Size by convention (kept: without what masks remove; kB = 1000 B, KB = 1024 B)", rows)


def item_table(ledger: Ledger, convention: Convention) -> "Table":
    """One row a kind of value, and their sum: kept values x bytes each, by `convention`.

    Where layers are int8, weights and biases of floating point layers have their own rows.
    """
    counted = convention.counted(ledger.tensors)
    whole_numbers = {row.layer for row in counted if row.role == "weight" and row.dtype == "int8"}
    items: dict[tuple[str, str, int], int] = {}
    for row in counted:
        floating = whole_numbers and row.role in ("weight", "bias") and row.layer not in whole_numbers
        kind = (_ITEMS[row.role] + (", floating point layers" if floating else ""), row.dtype, row.itemsize)
        items[kind] = items.get(kind, 0) + row.kept
    rows = [
        {"item": item, "type": dtype, "values": _number(n), "B each": str(each), "B": _number(n * each)}
        for (item, dtype, each), n in items.items()
    ]
    size = convention(ledger.tensors)
    whole = {"values": _number(size.kept), "B": _number(size.kept_bytes)}
    return table(
        f"{convention.name}, item by item: {convention.description}",
        [*rows, APART, {"item": "sum", "type": f"{in_unit(size.kept_bytes, 'KB'):,.2f} KB", **whole}],
    )


def work_table(ledger: Ledger) -> "Table":
    """One row a MAC counter with the reason for its difference, and the peak RAM."""
    rows = []
    for name, macs in ledger.macs.items():
        missed = ledger.missed_by(name)
        how = COUNTERS[name].reason + (f"; uncounted: {uncounted_text(missed)}" if missed else "")
        rows.append({"counter": name, "amount": _number(macs), "unit": "MACs", "how it counts": how})
    how = f"largest sum of live activations, held as {ledger.precision}"
    peak = {"counter": "peak RAM", "amount": _number(ledger.peak_ram_bytes), "unit": "B", "how it counts": how}
    return table(f"Work for one clip, input {_shape(ledger.input_shape)}", [*rows, APART, peak])


def uncounted_text(missed: Sequence[Uncounted]) -> str:
    """Such as '1 operation, 1.20 MMACs known: einsum in attention (1,200,000 MACs)'; the first few are named."""
    known = sum(one.macs or 0 for one in missed)
    more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
    named = ", ".join(str(one) for one in missed[:_NAMED])
    operations = f"{len(missed)} operation{'s' if len(missed) > 1 else ''}"
    return f"{operations}, {known / 1e6:,.2f} MMACs known: {named}{more}"


def _size(size: Size) -> dict[str, str]:
    return {"parameters": _number(size.parameters), "kept": _number(size.kept), "B": _number(size.bytes)}


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(str(size) for size in shape)


def _number(value: int) -> str:
    return f"{value:,}" if value else "-"
