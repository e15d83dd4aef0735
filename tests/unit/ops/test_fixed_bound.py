"""The bound of kernels in fixed point: a plain one keeps it, one with a fault does not."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.formats import CSR
from zeroskip.testing import assert_within_bound, random_dense, random_matrix

UNIT = 32767


def fixed_point(a: CSR, x: np.ndarray, *, block: int = 192, spare: int = 1) -> np.ndarray:
    """A @ x as the kernels have it: `spare` units of a scale are left for each product's rounding."""
    largest = np.abs(x).max(axis=0)
    lane_scale = largest / UNIT
    codes = np.rint(np.divide(x, lane_scale, out=np.zeros_like(x), where=lane_scale > 0)).astype(np.int64)
    dense = a.to_dense().astype(np.float64)
    out = np.zeros((a.shape[0], x.shape[1]))
    for row in range(a.shape[0]):
        for start in range(0, a.shape[1], block):
            places = start + np.flatnonzero(dense[row, start : start + block])
            weights = dense[row, places]
            scale = np.abs(weights).sum() / (UNIT - spare * places.size)
            if not scale:
                continue
            rounded = np.rint(weights / scale).astype(np.int64)
            products = (rounded[:, None] * codes[places] + (1 << 14)) >> 15
            out[row] += 32768 * scale * products.sum(axis=0).astype(np.int16)  # what does not fit wraps
    return (out * lane_scale).astype(np.float32)


def columns() -> np.ndarray:
    """Columns of very different size, one of them zero."""
    x = random_dense((600, 9), seed=2).astype(np.float64) * np.logspace(-6, 6, 9)
    x[:, 4] = 0.0
    return x.astype(np.float32)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("block", [64, 192, 256])
def test_fixed_point_keeps_it(sparsity: float, block: int) -> None:
    a = random_matrix((20, 600), sparsity, seed=1)
    x = columns()
    assert_within_bound(fixed_point(a, x.astype(np.float64), block=block), a, x, x_dtype="int16")


def test_the_largest_sums_that_there_are_do_not_wrap() -> None:
    signs = np.where(np.arange(256) % 3 == 0, -1.0, 1.0).astype(np.float32)
    a = CSR.from_dense(np.stack([signs, -signs]))
    x = np.stack([signs, -signs], axis=1)
    assert_within_bound(fixed_point(a, x.astype(np.float64), block=256), a, x, x_dtype="int16")
    wrapped = fixed_point(a, x.astype(np.float64), block=256, spare=-1)
    with pytest.raises(AssertionError, match="outside the error bound"):
        assert_within_bound(wrapped, a, x, x_dtype="int16")


def test_a_lost_product_does_not_keep_it() -> None:
    a = random_matrix((20, 600), 0.95, seed=1)
    x = columns()
    found = fixed_point(a, x.astype(np.float64))
    dense = a.to_dense()
    place = int(np.argmax(np.abs(dense[3])))
    found[3] -= dense[3, place] * x[place]
    with pytest.raises(AssertionError, match="outside the error bound"):
        assert_within_bound(found, a, x, x_dtype="int16")
