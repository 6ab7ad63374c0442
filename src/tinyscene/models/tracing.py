"""A trace of one forward pass: modules and functions called, storages read and written, in order."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

from tinyscene.errors import InputError
from tinyscene.models.kernels import Products

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module without children. `reads` and `writes` are storages."""

    layer: str
    module: nn.Module
    input: Shape
    output: Shape
    reads: int
    writes: int


@dataclass(frozen=True)
class FunctionCall:
    """One call of a torch function, tensors among the arguments replaced by their `torch.Size`.

    `born_as` is the shape in which the first tensor's storage was created, before any flattening. `products` holds the
    multiply-accumulates of its kernels by name; None where there is no formula (`kernels.Products`).
    """

    layer: str
    layer_type: str
    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    output: Shape
    born_as: Shape
    products: dict[str, int | None] = field(default_factory=dict)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of its kernels that have formulas."""
        return sum(macs or 0 for macs in self.products.values())

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if position < len(self.args) else self.options.get(name, default)

    def shape(self, position: int, name: str) -> Shape:
        """The shape of a tensor among the arguments."""
        return tuple(self.argument(position, name))


@dataclass(frozen=True)
class Step:
    """One kernel: the storages it reads and writes."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass
class Trace:
    """All calls in order; `values` gives the elements of each activation's storage, parameters left out."""

    calls: list[ModuleCall | FunctionCall] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the storages of each kernel, where views and in-place kernels share theirs, and its products.

    Each storage has a number that is never reused, and the shape that it was created with.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # A weak reference keeps the address from being reused, and frees the memory.
        self._references: dict[int, StorageWeakRef] = {}
        self.born_as: dict[int, Shape] = {}
        self.parameters = {self.key(tensor) for tensor in [*network.parameters(), *network.buffers()]}
        self.formulas = Products(self.key, self.parameters)
        self.trace, self.running = Trace(), [("", type(network).__name__)]
        # Of the running function; None outside of any, as in scripted modules.
        self.products: dict[str, int | None] | None = None
        self.hooks = [hook for name, module in network.named_modules() for hook in self._watch(name, module)]

    def _watch(self, name: str, module: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
        """Record the calls of a module without children, and of every module that it is running."""

        def entered(_module: nn.Module, _inputs: Any) -> None:
            self.running.append((name, type(module).__name__))

        def left(_module: nn.Module, inputs: Any, outputs: Any) -> None:
            self.running.pop()
            given, produced = tensors_in(inputs), tensors_in(outputs)
            if not module._modules and given and produced:
                shapes = tuple(given[0].shape), tuple(produced[0].shape)
                call = ModuleCall(name, module, *shapes, self.key(given[0]), self.key(produced[0]))
                self.trace.calls.append(call)

        return module.register_forward_pre_hook(entered), module.register_forward_hook(left)

    def key(self, tensor: Tensor) -> int:
        """The number of its storage."""
        reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        key = int(reference.cdata)
        if key not in self._references:
            self._references[key] = reference
            self.born_as[key] = tuple(tensor.shape)
        return key

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not asked for: it would import all of torch.compile, and nothing here is compiled."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode, operators arrive whole.
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        reads = self.keys((args, kwargs))
        result = func(*args, **kwargs)
        macs = self.formulas.of(func, args, kwargs, result)
        if macs is None or macs:
            self.add(func._schema.name, macs)
        self.trace.steps.append(Step(reads, self.keys(result)))
        return result

    def add(self, kernel: str, macs: int | None) -> None:
        if self.products is None:
            self.trace.calls.append(FunctionCall(*self.running[-1], kernel, (), {}, (), (), {kernel: macs}))
            return
        before = self.products.get(kernel, 0)
        self.products[kernel] = None if macs is None or before is None else before + macs

    def keys(self, nested: Any) -> tuple[int, ...]:
        keys = []
        for tensor in tensors_in(nested):
            key = self.key(tensor)
            # Integer results, such as the positions of max pooling, don't exist on a device at inference.
            if key not in self.parameters and (tensor.is_floating_point() or tensor.is_complex()):
                values = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.trace.values[key] = values * (2 if tensor.is_complex() else 1)
                keys.append(key)
        return tuple(keys)


class _Functions(TorchFunctionMode):
    """Records the torch functions that networks call, at the level of `torch.nn.functional`."""

    def __init__(self, kernels: _Kernels) -> None:
        super().__init__()
        self.kernels = kernels

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        born_as = self.kernels.born_as[self.kernels.key(given[0])] if given else ()
        products: dict[str, int | None] = {}
        around, self.kernels.products = self.kernels.products, products
        result = func(*args, **kwargs)
        self.kernels.products = around
        produced = tensors_in(result)
        # Attribute access (`x.shape`) also arrives here and costs nothing.
        name = getattr(func, "__name__", "")
        if (given and produced and name != "__get__") or products:
            shapes = tree_map(_shape_of, args), tree_map(_shape_of, kwargs)
            output = tuple(produced[0].shape) if produced else ()
            call = FunctionCall(*self.kernels.running[-1], name, *shapes, output, born_as, products)
            self.kernels.trace.calls.append(call)
        return result


def trace_forward(network: nn.Module, example: Tensor) -> Trace:
    """Run a float32 copy of `network` on `example` in evaluation mode; `network` itself stays as it is.

    Raises:
        InputError: the example's batch is not one clip, or the network can't take the example.
    """
    if example.ndim < 2 or example.shape[0] != 1:
        raise InputError(f"an example of shape {tuple(example.shape)}; accepted: a batch of one clip, (1, ...)")
    copied = copy.deepcopy(network).float().cpu().eval()
    # A clone, since the example may be a view of something larger.
    example = example.detach().float().cpu().clone()
    kernels = _Kernels(copied)
    kernels.trace.inputs = kernels.keys(example)
    try:
        with torch.no_grad(), kernels, _Functions(kernels):
            output = copied(example)
    except (RuntimeError, ValueError, IndexError) as error:
        kind = type(network).__name__
        raise InputError(f"{kind} can't take an input of shape {tuple(example.shape)}: {error}") from error
    kernels.trace.outputs = kernels.keys(output)
    for hook in kernels.hooks:
        hook.remove()
    return kernels.trace


def tensors_in(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def _shape_of(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else value
