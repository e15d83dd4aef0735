"""Every SDDMM kernel of `kernels.operations`, ours and rivals, against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip import ops
from zeroskip.formats import SparseMatrix, to_bits, to_float32
from zeroskip.kernels import OperationKernel, operations
from zeroskip.testing import assert_close, guarded, random_dense
from zeroskip.testing.sddmm_bounds import sddmm_bound
from zeroskip.testing.sddmm_cases import masks, pattern

KERNELS = {kernel.name: kernel for kernel in operations if kernel.op == "sddmm"}
USABLE = [name for name, kernel in KERNELS.items() if kernel.why_not() is None]
NATIVE = [name for name in USABLE if KERNELS[name].origin == "native"]
DEPTHS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 128, 260)


def stored(kernel: OperationKernel, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values as a kernel reads them, and what they mean."""
    bits = to_bits(values, kernel.dtype)
    return bits, to_float32(bits, kernel.dtype)


def check(
    kernel: OperationKernel,
    p: SparseMatrix,
    a: np.ndarray,
    b: np.ndarray,
    *,
    scale_values: bool = False,
    alpha: float = 1.0,
) -> None:
    """Run a kernel on a (..., M, K) and b, rows of the transpose (..., N, K), into NaN, and hold it to the bound."""
    (a_bits, a_values), (b_bits, b_values) = stored(kernel, a), stored(kernel, b)
    out = guarded((*a.shape[:-2], p.nnz), shift=p.nnz % 5)
    values = p.decoded().reshape(-1) if scale_values else None
    kernel.function(p, a_bits, b_bits, out.array, values, alpha)
    assert out.intact(), "wrote outside of its output"
    limits = sddmm_bound(p, a_values, b_values.swapaxes(-1, -2), scale_values=scale_values, alpha=alpha)
    assert_close(out.array.reshape(limits.expected.shape), limits)


@pytest.mark.parametrize("case", masks())
@pytest.mark.parametrize("name", USABLE)
def test_keeps_the_error_bound(name: str, case: str) -> None:
    kernel = KERNELS[name]
    for p in pattern(case, kernel.format):
        # The last makes B^T larger than half of an L2 of 512 KiB, so that it is read in chunks.
        for depth in (8, 24, 700 if case == "dense enough for chunks" else 130):
            a, b = random_dense((p.shape[0], depth), seed=1), random_dense((p.shape[1], depth), seed=2)
            check(kernel, p, a, b)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", USABLE)
def test_every_depth(name: str, depth: int) -> None:
    kernel = KERNELS[name]
    for case in ("bigbird", "rows of 15", "wide"):
        for p in pattern(case, kernel.format):
            a, b = random_dense((p.shape[0], depth), seed=3), random_dense((p.shape[1], depth), seed=4)
            check(kernel, p, a, b)


@pytest.mark.parametrize("name", USABLE)
def test_alpha_and_the_values_of_the_pattern(name: str) -> None:
    kernel = KERNELS[name]
    for dtype in ("float32", "bfloat16", "float16"):
        for p in pattern("bigbird", kernel.format, dtype):
            a, b = random_dense((p.shape[0], 20), seed=5), random_dense((p.shape[1], 20), seed=6)
            check(kernel, p, a, b, alpha=0.3)
            check(kernel, p, a, b, scale_values=True)
            check(kernel, p, a, b, scale_values=True, alpha=-2.7)


@pytest.mark.parametrize("name", USABLE)
def test_batches_with_strides_of_their_own(name: str) -> None:
    kernel = KERNELS[name]
    for p in pattern("bigbird", kernel.format)[:2]:
        m, n, depth, batch, heads = *p.shape, 33, 2, 3
        # (batch, rows, heads, depth), as projections give it, and seen with the heads in front.
        a = random_dense((batch, m, heads, depth), seed=7).transpose(0, 2, 1, 3)
        shared = random_dense((batch, 1, n, depth), seed=8)
        b = np.broadcast_to(stored(kernel, shared)[0], (batch, heads, n, depth))
        bits = stored(kernel, np.ascontiguousarray(a.transpose(0, 2, 1, 3)))[0].transpose(0, 2, 1, 3)
        out = guarded((batch, heads, p.nnz))
        kernel.function(p, bits, b, out.array, None, 1.0)
        assert out.intact()
        means = [to_float32(np.ascontiguousarray(x), kernel.dtype) for x in (bits, b)]
        assert_close(out.array.reshape(-1, p.nnz), sddmm_bound(p, means[0], means[1].swapaxes(-1, -2)))


@pytest.mark.parametrize("name", USABLE)
def test_nan_and_infinities_reach_what_their_entries_touch(name: str) -> None:
    kernel = KERNELS[name]
    for p in pattern("bigbird", kernel.format):
        for depth in (5, 16, 37):
            a, b = random_dense((p.shape[0], depth), seed=9), random_dense((p.shape[1], depth), seed=10)
            a[3, depth - 1], a[5, 0], a[70, depth // 2] = np.nan, np.inf, -np.inf
            b[4, depth - 1], b[40, depth // 3], b[60, 0] = np.inf, np.nan, -np.inf
            check(kernel, p, a, b)


@pytest.mark.parametrize("name", NATIVE)
def test_results_do_not_depend_on_how_the_work_is_cut(name: str) -> None:
    """The same dots, alone or as one of a row, by one thread or several, have the same bits."""
    kernel = KERNELS[name]
    for p in pattern("dense enough for chunks", kernel.format):
        a, b = random_dense((p.shape[0], 700), seed=11), random_dense((p.shape[1], 700), seed=12)
        (a, _), (b, _) = stored(kernel, a), stored(kernel, b)
        whole = np.full((4, p.nnz), np.nan, dtype=np.float32)
        single = whole[:1].copy()
        kernel.function(p, np.broadcast_to(a, (4, *a.shape)), np.broadcast_to(b, (4, *b.shape)), whole, None, 1.0)
        kernel.function(p, a[None], b[None], single, None, 1.0)
        assert (whole == single).all()


@pytest.mark.parametrize("name", NATIVE)
def test_the_operation_runs_the_kernel_that_is_named(name: str) -> None:
    kernel = KERNELS[name]
    p = pattern("bigbird", kernel.format)[0]
    a, b = random_dense((p.shape[0], 12), seed=13), random_dense((12, p.shape[1]), seed=14)
    if kernel.dtype != "float32":
        torch = pytest.importorskip("torch")
        a, b = torch.from_numpy(a).bfloat16(), torch.from_numpy(b).bfloat16()
    found = ops.sddmm(p, a, b, kernel=name)
    assert type(found) is type(p)
    means = [np.asarray(x.float() if kernel.dtype != "float32" else x) for x in (a, b)]
    assert_close(found.data.reshape(1, -1), sddmm_bound(p, *means))
