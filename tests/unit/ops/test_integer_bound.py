"""The bound of kernels that round x to int8: a plain integer kernel keeps it, one with a fault does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zeroskip import InvalidArgument
from zeroskip.formats import CSR, SparseMatrix
from zeroskip.ops import reference
from zeroskip.quantize import quantize
from zeroskip.testing import assert_close, assert_within_bound, bound, random_dense, random_matrix

F = np.float32
SETTINGS = [(dtype, group, symmetric) for dtype in ("int8", "int4") for group in (0, 32) for symmetric in (True, False)]


def matrix(dtype: str = "int8", group: int = 32, symmetric: bool = False, sparsity: float = 0.5) -> SparseMatrix:
    return random_matrix((33, 200), sparsity, seed=1, dtype=dtype, group=group, symmetric=symmetric)


def columns(n: int = 9) -> np.ndarray:
    """Columns of very different size, as activations are."""
    return random_dense((200, n), seed=2) * np.logspace(-6, 6, n, dtype=F)


def by_division(x: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = largest / F(127)
    return np.rint(x / step), step


def by_reciprocal_of_the_scale(x: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = largest / F(127)
    return np.rint(x * (F(1) / step)), step


def by_multiplication(x: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.rint(x * (F(127) / largest)), largest * F(1 / 127)


ROUNDINGS = [by_division, by_reciprocal_of_the_scale, by_multiplication]


def codes_of(a: SparseMatrix) -> np.ndarray:
    """Codes less their zero points, as integers; 0 where nothing is stored."""
    assert a.scales is not None
    rows, cols, data = a.entries()
    codes = np.zeros(a.shape, dtype=np.int64)
    codes[rows, cols] = data.astype(np.int64) - a.scales.zeros_at(rows, cols)
    return codes


def kernel(
    a: SparseMatrix,
    x: np.ndarray,
    rounding: Callable[[np.ndarray, np.ndarray], Any] = by_division,
    codes: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """C as an integer kernel makes it: int32 sums within groups, all else in float32."""
    assert a.scales is not None
    codes = codes_of(a) if codes is None else codes
    scales = a.scales.values if scales is None else scales
    quantised, step = rounding(x, np.abs(x).max(axis=0))
    quantised = quantised.astype(np.int64)
    assert quantised.max() <= 127
    assert quantised.min() >= -127
    width = a.scales.group or a.shape[1]
    total = np.zeros((a.shape[0], x.shape[1]), dtype=F)
    for index, start in enumerate(range(0, a.shape[1], width)):
        part = slice(start, start + width)
        sums = codes[:, part] @ quantised[part]
        assert np.abs(sums).max() < 2**31
        total += sums.astype(F) * scales[:, index, None].astype(F) * step.astype(F)
    return total if bias is None else total + bias[:, None]


@pytest.mark.parametrize("rounded_x", [False, True])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("dtype", "group", "symmetric"), SETTINGS)
def test_an_integer_kernel_keeps_it(
    dtype: str, group: int, symmetric: bool, rounding: Callable[..., Any], rounded_x: bool
) -> None:
    for sparsity in (0.0, 0.5, 0.98):
        a, x = matrix(dtype, group, symmetric, sparsity), columns()
        bias = random_dense((33,), seed=3)
        assert_within_bound(kernel(a, x, rounding), a, x, x_dtype="int8", rounded_x=rounded_x)
        c = kernel(a, x, rounding, bias=bias)
        assert_within_bound(c, a, x, bias=bias, x_dtype="int8", rounded_x=rounded_x)
        assert_within_bound(c.T, a, x.T, bias=bias, x_dtype="int8", rounded_x=rounded_x, transposed=True)
        relu = np.maximum(c, 0)
        assert_within_bound(relu, a, x, bias=bias, activation="relu", x_dtype="int8", rounded_x=rounded_x)


def test_the_worst_case_is_reached_to_a_few_percent() -> None:
    """Every x in the middle between two codes and every term of one sign: half a step each, as derived."""
    a = CSR.from_dense(np.ones((1, 64), dtype=F))
    q = quantize(a)
    x = np.full((64, 1), F(10.5) / 127 * (1 - 2.0**-20), dtype=F)
    x[0] = 1.0
    error = abs(kernel(q, x)[0, 0] - (q.to_dense().astype(np.float64) @ x)[0, 0])
    allowed = bound(q, x, x_dtype="int8").allowed[0, 0]
    assert 0.95 * allowed < error <= allowed


def test_elements_between_two_codes_may_go_either_way() -> None:
    """Where x lies in the middle of two codes, kernels round it apart: all are right, one beside the middle is not."""
    a = matrix()
    largest = random_dense((1, 9), seed=7) ** 2 + F(0.1)
    x = (np.arange(200, dtype=F)[:, None] % 127 + F(0.5)) / F(127) * largest
    x[126] = largest
    codes = [rounding(x, np.abs(x).max(axis=0))[0] for rounding in ROUNDINGS]
    assert (codes[0] != codes[1]).any()
    assert (codes[0] != codes[2]).any()
    for rounding in ROUNDINGS:
        assert_within_bound(kernel(a, x, rounding), a, x, x_dtype="int8", rounded_x=True)
    beside = x * F(1 + 2.0**-19)
    beside[126] = largest

    def down(x: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.rint(x / (largest / F(127)) - F(2.0**-9)), largest / F(127)

    with pytest.raises(AssertionError, match="outside the error bound"):
        assert_within_bound(kernel(a, beside, down), a, beside, x_dtype="int8", rounded_x=True)


def test_it_is_wider_than_that_of_a_kernel_that_leaves_x_alone() -> None:
    a, x = matrix(), columns()
    exact, rounded, sums = bound(a, x), bound(a, x, x_dtype="int8"), bound(a, x, x_dtype="int8", rounded_x=True)
    np.testing.assert_array_equal(exact.product, rounded.product)
    assert (rounded.allowed > 100 * exact.allowed).all()
    # Elements of x that lie in the middle of two codes are rare.
    assert np.median(sums.allowed / rounded.allowed) < 1e-3
    assert (np.abs(sums.product - rounded.product) <= rounded.allowed).all()
    with pytest.raises(AssertionError):
        assert_within_bound(kernel(a, x), a, x)


def truncated(x: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.trunc(x / (largest / F(127))), largest / F(127)


def one_scale_for_all(x: np.ndarray, largest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return by_division(x, np.full_like(largest, largest.max()))


def lose_a_product(a: SparseMatrix, x: np.ndarray) -> np.ndarray:
    codes = codes_of(a)
    row, col = np.argwhere(np.abs(codes) > 3)[0]
    codes[row, col] = 0
    return kernel(a, x, codes=codes)


def forget_the_zero_points(a: SparseMatrix, x: np.ndarray) -> np.ndarray:
    rows, cols, data = a.entries()
    codes = np.zeros(a.shape, dtype=np.int64)
    codes[rows, cols] = data
    return kernel(a, x, codes=codes)


def zero_points_where_nothing_is_stored(a: SparseMatrix, x: np.ndarray) -> np.ndarray:
    assert a.scales is not None
    codes = codes_of(a)
    rows, cols = np.nonzero(codes == 0)
    codes[rows, cols] = -a.scales.zeros_at(rows, cols).astype(np.int64)
    return kernel(a, x, codes=codes)


def scales_of_the_next_group(a: SparseMatrix, x: np.ndarray) -> np.ndarray:
    assert a.scales is not None
    return kernel(a, x, scales=np.roll(a.scales.values, 1, axis=1))


def a_group_twice(a: SparseMatrix, x: np.ndarray) -> np.ndarray:
    codes = codes_of(a)
    codes[5, 32:64] *= 2
    return kernel(a, x, codes=codes)


def saturated_pairs(a: SparseMatrix, x: np.ndarray) -> np.ndarray:
    """Sums of two products in int16, as `maddubs` makes them, over large codes."""
    codes = np.clip(codes_of(a), -127, 127)
    quantised, step = by_division(x, np.abs(x).max(axis=0))
    products = codes[:, :, None] * quantised.astype(np.int64)[None]
    pairs = np.clip(products.reshape(33, 100, 2, -1).sum(axis=2), -8000, 8000)
    assert a.scales is not None
    groups = np.add.reduceat(pairs, np.arange(0, 100, 16), axis=1)
    scaled = groups.astype(F) * a.scales.values[:, :, None].astype(F) * step
    return np.asarray(scaled.sum(axis=1, dtype=F))


FAULTS: list[Callable[[SparseMatrix, np.ndarray], np.ndarray]] = [
    lambda a, x: kernel(a, x, truncated),
    lambda a, x: kernel(a, x, one_scale_for_all),
    lose_a_product,
    forget_the_zero_points,
    zero_points_where_nothing_is_stored,
    scales_of_the_next_group,
    a_group_twice,
    saturated_pairs,
    lambda a, x: kernel(a, x).astype(np.float16).astype(F),
    lambda a, x: kernel(a, x)[:, ::-1],
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_against_the_rounded_x(fault: Callable[[SparseMatrix, np.ndarray], np.ndarray]) -> None:
    a, x = matrix(), np.clip(columns(), -1e4, 1e4)
    with np.errstate(over="ignore"), pytest.raises(AssertionError, match="outside the error bound"):
        assert_within_bound(fault(a, x), a, x, x_dtype="int8", rounded_x=True)


@pytest.mark.parametrize(
    "fault", [forget_the_zero_points, zero_points_where_nothing_is_stored, scales_of_the_next_group, a_group_twice]
)
def test_a_coarse_fault_is_found_against_x_itself(fault: Callable[[SparseMatrix, np.ndarray], np.ndarray]) -> None:
    a, x = matrix(), columns()
    with pytest.raises(AssertionError, match="outside the error bound"):
        assert_within_bound(fault(a, x), a, x, x_dtype="int8")


@pytest.mark.parametrize("rounded_x", [False, True])
def test_columns_of_zeros_and_of_next_to_nothing(rounded_x: bool) -> None:
    a, x = matrix(), columns(4)
    x[:, 0] = 0
    x[:, 1] = random_dense((200,), seed=4) * F(2.0**-125)
    without = np.concatenate((np.zeros((33, 2), dtype=F), kernel(a, x[:, 2:])), axis=1)
    assert_within_bound(without, a, x, x_dtype="int8", rounded_x=rounded_x)
    without[:, 1] = random_dense((33,), seed=4) * F(2.0**-105)
    with pytest.raises(AssertionError):
        assert_within_bound(without, a, x, x_dtype="int8", rounded_x=rounded_x)
    bias = random_dense((33,), seed=5)
    c = kernel(a, x[:, 2:], bias=bias)
    flushed = np.concatenate((bias[:, None].repeat(2, axis=1), c), axis=1)
    assert_within_bound(flushed, a, x, bias=bias, x_dtype="int8", rounded_x=rounded_x)
    flushed[3, 0] += 1
    with pytest.raises(AssertionError):
        assert_within_bound(flushed, a, x, bias=bias, x_dtype="int8", rounded_x=rounded_x)


@pytest.mark.parametrize("rounded_x", [False, True])
def test_a_column_that_is_not_finite_is_nan_everywhere(rounded_x: bool) -> None:
    dense = random_dense((6, 64), 0.5, seed=1)
    dense[2] = 0
    a = quantize(CSR.from_dense(dense))
    x = random_dense((64, 3), seed=2)
    x[5, 0], x[6, 2] = np.nan, -np.inf
    c = np.full((6, 3), np.nan, dtype=F)
    c[:, 1:2] = kernel(a, x[:, 1:2])
    limits = bound(a, x, x_dtype="int8", rounded_x=rounded_x)
    assert_close(c, limits)
    c[2, 0] = 0
    with pytest.raises(AssertionError):
        assert_close(c, limits)


def test_x_in_int8_needs_codes() -> None:
    floats = random_matrix((4, 8), 0.5)
    with pytest.raises(InvalidArgument, match="x_dtype is 'int8' and a is float32"):
        bound(floats, random_dense((8, 2)), x_dtype="int8")
    with pytest.raises(InvalidArgument, match="x_dtype is 'int4'"):
        bound(matrix(), columns(), x_dtype="int4")


@pytest.mark.parametrize(("dtype", "group", "symmetric"), SETTINGS)
def test_with_x_as_it_is_a_matrix_counts_as_its_dequantised_weights(dtype: str, group: int, symmetric: bool) -> None:
    a, x = matrix(dtype, group, symmetric), columns()
    np.testing.assert_array_equal(reference.spmm(a, x), reference.spmm(a.astype("float32"), x))
    assert_within_bound(a.to_dense() @ x, a, x)
    # One rounding more than for numbers: the scale may follow the sum of its group.
    more = bound(a, x).allowed - bound(a.astype("float32"), x).allowed
    np.testing.assert_allclose(more, 2.0**-24 * reference.stored_product(a, x, absolute=True), rtol=1e-6)
    unscaled = CSR.from_dense(random_matrix((33, 200), 0.5, seed=1).to_dense())
    with pytest.raises(AssertionError):
        assert_within_bound(unscaled.to_dense() @ x, a, x)


@pytest.mark.parametrize("group", [0, 32])
def test_scaling_the_sums_of_groups_keeps_the_bound_of_floats(group: int) -> None:
    a, x = matrix("int8", group), columns()
    assert a.scales is not None
    codes, width = codes_of(a).astype(F), group or 200
    total = np.zeros((33, 9), dtype=F)
    for index, start in enumerate(range(0, 200, width)):
        part = slice(start, start + width)
        total += (codes[:, part] @ x[part]) * a.scales.values[:, index, None].astype(F)
    assert_within_bound(total, a, x)
