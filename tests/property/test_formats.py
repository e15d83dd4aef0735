"""Properties of all formats over random shapes, values and patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zeroskip import FormatError, InvalidArgument
from zeroskip.formats import BSR, COO, CSR, FLOATS, NM, Bitmask, registry, to_bits, to_float32

VALUES = st.one_of(
    st.just(0.0),
    st.floats(width=32, allow_subnormal=True),
)
DTYPE = st.sampled_from(FLOATS)
VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def matrices(rows: int = 20, columns: int = 40) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, rows), st.integers(1, columns))
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=VALUES, fill=st.just(0.0)))


@st.composite
def blocked(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    """A matrix and a block that divides it."""
    r, c = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    shape = draw(st.integers(1, 5)) * r, draw(st.integers(1, 5)) * c
    return draw(hnp.arrays(np.float32, shape, elements=VALUES, fill=st.just(0.0))), (r, c)


@st.composite
def patterned(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """A matrix that keeps an N:M pattern, and the pattern."""
    m = draw(st.integers(1, 12))
    n = draw(st.integers(1, m))
    rows, groups = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    dense = draw(hnp.arrays(np.float32, (rows, groups, m), elements=VALUES, fill=st.just(0.0)))
    rank = np.argsort(np.argsort(draw(hnp.arrays(np.float32, dense.shape, elements=st.floats(0, 1, width=32))), axis=2))
    return np.where(rank < n, dense, np.float32(0)).reshape(rows, groups * m), n, m


def rounded(dense: np.ndarray, dtype: str) -> np.ndarray:
    return to_float32(to_bits(dense, dtype), dtype)


@given(matrices(), DTYPE, st.sampled_from(["coo", "csr", "csc", "bitmask", "ell", "sell"]))
def test_round_trip(dense: np.ndarray, dtype: str, name: str) -> None:
    a = registry.get(name).from_dense(dense, dtype=dtype)
    np.testing.assert_array_equal(a.to_dense(), rounded(dense, dtype))
    assert a.nnz == np.count_nonzero(rounded(dense, dtype))
    again = registry.get(name).from_coo(a.to_coo())
    for key, array in a.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[key])


@given(blocked(), DTYPE)
def test_bsr_round_trip_and_size(given_: tuple[np.ndarray, tuple[int, int]], dtype: str) -> None:
    dense, (r, c) = given_
    a = BSR.from_dense(dense, dtype=dtype, block=(r, c))
    exact = rounded(dense, dtype)
    np.testing.assert_array_equal(a.to_dense(), exact)
    grid = exact.reshape(dense.shape[0] // r, r, dense.shape[1] // c, c)
    blocks = int((grid != 0).any(axis=(1, 3)).sum())
    assert a.nnz == blocks * r * c
    assert a.nbytes == 8 * (dense.shape[0] // r + 1) + blocks * (4 + r * c * VALUE_BYTES[dtype])


@given(patterned(), DTYPE)
def test_nm_round_trip_and_size(given_: tuple[np.ndarray, int, int], dtype: str) -> None:
    dense, n, m = given_
    a = NM.from_dense(dense, dtype=dtype, n=n, m=m)
    np.testing.assert_array_equal(a.to_dense(), rounded(dense, dtype))
    stored = dense.shape[0] * (dense.shape[1] // m) * n
    assert a.nnz == stored
    assert a.nbytes == stored * (VALUE_BYTES[dtype] + 1)
    assert (np.diff(a.indices.astype(int), axis=2) > 0).all()


@given(matrices(), DTYPE)
def test_sizes_are_those_of_the_documentation(dense: np.ndarray, dtype: str) -> None:
    rows, columns = dense.shape
    nnz, value = int(np.count_nonzero(rounded(dense, dtype))), VALUE_BYTES[dtype]
    assert COO.from_dense(dense, dtype=dtype).nbytes == nnz * (8 + value)
    assert CSR.from_dense(dense, dtype=dtype).nbytes == 8 * (rows + 1) + nnz * (2 + value)
    assert Bitmask.from_dense(dense, dtype=dtype).nbytes == rows * -(-columns // 8) + nnz * value


@given(matrices())
def test_bitmask_and_csr_hold_the_same_entries_in_the_same_order(dense: np.ndarray) -> None:
    csr, mask = CSR.from_dense(dense), Bitmask.from_dense(dense)
    np.testing.assert_array_equal(csr.indptr, mask.indptr)
    np.testing.assert_array_equal(csr.data, mask.data)


@st.composite
def coordinates(draw: st.DrawFn) -> COO:
    """Coordinates in any order, duplicates included, with small whole values that add up exactly."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    count = draw(st.integers(0, 30))
    row = draw(hnp.arrays(np.int32, count, elements=st.integers(0, shape[0] - 1)))
    col = draw(hnp.arrays(np.int32, count, elements=st.integers(0, shape[1] - 1)))
    data = draw(hnp.arrays(np.float32, count, elements=st.integers(-8, 8)))
    return COO(shape, row, col, data)


