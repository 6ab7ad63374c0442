"""A network as an ONNX graph: the tensors under their module paths, at their stored precision."""

from typing import TYPE_CHECKING, Any

import torch

from tinyscene.deployment.forms import Form
from tinyscene.errors import InputError
from tinyscene.models.capture import Capturable
from tinyscene.models.network import shortest_frames
from tinyscene.progress import silence

if TYPE_CHECKING:
    import onnx

# Read by every current runtime; later versions add nothing for these networks.
OPSET = 20
# Path of a network behind a front end: its tensors keep their own names.
_NETWORK = "network."


def onnx_model(form: Form) -> "onnx.ModelProto":
    """Translate `form`: any batch, and any number of frames where the form has them.

    16-bit weights are stored as such and cast to 32 bits in the graph; int8 ones are dequantized in it.

    Raises:
        InputError: the network can't be translated, or runs on only one batch size.
    """
    examples, name = list(form.examples), type(form.network).__name__
    free = {0: torch.export.Dim.AUTO}
    if form.any_length:
        free[3] = torch.export.Dim.AUTO
        # Where poolings leave a single frame, the exporter would take it as a constant. It still does so for
        # `BCResNetMod` at twice the shortest length, but not at three times; plus one.
        *shape, frames = form.example.shape
        frames = max(frames, 4 * shortest_frames(form.network))
        examples = [torch.zeros(*shape, frames)]
    batches = tuple(torch.cat([example, example]) for example in examples)
    try:
        with silence(), torch.no_grad():
            # Captured here: torch.onnx also requires lengths of 0 and 1, which poolings rule out.
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
    except Exception as error:  # torch.export and the exporter raise errors of any type
        raise InputError(
            f"{name} can't be written as ONNX ({_reason(error)}); accepted: a network that torch.export captures"
        ) from error
    model: onnx.ModelProto = program.model_proto
    _name_axes(model, name)
    return model


def _float_table() -> dict[Any, Any]:
    """torch's exporter would divide a sum by a partly stored number of frames."""
    from onnxscript import opset20 as op

    def var_mean(x: Any, axes: Any, correction: float, keepdim: bool) -> Any:
        assert correction == 0
        assert keepdim
        mean = op.ReduceMean(x, axes)
        centred = op.Sub(x, mean)
        return op.ReduceMean(op.Mul(centred, centred), axes), mean

    return {torch.ops.aten.var_mean.correction: var_mean}


def _int8_table() -> dict[Any, Any]:
    """torch's exporter lacks quantized_decomposed: each is one ONNX operator."""
    from onnx import TensorProto, helper
    from onnxscript import opset20 as op

    zero = helper.make_tensor("zero", TensorProto.INT8, [1], [0])

    def quantize(x: Any, scale: Any, zero_point: Any, low: Any, high: Any, dtype: Any) -> Any:
        return op.QuantizeLinear(x, scale, zero_point)

    def dequantize(q: Any, scale: Any, zero_point: Any, low: Any, high: Any, dtype: Any) -> Any:
        return op.DequantizeLinear(q, scale, zero_point)

    def dequantize_channels(q: Any, scales: Any, zero_points: Any, axis: int, low: Any, high: Any, dtype: Any) -> Any:
        # Weights and biases are symmetric. ONNX Runtime runs a dense layer on integers only where its weight has
        # zero points: they are computed in the graph, and take no space in the file.
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
    """The name of a tensor in the file, by its name in the form's module."""
    return name.removeprefix(Form.PREFIX).removeprefix(_NETWORK)


def _tidy(model: Any) -> None:
    """Fold what depends only on shapes, drop unused parts, and keep every stored tensor unchanged."""
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
    """The exporter gives a convolution without bias zeros, which would take space in the file."""
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
            raise InputError(f"{network} runs only on batches of {dimensions[0].dim_value}; accepted: any batch size")
        names[dimensions[0].dim_param] = "batch"
        if len(dimensions) == 4 and dimensions[3].dim_param:
            names[dimensions[3].dim_param] = "frames"
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)
    # Shapes in between still have the exporter's names; runtimes infer them.
    del model.graph.value_info[:]


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return str(cause).strip().splitlines()[0][:200] if str(cause).strip() else type(cause).__name__
