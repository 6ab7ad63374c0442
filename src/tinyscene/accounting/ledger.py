"""The cost of a network as rows: one a tensor, one a layer that ran. Every total is derived from them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tinyscene.errors import InputError

Role = Literal["weight", "bias", "norm", "statistic", "scale", "zero_point", "constant", "frontend"]
Precision = Literal["float32", "float16", "int8"]

# The layer type of a bias left by a folded batch norm.
FOLDED = "folded batch norm"
BYTES_OF_PRECISION: dict[Precision, int] = {"float32": 4, "float16": 2, "int8": 1}


def precision_of(name: str) -> Precision:
    """`name` as a precision. Raises InputError for an unknown one."""
    if name not in BYTES_OF_PRECISION:
        raise InputError(f"unknown precision {name!r}; accepted: {', '.join(BYTES_OF_PRECISION)}")
    return name


@dataclass(frozen=True)
class TensorRow:
    """One stored tensor.

    Roles: `norm` is a batch norm's scale or shift, `statistic` its running mean or variance; other norms' affine values
    are weights and biases; `scale` and `zero_point` belong to quantization; `constant` is any other saved buffer; and
    `frontend` is anything in the front end.

    Attributes:
        values: number of values, zeros included.
        kept: values that a mask keeps; all where there is no mask, even if some are zero.
        nonzero: values that are currently not zero.
        itemsize: bytes a value.
        folds_into: the convolution or dense layer whose output only this batch norm reads; empty elsewhere.
    """

    layer: str
    tensor: str
    values: int
    kept: int
    nonzero: int
    dtype: str
    itemsize: int
    role: Role
    layer_type: str
    folds_into: str = ""

    @property
    def name(self) -> str:
        return f"{self.layer}.{self.tensor}" if self.layer else self.tensor

    @property
    def bytes(self) -> int:
        return self.values * self.itemsize

    @property
    def kept_bytes(self) -> int:
        return self.kept * self.itemsize


@dataclass(frozen=True)
class LayerRow:
    """One layer that ran: its last output's shape and its MACs by each counter, over all its calls."""

    layer: str
    layer_type: str
    output_shape: tuple[int, ...]
    macs: Mapping[str, int]


@dataclass(frozen=True)
class Uncounted:
    """Products of weights or activations that a MAC counter does not see.

    Attributes:
        operation: the function, such as "scaled_dot_product_attention".
        macs: those that the counter misses; None where no formula covers the operation.
    """

    counter: str
    layer: str
    operation: str
    macs: int | None

    def __str__(self) -> str:
        macs = "MACs unknown" if self.macs is None else f"{self.macs:,} MACs"
        return f"{self.operation} in {self.layer or 'the network'} ({macs})"


@dataclass(frozen=True)
class Size:
    """Totals of tensor rows: `parameters` includes zeros, `kept` only what the masks keep."""

    parameters: int
    kept: int
    bytes: int
    kept_bytes: int


def total(rows: Iterable[TensorRow]) -> Size:
    """The sum of `rows` of any role: a convention has selected those that count."""
    listed = tuple(rows)
    return Size(
        parameters=sum(row.values for row in listed),
        kept=sum(row.kept for row in listed),
        bytes=sum(row.bytes for row in listed),
        kept_bytes=sum(row.kept_bytes for row in listed),
    )


def by_precision(rows: Iterable[TensorRow]) -> dict[str, int]:
    """Bytes of `rows` by data type, without what masks remove."""
    found: Counter[str] = Counter()
    for row in rows:
        found[row.dtype] += row.kept_bytes
    return dict(found)


@dataclass(frozen=True)
class Ledger:
    """The cost of one clip.

    Attributes:
        tensors: every tensor that a saved network holds, masks and batch counters left out.
        layers: every layer that ran, in the order of its first call.
        input_shape: the example's, (1, channels, bands, frames) or (1, samples).
        peak_ram_bytes: largest sum of live activations, at `precision`.
        precision: of the activations, for `peak_ram_bytes` only.
        uncounted: by counter, layer and operation, products that `macs` leaves out.
    """

    tensors: tuple[TensorRow, ...]
    layers: tuple[LayerRow, ...]
    input_shape: tuple[int, ...]
    peak_ram_bytes: int
    precision: Precision = "float32"
    uncounted: tuple[Uncounted, ...] = ()

    @property
    def macs(self) -> dict[str, int]:
        """Total multiply-accumulates by counter."""
        macs: Counter[str] = Counter()
        for row in self.layers:
            macs.update(row.macs)
        return dict(macs)

    def missed_by(self, counter: str) -> tuple[Uncounted, ...]:
        """Products that one counter misses."""
        return tuple(one for one in self.uncounted if one.counter == counter)

    def to_json(self) -> dict[str, Any]:
        """Plain sequences, dicts, strings and numbers: rows and the totals of the MAC counters."""
        tensors = [asdict(row) | {"bytes": row.bytes} for row in self.tensors]
        return asdict(self) | {"macs": self.macs, "tensors": tensors}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Ledger":
        """The inverse of `to_json`. Raises ValueError for other values."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(plain)
