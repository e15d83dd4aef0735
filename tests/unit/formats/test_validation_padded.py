"""Each rule of CSC, ELL, SELL-C-sigma, DIA and V:N:M, broken one at a time: the message names array, place and rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zeroskip import FormatError, InvalidArgument, ShapeError
from zeroskip.formats import BSR, COO, CSC, DIA, ELL, SELL, VNM, SparseMatrix
from zeroskip.quantize import quantize

DENSE = np.array(
    [
        [0, 1, 0, 2, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [3, 0, 4, 0, 0, 0, 0, 0, 0, 5],
        [0, 0, 0, 0, 6, 0, 0, 0, 7, 0],
        [0, 0, 0, 0, 0, 8, 0, 0, 0, 0],
    ],
    dtype=np.float32,
)
Damage = Callable[[Any], dict[str, Any]]


def edited(array: np.ndarray, at: Any, to: Any) -> np.ndarray:
    """A copy with one element set."""
    copy = array.copy()
    copy[at] = to
    return copy


def breaks(a: SparseMatrix, message: str, **arrays: Any) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        dataclasses.replace(a, **arrays)  # type: ignore[type-var]
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"indptr\[2\] is 0 after 1, offsets never", lambda a: {"indptr": edited(a.indptr, 2, 0)}),
        (r"indptr ends at 9 but 8 entries", lambda a: {"indptr": edited(a.indptr, 10, 9)}),
        (r"indptr has shape \(10,\)", lambda a: {"indptr": a.indptr[:-1]}),
        (r"indices\[0\] is 5, out of range for 5 rows", lambda a: {"indices": edited(a.indices, 0, 5)}),
        (r"indices has dtype uint32", lambda a: {"indices": a.indices.astype(np.uint32)}),
        (r"indices has dtype uint16 but M is 65537", lambda a: {"shape": (65537, 10)}),
    ],
)
def test_csc(message: str, damage: Damage) -> None:
    a = CSC.from_dense(DENSE)
    assert a.indices.tolist() == [2, 0, 2, 0, 3, 4, 3, 2]
    breaks(a, message, **damage(a))


def test_csc_says_column_where_csr_says_row() -> None:
    a = CSC.from_dense(np.ones((3, 2), dtype=np.float32))
    breaks(a, r"indices\[4\] = 0 is there twice in column 1, indices increase", indices=edited(a.indices, 4, 0))


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"indices\[2, 1\] is 10, out of range for 10", lambda a: {"indices": edited(a.indices, (2, 1), 10)}),
        (r"indices\[1, 0\] is -2, out of range", lambda a: {"indices": edited(a.indices, (1, 0), -2)}),
        (r"indices\[2, 1\] = 0 is there twice in row 2", lambda a: {"indices": edited(a.indices, (2, 1), 0)}),
        (r"indices\[0, 1\] = 0 is after 1 in row 0", lambda a: {"indices": edited(a.indices, (0, 1), 0)}),
        (r"indices\[1, 1\] = 3 is after padding in row 1", lambda a: {"indices": edited(a.indices, (1, 1), 3)}),
        (r"data\[1, 2\] is 0.5 at column -1, padding is 0", lambda a: {"data": edited(a.data, (1, 2), 0.5)}),
        (r"data\[0, 2\] is nan at column -1", lambda a: {"data": edited(a.data, (0, 2), np.nan)}),
        (r"indices has shape \(4, 3\), shape", lambda a: {"indices": a.indices[:-1]}),
        (r"data has shape \(4, 3\), indices makes", lambda a: {"data": a.data[:-1]}),
        (r"indices has dtype uint16", lambda a: {"indices": a.indices.astype(np.uint16)}),
    ],
)
def test_ell(message: str, damage: Damage) -> None:
    a = ELL.from_dense(DENSE)
    assert a.indices.tolist() == [[1, 3, -1], [-1, -1, -1], [0, 2, 9], [4, 8, -1], [5, -1, -1]]
    assert a.data[3].tolist() == [6, 7, 0]
    breaks(a, message, **damage(a))


@pytest.mark.parametrize(("columns", "dtype"), [(32768, np.int16), (32769, np.int32)])
def test_ell_columns_are_as_narrow_as_they_can_be(columns: int, dtype: type) -> None:
    a = ELL.from_dense(np.eye(1, columns, columns - 1, dtype=np.float32))
    assert a.indices.dtype == dtype
    assert a.indices.tolist() == [[columns - 1]]


def test_ell_beyond_32_bits() -> None:
    coo = COO((2, 2**40), np.array([1, 0]), np.array([2**40 - 1, 5]), np.ones(2, dtype=np.float32))
    a = ELL.from_coo(coo)
    assert a.indices.dtype == np.int64
    assert a.to_coo().col.tolist() == [5, 2**40 - 1]


@pytest.mark.parametrize("cls", [ELL, SELL])
def test_padding_of_codes_is_the_code_of_zero(cls: type[SparseMatrix]) -> None:
    a = quantize(cls.from_dense(np.abs(DENSE)), "int8", symmetric=False)
    assert a.scales is not None
    assert a.data.min() == -127  # the zero point of weights that are all positive
    padding = np.flatnonzero(a.indices.ravel() < 0)  # type: ignore[attr-defined]
    full = np.flatnonzero(np.count_nonzero(DENSE, axis=1))
    rows = np.broadcast_to(a.places()[0], a.data.shape).ravel()
    at = next(i for i in padding if rows[i] in full)
    wrong = a.data.copy()
    wrong.ravel()[at] = 0
    breaks(a, r"padding is the code of 0 in column 0 of its row", data=wrong)


# Stored two rows a slice, sorted in one window: rows 2 and 0 (slots 0, 1, 2), rows 3 and 4, row 1 (empty).
@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"indptr\[1\] is 5 after 0, slice 0 has 2 rows", lambda a: {"indptr": edited(a.indptr, 1, 5)}),
        (r"indptr ends at 12 but 10", lambda a: {"indptr": edited(a.indptr, 3, 12)}),
        (r"indptr has shape \(3,\)", lambda a: {"indptr": a.indptr[:-1]}),
        (r"rows\[1\] is 5, the 5 rows move within", lambda a: {"rows": edited(a.rows, 1, 5)}),
        (r"rows\[1\] is -1, the 5 rows move", lambda a: {"rows": edited(a.rows, 1, -1)}),
        (r"rows\[3\] is 4, .* windows of sigma = 2", lambda a: {"rows": np.arange(5)[[0, 1, 3, 4, 2]], "sigma": 2}),
        (r"rows has 0 0 times", lambda a: {"rows": edited(a.rows, 1, 2)}),
        (r"indices\[2\] = 0 is there twice in row 2", lambda a: {"indices": edited(a.indices, 2, 0)}),
        (r"indices\[3\] = 0 is after 1 in row 0", lambda a: {"indices": edited(a.indices, 3, 0)}),
        (r"indices\[5\] = 7 is after padding in row 0", lambda a: {"indices": edited(edited(a.indices, 3, -1), 5, 7)}),
        (r"indices\[4\] is 10, out of range", lambda a: {"indices": edited(a.indices, 4, 10)}),
        (r"data\[5\] is 1.0 at column -1", lambda a: {"data": edited(a.data, 5, 1.0)}),
        (r"indices has shape \(9,\)", lambda a: {"indices": a.indices[:-1]}),
        (r"rows has dtype uint8", lambda a: {"rows": a.rows.astype(np.uint8)}),
    ],
)
def test_sell(message: str, damage: Damage) -> None:
    a = SELL.from_dense(DENSE, c=2, sigma=6)
    assert a.rows.tolist() == [2, 0, 3, 4, 1]
    assert a.indptr.tolist() == [0, 6, 10, 10]
    assert a.indices.tolist() == [0, 1, 2, 3, 9, -1, 4, 5, 8, -1]
    assert a.data.tolist() == [3, 1, 4, 2, 5, 0, 6, 8, 7, 0]
    breaks(a, message, **damage(a))


@pytest.mark.parametrize(("c", "sigma"), [(0, 1), (-2, 4), (4, 6), (4, 2), (2, 0), (2.0, 4), (True, 1), ("2", 4)])
def test_sell_refuses_slices_and_windows_that_are_none(c: Any, sigma: Any) -> None:
    with pytest.raises(InvalidArgument, match="sigma"):
        SELL.from_dense(DENSE, c=c, sigma=sigma)


def test_sell_has_slices_of_8_and_windows_of_256_if_not_told() -> None:
    assert SELL.from_dense(DENSE).params == {"c": 8, "sigma": 256}
    assert SELL.from_dense(DENSE, c=3).params == {"c": 3, "sigma": 258}


def test_sell_of_a_hostile_shape_takes_no_memory() -> None:
    a = SELL.from_dense(DENSE, c=1, sigma=1)
    breaks(a, "indptr has shape", shape=(2**50, 10))
    breaks(a, r"rows\[4\] is", rows=edited(a.rows.astype(np.int64), 4, 2**31 - 2), sigma=2**31 - 1)


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"offsets\[0\] is -5, out of range .*-4 to 9", lambda a: {"offsets": edited(a.offsets, 0, -5)}),
        (r"offsets\[5\] is 10, out of range", lambda a: {"offsets": edited(a.offsets, 5, 10)}),
        (r"offsets\[1\] is -2 after -2, offsets increase", lambda a: {"offsets": edited(a.offsets, 1, -2)}),
        (r"offsets\[2\] is -1 after 0", lambda a: {"offsets": edited(a.offsets, 2, -1)}),
        (r"data has shape \(\d+,\), shape \(5, 10\) with these 5 offsets", lambda a: {"offsets": a.offsets[:-1]}),
        (r"data has shape", lambda a: {"data": a.data[:-1]}),
        (r"offsets has dtype int32", lambda a: {"offsets": a.offsets.astype(np.int32)}),
    ],
)
def test_dia(message: str, damage: Damage) -> None:
    a = DIA.from_dense(DENSE)
    assert a.offsets.tolist() == [-2, 0, 1, 3, 5, 7]
    assert a.data.tolist() == [3, 0, 0, *[0, 0, 4, 0, 0], *[1, 0, 0, 6, 8], *[2, 0, 0, 0, 0], *[0, 0, 0, 7, 0], 0, 0, 5]
    breaks(a, message, **damage(a))


def test_dia_leaves_its_padding_out_of_coordinates() -> None:
    assert DIA.from_dense(DENSE).nnz == 26
    assert DIA.from_dense(DENSE).to_coo().nnz == 8


# Rows 0 and 1 keep columns 1, 3, 6 (and 0 to make four), rows 2 and 3 columns 5 and 7 (and 0, 1).
VNM_DENSE = np.array(
    [[0, 1, 0, 0, 0, 0, 2, 0], [0, 0, 0, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 4, 0, 5], [0, 0, 0, 0, 0, 0, 0, 0]],
    dtype=np.float32,
)


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"columns\[0, 0, 3\] is 8, it must be below 8", lambda a: {"columns": edited(a.columns, (0, 0, 3), 8)}),
        (r"columns\[0, 0, 1\] is 0 after 0", lambda a: {"columns": edited(a.columns, (0, 0, 1), 0)}),
        (r"indices\[0, 0, 1\] is 4, it must be below 4", lambda a: {"indices": edited(a.indices, (0, 0, 1), 4)}),
        (r"indices\[2, 0, 1\] is 2 after 2", lambda a: {"indices": edited(a.indices, (2, 0, 1), 2)}),
        (r"columns has shape \(1, 1, 4\)", lambda a: {"columns": a.columns[:1]}),
        (r"data has shape \(3, 1, 2\)", lambda a: {"data": a.data[:-1]}),
        (r"indices has shape \(3, 1, 2\)", lambda a: {"indices": a.indices[:-1]}),
        (r"columns has dtype int8", lambda a: {"columns": a.columns.astype(np.int8)}),
    ],
)
def test_vnm(message: str, damage: Damage) -> None:
    a = VNM.from_dense(VNM_DENSE, v=2, n=2, m=8)
    assert a.columns.tolist() == [[[0, 1, 3, 6]], [[0, 1, 5, 7]]]
    assert a.indices.tolist() == [[[1, 3]], [[0, 2]], [[2, 3]], [[0, 1]]]
    assert a.data.tolist() == [[[1, 2]], [[0, 3]], [[4, 5]], [[0, 0]]]
    breaks(a, message, **damage(a))


def test_vnm_refuses_what_breaks_the_pattern() -> None:
    with pytest.raises(FormatError, match=r"row 0 has 2 entries in columns 0 to 7, the pattern allows 1"):
        VNM.from_dense(VNM_DENSE, v=2, n=1, m=8)
    with pytest.raises(FormatError, match=r"rows 0 to 3 use 5 columns in columns 0 to 7, the pattern allows 4"):
        VNM.from_dense(VNM_DENSE, v=4, n=2, m=8)


@pytest.mark.parametrize(
    ("v", "n", "m"), [(0, 2, 8), (2, 0, 8), (2, 5, 8), (2, 2, 3), (2, 2, 257), (2.0, 2, 8), (True, 2, 8), (None, 2, 8)]
)
def test_vnm_refuses_patterns_that_are_none(v: Any, n: Any, m: Any) -> None:
    with pytest.raises(InvalidArgument, match="v"):
        VNM.from_dense(VNM_DENSE, v=v, n=n, m=m)


@pytest.mark.parametrize(("v", "m"), [(3, 8), (2, 5)])
def test_vnm_must_tile_the_matrix(v: int, m: int) -> None:
    with pytest.raises(ShapeError, match="they must divide M = 4 and K = 8"):
        VNM.from_dense(VNM_DENSE, v=v, n=1, m=m)


def test_column_vectors_are_blocks_of_one_column() -> None:
    kept = np.kron(np.array([[1, 0, 1, 0], [0, 0, 1, 0]]), np.ones((16, 1))).astype(np.float32)
    a = BSR.from_dense(kept, block=(16, 1))
    assert a.indices.tolist() == [0, 2, 2]
    assert a.data.shape == (3, 16, 1)
    assert a.nbytes == 8 * (2 + 1) + 3 * (4 + 16 * 4)
