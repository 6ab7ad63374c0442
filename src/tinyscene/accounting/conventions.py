"""Conventions for which tensors count, and at what size: reports and challenge editions differ, and none is right.

A convention turns the stored rows into the rows that count; its totals follow from those. Zeros are a separate
question: every total comes with them (`parameters`, `bytes`) and without (`kept`, `kept_bytes`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tinyscene.accounting.ledger import FOLDED, Role, Size, TensorRow, total
from tinyscene.errors import InputError

BYTES_IN: dict[str, int] = {"B": 1, "kB": 1000, "KB": 1024}


def in_unit(size_bytes: int, unit: str) -> float:
    """Bytes as B, kB (1000 B) or KB (1024 B).

    Raises:
        InputError: another unit.
    """
    if unit not in BYTES_IN:
        raise InputError(f"unknown unit {unit!r}; accepted: B, kB (1000 B), KB (1024 B)")
    return size_bytes / BYTES_IN[unit]


@dataclass(frozen=True)
class Convention:
    """A named way of counting; calling it on stored rows gives the totals."""

    name: str
    description: str
    counted: Callable[[tuple[TensorRow, ...]], tuple[TensorRow, ...]]

    def __call__(self, rows: Iterable[TensorRow]) -> Size:
        return total(self.counted(tuple(rows)))


def only(*roles: Role) -> Callable[[tuple[TensorRow, ...]], tuple[TensorRow, ...]]:
    """Keep the rows that have one of `roles`, as they are stored."""
    return lambda rows: tuple(row for row in rows if row.role in roles)


def fold_to_int8(rows: tuple[TensorRow, ...]) -> tuple[TensorRow, ...]:
    """Batch norm folded where a layer feeds only it; weights of 1 B, biases of 4 B, scales left out.

    A layer without bias gains one value a channel. A batch norm that can't be folded stays as two float32 values a
    channel, scale and shift. Tensors that are already int8 stay as they are.
    """
    gained = _gained_biases(rows)
    counted: list[TensorRow] = []
    for row in rows:
        if row.role in ("weight", "constant"):
            counted.append(replace(row, dtype="int8", itemsize=1))
        elif row.role == "bias":
            counted.append(replace(row, dtype="int32", itemsize=4))
        elif row.role == "statistic" and not row.folds_into:
            counted.append(_as_explicit_affine(row))
        if row.role == "weight" and row.layer in gained:
            counted.append(gained[row.layer])
    return tuple(counted)


def _gained_biases(rows: tuple[TensorRow, ...]) -> dict[str, TensorRow]:
    biased = {row.layer for row in rows if row.role == "bias"}
    return {
        row.folds_into: TensorRow(
            row.folds_into, "bias", row.values, row.values, row.values, "int32", 4, "bias", FOLDED
        )
        for row in rows
        if row.tensor == "running_mean" and row.folds_into and row.folds_into not in biased
    }


def _as_explicit_affine(statistic: TensorRow) -> TensorRow:
    # Mean and variance merge with scale and shift: as many values remain as there were statistics.
    tensor = "shift" if statistic.tensor == "running_mean" else "scale"
    return replace(statistic, tensor=tensor, role="norm", dtype="float32", itemsize=4)


def byttebier2021(rows: tuple[TensorRow, ...]) -> tuple[TensorRow, ...]:
    """Everything stored, in the precisions of PyTorch's eager int8 modules (Byttebier et al., section 3.1).

    float32 biases, a float64 scale for every output channel, and for every quantized activation a float32 scale and an
    int64 zero point. Floating point layers stay as they are.
    """
    return tuple(_as_eager_int8(row) for row in rows if row.role != "frontend")


def _as_eager_int8(row: TensorRow) -> TensorRow:
    if row.role == "bias" and row.dtype == "int32":
        return replace(row, dtype="float32", itemsize=4)
    if row.role == "scale" and row.tensor.endswith("weight_scale"):
        return replace(row, dtype="float64", itemsize=8)
    return replace(row, dtype="int64", itemsize=8) if row.role == "zero_point" else row


def galindo2021(rows: tuple[TensorRow, ...]) -> tuple[TensorRow, ...]:
    """Every trainable value that the masks keep; one byte each once weights are int8 (Galindo-Meza et al., table 1).

    Batch norm counts two a channel, folded or not: a bias left by folding is a scale and a shift. An exported file
    does not mark the biases left by folding; there, they count once. Where batch norm itself is masked, the number
    changes with int8: folding fills masked shifts again, and masked scales remove their filters.
    """
    int8 = any(row.role == "weight" and row.dtype == "int8" for row in rows)
    counted = [row for row in rows if row.role in ("weight", "bias", "norm")]
    return tuple(_as_a_byte_each(row) for row in counted) if int8 else tuple(counted)


def _as_a_byte_each(row: TensorRow) -> TensorRow:
    if row.layer_type == FOLDED:
        row = replace(row, role="norm", values=2 * row.values, kept=2 * row.kept, nonzero=2 * row.nonzero)
    return replace(row, dtype="int8", itemsize=1)


def pham2020(rows: tuple[TensorRow, ...]) -> tuple[TensorRow, ...]:
    """The trained network's values, all scaled like its kernels (Pham et al., DCASE 2020 Task 1b, table 3).

    Pruning half of the kernels halves everything, and int8 kernels make every value a byte: batch norm counts four a
    channel even where it became an explicit scale and shift, and quantization scales are left out.
    """
    kernels = [row for row in rows if row.role == "weight"]
    values, kept = sum(row.values for row in kernels), sum(row.kept for row in kernels)
    itemsize = max((row.itemsize for row in kernels), default=0)
    counted = []
    for row in rows:
        if row.role in ("weight", "bias", "norm", "statistic", "constant"):
            # A scale and a shift also stand for the mean and variance merged into them.
            doubled = 2 * row.values if row.tensor in ("scale", "shift") else row.values
            dtype = row.dtype if row.itemsize == itemsize else kernels[0].dtype
            scaled = round(doubled * kept / values)
            counted.append(replace(row, values=doubled, kept=scaled, itemsize=itemsize, dtype=dtype))
    return tuple(counted)


_LISTED = (
    Convention(
        "bn4",
        "every saved value: batch norm counts four a channel, running statistics included (Keras)",
        only("weight", "bias", "norm", "statistic", "scale", "zero_point", "constant"),
    ),
    Convention(
        "bn2",
        "PyTorch's parameters(): batch norm counts two a channel, buffers count nothing",
        only("weight", "bias", "norm"),
    ),
    Convention(
        "bn0",
        "every saved value except batch norm's",
        only("weight", "bias", "scale", "zero_point", "constant"),
    ),
    Convention(
        "int8_folded",
        "batch norm folded; int8 weights of 1 B, int32 biases of 4 B, quantization scales left out",
        fold_to_int8,
    ),
    Convention(
        "byttebier2021",
        "that report's: all stored values; int8 biases as float32, scales a channel as float64, zero points as int64",
        byttebier2021,
    ),
    Convention(
        "pham2020",
        "that report's: all values before quantization, batch norm at four a channel, times the share of kernels that "
        "pruning keeps, each at the bytes of a kernel's value",
        pham2020,
    ),
    Convention(
        "galindo2021",
        "that report's: every trainable value, batch norm at two a channel even when folded; of int8 networks at one "
        "byte each, without scales and zero points",
        galindo2021,
    ),
)
CONVENTIONS = {one.name: one for one in _LISTED}


def get_convention(name: str) -> Convention:
    """The convention called `name`.

    Raises:
        InputError: there is none.
    """
    if name not in CONVENTIONS:
        raise InputError(f"no counting convention {name!r}; accepted: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
