"""ONNX files: a network as an ONNX graph with the tensors under their module paths, run on ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tinyscene.deployment.formats import Format, Runner, Values, reason
from tinyscene.deployment.forms import Form
from tinyscene.deployment.runtime import layers_by_kernel, refusals, session
from tinyscene.errors import InputError
from tinyscene.models.capture import Capturable
from tinyscene.models.network import shortest_frames
from tinyscene.progress import silence

if TYPE_CHECKING:
    import onnx

# Read by every current runtime; later versions add nothing for these networks.
OPSET = 20
# Path of the network in a form's module: in the file, its tensors have their own names.
_NETWORK = "network."


class Onnx(Format):
    """Float32, float16 or int8 (quantize and dequantize operators), as the weights are stored."""

    suffix, runtime, package, any_length, keeps_halves = ".onnx", "ONNX Runtime", "onnxruntime", True, True
    concurrent = True

    def write(self, form: Form, path: Path, metadata: Mapping[str, str], way: str) -> None:
        import onnx

        model = onnx_model(form)
        _refuse_other_tensors(model, form)
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, path)

    def metadata(self, path: Path) -> dict[str, str]:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            model = onnx.load(path, load_external_data=False)
        except DecodeError as error:
            raise InputError(f"{path}: not an ONNX file ({error}); accepted: one that export wrote") from error
        return {entry.key: entry.value for entry in model.metadata_props}

    def runner(self, path: Path, threads: int = 1) -> Runner:
        try:
            opened = session(path, threads=threads)
        except refusals() as error:
            raise InputError(f"{path}: ONNX Runtime can't run it ({reason(error)}); try another file") from error
        names = [value.name for value in opened.get_inputs()]

        def run(*given: Values) -> tuple[Values, ...]:
            inputs = [np.ascontiguousarray(values, np.float32) for values in given]
            try:
                return tuple(opened.run(None, dict(zip(names, inputs, strict=True))))
            except refusals() as error:
                shapes = " and ".join(str(values.shape) for values in given)
                raise InputError(
                    f"ONNX Runtime can't run the file on {shapes} ({reason(error)}); accepted: a network that runs "
                    f"on any batch and on the lengths of the clips given"
                ) from error

        return run

    def layers_by_kernel(self, path: Path) -> tuple[int | None, int | None]:
        return layers_by_kernel(path)


def _refuse_other_tensors(model: "onnx.ModelProto", form: Form) -> None:
    """The file holds the module's tensors bit for bit, under their names; other tensors are the exporter's own."""
    import onnx

    named = (form.module.named_parameters, form.module.named_buffers)
    held = {name.removeprefix(_NETWORK): tensor for each in named for name, tensor in each(remove_duplicate=False)}
    for stored in model.graph.initializer:
        if stored.name not in held:
            continue
        ours, theirs = held[stored.name].detach().numpy(), onnx.numpy_helper.to_array(stored)
        if ours.dtype != theirs.dtype or not np.array_equal(ours, theirs, equal_nan=True):
            raise InputError(
                f"{stored.name} in the file is not the classifier's; accepted: a file with its weights unchanged"
            )


def onnx_model(form: Form) -> "onnx.ModelProto":
    """Translate `form`: any batch, and any number of frames where the form has them.

    16-bit weights are stored as such and cast to 32 bits in the graph; int8 ones are dequantized in it.

    Raises:
        InputError: the network can't be translated, or runs on only one batch size.
    """
    network, name = form.module.network, type(form.module.network).__name__
    free, examples = {0: torch.export.Dim.AUTO}, form.examples
    if form.any_length:
        free[3] = torch.export.Dim.AUTO
        # Where poolings leave a single frame, the exporter would take it as a constant. It still does so for
        # `BCResNetMod` at twice the shortest length, but not at three times; plus one.
        *shape, frames = examples[0].shape
        examples = (torch.zeros(*shape, max(frames, 4 * shortest_frames(network))),)
    batches = tuple(torch.cat([example, example]) for example in examples)
    inputs, outputs = (["features"], ["logits"]) if form.front_end == "outside" else (["waveforms"], ["probabilities"])
    if form.step_samples:
        inputs, outputs = ["samples", "state"], ["probabilities", "next_state"]
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
                input_names=inputs,
                output_names=outputs,
                custom_translation_table=_float_table() | (_int8_table() if form.int8 else {}),
            )
            assert program is not None
            _tidy(program.model)
    except Exception as error:  # torch.export and the exporter raise errors of any type
        raise InputError(
            f"{name} can't be written as ONNX ({reason(error)}); accepted: a network that torch.export captures"
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


def _tidy(model: Any) -> None:
    """Fold what depends only on shapes, drop unused parts, and keep every stored tensor unchanged."""
    from onnx_ir.passes import Sequential
    from onnx_ir.passes import common as passes
    from onnxscript.optimizer import _constant_folding as folding

    for value in list(model.graph.initializers.values()):
        model.graph.initializers.pop(value.name)
        value.name = value.name.removeprefix(_NETWORK)
        model.graph.register_initializer(value)
    stored = set(model.graph.initializers)

    def should_fold(node: Any) -> bool | None:
        """None: where it is constant and small."""
        reads = any(value is not None and value.name in stored for value in node.inputs)
        return False if reads or node.op_type == "ConstantOfShape" else None

    fold = folding.FoldConstantsPass(
        shape_inference=True,
        input_size_limit=folding.DEFAULT_CONSTANT_FOLD_INPUT_SIZE_LIMIT,
        output_size_limit=folding.DEFAULT_CONSTANT_FOLD_OUTPUT_SIZE_LIMIT,
        should_fold=should_fold,
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
        batch, *_, last = given.type.tensor_type.shape.dim
        if not batch.dim_param:
            raise InputError(f"{network} runs only on batches of {batch.dim_value}; accepted: any batch size")
        names |= {last.dim_param: "frames", batch.dim_param: "batch"}
    for value in [*model.graph.input, *model.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names.get(dimension.dim_param, dimension.dim_param)
    # Shapes in between still have the exporter's names; runtimes infer them.
    del model.graph.value_info[:]
