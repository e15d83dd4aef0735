"""ONNX Runtime on the CPU: a model of one MatMul or Gemm whose weight is a constant, packed beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, num_threads, registry
from .._epilogue import activate, finish
from ._common import missing
from ._prepared import DensePeer


@dataclass(frozen=True)
class OnnxDense(DensePeer):
    """Sessions are made when a form is first run: (transposed, with bias) each need a graph of their own."""

    sessions: dict[tuple[bool, bool], Any] = field(default_factory=dict)

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        fused = transposed and bias is not None
        session = self.sessions.get((transposed, fused))
        if session is None:
            session = self.sessions[transposed, fused] = _session(self.weight, transposed, fused)
        binding = session.io_binding()
        _bind(binding.bind_input, "x", x)
        if fused and bias is not None:
            _bind(binding.bind_input, "bias", bias)
        _bind(binding.bind_output, "y", out)
        session.run_with_iobinding(binding)
        if fused:
            if activation is not None:
                activate(out, activation)
        else:
            finish(out, bias, activation, transposed)


class OnnxDenseKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("onnx", "onnxruntime")

    def prepare(self, a: SparseMatrix) -> OnnxDense:
        return OnnxDense(self.name, a.to_dense())


def _bind(bind: Any, name: str, array: Float32) -> None:
    bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)


def _session(weight: Float32, transposed: bool, fused: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = 3
    model = _model(weight, transposed, fused)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(weight: Float32, transposed: bool, fused: bool) -> bytes:
    """The serialised graph y = x W^T + bias, y = x W^T, or y = W x."""
    from onnx import TensorProto, helper, numpy_helper

    rows, columns = weight.shape
    constant = weight.T if transposed else weight
    initializer = numpy_helper.from_array(np.ascontiguousarray(constant), "w")
    if fused:
        node = helper.make_node("Gemm", ["x", "w", "bias"], ["y"])
    else:
        node = helper.make_node("MatMul", ["x", "w"] if transposed else ["w", "x"], ["y"])
    shapes = (("N", columns), ("N", rows)) if transposed else ((columns, "N"), (rows, "N"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes[0])]
    if fused:
        inputs.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, (rows,)))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes[1])]
    graph = helper.make_graph([node], "linear", inputs, outputs, [initializer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    serialised: bytes = model.SerializeToString()
    return serialised


registry.add(
    "spmm_dense_f32_onnxruntime",
    OnnxDenseKernel("spmm_dense_f32_onnxruntime", "dense", "float32", "onnxruntime", "onnxruntime"),
)
