"""What the native module is handed of ELL, SELL-C-sigma and V:N:M is checked there again, and never read astray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zeroskip.formats import ELL, SELL, VNM, SparseMatrix
from zeroskip.testing import random_dense, random_vnm

native = pytest.importorskip("zeroskip._native")
ROWS, COLUMNS = 6, 16


def source(format: str) -> tuple[SparseMatrix, dict[str, np.ndarray], dict[str, int]]:
    """A matrix, and what the native module takes for it."""
    a: Any
    if format == "vnm":
        a = VNM.from_dense(random_vnm((ROWS, COLUMNS), 2, 2, 8, seed=1), v=2, n=2, m=8)
        return a, a.arrays(), {"v": 2, "n": 2, "m": 8}
    dense = random_dense((ROWS, COLUMNS), 0.6, seed=1)
    a = ELL.from_dense(dense) if format == "ell" else SELL.from_dense(dense, c=4, sigma=1)
    arrays = {**a.arrays(), "indices": a.indices.astype(np.int32)}
    return a, arrays, {"width": a.indices.shape[1]} if format == "ell" else {"c": 4}


def pack(format: str, arrays: dict[str, np.ndarray], params: dict[str, int]) -> Any:
    return native.pack(f"spmm_{format}_f32_scalar", ROWS, COLUMNS, format, arrays, "float32", params)


@pytest.mark.parametrize("format", ["ell", "sell", "vnm"])
def test_the_source_is_taken_as_it_is(format: str) -> None:
    a, arrays, params = source(format)
    x, out = random_dense((COLUMNS, 3)), np.full((ROWS, 3), np.nan, dtype=np.float32)
    native.run(pack(format, arrays, params), x, out, None, "none", False)
    np.testing.assert_allclose(out, a.to_dense() @ x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("format", "name", "at", "to", "message"),
    [
        ("ell", "indices", 0, COLUMNS, "out of range"),
        ("ell", "indices", 0, -2, "out of range"),
        ("ell", "indices", 0, -1, "not ascending"),
        ("ell", "indices", 1, 0, "not ascending"),
        ("sell", "indices", 3, COLUMNS, "out of range"),
        ("sell", "indices", 1, -1, "not ascending"),
        ("sell", "indptr", 0, 4, "is not 0"),
        ("sell", "indptr", 1, 2**40, "indptr decreases"),
        ("sell", "indptr", 1, 5, "not of equal width"),
        ("sell", "indptr", 2, 2**40, "shorter than the shape says"),
        ("sell", "rows", 0, 1, "no permutation"),
        ("sell", "rows", 0, ROWS, "no permutation"),
        ("sell", "rows", 5, -1, "no permutation"),
        ("vnm", "columns", 3, 8, "kept columns"),
        ("vnm", "columns", 1, 0, "kept columns"),
        ("vnm", "indices", 1, 4, "positions"),
        ("vnm", "indices", 1, 0, "positions"),
    ],
)
def test_a_broken_array_is_refused(format: str, name: str, at: int, to: int, message: str) -> None:
    _, arrays, params = source(format)
    broken = arrays[name].copy()
    assert broken.ravel()[at] != to
    broken.ravel()[at] = to
    with pytest.raises(ValueError, match=message):
        pack(format, {**arrays, name: broken}, params)


@pytest.mark.parametrize(
    ("format", "params"),
    [
        ("ell", {"width": -1}),
        ("ell", {"width": 2**40}),
        ("ell", {"width": 17}),
        ("sell", {"c": 0}),
        ("sell", {"c": -4}),
        ("sell", {"c": 1}),
        ("vnm", {"v": 4, "n": 2, "m": 8}),
        ("vnm", {"v": 0, "n": 2, "m": 8}),
        ("vnm", {"v": 2, "n": 5, "m": 8}),
        ("vnm", {"v": 2, "n": 0, "m": 8}),
        ("vnm", {"v": 2, "n": 2, "m": 3}),
        ("vnm", {"v": 2, "n": 2, "m": 512}),
        ("vnm", {"v": 1, "n": 2, "m": 8}),
    ],
)
def test_parameters_that_do_not_fit_are_refused(format: str, params: dict[str, int]) -> None:
    _, arrays, _ = source(format)
    with pytest.raises(ValueError, match="pack: "):
        pack(format, arrays, params)


@pytest.mark.parametrize("format", ["ell", "sell", "vnm"])
@given(data=st.data())
def test_arbitrary_arrays_are_refused_or_run(format: str, data: Any) -> None:
    _, arrays, params = source(format)
    for name, array in arrays.items():
        if name == "data" or not data.draw(st.booleans()):
            continue
        size = data.draw(st.integers(0, 2 * array.size))
        low = 0 if array.dtype.kind == "u" else -2
        arrays[name] = data.draw(hnp.arrays(array.dtype, size, elements=st.integers(low, 24), fill=st.just(0)))
    try:
        packed = pack(format, arrays, params)
    except ValueError:
        return
    out = np.full((ROWS, 2), np.nan, dtype=np.float32)
    native.run(packed, np.ones((COLUMNS, 2), dtype=np.float32), out, None, "none", False)
    assert np.isfinite(out).all()


def test_csc_and_dia_are_no_sources() -> None:
    for format in ("csc", "dia"):
        with pytest.raises(ValueError, match="handed over as csr"):
            pack(format, {}, {})


def test_offsets_are_checked_before_what_they_point_to() -> None:
    """An offset in the middle that leaves `indices`, between ends that are fine."""
    arrays = {
        "indptr": np.array([0, 2**40, 1]),
        "indices": np.zeros(1, dtype=np.int32),
        "data": np.ones(1, dtype=np.float32),
    }
    with pytest.raises(ValueError, match="indptr decreases"):
        native.pack("spmm_csr_f32_scalar", 2, 4, "csr", arrays, "float32", {})


@pytest.mark.parametrize(
    "data",
    [
        np.ones((4, 4)),
        np.asfortranarray(np.arange(16, dtype=np.float32).reshape(4, 4)),
        np.ones((4, 8), dtype=np.float32)[:, ::2],
    ],
)
def test_an_array_that_would_have_to_be_copied_is_refused(data: np.ndarray) -> None:
    """A copy would be gone before it is read."""
    with pytest.raises(ValueError, match="pack: data is no contiguous array"):
        native.pack("spmm_dense_f32_scalar", 4, 4, "dense", {"data": data}, "float32", {})


def test_a_group_of_scales_that_overflows_is_refused() -> None:
    arrays = {"data": np.ones((1, 4), dtype=np.int8), "scales": np.ones((1, 1), dtype=np.uint16)}
    with pytest.raises(ValueError, match="a scale covers"):
        native.pack("spmm_dense_i8_i32acc_scalar", 1, 4, "dense", arrays, "int8", {"group": 2**62})
