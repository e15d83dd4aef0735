"""What a packed matrix takes in memory: the promise that half of the weights are about half of the bytes."""

from __future__ import annotations

import pytest

from zeroskip.bench.operands import Problem
from zeroskip.runtime.packing import native_kernels

# Layers of MiniLM and SmolLM2; benchmarks/memory.py prints the whole table.
SHAPES = [(384, 1536), (192, 576), (576, 576)]
MOST = {"float32": 0.54, "bfloat16": 0.29, "float16": 0.29}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", MOST)
def test_a_bitmask_at_half_takes_little_more_than_half(dtype: str, shape: tuple[int, int]) -> None:
    found = [kernel for kernel in native_kernels() if kernel.format == "bitmask" and kernel.dtype == dtype]
    assert found
    if all(kernel.isa == "scalar" for kernel in found):
        pytest.skip("the portable kernels hold everything as CSR")
    a = Problem(shape, 0.5, "unstructured", dtype, 0).matrix()
    for kernel in found:
        prepared = kernel.prepare(a)
        values = a.nnz * (4 if dtype == "float32" else 2)
        assert values + a.shape[0] * a.shape[1] // 8 <= prepared.nbytes <= MOST[dtype] * 4 * a.shape[0] * a.shape[1]
