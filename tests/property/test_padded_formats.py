"""Properties of ELL, SELL-C-sigma, DIA and V:N:M: what they store besides the entries, and where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zeroskip import FormatError
from zeroskip.formats import CSC, DIA, ELL, FLOATS, SELL, VNM, to_bits, to_float32
from zeroskip.testing import random_vnm

VALUES = st.one_of(st.just(0.0), st.floats(width=32, allow_subnormal=True))
DTYPE = st.sampled_from(FLOATS)
VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@st.composite
def rounded(draw: st.DrawFn) -> tuple[np.ndarray, str]:
    """A value type, and a matrix whose values it holds."""
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 30)))
    dense = draw(hnp.arrays(np.float32, shape, elements=VALUES, fill=st.just(0.0)))
    dtype = draw(DTYPE)
    return to_float32(to_bits(dense, dtype), dtype), dtype


@st.composite
def slices(draw: st.DrawFn) -> dict[str, int]:
    c = draw(st.integers(1, 6))
    return {"c": c, "sigma": draw(st.sampled_from([1, c, 2 * c, 50 * c]))}


@st.composite
def patterned(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, int]]:
    """A matrix that keeps a V:N:M pattern, not to the full everywhere, and the pattern."""
    v, m, n = draw(st.integers(1, 4)), draw(st.integers(4, 12)), draw(st.integers(1, 4))
    shape = v * draw(st.integers(1, 4)), m * draw(st.integers(1, 4))
    dense = random_vnm(shape, v, n, m, seed=draw(st.integers(0, 2**16)))
    dense *= draw(hnp.arrays(np.bool_, shape, fill=st.just(True)))
    return dense, {"v": v, "n": n, "m": m}


@given(rounded())
def test_csc_is_csr_of_the_transpose(given_: tuple[np.ndarray, str]) -> None:
    dense, dtype = given_
    a, b = CSC.from_dense(dense, dtype=dtype), ELL.from_dense(dense.T.copy(), dtype=dtype).convert("csr")
    np.testing.assert_array_equal(a.indptr, b.indptr)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(a.indices, b.indices)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(a.data, b.data)
    nnz = np.count_nonzero(dense)
    assert a.nbytes == 8 * (dense.shape[1] + 1) + nnz * (2 + VALUE_BYTES[dtype])


@given(rounded())
def test_ell_is_as_wide_as_its_longest_row(given_: tuple[np.ndarray, str]) -> None:
    dense, dtype = given_
    a = ELL.from_dense(dense, dtype=dtype)
    counts = np.count_nonzero(dense, axis=1)
    assert a.indices.shape == (dense.shape[0], counts.max())
    np.testing.assert_array_equal((a.indices >= 0).sum(axis=1), counts)
    np.testing.assert_array_equal(a.to_dense(), dense)
    assert a.nnz == counts.sum()
    assert a.nbytes == dense.shape[0] * counts.max() * (2 + VALUE_BYTES[dtype])


@given(rounded(), slices())
def test_sell_slices_are_as_wide_as_their_longest_row(given_: tuple[np.ndarray, str], how: dict[str, int]) -> None:
    dense, dtype = given_
    a = SELL.from_dense(dense, dtype=dtype, **how)
    np.testing.assert_array_equal(a.to_dense(), dense)
    counts = np.count_nonzero(dense, axis=1)[a.rows]
    for start in range(0, len(dense), how["sigma"]):
        assert (np.diff(counts[start : start + how["sigma"]]) <= 0).all()
    parts = [counts[start : start + how["c"]] for start in range(0, len(dense), how["c"])]
    assert np.diff(a.indptr).tolist() == [len(part) * part.max() for part in parts]
    slots = sum(len(part) * part.max() for part in parts)
    assert a.nnz == counts.sum()
    assert a.nbytes == 8 * (len(parts) + 1) + 4 * len(dense) + slots * (2 + VALUE_BYTES[dtype])
    if how["sigma"] == 1:
        assert a.rows.tolist() == list(range(len(dense)))
    again = SELL.from_coo(a.to_coo(), **how)
    for key, array in a.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[key])


@given(rounded())
def test_sell_of_one_slice_is_ell_by_columns(given_: tuple[np.ndarray, str]) -> None:
    dense, dtype = given_
    a, b = SELL.from_dense(dense, dtype=dtype, c=len(dense), sigma=1), ELL.from_dense(dense, dtype=dtype)
    np.testing.assert_array_equal(a.indices, b.indices.T.ravel())
    np.testing.assert_array_equal(a.data, b.data.T.ravel())


@given(rounded())
def test_dia_holds_whole_diagonals(given_: tuple[np.ndarray, str]) -> None:
    dense, dtype = given_
    a = DIA.from_dense(dense, dtype=dtype)
    np.testing.assert_array_equal(a.to_dense(), dense)
    every = {k: np.diagonal(dense, k) for k in range(1 - dense.shape[0], dense.shape[1])}
    found = {k: values for k, values in every.items() if values.any()}
    assert a.offsets.tolist() == sorted(found)
    np.testing.assert_array_equal(
        to_float32(a.data, dtype), np.concatenate([np.zeros(0), *(found[k] for k in sorted(found))])
    )
    assert a.nnz == sum(map(len, found.values()))
    assert a.nbytes == 8 * len(found) + a.nnz * VALUE_BYTES[dtype]


@given(patterned(), DTYPE)
def test_vnm_round_trip_and_size(given_: tuple[np.ndarray, dict[str, int]], dtype: str) -> None:
    dense, how = given_
    a = VNM.from_dense(dense, dtype=dtype, **how)
    np.testing.assert_array_equal(a.to_dense(), to_float32(to_bits(dense, dtype), dtype))
    v, n, m = how["v"], how["n"], how["m"]
    stored, blocks = dense.size // m * n, dense.size // (v * m)
    assert a.nnz == stored
    assert a.nbytes == stored * (1 + VALUE_BYTES[dtype]) + 4 * blocks
    np.testing.assert_array_equal(a.convert("nm", n=n, m=m).to_dense(), a.to_dense())


@given(patterned(), st.data())
def test_vnm_refuses_a_fifth_column_and_one_entry_too_many(
    given_: tuple[np.ndarray, dict[str, int]], data: Any
) -> None:
    dense, how = given_
    v, n, m = how["v"], how["n"], how["m"]
    row, column = data.draw(st.integers(0, len(dense) - 1)), data.draw(st.integers(0, dense.shape[1] - 1))
    dense[row, column] = 1.0
    block = dense[row // v * v : row // v * v + v, column // m * m : column // m * m + m]
    fits = (block != 0).any(axis=0).sum() <= 4 and (block != 0).sum(axis=1).max() <= n
    if fits:
        np.testing.assert_array_equal(VNM.from_dense(dense, **how).to_dense(), dense)
    else:
        with pytest.raises(FormatError, match=r"prune to the pattern first"):
            VNM.from_dense(dense, **how)


@given(rounded(), st.data())
def test_a_wider_ell_is_the_same_matrix(given_: tuple[np.ndarray, str], data: Any) -> None:
    """Padding is told apart from entries by its column alone: any amount of it, and zeros that are stored."""
    dense, dtype = given_
    a = ELL.from_dense(dense, dtype=dtype)
    more = data.draw(st.integers(0, 3))
    wider = ELL(
        a.shape,
        np.pad(a.indices, ((0, 0), (0, more)), constant_values=-1),
        np.pad(np.zeros_like(a.data), ((0, 0), (0, more))),
        dtype,
    )
    assert wider.nnz == a.nnz == wider.to_coo().nnz
    assert not wider.to_dense().any()
    for one, other in zip(wider.entries()[:2], a.entries()[:2], strict=True):
        np.testing.assert_array_equal(one, other)
