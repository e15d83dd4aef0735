"""Codes with scales: what they mean, which rules they keep, and what they weigh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zeroskip import DtypeError, FormatError, InvalidArgument
from zeroskip.formats import (
    CODES,
    COO,
    CSR,
    INTEGERS,
    NM,
    DenseMatrix,
    Scales,
    SparseMatrix,
    pack_nibbles,
    registry,
    unpack_nibbles,
)

PARAMS: dict[str, dict[str, Any]] = {
    "bsr": {"block": (2, 2)},
    "nm": {"n": 2, "m": 4},
    "vnm": {"v": 2, "n": 2, "m": 4},
}
FORMATS = registry.names()


def grid(columns: int = 1, value: float = 0.5, rows: int = 4) -> np.ndarray:
    return np.full((rows, columns), value, dtype=np.float16)


def sample(zeros: bool = True, dtype: str = "int8") -> CSR:
    """4 x 70 in groups of 32: codes 5 and -3 in row 0, 7 in row 2; zero points 2, 1 and 0 by group."""
    scales = np.array([[0.5, 2.0, 1.0]] * 4, dtype=np.float16)
    points = np.array([[2, 1, 0]] * 4, dtype=np.int8) if zeros else None
    indptr = np.array([0, 2, 2, 3, 3], dtype=np.int64)
    indices = np.array([31, 32, 69], dtype=np.uint16)
    return CSR((4, 70), indptr, indices, np.array([5, -3, 7], dtype=np.int8), dtype, Scales(scales, 32, points))


def test_what_codes_mean() -> None:
    a = sample()
    dense = a.to_dense()
    assert dense[0, 31] == (5 - 2) * 0.5
    assert dense[0, 32] == (-3 - 1) * 2.0
    assert dense[2, 69] == 7 * 1.0
    assert np.count_nonzero(dense) == 3
    np.testing.assert_array_equal(a.values(), [1.5, -8.0, 7.0])
    np.testing.assert_array_equal(a.decoded(), a.values())
    np.testing.assert_array_equal(sample(zeros=False).values(), [2.5, -6.0, 7.0])
    assert not a.astype("float32").dtype.startswith("int")
    np.testing.assert_array_equal(a.astype("float32").to_dense(), dense)
    np.testing.assert_array_equal(a.to_scipy().toarray(), dense)
    assert "group=32" in repr(a)


def test_every_product_is_exact_in_float32() -> None:
    """All differences of codes times float16 scales of every exponent, against float64."""
    scales = np.array([[2.0**-24, 6.0e-8, 2.0**-14, 0.333, 1.999, 65504.0]], dtype=np.float16)
    for code in range(-127, 128):
        for zero in (-127, 0, 127):
            meaning = Scales(scales, 32, np.full((1, 6), zero, dtype=np.int8))
            codes = np.full(6, code, dtype=np.int8)
            found = meaning.decode(codes, np.zeros(6, dtype=int), np.arange(6) * 32)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found.astype(np.float64), (code - zero) * scales[0].astype(np.float64))


@pytest.mark.parametrize(
    ("message", "make"),
    [
        (
            r"values\[1, 0\] is 0\.0, a scale is finite and above 0",
            lambda: Scales(np.array([[1], [0]], dtype=np.float16)),
        ),
        (r"values is float64", lambda: Scales(grid().astype(np.float64))),
        (r"values\[0, 0\] is nan", lambda: Scales(grid(value=np.nan))),
        (r"values\[0, 0\] is inf", lambda: Scales(grid(value=np.inf))),
        (r"values\[0, 0\] is -0\.5", lambda: Scales(grid(value=-0.5))),
        (r"values is float16 of shape \(4,\)", lambda: Scales(grid()[:, 0])),
        (r"values is list", lambda: Scales([[1.0]])),
        (r"values is not C-contiguous", lambda: Scales(grid(6)[:, ::2], 32)),
        (r"zeros is int64", lambda: Scales(grid(), 0, np.zeros((4, 1), dtype=np.int64))),
        (r"zeros has shape \(3, 1\) and values \(4, 1\)", lambda: Scales(grid(), 0, np.zeros((3, 1), dtype=np.int8))),
    ],
)
def test_scales_that_are_none(message: str, make: Callable[[], Scales]) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", [1, 16, 33, 256, -32, 32.5, True, None, "32"])
def test_other_groups_are_refused(group: Any) -> None:
    with pytest.raises(InvalidArgument, match="choose one of: 0, 32, 64, 128"):
        Scales(grid(), group)


@pytest.mark.parametrize("name", FORMATS)
def test_codes_need_scales_and_numbers_have_none(name: str) -> None:
    floats = registry.get(name).from_dense(np.eye(4, 8, dtype=np.float32), **PARAMS.get(name, {}))
    codes = np.zeros(floats.data.shape, dtype=np.int8)
    with pytest.raises(DtypeError, match="scales is None but dtype is int8"):
        dataclasses.replace(floats, data=codes, dtype="int8")  # type: ignore[type-var]
    with pytest.raises(DtypeError, match="scales are given but dtype is float32"):
        dataclasses.replace(floats, scales=Scales(grid()))  # type: ignore[type-var]
    with pytest.raises(DtypeError, match="scales is a ndarray"):
        dataclasses.replace(floats, data=codes, dtype="int8", scales=grid())  # type: ignore[type-var]
    for wrong in (Scales(grid(2)), Scales(grid(rows=5)), Scales(grid(2), 32)):
        with pytest.raises(FormatError, match=r"scales has shape .* makes it \(4, 1\)"):
            dataclasses.replace(floats, data=codes, dtype="int4", scales=wrong)  # type: ignore[type-var]
    with pytest.raises(FormatError, match="data has dtype float32, the format has int8"):
        dataclasses.replace(floats, dtype="int8", scales=Scales(grid()))  # type: ignore[type-var]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("dtype", "code"), [("int8", -128), ("int4", -9), ("int4", 8), ("int4", 127)])
def test_codes_out_of_range_are_refused(name: str, dtype: str, code: int) -> None:
    floats = registry.get(name).from_dense(np.eye(4, 8, dtype=np.float32), **PARAMS.get(name, {}))
    codes = np.zeros(floats.data.shape, dtype=np.int8)
    codes.reshape(-1)[-1] = code
    low, high = CODES[dtype]
    with pytest.raises(FormatError, match=rf"data\[.*\] is {code}, {dtype} codes lie in \[{low}, {high}\]"):
        dataclasses.replace(floats, data=codes, dtype=dtype, scales=Scales(grid()))  # type: ignore[type-var]
    zeros = np.zeros((4, 1), dtype=np.int8)
    zeros[2, 0] = code
    codes[...] = 0
    scales = Scales(grid(), 0, zeros)
    with pytest.raises(FormatError, match=rf"zeros\[2, 0\] is {code}"):
        dataclasses.replace(floats, data=codes, dtype=dtype, scales=scales)  # type: ignore[type-var]


def test_duplicates_of_codes_are_refused() -> None:
    row, col = np.array([2, 0, 2], dtype=np.int32), np.array([1, 3, 1], dtype=np.int32)
    with pytest.raises(FormatError, match="entry 2 is at row 2 and column 1 a second time"):
        COO((4, 8), row, col, np.array([1, 2, 3], dtype=np.int8), "int8", Scales(grid()))
    good = COO((4, 8), row[:2], col[:2], np.array([1, 2], dtype=np.int8), "int8", Scales(grid()))
    assert good.coalesced().row.tolist() == [0, 2]
    assert good.coalesced().data.tolist() == [2, 1]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_numbers_are_not_rounded_to_codes_without_scales(dtype: str) -> None:
    dense = np.eye(4, 8, dtype=np.float32)
    for work in (
        lambda: CSR.from_dense(dense, dtype=dtype),
        lambda: CSR.from_dense(dense).astype(dtype),
        lambda: CSR.from_scipy(CSR.from_dense(dense).to_scipy(), dtype=dtype),
        lambda: sample(dtype="int8" if dtype == "int4" else "int4").astype(dtype),
    ):
        with pytest.raises(DtypeError, match=r"values need scales.*zeroskip.quantize.quantize"):
            work()


def test_padding_is_the_code_that_means_zero() -> None:
    """Every column has another zero point; formats that pad fill up with it, and leave it out again."""
    zeros = np.array([[3, -4]] * 4, dtype=np.int8)
    scales = Scales(grid(2), 32, zeros)
    coo = COO((4, 40), *(np.array([1, 2], dtype=np.int32),) * 2, np.array([6, -7], dtype=np.int8), "int4", scales)
    for name in ("nm", "bsr", "vnm", "dia"):
        params = {**PARAMS, "bsr": {"block": (2, 4)}}.get(name, {})
        a = coo.convert(name, **params)
        np.testing.assert_array_equal(a.to_dense(), coo.to_dense())
        assert a.nnz > 2
        assert np.count_nonzero(a.values()) == 2
        assert set(a.data.ravel().tolist()) <= {6, -7, 3, -4}
        assert a.to_coo().data.tolist() == [6, -7]
        assert a.to_coo().scales is scales
    nm = coo.convert("nm", n=1, m=8)
    assert isinstance(nm, NM)
    assert nm.data[0].ravel().tolist() == [3, 3, 3, 3, -4]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("zeros", [False, True])
def test_sizes_count_two_int4_codes_as_a_byte(name: str, zeros: bool) -> None:
    floats = registry.get(name).from_dense(np.eye(4, 12, dtype=np.float32)[:, :12], **PARAMS.get(name, {}))
    codes = np.ones(floats.data.shape, dtype=np.int8)
    scales = Scales(grid(), 0, np.zeros((4, 1), dtype=np.int8) if zeros else None)
    rest = floats.nbytes - 4 * floats.data.size
    extra = 4 * 3 if zeros else 4 * 2
    for dtype, count in (("int8", codes.size), ("int4", -(-codes.size // 2))):
        a: SparseMatrix = dataclasses.replace(floats, data=codes, dtype=dtype, scales=scales)  # type: ignore[type-var]
        assert a.nbytes == rest + count + extra
    assert DenseMatrix(np.zeros((4, 5), dtype=np.int8), "int4", scales).nbytes == 10 + extra
    assert DenseMatrix(np.zeros((4, 5), dtype=np.float16), "float16").nbytes == 40


def test_an_odd_count_takes_the_byte_whole() -> None:
    assert sample(dtype="int4").nbytes == 5 * 8 + 3 * 2 + 2 + 4 * 3 * 3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 16, 17])
def test_nibbles(count: int) -> None:
    codes = ((np.arange(count) * 7) % 16 - 8).astype(np.int8)
    packed = pack_nibbles(codes)
    assert packed.dtype == np.uint8
    assert packed.size == (count + 1) // 2
    np.testing.assert_array_equal(unpack_nibbles(packed, (count,)), codes)
    for wrong in (count + 2, max(0, count - 2)):
        if (wrong + 1) // 2 != packed.size:
            with pytest.raises(FormatError, match=f"{wrong} int4 codes take"):
                unpack_nibbles(packed, (wrong,))


def test_nibbles_low_half_first_and_nothing_above_an_odd_one() -> None:
    assert pack_nibbles(np.array([1, -2, 3], dtype=np.int8)).tolist() == [0xE1, 0x03]
    codes = np.array([[1, -8], [7, -1]], dtype=np.int8)
    np.testing.assert_array_equal(unpack_nibbles(pack_nibbles(codes), (2, 2)), codes)
    with pytest.raises(FormatError, match=r"upper half of data\[1\] is 5"):
        unpack_nibbles(np.array([0xE1, 0x53], dtype=np.uint8), (3,))


def test_from_arrays_takes_scales() -> None:
    a = sample()
    assert list(a.arrays()) == ["indptr", "indices", "data", "scales", "zeros"]
    b = CSR.from_arrays(a.shape, a.dtype, a.arrays(), {}, group=32)
    np.testing.assert_array_equal(a.to_dense(), b.to_dense())
    with pytest.raises(FormatError, match="makes it"):
        CSR.from_arrays(a.shape, a.dtype, a.arrays(), {})
    with pytest.raises(DtypeError, match="scales is None"):
        CSR.from_arrays(a.shape, a.dtype, {key: a.arrays()[key] for key in CSR.array_names}, {}, group=32)
    with pytest.raises(FormatError, match="arrays are"):
        CSR.from_arrays(a.shape, "float32", a.arrays(), {}, group=32)


def test_dense_matrices() -> None:
    codes = np.arange(-4, 4, dtype=np.int8).reshape(2, 4)
    a = DenseMatrix(codes, "int4", Scales(grid(rows=2), 0, np.array([[1], [0]], dtype=np.int8)))
    np.testing.assert_array_equal(a.to_dense(), [[-2.5, -2.0, -1.5, -1.0], [0.0, 0.5, 1.0, 1.5]])
    assert a.sparsity == 1 / 8
    np.testing.assert_array_equal(a.astype("bfloat16").to_dense(), a.to_dense())
    assert a.astype("int4") is a
    with pytest.raises(DtypeError, match="DenseMatrix: scales is None"):
        DenseMatrix(codes, "int8")
    with pytest.raises(FormatError, match="data has 1 dimensions"):
        DenseMatrix(codes[0], "int8", a.scales)
    with pytest.raises(FormatError, match=r"data\[0, 0\] is 9"):
        DenseMatrix(codes + np.int8(13), "int4", a.scales)
