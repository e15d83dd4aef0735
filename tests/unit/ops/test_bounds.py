"""The error bound can fail: kernels with small faults are caught, correct ones pass, and its constants are right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from zeroskip.formats import CSR, to_bits, to_float32
from zeroskip.kernels import ACTIVATIONS
from zeroskip.kernels._epilogue import activate, erf
from zeroskip.ops import reference
from zeroskip.testing import assert_within_bound, guarded, random_dense, random_matrix, random_nm
from zeroskip.testing.bounds import EVALUATION, LIPSCHITZ

A = random_matrix((33, 65), 0.7, seed=1)
X = random_dense((65, 9), seed=2)
BIAS = random_dense((33,), seed=3)


def right() -> np.ndarray:
    return reference.spmm(A, X, bias=BIAS).astype(np.float32)


def test_a_right_result_passes() -> None:
    assert_within_bound(right(), A, X, bias=BIAS)
    assert_within_bound(right().T, A, X.T, bias=BIAS, transposed=True)


def drop_bias(c: np.ndarray) -> np.ndarray:
    return c - BIAS[:, None]


def drop_one_product(c: np.ndarray) -> np.ndarray:
    row, column, value = (part[0] for part in A.entries())
    c[row, 4] -= value * X[column, 4]
    return c


def swap_columns(c: np.ndarray) -> np.ndarray:
    return c[:, ::-1]


def unwritten(c: np.ndarray) -> np.ndarray:
    c[-1, -1] = np.nan
    return c


def sixteen_bit_sums(c: np.ndarray) -> np.ndarray:
    return c.astype(np.float16).astype(np.float32)


def off_by_an_infinity(c: np.ndarray) -> np.ndarray:
    c[0, 0] = np.inf
    return c


def too_short(c: np.ndarray) -> np.ndarray:
    return c[:-1]


@pytest.mark.parametrize(
    "fault", [drop_bias, drop_one_product, swap_columns, unwritten, sixteen_bit_sums, off_by_an_infinity, too_short]
)
def test_a_wrong_result_fails(fault: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(AssertionError):
        assert_within_bound(fault(right()), A, X, bias=BIAS)


def test_unrounded_weights_fail_for_a_bfloat16_matrix() -> None:
    with pytest.raises(AssertionError):
        assert_within_bound(reference.spmm(A, X).astype(np.float32), A.astype("bfloat16"), X)


def test_nan_must_reach_what_it_meets_and_nothing_else() -> None:
    x = X.copy()
    x[5] = np.nan
    c = reference.spmm(A, x).astype(np.float32)
    assert np.isnan(c).any()
    assert not np.isnan(c).all()
    assert_within_bound(c, A, x)
    with pytest.raises(AssertionError):
        assert_within_bound(np.full_like(c, np.nan), A, x)
    with pytest.raises(AssertionError):
        assert_within_bound(np.nan_to_num(c), A, x)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
def test_behind_smooth_activations_infinities_give_the_limit_or_nan(activation: str) -> None:
    a = CSR.from_dense(np.ones((1, 1), dtype=np.float32))
    for x, allowed, refused in ((np.inf, (np.inf, np.nan), (0.0, -np.inf)), (-np.inf, (0.0, np.nan), (-np.inf, 1.0))):
        column = np.array([[x]], dtype=np.float32)
        for c in allowed:
            assert_within_bound(np.array([[c]], dtype=np.float32), a, column, activation=activation)
        for c in refused:
            with pytest.raises(AssertionError):
                assert_within_bound(np.array([[c]], dtype=np.float32), a, column, activation=activation)
    with pytest.raises(AssertionError):
        assert_within_bound(np.zeros((1, 1)), a, np.array([[np.nan]], dtype=np.float32), activation=activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_lipschitz_constants_are_the_largest_slopes(activation: str) -> None:
    x = np.linspace(-8.0, 8.0, 160_001)[None]
    slope = np.abs(np.diff(reference.activate(x, activation)) / np.diff(x)).max()
    assert slope <= LIPSCHITZ[activation]
    assert slope > 0.999 * LIPSCHITZ[activation]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_in_numpy_keep_their_allowance(activation: str) -> None:
    x = np.concatenate((np.linspace(-30, 30, 60_001), np.logspace(-30, 2, 5000), -np.logspace(-30, 2, 5000)))
    x = x.astype(np.float32)
    exact = reference.activate(x.astype(np.float64), activation)
    found = x.copy()
    activate(found, activation)
    scale = {"relu": np.zeros_like(exact), "tanh": np.abs(exact)}.get(activation, np.abs(x.astype(np.float64)))
    assert (np.abs(found - exact) <= (EVALUATION * scale + np.abs(exact)) * 2.0**-24 + 2.0**-149).all()


def test_erf_within_four_roundoffs() -> None:
    x = np.linspace(-5, 5, 100_001, dtype=np.float32)
    exact = np.asarray(reference._erf(x.astype(np.float64)), dtype=np.float64)
    assert np.abs(erf(x) - exact).max() <= 4 * 2.0**-24


def test_guards_notice_a_write_around_the_array() -> None:
    for place in (-1, 12):
        out = guarded((3, 4), shift=1)
        assert out.intact()
        assert np.isnan(out.array).all()
        out.array[...] = 0
        assert out.intact()
        start = (out.array.ctypes.data - out.buffer.ctypes.data) // 4
        out.buffer[start + place] = 0
        assert not out.intact()


def test_random_inputs_keep_their_promises() -> None:
    nm = random_nm((8, 64), 3, 8, seed=1)
    assert (np.count_nonzero(nm.reshape(8, 8, 8), axis=2) == 3).all()
    assert np.count_nonzero(random_dense((200, 200), 0.9, seed=1)) / 40_000 == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(random_dense((5, 5), 0.5, seed=7), random_dense((5, 5), 0.5, seed=7))
    assert random_matrix((64, 64), 0.75, seed=1, format="bsr", block=(8, 8)).sparsity == pytest.approx(0.75, abs=0.15)


@pytest.mark.parametrize("with_bias", [False, True])
def test_products_rounded_to_bfloat16(with_bias: bool) -> None:
    """A float64 sum rounded to bfloat16 keeps the bound; of another x, or rounded twice as far, it does not."""
    a = random_matrix((40, 300), 0.5, seed=1, dtype="bfloat16")
    x = random_dense((300, 7), seed=2)
    bias = 30 * random_dense((40,), seed=3) if with_bias else None
    how = {"x_dtype": "bfloat16", "sum_dtype": "bfloat16", "rounded_x": True}

    def narrow(values: np.ndarray) -> np.ndarray:
        return to_float32(to_bits(np.asarray(values, np.float32), "bfloat16"), "bfloat16")

    def kernel(source: np.ndarray, off: float = 1.0) -> np.ndarray:
        product = narrow(a.to_dense().astype(np.float64) @ source) * np.float32(off)
        return product if bias is None else product + bias[:, None]

    assert_within_bound(kernel(narrow(x)), a, x, bias=bias, **how)
    for wrong in (kernel(x.astype(np.float32) * np.float32(1.02)), kernel(narrow(x), 1 + 2.0**-7)):
        with pytest.raises(AssertionError, match="outside the error bound"):
            assert_within_bound(wrong, a, x, bias=bias, **how)
    exact = a.to_dense().astype(np.float64) @ narrow(x) + (0.0 if bias is None else bias[:, None])
    assert_within_bound(exact, a, x, bias=bias, x_dtype="bfloat16", rounded_x=True)
    with pytest.raises(AssertionError, match="outside the error bound"):
        assert_within_bound(kernel(narrow(x)), a, x, bias=bias, x_dtype="bfloat16", rounded_x=True)
