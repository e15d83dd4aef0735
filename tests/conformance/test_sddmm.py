"""Every SDDMM kernel of `kernels.operations`, ours and rivals, against the float64 reference."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from zeroskip import ops
from zeroskip.formats import CSR, SparseMatrix, to_bits, to_float32
from zeroskip.kernels import OperationKernel, operations
from zeroskip.kernels.sddmm import _views, view_of
from zeroskip.testing import assert_close, guarded, random_dense
from zeroskip.testing.sddmm_bounds import sddmm_bound
from zeroskip.testing.sddmm_cases import bigbird, masks, pattern

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


def cases_of_tiles(kernel: OperationKernel) -> dict[str, SparseMatrix]:
    """Patterns whose rows share columns: as they are, with rows that are empty or full, and with a short last group."""
    window = bigbird(131, 9, 3, 5)
    window[40:47] = False
    window[90] = True
    found = {"bigbird": bigbird(128, 9, 2, 6), "all": np.ones((64, 96), dtype=bool), "holes": window}
    found |= {f"{rows} rows": bigbird(rows, 8, 2, 4) for rows in (65, 66, 67)}
    matrices = {name: CSR.from_dense(np.where(mask, random_dense(mask.shape, 21), 0)) for name, mask in found.items()}
    for index in (np.uint16, np.int32, np.int64):
        a = matrices["holes"]
        matrices[np.dtype(index).name] = CSR(a.shape, a.indptr, a.indices.astype(index), a.data)
    return {name: a.convert(kernel.format) for name, a in matrices.items()}


@pytest.mark.parametrize("name", [name for name in NATIVE if KERNELS[name].format != "bsr"])
def test_later_calls_give_the_bits_of_the_first(name: str) -> None:
    """The first call runs the pattern as it is; what later calls run was made of it, and is kept with it."""
    kernel = KERNELS[name]
    for case, p in cases_of_tiles(kernel).items():
        for depth in (16, 37, 64):
            a, b = random_dense((3, p.shape[0], depth), seed=15), random_dense((3, p.shape[1], depth), seed=16)
            a, b = stored(kernel, a)[0], stored(kernel, b)[0]
            for values, alpha in ((None, 1.0), (p.decoded(), -0.7)):
                fresh = CSR(p.shape, p.indptr, p.indices, p.data) if isinstance(p, CSR) else p
                outs = [guarded((1, p.nnz), shift=call) for call in range(3)]
                for out in outs:
                    kernel.function(fresh, a[:1], b[:1], out.array, values, alpha)
                    assert out.intact()
                    assert (out.array == outs[0].array).all(), (case, depth)
                batches = guarded((3, p.nnz))
                kernel.function(fresh, a, b, batches.array, values, alpha)
                assert batches.intact()
                assert (batches.array[0] == outs[0].array).all(), (case, depth)
                check(kernel, fresh, random_dense(a.shape, seed=17), random_dense(b.shape, seed=18))


def native_pattern(rows: int = 64) -> tuple[CSR, np.ndarray, np.ndarray]:
    p = CSR.from_dense(bigbird(rows, 9, 2, 6).astype(np.float32))
    return p, random_dense((rows, 16), seed=19), random_dense((rows, 16), seed=20)


def test_what_is_prepared_and_when() -> None:
    kernel = KERNELS["sddmm_csr_f32_scalar"]
    p, a, b = native_pattern()
    assert kernel.bind is not None
    bound: Any = kernel.bind(p)
    assert 0 < bound.nbytes < 16 * p.nnz
    scattered = CSR.from_dense((np.random.default_rng(0).random((200, 300)) < 0.03).astype(np.float32))
    assert kernel.bind(scattered).nbytes == 0
    out = [np.full(p.nnz, np.nan, dtype=np.float32) for _ in range(2)]
    bound(a, b, out[0], None, 1.0)
    kernel.function(p, a, b, out[1], None, 1.0)
    assert (out[0] == out[1]).all()
    first = view_of(p)
    assert first is view_of(p)
    assert first.prepared_bytes == 0
    kernel.function(p, a, b, out[1], None, 1.0)
    assert first.prepared_bytes == bound.nbytes
    q, a, b = native_pattern()
    many = [np.broadcast_to(x, (4, *x.shape)) for x in (a, b)]
    kernel.function(q, *many, np.empty((4, q.nnz), dtype=np.float32), None, 1.0)
    assert view_of(q).prepared_bytes == bound.nbytes


def test_what_is_prepared_goes_with_the_pattern() -> None:
    p, a, b = native_pattern()
    for _ in range(2):
        ops.sddmm(p, a, b.T)
    view = weakref.ref(p), len(_views)
    del p
    gc.collect()
    assert view[0]() is None
    assert len(_views) < view[1]


@pytest.mark.parametrize("name", [name for name in NATIVE if KERNELS[name].format == "csr"])
def test_arrays_that_change_later_are_not_followed_out_of_bounds(name: str) -> None:
    """The arrays must not be changed. Where they are, results are those of the pattern as it was, or an error."""
    kernel = KERNELS[name]
    p, a, b = native_pattern()
    a, b = stored(kernel, a)[0], stored(kernel, b)[0]
    outs = [guarded((p.nnz,)) for _ in range(3)]
    for out in outs[:2]:
        kernel.function(p, a, b, out.array, None, 1.0)
    p.indices[:] = 60000
    p.indptr[1:-1] = 2**40
    kernel.function(p, a, b, outs[2].array, None, 1.0)
    assert outs[2].intact()
    assert (outs[2].array == outs[0].array).all()
    p.indptr[-1] = 2**40
    with pytest.raises(ValueError, match="indptr does not fit the entries"):
        kernel.function(p, a, b, outs[2].array, None, 1.0)


def test_threads_that_begin_at_once() -> None:
    for _ in range(20):
        p, a, b = native_pattern(256)
        fresh = CSR(p.shape, p.indptr, p.indices, p.data)
        wanted = ops.sddmm(fresh, a, b.T).data
        with ThreadPoolExecutor(4) as threads:
            for found in threads.map(lambda _, p=p, a=a, b=b: ops.sddmm(p, a, b.T).data, range(8)):
                assert (found == wanted).all()
