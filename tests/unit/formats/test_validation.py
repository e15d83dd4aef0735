"""Each rule of each layout, broken one at a time: the message names the array, the place and the rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zeroskip import DtypeError, FormatError, InvalidArgument, ShapeError
from zeroskip.formats import BSR, COO, CSR, NM, Bitmask, SparseMatrix

DENSE = np.array(
    [
        [0, 1, 0, 2, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [3, 0, 4, 0, 0, 0, 0, 0, 0, 5],
        [0, 0, 0, 0, 6, 0, 0, 0, 7, 0],
    ],
    dtype=np.float32,
)


def csr() -> CSR:
    return CSR.from_dense(DENSE)


def edited(array: np.ndarray, **changes: Any) -> np.ndarray:
    """A copy with elements set: `at` an index (or tuple), `to` the value."""
    copy = array.copy()
    copy[changes["at"]] = changes["to"]
    return copy


def breaks(a: SparseMatrix, message: str, **arrays: Any) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        dataclasses.replace(a, **arrays)  # type: ignore[type-var]
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")


def test_the_sample() -> None:
    a = csr()
    assert a.indptr.tolist() == [0, 2, 2, 5, 7]
    assert a.indices.tolist() == [1, 3, 0, 2, 9, 4, 8]
    assert a.data.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert a.indices.dtype == np.uint16


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"indptr\[0\] is 1, offsets start at 0", lambda a: {"indptr": edited(a.indptr, at=0, to=1)}),
        (r"indptr\[2\] is 1 after 2, offsets never decrease", lambda a: {"indptr": edited(a.indptr, at=2, to=1)}),
        (r"indptr\[1\] is -1 after 0", lambda a: {"indptr": edited(a.indptr, at=1, to=-1)}),
        (r"indptr ends at 6 but 7 entries", lambda a: {"indptr": edited(a.indptr, at=4, to=6)}),
        (r"indptr ends at 9000 but 7", lambda a: {"indptr": edited(a.indptr, at=4, to=9000)}),
        (r"indices\[4\] is 10, out of range for 10", lambda a: {"indices": edited(a.indices, at=4, to=10)}),
        (r"indices\[6\] is 65535, out of range", lambda a: {"indices": edited(a.indices, at=6, to=65535)}),
        (
            r"indices\[2\] is -3, out of range",
            lambda a: {"indices": edited(a.indices.astype(np.int32), at=2, to=-3)},
        ),
        (r"indices\[1\] = 1 is there twice in row 0", lambda a: {"indices": edited(a.indices, at=1, to=1)}),
        (r"indices\[3\] = 2 comes after 9 in row 2", lambda a: {"indices": edited(a.indices, at=2, to=9)}),
        (r"indices\[6\] = 8 comes after 9 in row 3", lambda a: {"indices": edited(a.indices, at=5, to=9)}),
        (r"indptr has dtype int32", lambda a: {"indptr": a.indptr.astype(np.int32)}),
        (r"indices has dtype uint32", lambda a: {"indices": a.indices.astype(np.uint32)}),
        (r"data has dtype float64", lambda a: {"data": a.data.astype(np.float64)}),
        (r"data has dtype float32, the format has uint16", lambda a: {"dtype": "bfloat16"}),
        (r"indptr has shape \(4,\)", lambda a: {"indptr": a.indptr[:-1]}),
        (r"indices has shape \(6,\), data makes it \(7,\)", lambda a: {"indices": a.indices[:-1]}),
    ],
)
def test_csr(message: str, damage: Callable[[CSR], dict[str, Any]]) -> None:
    breaks(csr(), message, **damage(csr()))


def test_csr_rows_may_fall_where_the_next_begins() -> None:
    """Columns start again in each row, empty rows in between or not: no false alarm."""
    indptr = np.array([0, 0, 2, 2, 2, 3, 3], dtype=np.int64)
    a = CSR((6, 5), indptr, np.array([3, 4, 0], dtype=np.uint16), np.ones(3, dtype=np.float32))
    assert a.nnz == 3


def test_csr_sixteen_bit_columns_only_where_they_fit() -> None:
    narrow = CSR.from_dense(np.eye(1, 65536, 65535, dtype=np.float32))
    wide = CSR.from_dense(np.eye(1, 65537, 65536, dtype=np.float32))
    assert narrow.indices.dtype == np.uint16
    assert wide.indices.dtype == np.int32
    assert narrow.indices[0] == 65535
    assert wide.indices[0] == 65536
    breaks(narrow, "uint16 but K is 65537", shape=(1, 65537))


def test_csr_beyond_32_bits() -> None:
    """No dense array of this size could exist; coordinates and rows can."""
    last = 2**40 - 1
    coo = COO((2, 2**40), np.array([1, 0]), np.array([last, 5]), np.array([1.0, 2.0], dtype=np.float32))
    a = CSR.from_coo(coo)
    assert a.indices.dtype == np.int64
    assert a.indices.tolist() == [5, last]


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"row\[3\] is 4, out of range for shape \(4, 10\)", lambda a: {"row": edited(a.row, at=3, to=4)}),
        (r"col\[0\] is -1, out of range", lambda a: {"col": edited(a.col, at=0, to=-1)}),
        (r"col has shape \(6,\)", lambda a: {"col": a.col[:-1]}),
        (r"row has dtype int32 and col int64", lambda a: {"col": a.col.astype(np.int64)}),
        (r"row has dtype uint16", lambda a: {"row": a.row.astype(np.uint16)}),
    ],
)
def test_coo(message: str, damage: Callable[[COO], dict[str, Any]]) -> None:
    coo = COO.from_dense(DENSE)
    breaks(coo, message, **damage(coo))


def test_coo_sums_duplicates_in_float32_and_rounds_once() -> None:
    bits = np.full(3, 0x3F80, dtype=np.uint16)  # three times 1.0
    small = np.array([0x3B80] * 3, dtype=np.uint16)  # three times 2^-8, each lost if 1.0 + 2^-8 were rounded at once
    place = np.zeros(6, dtype=np.int32)
    coo = COO((1, 1), place, place, np.concatenate((bits[:1], small, bits[1:])), "bfloat16")
    assert coo.coalesced().to_dense()[0, 0] == 3.015625  # 3 + 3/256 rounded to the nearest 1/64


def test_coo_in_order_is_not_copied() -> None:
    coo = COO.from_dense(DENSE)
    assert coo.coalesced() is coo


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"has bits set beyond column 10", lambda a: {"bits": edited(a.bits, at=(1, 1), to=0b100)}),
        (r"bits has 8 bits set but data holds 7", lambda a: {"bits": edited(a.bits, at=(1, 0), to=1)}),
        (r"bits has 7 bits set but data holds 6", lambda a: {"data": a.data[:-1]}),
        (r"bits has shape \(4, 1\)", lambda a: {"bits": np.ascontiguousarray(a.bits[:, :1])}),
        (r"bits has dtype int8", lambda a: {"bits": a.bits.astype(np.int8)}),
    ],
)
def test_bitmask(message: str, damage: Callable[[Bitmask], dict[str, Any]]) -> None:
    mask = Bitmask.from_dense(DENSE)
    breaks(mask, message, **damage(mask))


@pytest.mark.parametrize("columns", [8, 60, 63, 64, 65, 128])
def test_bitmask_counts_bits_however_rows_are_cut(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = np.random.default_rng(columns).integers(0, 2, (9, columns)).astype(np.float32)
    expected = [0, *np.cumsum(np.count_nonzero(dense, axis=1)).tolist()]
    assert Bitmask.from_dense(dense).indptr.tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # as NumPy 1 is
    assert Bitmask.from_dense(dense).indptr.tolist() == expected


def test_bitmask_layout() -> None:
    mask = Bitmask.from_dense(DENSE)
    assert mask.bits.tolist() == [[0b1010, 0], [0, 0], [0b101, 0b10], [0b10000, 0b1]]
    assert mask.indptr.tolist() == [0, 2, 2, 5, 7]
    np.testing.assert_array_equal(mask.mask(), DENSE != 0)


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (r"indptr\[1\] is -1 after 0", lambda a: {"indptr": edited(a.indptr, at=1, to=-1)}),
        (r"indices\[1\] is 5, out of range for 5", lambda a: {"indices": edited(a.indices, at=1, to=5)}),
        (r"is there twice in row 0", lambda a: {"indices": edited(a.indices, at=1, to=0)}),
        (r"data has shape \(5, 2, 2\)", lambda a: {"data": a.data[:-1]}),
        (r"indices has dtype int64", lambda a: {"indices": a.indices.astype(np.int64)}),
    ],
)
def test_bsr(message: str, damage: Callable[[BSR], dict[str, Any]]) -> None:
    bsr = BSR.from_dense(DENSE, block=(2, 2))
    assert bsr.indices.tolist() == [0, 1, 0, 1, 2, 4]
    breaks(bsr, message, **damage(bsr))


@pytest.mark.parametrize("block", [None, (0, 2), (2,), (2, 2, 2), (1.5, 2), "ab", 4, (-1, 2)])
def test_bsr_refuses_blocks_that_are_none(block: Any) -> None:
    with pytest.raises(InvalidArgument, match="block"):
        BSR.from_dense(DENSE, block=block)


def test_bsr_block_must_divide_the_shape() -> None:
    with pytest.raises(ShapeError, match=r"block is \(3, 2\), it must divide shape \(4, 10\)"):
        BSR.from_dense(DENSE, block=(3, 2))


NM_DENSE = np.array([[1, 0, 0, 2, 0, 0, 0, 0], [0, 3, 0, 0, 0, 4, 5, 0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        (
            r"indices\[0, 0, 1\] is 4, out of range for groups of 4",
            lambda a: {"indices": edited(a.indices, at=(0, 0, 1), to=4)},
        ),
        (r"indices\[1, 1, 1\] is 1 after 1", lambda a: {"indices": edited(a.indices, at=(1, 1, 1), to=1)}),
        (r"indices\[0, 0, 1\] is 0 after 0", lambda a: {"indices": edited(a.indices, at=(0, 0, 1), to=0)}),
        (r"data has shape \(2, 1, 2\)", lambda a: {"data": np.ascontiguousarray(a.data[:, :1])}),
        (r"indices has dtype int64", lambda a: {"indices": a.indices.astype(np.int64)}),
    ],
)
def test_nm(message: str, damage: Callable[[NM], dict[str, Any]]) -> None:
    nm = NM.from_dense(NM_DENSE, n=2, m=4)
    breaks(nm, message, **damage(nm))


def test_nm_fills_short_groups_at_their_lowest_free_positions() -> None:
    nm = NM.from_dense(NM_DENSE, n=2, m=4)
    assert nm.indices.tolist() == [[[0, 3], [0, 1]], [[0, 1], [1, 2]]]
    assert nm.data.tolist() == [[[1, 2], [0, 0]], [[0, 3], [4, 5]]]
    assert nm.nnz == 8
    assert nm.to_coo().nnz == 5


def test_nm_refuses_a_full_group() -> None:
    with pytest.raises(FormatError, match=r"row 1 has 2 entries in columns 4 to 7, 1:4 allows 1"):
        NM.from_dense(NM_DENSE * (np.arange(8) > 0), n=1, m=4)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (2, 257), (-1, 4), (1.0, 4), (True, 4), (None, 4), (2, None)])
def test_nm_refuses_patterns_that_are_none(n: Any, m: Any) -> None:
    with pytest.raises(InvalidArgument, match="n"):
        NM.from_dense(NM_DENSE, n=n, m=m)


def test_nm_must_divide_k() -> None:
    with pytest.raises(ShapeError, match="m is 3, it must divide K = 8"):
        NM.from_dense(NM_DENSE, n=1, m=3)


def test_nm_takes_groups_of_256() -> None:
    dense = np.zeros((2, 512), dtype=np.float32)
    dense[0, 255] = dense[1, 511] = 1.0
    np.testing.assert_array_equal(NM.from_dense(dense, n=1, m=256).to_dense(), dense)


def test_what_rounds_to_zero_is_not_stored() -> None:
    dense = np.array([[1.0, 1e-9, -1e-9, -0.0]], dtype=np.float32)
    assert CSR.from_dense(dense).nnz == 3
    assert CSR.from_dense(dense, dtype="float16").nnz == 1
    assert CSR.from_dense(dense, dtype="bfloat16").nnz == 3
    assert CSR.from_dense(dense.astype(np.float64) * 1e-40).nnz == 1


def test_formats_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        csr().shape = (1, 1)  # type: ignore[misc]


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match=r"choose one of: .*bitmask.*csr"):
        csr().convert("csr5")
    with pytest.raises(InvalidArgument, match="block is not a parameter of csr"):
        BSR.from_dense(DENSE, block=(2, 2)).convert("csr", block=(2, 2))
    with pytest.raises(DtypeError, match="'float8'"):
        csr().astype("float8")
    with pytest.raises(InvalidArgument, match="use from_dense"):
        CSR.from_scipy(DENSE)


def test_a_tensor_elsewhere_than_on_the_cpu_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidArgument, match=r"is on meta, not on the CPU"):
        CSR.from_dense(torch.zeros(4, 4, device="meta"))
    with pytest.raises(InvalidArgument, match="layout"):
        CSR.from_dense(torch.eye(4).to_sparse())
    with pytest.raises(DtypeError, match="int64"):
        CSR.from_dense(torch.zeros(4, 4, dtype=torch.int64))
