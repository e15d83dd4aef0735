"""LiteRT on the CPU: a model of one FULLY_CONNECTED whose weight is a constant, which XNNPACK packs and multiplies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, num_threads, registry
from .._epilogue import finish
from ._common import missing
from ._prepared import DensePeer

MOST_BYTES = 2**31 - 2**20  # a flatbuffer ends there


@dataclass(frozen=True)
class LiteRtDense(DensePeer):
    """One interpreter, laid out for the number of vectors that it last met. Vectors are rows to it."""

    interpreter: Any
    laid_out: list[int] = field(default_factory=list)

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        self.on(x, transposed)()
        found = self.interpreter.tensor(self.interpreter.get_output_details()[0]["index"])()
        out[...] = found if transposed else found.T
        finish(out, bias, activation, transposed)

    def on(self, x: Float32, transposed: bool) -> Callable[[], Any]:
        """The product alone, of an x that lies in the interpreter already, as rows whichever way it is given."""
        rows = x if transposed else x.T
        index = self.interpreter.get_input_details()[0]["index"]
        if self.laid_out != [len(rows)]:
            self.interpreter.resize_tensor_input(index, rows.shape)
            self.interpreter.allocate_tensors()
            self.laid_out[:] = [len(rows)]
        self.interpreter.tensor(index)()[...] = rows
        call: Callable[[], Any] = self.interpreter.invoke
        return call


class LiteRtDenseKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("ai_edge_litert", pip="ai-edge-litert")

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        needed = 4 * a.shape[0] * a.shape[1]
        return None if needed <= MOST_BYTES else f"its models end at 2 GB, and this weight takes {needed / 1e9:.1f} GB"

    def prepare(self, a: SparseMatrix) -> LiteRtDense:
        from ai_edge_litert.interpreter import Interpreter

        weight = a.to_dense()
        return LiteRtDense(self.name, weight, Interpreter(model_content=_model(weight), num_threads=num_threads()))


def _model(weight: Float32) -> bytes:
    """The flatbuffer of y = x W^T for any number of rows of x."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    rows, columns = weight.shape
    buffers = [schema.BufferT(), schema.BufferT()]
    buffers[1].data = weight.reshape(-1).view(np.uint8)
    graph = schema.SubGraphT()
    shapes = ((b"x", (1, columns), 0), (b"w", (rows, columns), 1), (b"y", (1, rows), 0))
    graph.tensors = [_tensor(name, shape, buffer, schema) for name, shape, buffer in shapes]
    graph.inputs, graph.outputs = [0], [2]
    product = schema.OperatorT()
    product.inputs, product.outputs = [0, 1, -1], [2]
    product.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    product.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [product]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(2048)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(name: bytes, shape: tuple[int, int], buffer: int, schema: Any) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = name, list(shape), buffer, schema.TensorType.FLOAT32
    if buffer == 0:
        tensor.shapeSignature = [-1, shape[1]]
    return tensor


registry.add(
    "spmm_dense_f32_litert", LiteRtDenseKernel("spmm_dense_f32_litert", "dense", "float32", "litert", "litert")
)
