"""ONNX Runtime: sessions, and the kernels that run."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import onnxruntime

# Kernels that compute a layer with weights, on integers and in float.
INTEGER_LAYERS = {"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
FLOAT_LAYERS = {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def refusals() -> tuple[type[Exception], ...]:
    """The errors of ONNX Runtime for a graph or an input that it can't run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException


def session(path: Path, *, threads: int = 0, write_to: Path | None = None) -> "onnxruntime.InferenceSession":
    """A session on the CPU, with all graph optimisations, int8 as integers.

    Args:
        threads: 0 takes all cores.
        write_to: also write the graph that runs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.intra_op_num_threads = threads
    # Errors are raised as well.
    options.log_severity_level = 4
    if write_to is not None:
        options.optimized_model_filepath = str(write_to)
    return onnxruntime.InferenceSession(unsigned(path), options, providers=["CPUExecutionProvider"])


def unsigned(path: Path) -> bytes:
    """The file's contents with 128 added to every int8 activation, and on x86 without VNNI to every weight.

    The logits stay the same, bit for bit. Kernels for x86 expect unsigned activations: with signed ones, integers
    are slower than float (results/speed-int8.csv). Without VNNI those for signed weights add pairs of products in
    16 bits, and saturation causes errors of tens of output steps; those for unsigned weights are slower, but exact.
    """
    import numpy as np
    import onnx

    opened = onnx.load(path)
    quantizing = [node for node in opened.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    stored = {tensor.name: tensor for tensor in opened.graph.initializer}
    # Weights are symmetric: a zero point, if any, is 0 and not an initializer.
    moved = {node.input[2] for node in quantizing if len(node.input) > 2}
    if torch.cpu._is_avx2_supported() and not torch.cpu._is_vnni_supported():
        for node in quantizing:
            weight, scale = (stored.get(name) for name in node.input[:2])
            if weight is not None and scale is not None and weight.data_type == onnx.TensorProto.INT8:
                point = f"{weight.name}_zero_point"
                if point not in moved:  # a layer that runs twice has its weight dequantized twice
                    zeros = np.zeros(scale.dims, np.int8)
                    opened.graph.initializer.append(onnx.numpy_helper.from_array(zeros, point))
                moved |= {weight.name, point}
                node.input[:] = [*node.input[:2], point]
    for tensor in opened.graph.initializer:
        if tensor.name in moved and tensor.data_type == onnx.TensorProto.INT8:
            values = onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.uint8), tensor.name))
    return bytes(opened.SerializeToString())


def kernels(path: Path) -> dict[str, int]:
    """Operators of the optimised graph that ONNX Runtime runs, with their numbers."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session(path, write_to=optimized)
        nodes = onnx.load(optimized, load_external_data=False).graph.node
    return dict(Counter(node.op_type for node in nodes))


def layers_by_kernel(path: Path) -> tuple[int, int]:
    """Numbers of layers with weights that run on integers and in float."""
    found = kernels(path)
    return sum(found.get(name, 0) for name in INTEGER_LAYERS), sum(found.get(name, 0) for name in FLOAT_LAYERS)
