"""A network as an ONNX graph: the tensors under their module paths, at the precision in which they are stored."""

from typing import TYPE_CHECKING, Any

import torch

from tinyscene.deployment.forms import Form
from tinyscene.errors import InputError
from tinyscene.models.capture import Capturable
from tinyscene.models.network import shortest_frames
from tinyscene.progress import silence

if TYPE_CHECKING:
    import onnx

# What every current runtime reads; later ones brought nothing that these networks need.
OPSET = 20
# Of a network that stands behind a front end: its tensors keep their own names.
_NETWORK = "network."


def onnx_model(form: Form) -> "onnx.ModelProto":
    """Translate `form`: any batch, and any number of frames where the form has them.

    Weights of 16 bits are stored as such and cast to 32 in the graph; int8 ones are dequantized in it.

    Raises:
        InputError: the network can't be translated, or runs on one batch size alone.
    """
    examples, name = list(form.examples), type(form.network).__name__
    free = {0: torch.export.Dim.AUTO}
    if form.any_length:
        free[3] = torch.export.Dim.AUTO
        # Where poolings leave a single frame, the exporter would take it for a constant. It still does so to
        # `BCResNetMod` at twice the shortest length, and no more at three times; one to spare.
        *shape, frames = form.example.shape
        frames = max(frames, 4 * shortest_frames(form.network))
        examples = [torch.zeros(*shape, frames)]
    batches = tuple(torch.cat([example, example]) for example in examples)
    try:
        with silence(), torch.no_grad():
            # Captured here: torch.onnx wants lengths of 0 and 1 as well, and can't solve what poolings need for them.
            with Capturable():
                captured = torch.export.export(form.module, batches, dynamic_shapes=((free,) * len(batches),))
            program = torch.onnx.export(
                captured,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                input_names=list(form.inputs),
                output_names=list(form.outputs),
                custom_translation_table=_float_table() | (_int8_table() if form.int8 else {}),
            )
            assert program is not None
            _tidy(program.model)
    except Exception as error:  # torch.export and the exporter raise what lies beneath them, of any type
        raise InputError(
            f"{name} can't be written as ONNX ({_reason(error)}); accepted: a network that torch.export captures"
        ) from error
    model: onnx.ModelProto = program.model_proto
    _name_axes(model, name)
    return model


def _float_table() -> dict[Any, Any]:
    """torch's exporter would divide a sum by a number of frames that it stores parts of."""
    from onnxscript import opset20 as op

    def var_mean(x: Any, axes: Any, correction: float, keepdim: bool) -> Any:
        assert correction == 0
        assert keepdim
        mean = op.ReduceMean(x, axes)
        centred = op.Sub(x, mean)
        return op.ReduceMean(op.Mul(centred, centred), axes), mean

    return {torch.ops.aten.var_mean.correction: var_mean}


def _int8_table() -> dict[Any, Any]:
    """torch's exporter knows no quantized_decomposed: each is one operator of ONNX."""
    from onnx import TensorProto, helper
    from onnxscript import opset20 as op

    zero = helper.make_tensor("zero", TensorProto.INT8, [1], [0])

    def quantize(x: Any, scale: Any, zero_point: Any, low: Any, high: Any, dtype: Any) -> Any:
        return op.QuantizeLinear(x, scale, zero_point)

    def dequantize(q: Any, scale: Any, zero_point: Any, low: Any, high: Any, dtype: Any) -> Any:
        return op.DequantizeLinear(q, scale, zero_point)

    def dequantize_channels(q: Any, scales: Any, zero_points: Any, axis: int, low: Any, high: Any, dtype: Any) -> Any:
        # Weights and biases are symmetric. ONNX Runtime runs a dense layer as integers only where its weight has
        # zero points: they are made in the graph, and cost nothing in the file.
        dense = len(q.shape) == 2
        zeros = op.ConstantOfShape(op.Shape(scales), value=zero) if dense else None
        return op.DequantizeLinear(q, scales, zeros, axis=axis)

    ops = torch.ops.quantized_decomposed
    return {
        ops.quantize_per_tensor.tensor: quantize,
        ops.dequantize_per_tensor.tensor: dequantize,
        ops.dequantize_per_channel.default: dequantize_channels,
    }


def stored_name(name: str) -> str:
    """Of a tensor in the file, by its name in the form's module."""
    return name.removeprefix(Form.PREFIX).removeprefix(_NETWORK)


def _tidy(model: Any) -> None:
    """Fold what shapes alone decide, drop what has no use, and leave every stored tensor as it is."""
    from onnx_ir.passes import Sequential
    from onnx_ir.passes import common as passes
    from onnxscript.optimizer import _constant_folding as folding

    for value in list(model.graph.initializers.values()):
        model.graph.initializers.pop(value.name)
        value.name = stored_name(value.name)
        model.graph.register_initializer(value)
    stored = set(model.graph.initializers)
    fold = folding.FoldConstantsPass(
        shape_inference=True,
        input_size_limit=folding.DEFAULT_CONSTANT_FOLD_INPUT_SIZE_LIMIT,
        output_size_limit=folding.DEFAULT_CONSTANT_FOLD_OUTPUT_SIZE_LIMIT,
        should_fold=lambda node: False if node.op_type == "ConstantOfShape" or _reads(node, stored) else None,
    )
    Sequential(passes.InlinePass(), fold, passes.RemoveUnusedNodesPass())(model)
    _drop_empty_biases(model, stored)
    Sequential(
        passes.IdentityEliminationPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),
    )(model)


def _reads(node: Any, stored: set[str]) -> bool:
    return any(value is not None and value.name in stored for value in node.inputs)


def _drop_empty_biases(model: Any, stored: set[str]) -> None:
    """The exporter gives a convolution without bias one of zeros, which would cost bytes in the file."""
    for node in model.graph:
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else None
        if bias is not None and bias.const_value is not None and bias.name not in stored:
            assert not bias.const_value.numpy().any()
            node.resize_inputs(2)


def _name_axes(model: "onnx.ModelProto", network: str) -> None:
    names: dict[str, str] = {}
    for given in model.graph.input:
        dimensions = given.type.tensor_type.shape.dim
        if not dimensions[0].dim_param:
            raise InputError(f"{network} runs on batches of {dimensions[0].dim_value} alone; accepted: any batch size")
        names[dimensions[0].dim_param] = "batch"
        if len(dimensions) == 4 and dimensions[3].dim_param:
            names[dimensions[3].dim_param] = "frames"
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)
    # Shapes of what lies between still have the exporter's names, and runtimes work them out themselves.
    del model.graph.value_info[:]


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
