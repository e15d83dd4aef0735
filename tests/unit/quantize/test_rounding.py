"""quantize: nothing clips, everything is nearest, and what cannot be quantised is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zeroskip
from zeroskip import DtypeError, InvalidArgument
from zeroskip.formats import CODES, COO, CSR, DenseMatrix, registry
from zeroskip.quantize import dequantize, quantize, rounding
from zeroskip.testing import random_dense, random_matrix

PARAMS: dict[str, dict[str, Any]] = {
    "bsr": {"block": (4, 2)},
    "nm": {"n": 2, "m": 4},
    "vnm": {"v": 4, "n": 2, "m": 8},
}
SMALLEST = 2.0**-24


def per_element(a: Any) -> np.ndarray:
    """The scale of each element of the matrix, float64."""
    width = a.scales.group or a.shape[1]
    return np.repeat(a.scales.values.astype(np.float64), width, axis=1)[:, : a.shape[1]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [0, 32, 64, 128])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["dense", *registry.names()])
def test_each_weight_is_off_by_half_a_scale_at_most(name: str, dtype: str, group: int, symmetric: bool) -> None:
    dense = random_dense((24, 200), seed=5) * np.logspace(-3, 3, 200, dtype=np.float32)
    a: Any = DenseMatrix(dense, "float32")
    if name != "dense":
        a = random_matrix((24, 200), 0.6, seed=3, format=name, **PARAMS.get(name, {}))
    q = quantize(a, dtype, group=group, symmetric=symmetric)
    assert type(q) is type(a)
    assert (q.dtype, q.scales.group, q.scales.symmetric) == (dtype, group, symmetric)
    exact, found = a.to_dense().astype(np.float64), q.to_dense().astype(np.float64)
    assert (np.abs(found - exact) <= per_element(q) / 2).all()
    assert (found[exact == 0] == 0).all()
    codes = q.data.astype(int)
    assert CODES[dtype][0] <= codes.min() <= codes.max() <= CODES[dtype][1]
    np.testing.assert_array_equal(dequantize(q).to_dense(), q.to_dense())
    assert dequantize(q).dtype == "float32"


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_scales_are_the_smallest_float16_that_clips_nothing(dtype: str) -> None:
    dense = random_dense((50, 64), seed=1)
    scales = quantize(DenseMatrix(dense, "float32"), dtype, group=32).scales
    assert scales is not None
    largest = np.abs(dense).reshape(50, 2, 32).max(axis=2).astype(np.float64)
    top = CODES[dtype][1]
    assert (scales.values.astype(np.float64) * top >= largest).all()
    below = np.nextafter(scales.values, np.float16(0)).astype(np.float64)
    assert (below * top < largest).all()


def test_a_range_that_the_scale_divides_is_exact() -> None:
    for dtype in ("int8", "int4"):
        low, high = CODES[dtype]
        row = np.arange(low, high + 1, dtype=np.float32)[None] * np.float32(0.25)
        for symmetric in (True, False):
            if symmetric and low != -high:
                continue  # -8 would need a scale of 8/7
            q = quantize(DenseMatrix(row, "float32"), dtype, symmetric=symmetric)
            np.testing.assert_array_equal(q.to_dense(), row)


def test_zero_points_use_the_codes_of_one_sided_groups() -> None:
    row = np.linspace(0.1, 3.0, 64, dtype=np.float32)[None]
    matrix = DenseMatrix(row, "float32")
    wide, narrow = quantize(matrix, "int4"), quantize(matrix, "int4", symmetric=False)
    assert narrow.scales is not None
    assert narrow.scales.zeros is not None
    assert narrow.scales.zeros[0, 0] == -8
    assert narrow.data.max() == 7
    errors = [float(((q.to_dense() - row) ** 2).mean()) for q in (wide, narrow)]
    assert errors[1] < errors[0] / 3
    below = quantize(DenseMatrix(-row, "float32"), "int4", symmetric=False)
    assert below.scales is not None
    assert below.scales.zeros is not None
    assert below.scales.zeros[0, 0] == 7


def test_rows_and_groups_without_entries_get_the_scale_one() -> None:
    dense = np.zeros((3, 70), dtype=np.float32)
    dense[1, 40] = 3.5
    q = quantize(CSR.from_dense(dense), "int4", group=32)
    assert q.scales is not None
    np.testing.assert_array_equal(q.scales.values, [[1, 1, 1], [1, 0.5, 1], [1, 1, 1]])
    zero = quantize(CSR((1, 4), np.array([0, 1]), np.array([2], dtype=np.uint16), np.zeros(1, dtype=np.float32)))
    assert zero.nnz == 1
    assert zero.scales is not None
    assert zero.scales.values[0, 0] == 1


@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_that_vanish_keep_a_scale_above_zero(symmetric: bool) -> None:
    row = np.array([[1e-45, -1e-30, 5e-9]], dtype=np.float32)
    q = quantize(DenseMatrix(row, "float32"), "int8", symmetric=symmetric)
    assert q.scales is not None
    assert q.scales.values[0, 0] == np.float16(SMALLEST)
    assert np.abs(q.to_dense() - row).max() <= SMALLEST / 2


def test_bfloat16_and_float16_weights_are_taken_as_they_are() -> None:
    a = random_matrix((16, 64), 0.5, seed=2)
    for dtype in ("bfloat16", "float16"):
        rounded = a.astype(dtype)
        np.testing.assert_array_equal(quantize(rounded).data, quantize(rounded.astype("float32")).data)


def test_duplicates_are_summed_first() -> None:
    row, col = np.array([0, 0], dtype=np.int32), np.array([1, 1], dtype=np.int32)
    q = quantize(COO((1, 2), row, col, np.array([1.0, 2.5], dtype=np.float32)))
    assert q.nnz == 1
    assert q.to_dense()[0, 1] == pytest.approx(3.5, rel=2e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["dense", "coo", "csr", "csc", "bitmask", "bsr", "ell", "sell", "dia"])
def test_weights_that_are_not_finite_are_refused_with_their_place(name: str, value: float) -> None:
    dense = random_dense((8, 80), seed=4)
    dense[6, 70] = value
    a: Any = DenseMatrix(dense, "float32")
    if name != "dense":
        a = registry.get(name).from_dense(dense, **PARAMS.get(name, {}))
    with pytest.raises(InvalidArgument, match=rf"a holds {value} in row 6, a weight must be finite"):
        quantize(a)
    with pytest.raises(InvalidArgument, match=r"in row 6 in columns 64 to 79,"):
        quantize(a, group=64)


def test_weights_too_large_for_a_float16_scale_are_refused() -> None:
    dense = np.array([[1.0, 65504.0 * 7]], dtype=np.float32)
    assert quantize(DenseMatrix(dense, "float32"), "int4").to_dense()[0, 1] == 65504.0 * 7
    dense[0, 1] *= 1.001
    with pytest.raises(InvalidArgument, match="may exceed float16's 65504"):
        quantize(DenseMatrix(dense, "float32"), "int4")
    with pytest.raises(InvalidArgument, match="may exceed"):
        quantize(DenseMatrix(np.array([[-5e5, 5e5]], dtype=np.float32), "float32"), "int4", symmetric=False)


def test_bad_arguments_are_named() -> None:
    a = random_matrix((8, 64), 0.5)
    with pytest.raises(DtypeError, match=r"dtype is 'float16', which has no scales; choose one of: int8, int4"):
        quantize(a, "float16")
    with pytest.raises(DtypeError, match=r"dtype is 'int2'"):
        quantize(a, "int2")
    with pytest.raises(InvalidArgument, match="group is 48"):
        quantize(a, group=48)
    with pytest.raises(DtypeError, match=r"a is int8 already; pass zeroskip\.quantize\.dequantize"):
        quantize(quantize(a), "int4")
    with pytest.raises(InvalidArgument, match="a is a ndarray, not a matrix"):
        quantize(a.to_dense())  # type: ignore[type-var]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [0, 32, 128])
def test_search_lowers_the_error_of_every_group_or_leaves_it(group: int, symmetric: bool) -> None:
    dense = random_dense((40, 256), seed=9)
    a = DenseMatrix(dense, "float32")
    errors = []
    for search in (False, True):
        q = quantize(a, "int4", group=group, symmetric=symmetric, search=search)
        squared = (q.to_dense().astype(np.float64) - dense) ** 2
        errors.append(squared.reshape(40, -1, group or 256).sum(axis=2))
    assert (errors[1] <= errors[0] * (1 + 1e-12)).all()
    assert errors[1].sum() < 0.97 * errors[0].sum()


def test_dense_matrices_go_in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = random_dense((21, 100), seed=6)
    whole = [quantize(DenseMatrix(dense, "float32"), "int4", group=32, symmetric=s, search=True) for s in (True, False)]
    monkeypatch.setattr(rounding, "_SLAB_ELEMS", 250)
    for q, symmetric in zip(whole, (True, False), strict=True):
        again = quantize(DenseMatrix(dense, "float32"), "int4", group=32, symmetric=symmetric, search=True)
        np.testing.assert_array_equal(again.data, q.data)
        np.testing.assert_array_equal(again.to_dense(), q.to_dense())
    dense[20, 99] = np.nan
    with pytest.raises(InvalidArgument, match="in row 20 in columns 96 to 99"):
        quantize(DenseMatrix(dense, "float32"), "int4", group=32)


def test_it_is_found_from_the_package() -> None:
    assert zeroskip.quantize.quantize is quantize


def by_definition(dense: np.ndarray, stored: np.ndarray, dtype: str, group: int, symmetric: bool, search: bool) -> Any:
    """Codes, scales and zero points one group after the other, as the documentation says, in float64."""
    first, last = CODES[dtype]
    width = group or dense.shape[1]
    codes = np.zeros(dense.shape, dtype=np.int64)
    grid = (dense.shape[0], -(-dense.shape[1] // width))
    scales, zeros = np.ones(grid, dtype=np.float16), np.zeros(grid, dtype=np.int64)

    def fitted(weights: list[float], ratio: float) -> tuple[np.float16, int, list[int], float]:
        low, high = min([0.0, *weights]) * ratio, max([0.0, *weights]) * ratio
        exact = max(-low, high) / last if symmetric else (high - low) / (last - first)
        scale = np.float16(exact) if exact > 0 else np.float16(1)
        if float(scale) < exact:
            scale = np.nextafter(scale, np.float16(np.inf))
        zero = 0 if symmetric else min(max(int(np.rint(first - low / float(scale))), first), last)
        found = [min(max(int(np.rint(weight / float(scale))) + zero, first), last) for weight in weights]
        error = 0.0
        for code, weight in zip(found, weights, strict=True):
            error += ((code - zero) * float(scale) - weight) ** 2
        return scale, zero, found, error

    for row, column in np.ndindex(grid):
        part = (row, slice(column * width, (column + 1) * width))
        weights = [float(weight) for weight in dense[part][stored[part]]]
        best = fitted(weights, 1.0)
        for ratio in rounding.RATIOS if search else ():
            trial = fitted(weights, ratio)
            best = trial if trial[3] < best[3] else best
        scales[row, column], zeros[row, column] = best[:2]
        codes[part][stored[part]] = best[2]
    return codes, scales, zeros


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", ["dense", "csr", "csc", "sell", "bitmask"])
def test_every_code_is_that_of_the_definition(
    name: str, dtype: str, symmetric: bool, search: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of any length, empty ones and ties among them, in chunks of any cut."""
    monkeypatch.setattr(rounding, "_CHUNK_ELEMS", 50)
    rng = np.random.default_rng(7)
    for group, columns in ((0, 17), (32, 40), (64, 130)):
        dense = rng.standard_t(3, (5, columns)) * (rng.random((5, columns)) < 0.6)
        dense[1], dense[2] = 0, np.round(dense[2] * 4) / 4
        dense = dense.astype(np.float32)
        a: Any = DenseMatrix(dense, "float32") if name == "dense" else registry.get(name).from_dense(dense)
        stored = np.ones(dense.shape, dtype=bool) if name == "dense" else dense != 0
        codes, scales, zeros = by_definition(dense, stored, dtype, group, symmetric, search)
        q = quantize(a, dtype, group=group, symmetric=symmetric, search=search)
        np.testing.assert_array_equal(q.scales.values, scales)
        if not symmetric:
            np.testing.assert_array_equal(q.scales.zeros, zeros)
        found = q.data if name == "dense" else np.zeros(dense.shape, dtype=np.int64)
        if name != "dense":
            entries = q.entries()
            found[entries.rows, entries.cols] = entries.data
        np.testing.assert_array_equal(found, codes)
