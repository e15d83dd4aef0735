"""Every kernel of masked softmax in `kernels.operations`, ours and rivals, against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.formats import SparseMatrix
from zeroskip.kernels import OperationKernel, operations
from zeroskip.ops.sddmm_reference import places, row_sums
from zeroskip.testing import assert_close, guarded, random_dense
from zeroskip.testing.sddmm_bounds import softmax_bound
from zeroskip.testing.sddmm_cases import masks, pattern

KERNELS = {kernel.name: kernel for kernel in operations if kernel.op == "masked_softmax"}
USABLE = [name for name, kernel in KERNELS.items() if kernel.why_not() is None]


def run(
    kernel: OperationKernel,
    p: SparseMatrix,
    scores: np.ndarray,
    *,
    scale: float = 1.0,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Weights of scores (batches, nnz), written over NaN and held to the bound."""
    out = guarded(scores.shape, shift=p.nnz % 5)
    kernel.function(p, scores, out.array, scale, bias)
    assert out.intact(), "wrote outside of its output"
    assert_close(out.array, softmax_bound(p, scores, scale=scale, bias=bias))
    return out.array


@pytest.mark.parametrize("case", masks())
@pytest.mark.parametrize("name", USABLE)
def test_keeps_the_error_bound(name: str, case: str) -> None:
    kernel = KERNELS[name]
    for p in pattern(case, kernel.format):
        scores = random_dense((2, p.nnz), 0.2, seed=1)  # a fifth of the scores is 0, and takes part
        weights = run(kernel, p, 3.0 * scores)
        np.testing.assert_allclose(row_sums(p, weights.astype(np.float64)), 1.0, rtol=1e-4)


@pytest.mark.parametrize("name", USABLE)
def test_scale_and_bias(name: str) -> None:
    kernel = KERNELS[name]
    for p in pattern("bigbird", kernel.format):
        scores, bias = random_dense((3, p.nnz), seed=2), random_dense((3, p.nnz), seed=3)
        for scale in (0.125, -1.7, 0.0):
            run(kernel, p, scores, scale=scale)
            run(kernel, p, scores, scale=scale, bias=bias)
            run(kernel, p, scores, scale=scale, bias=bias[:1])


@pytest.mark.parametrize("name", USABLE)
def test_large_scores_do_not_overflow(name: str) -> None:
    kernel = KERNELS[name]
    for p in pattern("power law", kernel.format):
        scores = random_dense((1, p.nnz), seed=4)
        for size, shift in ((1.0, 1e4), (1.0, -1e4), (200.0, 0.0), (1e30, 0.0)):
            weights = run(kernel, p, scores * np.float32(size) + np.float32(shift))
            assert np.isfinite(weights).all()


@pytest.mark.parametrize("name", USABLE)
def test_minus_infinity_has_no_weight_and_a_row_of_it_gives_zeros(name: str) -> None:
    kernel = KERNELS[name]
    for p in pattern("bigbird", kernel.format):
        rows, _ = places(p)
        scores = random_dense((2, p.nnz), seed=5)
        scores[:, ::3] = -np.inf
        scores[1, rows == 8] = -np.inf
        weights = run(kernel, p, scores)
        assert (weights[:, ::3] == 0.0).all()
        assert (weights[1, rows == 8] == 0.0).all()
        bias = np.where(rows == 9, np.float32(-np.inf), np.float32(0.5))[None]
        assert (run(kernel, p, scores, scale=2.0, bias=bias)[:, rows == 9] == 0.0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", USABLE)
def test_nan_and_infinity_spread_over_their_row_alone(name: str, bad: float) -> None:
    kernel = KERNELS[name]
    for p in pattern("bigbird", kernel.format):
        rows, _ = places(p)
        scores = random_dense((2, p.nnz), seed=6)
        hit = np.flatnonzero(rows == 20)
        scores[0, hit[-1]] = bad
        scores[1, hit] = -np.inf
        scores[1, hit[0]] = bad
        weights = run(kernel, p, scores)
        assert np.isnan(weights[:, rows == 20]).all()
        assert np.isfinite(weights[:, rows != 20]).all()


@pytest.mark.parametrize("name", USABLE)
def test_a_row_of_one_entry_has_weight_one(name: str) -> None:
    kernel = KERNELS[name]
    for p in pattern("one entry", kernel.format)[:1]:
        for score in (-100.0, 0.0, 100.0):
            assert run(kernel, p, np.array([[score]], dtype=np.float32)) == 1.0