@given(coordinates(), st.sampled_from(["csr", "csc", "bitmask", "ell", "sell"]))
def test_duplicates_are_summed_and_zeros_kept(coo: COO, name: str) -> None:
    expected = np.zeros(coo.shape, dtype=np.float32)
    np.add.at(expected, (coo.row, coo.col), coo.data)
    a = coo.convert(name)
    np.testing.assert_array_equal(a.to_dense(), expected)
    assert a.nnz == len(set(zip(coo.row.tolist(), coo.col.tolist(), strict=True)))


@given(matrices(12, 30), st.data())
def test_damage_is_refused_or_harmless(dense: np.ndarray, data: Any) -> None:
    """Any one element of any index array overwritten: an error, or a matrix that is valid and can be read back."""
    name = data.draw(st.sampled_from(["coo", "csr", "csc", "bitmask", "ell", "sell", "dia"]))
    a = registry.get(name).from_dense(dense)
    arrays = {key: array.copy() for key, array in a.arrays().items()}
    key = data.draw(st.sampled_from([key for key in arrays if key != "data"]))
    target = arrays[key].reshape(-1)
    if not target.size:
        return
    info = np.iinfo(target.dtype)
    target[data.draw(st.integers(0, target.size - 1))] = data.draw(st.integers(int(info.min), int(info.max)))
    try:
        b = registry.get(name).from_arrays(a.shape, a.dtype, arrays, a.params)
    except (FormatError, InvalidArgument):
        return
    back = b.to_dense()
    assert back.shape == a.shape
    assert b.data.size == a.data.size


PARAMS: dict[str, dict[str, Any]] = {
    "bsr": {"block": (2, 2)},
    "nm": {"n": 1, "m": 4},
    "vnm": {"v": 2, "n": 1, "m": 4},
    "sell": {"c": 2, "sigma": 4},
}


@pytest.mark.parametrize("name", registry.names())
@given(data=st.data())
def test_random_arrays_never_do_worse_than_an_error(name: str, data: Any) -> None:
    """Arrays of the right dtypes and arbitrary sizes and contents, as a hostile file could hold them."""
    cls = registry.get(name)
    seed = cls.from_dense(np.eye(4, 8, dtype=np.float32), **PARAMS.get(name, {}))
    arrays = {}
    for key, array in seed.arrays().items():
        shape = data.draw(hnp.array_shapes(min_dims=array.ndim, max_dims=array.ndim, min_side=0, max_side=9))
        elements = st.integers(-1 if array.dtype.kind == "i" else 0, 9) if array.dtype.kind != "f" else None
        arrays[key] = data.draw(hnp.arrays(array.dtype, shape, elements=elements))
    try:
        a = cls.from_arrays((4, 8), "float32", arrays, seed.params)
    except (FormatError, InvalidArgument):
        return
    assert a.to_dense().shape == (4, 8)
