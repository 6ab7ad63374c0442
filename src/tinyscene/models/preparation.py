"""A network prepared for quantization: folded, exported as a graph, fake quantization inserted."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinyscene.errors import InputError
from tinyscene.models import masks
from tinyscene.models.capture import Capturable
from tinyscene.models.folding import fold_batch_norm, inside
from tinyscene.models.quantized import FakeQuantized, Int8Network, Origin
from tinyscene.models.quantizer import Insertion
from tinyscene.models.tensors import laid_out

# Attributes of graphs and int8 networks, beside the network's own modules.
_TAKEN = {*dir(fx.GraphModule), *dir(Int8Network), "meta", "memory_format", "origin", "quantizers"}


def prepare(network: nn.Module, example: Tensor, keep_float: tuple[str, ...] = ()) -> FakeQuantized:
    """Fold batch norm, export the graph and insert fake quantization.

    Args:
        example: (1, ...), as long as the network needs; batch and frames stay free.
        keep_float: patterns over module paths, such as "blocks.*.se", that stay in float.

    Raises:
        InputError: a pattern matches no module or one of two that share weights, a module has a name that is taken, the
            network can't be exported for any length, or it gives something other than one tensor.
    """
    for pattern in keep_float:
        if not any(inside(path, (pattern,)) for path, _ in network.named_modules() if path):
            names = ", ".join(name for name, _ in network.named_children())
            raise InputError(f"keep_float={pattern!r} matches no module; accepted: a path in {names}, * for any text")
    for name, _ in network.named_children():
        if name in _TAKEN:
            raise InputError(
                f"{type(network).__name__} has a module called {name!r}, which quantized networks use; "
                f"try another name for it"
            )
    origin = Origin(copy.deepcopy(network).to("meta"), tuple(keep_float), tuple(example.shape))
    folded = fold_batch_norm(network, example, keep_float).cpu().eval()
    _refuse_halves(folded, keep_float)
    graph = _exported(folded, example)
    Insertion(graph, keep_float)
    for path, kept in masks.masks_of(folded).items():
        masks.attach(graph, path, kept)
    prepared: FakeQuantized = laid_out(FakeQuantized(graph, origin))
    return prepared


def _refuse_halves(network: nn.Module, keep_float: tuple[str, ...]) -> None:
    """Weights are stored once, as int8 or in float."""
    layers: dict[nn.Parameter, list[str]] = {}
    for path, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            layers.setdefault(parameter, []).append(path)
    for sharing in layers.values():
        kept = [path for path in sharing if inside(path, keep_float)]
        if kept and len(kept) < len(sharing):
            raise InputError(
                f"keep_float={keep_float} keeps {', '.join(kept)} in float, but {', '.join(sharing)} share weights; "
                f"accepted: all of these, or none"
            )


def _exported(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """The network's graph of ATen operations, for any batch and any length."""
    # Sizes 0 and 1 would be taken as constants.
    several = torch.cat([example, example]).cpu()
    free = {0: torch.export.Dim.DYNAMIC, example.ndim - 1: torch.export.Dim.DYNAMIC}
    try:
        with Capturable():
            exported = torch.export.export(network, (several,), dynamic_shapes=(free,))
    except (torch._dynamo.exc.UserError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"{type(network).__name__} can't be exported for any batch and length ({first}); accepted: a network whose "
            f"forward takes its sizes from the input's shape"
        ) from error
    if not exported.call_spec.out_spec.is_leaf():
        raise InputError(
            f"{type(network).__name__} gives {len(exported.graph_signature.user_outputs)} outputs in a tuple, list or "
            f"dict; accepted: a network that gives one tensor, its logits (batch, classes)"
        )
    module: Any = exported.module(check_guards=False)
    # A tensor in and a tensor out: nothing to flatten on every call.
    *_, output = module.graph.nodes
    (output.args,) = output.args
    module.graph.set_codegen(fx.graph.CodeGen())
    return fx.GraphModule(module, module.graph)
