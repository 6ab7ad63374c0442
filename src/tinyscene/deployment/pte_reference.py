"""A `.pte` file run by torch and ExecuTorch's Python references of its operators, where no kernel of its device runs.

Every instruction is carried out in turn, in the memory that the file plans: only the kernels are not the device's.
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyscene.deployment.formats import Values, check_inputs
from tinyscene.deployment.pte import TORCH_TYPES, opened, plan_of
from tinyscene.errors import InputError

_NAMESPACE = "cortex_m"
# CMSIS-NN's windows run over maps of the one order of axes, and the portable kernels are sure of the other.
_CHANNELS_LAST, _CONTIGUOUS = (0, 2, 3, 1), (0, 1, 2, 3)
_WINDOWED = ("conv2d", "pool2d", "pad")
_TURNING = ("_dim_order", "_dim_order_copy", "permute_copy", "transpose")


class ReferenceRunner:
    """A batch of each input in, a batch of each output out, clip by clip."""

    def __init__(self, path: Path) -> None:
        self.path, self.program = path, opened(path).program
        self.plan = plan_of(self.program)
        if self.plan.delegates or len(self.plan.chains) != 1:
            raise self._fault("is not a plain list of instructions")
        self.memory = [torch.zeros(size, dtype=torch.uint8) for size in self.plan.non_const_buffer_sizes]
        self.values = [self._value(entry.val) for entry in self.plan.values]
        self.calls = [self._call(instruction.instr_args) for instruction in self.plan.chains[0].instructions]

    def __call__(self, *given: Values) -> tuple[Values, ...]:
        """Raises InputError where the clips are not of the shape that the file is for."""
        inputs, outputs = ([self.values[place] for place in ends] for ends in (self.plan.inputs, self.plan.outputs))
        check_inputs(self.path, given, len(inputs))
        for values, tensor in zip(given, inputs, strict=True):
            if values.shape[1:] != tensor.shape[1:]:
                raise InputError(
                    f"{self.path}: runs on (any batch, {', '.join(map(str, tensor.shape[1:]))}), not on "
                    f"{values.shape}; accepted: clips of the length that it was exported for"
                )
        found = []
        for clip in zip(*(torch.as_tensor(np.asarray(values, np.float32)) for values in given), strict=True):
            for tensor, values in zip(inputs, clip, strict=True):
                tensor.copy_(values[None])
            for packet, overload, arguments in self.calls:
                _carry_out(packet, overload, arguments)
            found.append([tensor.numpy().copy() for tensor in outputs])
        if not found:
            return tuple(np.zeros((0, tensor.shape[-1]), np.float32) for tensor in outputs)
        return tuple(np.concatenate(output) for output in zip(*found, strict=True))

    def _fault(self, what: str) -> InputError:
        return InputError(f"{self.path}: {what}; accepted: a .cortex_m.pte file of export")

    def _value(self, value: Any) -> Any:
        """A tensor in its place in memory, a number, or a list that is filled in by `_items`."""
        kind = type(value).__name__
        if kind == "Tensor":
            return self._tensor(value)
        numbers = {"Int": "int_val", "Double": "double_val", "Bool": "bool_val", "String": "string_val"}
        return getattr(value, numbers[kind]) if kind in numbers else value

    def _tensor(self, value: Any) -> Tensor:
        shape, order = tuple(value.sizes), list(value.dim_order)
        dtype = getattr(torch, TORCH_TYPES[value.scalar_type.name])
        strides = [0] * len(shape)
        for place, axis in enumerate(order):
            strides[axis] = prod(shape[later] for later in order[place + 1 :])
        if value.data_buffer_idx and value.allocation_info is None:
            content = bytes(self.program.constant_buffer[value.data_buffer_idx].storage)
            held = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            return _view(held, 0, dtype, shape, strides)
        where = value.allocation_info
        if where is None:
            raise self._fault("has a tensor without a place in memory")
        start = where.memory_offset_low + (where.memory_offset_high << 32)
        return _view(self.memory[where.memory_id], start, dtype, shape, strides)

    def _call(self, call: Any) -> tuple[Any, Any, list[Any]]:
        if not hasattr(call, "op_index"):
            raise self._fault(f"has an instruction {type(call).__name__}")
        named = self.plan.operators[call.op_index]
        namespace, _, name = named.name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), name)
        overload = getattr(packet, named.overload or "default")
        places = call.args[: len(overload._schema.arguments)]
        if not name.endswith(_TURNING):
            self._check_order(namespace, name, places)
        return packet, overload, [self._items(place) for place in places]

    def _items(self, place: int) -> Any:
        value = self.values[place]
        kind = type(value).__name__
        if kind == "Null":
            return None
        if kind in ("IntList", "TensorList", "OptionalTensorList"):
            return [self._items(item) if item >= 0 else None for item in value.items]
        return list(value.items) if kind in ("DoubleList", "BoolList") else value

    def _check_order(self, namespace: str, name: str, places: list[int]) -> None:
        """Raise InputError where a kernel of the device would refuse the order of axes, or take it for another."""
        maps = [tensor for place in places if (tensor := self._map(place)) is not None]
        orders = {tuple(tensor.dim_order) for tensor in maps if prod(tensor.sizes[2:]) > 1 < tensor.sizes[1]}
        windowed = namespace == _NAMESPACE and any(part in name for part in _WINDOWED)
        wanted = {_CHANNELS_LAST} if windowed else {_CONTIGUOUS} if namespace == "aten" else orders
        if len(orders) > 1 or orders - wanted:
            raise self._fault(f"{namespace}::{name} runs on maps whose axes are ordered as in {sorted(orders)}")

    def _map(self, place: int) -> Any:
        value = self.plan.values[place].val
        held = type(value).__name__ == "Tensor" and value.allocation_info is not None and len(value.sizes) == 4
        return value if held else None


def _view(held: Tensor, start: int, dtype: torch.dtype, shape: tuple[int, ...], strides: list[int]) -> Tensor:
    place = start // dtype.itemsize
    return torch.empty(0, dtype=dtype).set_(held.untyped_storage(), place, shape, strides)


def _carry_out(packet: Any, overload: Any, arguments: list[Any]) -> None:
    """Call an operator that writes into its last argument; where it only has one that returns, copy what that does."""
    schema = overload._schema.arguments
    given = [value for value, argument in zip(arguments, schema, strict=True) if not argument.kwarg_only]
    named = {argument.name: value for value, argument in zip(arguments, schema, strict=True) if argument.kwarg_only}
    try:
        overload(*given, **named)
    except NotImplementedError:
        out = named.pop("out")
        out.copy_(packet.default(*given, **named))
