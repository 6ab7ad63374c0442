"""ONNX Runtime: sessions, and which kernels really run."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

# Kernels that compute a layer with weights, on integers and in float.
INTEGER_LAYERS = {"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
FLOAT_LAYERS = {"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


def refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a graph or an input that it can't run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException


def session(
    model: Path | bytes, *, optimized: bool = True, threads: int = 0, write_to: Path | None = None
) -> "onnxruntime.InferenceSession":
    """A session on the CPU.

    Args:
        model: a file, or its content.
        optimized: with all graph optimisations, int8 as integers; else node by node, as the file says.
        threads: 0 takes all cores.
        write_to: also write the graph that runs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    # On x86 the default leaves int8 unfused, and slower than float.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.intra_op_num_threads = threads
    # What it can't run is raised as well.
    options.log_severity_level = 4
    if write_to is not None:
        options.optimized_model_filepath = str(write_to)
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def kernels(path: Path) -> dict[str, int]:
    """Operators of the optimised graph that ONNX Runtime runs, and how often each stands in it."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session(path, write_to=optimized)
        nodes = onnx.load(optimized, load_external_data=False).graph.node
    return dict(Counter(node.op_type for node in nodes))


def layers_by_kernel(path: Path) -> tuple[int, int]:
    """How many layers with weights run on integers, and how many in float."""
    found = kernels(path)
    return sum(found.get(name, 0) for name in INTEGER_LAYERS), sum(found.get(name, 0) for name in FLOAT_LAYERS)
