"""The products in one kernel: by a formula, none by convention, or unknown.

Formulas are those of `torch.utils.flop_counter`, two operations a multiply-accumulate (MAC), and a few for what it
lacks. Unknown kernels are not free: one that is neither in `FORMULAS` nor free by convention has None.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


def _matrix(first: int) -> Callable[..., int]:
    """MACs of the product of arguments `first` and `first + 1`, matrices or batches of them."""
    return lambda *args, **_: args[first].numel() * args[first + 1].shape[-1]


def _values_of(position: int) -> Callable[..., int]:
    """One MAC for each value of the argument: its product with a vector."""
    return lambda *args, **_: args[position].numel()


def _outer(first: Tensor, left: Tensor, right: Tensor, **_: Any) -> int:
    return left.numel() * right.numel()


def _recurrent(x: Tensor, of_input: Tensor, of_hidden: Tensor, *_: Any, **__: Any) -> int:
    """x (steps, batch, inputs), weights (gates x hidden, inputs) and (gates x hidden, hidden): one direction."""
    return prod(x.shape[:2]) * (of_input.numel() + of_hidden.numel())


def _trilinear(*args: Any, **_: Any) -> int:
    """Three operands multiplied over all their axes, then summed: two products a place."""
    shapes = []
    for operand, axes in zip(args[:3], args[3:6], strict=True):
        shape = list(operand.shape)
        for axis in axes:
            shape.insert(axis, 1)
        shapes.append(shape)
    return 2 * prod(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _halved(formula: Callable[..., int]) -> Callable[..., int]:
    return lambda *args, result, **options: formula(*args, out_val=result, **options) // 2


FORMULAS: dict[str, Callable[..., int]] = {
    **{packet.__name__: _halved(formula) for packet, formula in flop_registry.items()},
    "_scaled_dot_product_flash_attention_for_cpu": _halved(
        flop_registry[torch.ops.aten._scaled_dot_product_flash_attention]
    ),
    "_addmm_activation": _matrix(1),
    "_int_mm": _matrix(0),
    "_trilinear": _trilinear,
    "addbmm": _matrix(1),
    "addmv": _values_of(1),
    "addr": _outer,
    "dot": _values_of(0),
    "mkldnn_rnn_layer": _recurrent,
    "mv": _values_of(0),
    "vdot": _values_of(0),
}
# Element by element, with the positions of the two operands.
ELEMENTWISE = {"mul": (0, 1), "div": (0, 1), "addcmul": (1, 2), "addcdiv": (1, 2), "lerp": (1, 2)}
SUMS = {"sum", "mean", "nansum", "cumsum"}
# PyTorch's operators that are free, beside views and those tagged as elementwise or as a reduction. Norms,
# sums along an axis, ranks:
_REDUCTIONS = """
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_no_update
    native_layer_norm native_group_norm _weight_norm_interface trace cumprod cummax cummin _cummax_helper
    _cummin_helper logcumsumexp _logcumsumexp median nanmedian mode kthvalue _aminmax sort topk
"""
# Poolings and resampling.
_POOLINGS = """
    avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices upsample_nearest1d
    upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""
# Element by element, though not tagged so.
_ACTIVATIONS = """
    _softmax _log_softmax _safe_softmax _masked_softmax _prelu_kernel gelu glu hardswish mish threshold rsub
    log_sigmoid_forward rrelu_with_noise masked_fill bucketize searchsorted isin
    fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams quantize_per_tensor quantize_per_channel
"""
# Moves, copies and fills.
_MOVES = """
    _to_copy copy cat stack _stack _unsafe_view _reshape_copy as_strided resize set detach t transpose squeeze
    unsqueeze lift unsafe_split unsafe_split_with_sizes constant_pad_nd reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d repeat repeat_interleave roll flip rot90 tril triu index _unsafe_index
    index_select index_put _unsafe_index_put index_add index_copy index_fill gather scatter scatter_add
    scatter_reduce take put masked_scatter masked_select select_scatter diagonal_scatter as_strided_scatter
    diag_embed embedding nonzero im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle complex polar
    empty_like full_like ones_like rand_like randn_like zeros_like new_empty new_empty_strided new_full new_ones
    new_zeros fill zero normal uniform random _local_scalar_dense is_same_size
"""
FREE = frozenset((_REDUCTIONS + _POOLINGS + _ACTIVATIONS + _MOVES).split())
_TAGS = {torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.view_copy}


class Products:
    """Counts the products of kernels in order, and tracks the tensors that come from no activation.

    Products of two tensors element by element are free, a scale or a gate, unless they are a dense layer in disguise:
    where one is broadcast, and the result is larger than both, or activations meet a larger weight; or where a
    product with a weight is summed next.

    Args:
        key: of a tensor's storage, which views share.
        weights: storages of parameters and buffers.
    """

    def __init__(self, key: Callable[[Tensor], int], weights: set[int]) -> None:
        self.key = key
        # Weights, constants, and tensors computed only from them.
        self._fixed = set(weights)
        # Values of free products with a weight, which a sum would make a dense layer.
        self._weighted: dict[int, int] = {}

    def of(self, func: Any, args: Any, options: Any, result: Any) -> int | None:
        """Multiply-accumulates of one kernel that has run; None where it may multiply and has no formula."""
        read, made = _keys(self.key, (args, options)), _keys(self.key, result)
        macs = self._macs(func, args, options, result, read)
        if read <= self._fixed:
            self._fixed |= made
        else:
            self._fixed -= made
        return macs

    def _macs(self, func: Any, args: Any, options: Any, result: Any, read: set[int]) -> int | None:
        library, _, name = func._schema.name.partition("::")
        if library != "aten":
            return _unknown(args, options)
        name = name if name in FORMULAS else name.rstrip("_")
        if name in FORMULAS:
            return FORMULAS[name](*args, result=result, **options)
        if name in ELEMENTWISE:
            return self._elementwise([args[i] for i in ELEMENTWISE[name] if i < len(args)], result)
        if name in SUMS:
            return sum(self._weighted.pop(key, 0) for key in read)
        if func.is_view or name in FREE or not _TAGS.isdisjoint(func.tags):
            return 0
        return _unknown(args, options)

    def _elementwise(self, operands: list[Any], result: Tensor) -> int:
        if len(operands) < 2 or not all(isinstance(one, Tensor) and one.numel() > 1 for one in operands):
            return 0
        small, large = sorted(operands, key=_values)
        fixed = [self.key(one) in self._fixed for one in (small, large)]
        whole = result.numel()
        if all(fixed):
            return 0
        if whole > _values(large) or (fixed[1] and whole > _values(small)):
            return whole
        if any(fixed):
            self._weighted[self.key(result)] = whole
        return 0


def _unknown(*given: Any) -> int | None:
    """None, or 0 where only single values are read."""
    return None if any(isinstance(leaf, Tensor) and leaf.numel() > 1 for leaf in tree_leaves(given)) else 0


def _keys(key: Callable[[Tensor], int], nested: Any) -> set[int]:
    return {key(leaf) for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)}


def _values(tensor: Tensor) -> int:
    """Stored values: an axis of stride zero repeats them."""
    return prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
