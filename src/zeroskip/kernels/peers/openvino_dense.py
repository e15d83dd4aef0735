"""OpenVINO on the CPU: a model of one MatMul whose weight is a constant, packed when it is compiled.

Inference stays in float32 (its default on processors with bfloat16 is bfloat16). Its decompression of sparse weights
(CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE) is for int8 weights on AMX alone, so no float32 product has a sparse form here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, num_threads, registry
from .._epilogue import finish
from ._common import missing
from ._prepared import DensePeer


@dataclass(frozen=True)
class OpenVinoDense(DensePeer):
    """Requests are made when a form is first run: each way round is a model of its own."""

    requests: dict[bool, Any] = field(default_factory=dict)

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        import openvino

        request = self.requests.get(transposed)
        if request is None:
            request = self.requests[transposed] = _compile(self.weight, transposed).create_infer_request()
        source = x if x.flags.writeable else np.array(x)  # it shares no memory that may not be written
        request.set_input_tensor(openvino.Tensor(source, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out, shared_memory=True))
        request.infer()
        finish(out, bias, activation, transposed)


class OpenVinoDenseKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("openvino")

    def prepare(self, a: SparseMatrix) -> OpenVinoDense:
        return OpenVinoDense(self.name, a.to_dense())


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _compile(weight: Float32, transposed: bool) -> Any:
    """The model y = x W^T or y = W x for any number of vectors."""
    import openvino
    from openvino import opset13

    columns = weight.shape[1]
    x = opset13.parameter([-1, columns] if transposed else [columns, -1], np.float32, name="x")
    constant = opset13.constant(weight)
    y = opset13.matmul(x, constant, False, True) if transposed else opset13.matmul(constant, x, False, False)
    settings = {
        "INFERENCE_NUM_THREADS": num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    return _core().compile_model(openvino.Model([y], [x], "linear"), "CPU", settings)


registry.add(
    "spmm_dense_f32_openvino",
    OpenVinoDenseKernel("spmm_dense_f32_openvino", "dense", "float32", "openvino", "openvino"),
)
