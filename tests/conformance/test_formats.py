"""Every format of the registry: round trips, sizes, and what the base class promises."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zeroskip import FormatError, InvalidArgument
from zeroskip.formats import COO, DTYPES, FLOATS, INTEGERS, SparseMatrix, registry, to_bits, to_float32, value_bytes
from zeroskip.testing import random_matrix, random_nm

PARAMS: dict[str, dict[str, object]] = {
    "bsr": {"block": (4, 2)},
    "nm": {"n": 2, "m": 4},
    "sell": {"c": 4, "sigma": 8},
    "vnm": {"v": 4, "n": 2, "m": 4},
}
FORMATS = registry.names()
# Their padding has the column -1 and is no entry; any other format has a place for each element of `data`.
MARKED = ("ell", "sell")


def sample(name: str, dtype: str = "float32", shape: tuple[int, int] = (24, 40), **how: object) -> SparseMatrix:
    return random_matrix(shape, 0.7, seed=3, format=name, dtype=dtype, **PARAMS.get(name, {}), **how)  # type: ignore[arg-type]


def test_all_formats_are_found() -> None:
    assert set(FORMATS) >= {"coo", "csr", "csc", "bitmask", "bsr", "nm", "vnm", "ell", "sell", "dia"}
    assert not registry.unavailable


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FORMATS)
def test_dense_round_trip_is_exact(name: str, dtype: str) -> None:
    dense = random_nm((24, 40), 2, 4, seed=1)
    a = registry.get(name).from_dense(dense, dtype=dtype, **PARAMS.get(name, {}))
    np.testing.assert_array_equal(a.to_dense(), to_float32(to_bits(dense, dtype), dtype))
    assert a.dtype == dtype
    assert a.shape == (24, 40)
    assert a.to_dense().dtype == np.float32


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("name", FORMATS)
def test_converts_to_every_other(name: str, target: str) -> None:
    a = registry.get(name).from_dense(random_nm((24, 40), 2, 4, seed=2), **PARAMS.get(name, {}))
    b = a.convert(target, **PARAMS.get(target, {}))
    assert b.name == target
    np.testing.assert_array_equal(a.to_dense(), b.to_dense())


@pytest.mark.parametrize("name", FORMATS)
def test_converts_to_itself_without_a_copy(name: str) -> None:
    a = sample(name)
    assert a.convert(name, **PARAMS.get(name, {})) is a
    assert a.convert(name) is a
    assert a.astype("float32") is a


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_arrays_rebuild_it(name: str, dtype: str) -> None:
    a = sample(name, dtype)
    params = json.loads(json.dumps(a.params))
    b = registry.get(name).from_arrays(a.shape, a.dtype, a.arrays(), params)
    np.testing.assert_array_equal(a.to_dense(), b.to_dense())
    assert b.params == a.params
    rest = sum(array.nbytes for key, array in a.arrays().items() if key != "data")
    assert a.nbytes == rest + value_bytes(a.data.size, dtype)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_scales_survive_conversion(name: str, target: str, dtype: str, group: int, symmetric: bool) -> None:
    """The same codes at the same places, however often it is converted; only what is 0 may come and go as padding."""
    nm = random_matrix((24, 40), 0.0, seed=2, format="nm", n=2, m=4, dtype=dtype, group=group, symmetric=symmetric)
    a = nm.convert(name, **PARAMS.get(name, {}))
    b = a.convert(target, **PARAMS.get(target, {}))
    assert b.name == target
    assert b.dtype == dtype
    assert b.scales is nm.scales
    np.testing.assert_array_equal(b.to_dense(), nm.to_dense())
    back = b.convert("nm", n=2, m=4)
    np.testing.assert_array_equal(back.to_coo().data, nm.to_coo().data)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", FORMATS)
def test_values_come_in_the_order_of_the_entries(name: str, dtype: str, symmetric: bool) -> None:
    for a in (sample(name), sample(name, dtype, group=32, symmetric=symmetric)):
        rows, cols, _ = a.entries()
        np.testing.assert_array_equal(a.values(), a.to_dense()[rows, cols])
        down, right = (np.broadcast_to(place, a.data.shape) for place in a.places())
        expected = a.to_dense()[down, right]
        if name in MARKED:
            expected[a.indices < 0] = 0.0  # type: ignore[attr-defined]
        np.testing.assert_array_equal(a.decoded(), expected)
        assert a.decoded().shape == a.data.shape


@pytest.mark.parametrize("name", FORMATS)
def test_from_arrays_refuses_missing_and_unknown(name: str) -> None:
    a = sample(name)
    cls = registry.get(name)
    arrays = a.arrays()
    with pytest.raises(FormatError, match="arrays are"):
        cls.from_arrays(a.shape, a.dtype, {**arrays, "extra": a.data}, a.params)
    with pytest.raises(FormatError, match="arrays are"):
        cls.from_arrays(a.shape, a.dtype, {key: arrays[key] for key in list(arrays)[1:]}, a.params)
    with pytest.raises(FormatError, match="params are"):
        cls.from_arrays(a.shape, a.dtype, arrays, {**a.params, "more": 1})


@pytest.mark.parametrize("name", FORMATS)
def test_every_array_is_checked(name: str) -> None:
    """Whatever array is cut, of another dtype, of more dimensions, or no array at all: a FormatError that names it."""
    a = sample(name)
    cls = registry.get(name)
    for key, array in a.arrays().items():
        other = array.astype(np.float64)
        strided = np.repeat(array, 2, axis=array.ndim - 1)[..., ::2]
        swapped = array.astype(array.dtype.newbyteorder()) if array.itemsize > 1 else array.astype(np.int8)
        for bad in (array[:-1], array[..., None], other, array.tolist(), strided, swapped):
            with pytest.raises(FormatError, match=rf"{key}|data|indptr"):
                cls.from_arrays(a.shape, a.dtype, {**a.arrays(), key: bad}, a.params)


@pytest.mark.parametrize("name", FORMATS)
def test_a_wrong_shape_is_refused(name: str) -> None:
    a = sample(name)
    cls = registry.get(name)
    for shape in ((24, 16), (48, 40), (8, 40)):
        if name in ("coo", "csc") and shape == (48, 40):
            continue  # coordinates, and columns of row numbers, fit any taller matrix
        with pytest.raises((FormatError, InvalidArgument)):
            cls.from_arrays(shape, a.dtype, a.arrays(), a.params)
    for bad in ((24,), (24, 40, 1), (0, 40), (-1, 40), (24.5, 40), "ab", (2**40, 2**40), None):
        with pytest.raises(InvalidArgument, match="shape is"):
            cls.from_arrays(bad, a.dtype, a.arrays(), a.params)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_sizes_agree(name: str) -> None:
    a = sample(name)
    assert a.nnz == len(a.entries().rows) == a.data.size - (np.sum(a.indices < 0) if name in MARKED else 0)  # type: ignore[attr-defined]
    assert a.density == pytest.approx(a.nnz / (24 * 40))
    assert a.sparsity == pytest.approx(1 - a.density)
    assert f"nnz={a.nnz}" in repr(a)
    assert f"shape={a.shape}" in repr(a)


@pytest.mark.parametrize("name", FORMATS)
def test_entries_are_in_row_order(name: str) -> None:
    rows, cols, _ = sample(name).entries()
    key = rows * 40 + cols
    assert (np.diff(key) > 0).all()
    assert rows.dtype == cols.dtype == np.int64


@pytest.mark.parametrize("name", FORMATS)
def test_no_entries(name: str) -> None:
    a = registry.get(name).from_dense(np.zeros((8, 16)), **PARAMS.get(name, {}))
    assert not a.to_dense().any()
    assert a.to_coo().nnz == 0


@pytest.mark.parametrize("name", FORMATS)
def test_nan_and_inf_are_entries(name: str) -> None:
    dense = np.zeros((8, 16), dtype=np.float32)
    dense[1, 2], dense[3, 4], dense[5, 6] = np.nan, np.inf, -np.inf
    a = registry.get(name).from_dense(dense, **PARAMS.get(name, {}))
    np.testing.assert_array_equal(a.to_dense(), dense)


@pytest.mark.parametrize("name", FORMATS)
def test_scipy_round_trip(name: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    a = sample(name)
    there = a.to_scipy()
    assert sparse.issparse(there)
    np.testing.assert_array_equal(there.toarray(), a.to_dense())
    for kind in ("csr", "csc", "coo", "bsr", "lil"):
        b = registry.get(name).from_scipy(there.asformat(kind), **PARAMS.get(name, {}))
        np.testing.assert_array_equal(b.to_dense(), a.to_dense())


@pytest.mark.parametrize("name", FORMATS)
def test_torch_and_dlpack_in(name: str) -> None:
    torch = pytest.importorskip("torch")
    dense = random_nm((24, 40), 2, 4, seed=4)
    cls, params = registry.get(name), PARAMS.get(name, {})

    class Producer:
        def __dlpack__(self, **kwargs: object) -> object:
            return dense.__dlpack__(**kwargs)  # type: ignore[arg-type]

        def __dlpack_device__(self) -> object:
            return dense.__dlpack_device__()

    grown = torch.nn.Parameter(torch.from_numpy(dense.copy()))
    for given in (torch.from_numpy(dense), grown, torch.from_numpy(dense.T.copy()).t(), Producer()):
        np.testing.assert_array_equal(cls.from_dense(given, **params).to_dense(), dense)
    half = torch.from_numpy(dense).to(torch.bfloat16)
    a = cls.from_dense(half, dtype="bfloat16", **params)
    np.testing.assert_array_equal(a.to_dense(), half.float().numpy())


@pytest.mark.parametrize("name", FORMATS)
def test_bad_dense_input_is_refused(name: str) -> None:
    cls, params = registry.get(name), PARAMS.get(name, {})
    for bad, message in (
        (np.zeros(4, dtype=np.float32), "dimensions"),
        (np.zeros((4, 4, 4), dtype=np.float32), "dimensions"),
        (np.zeros((8, 8), dtype=np.int64), "dtype int64"),
        (np.zeros((8, 8), dtype=np.complex64), "dtype complex64"),
        ([[1.0, 2.0]], "list"),
        (np.zeros((0, 8), dtype=np.float32), "shape is"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            cls.from_dense(bad, **params)
    with pytest.raises(InvalidArgument, match="bfloat16"):
        cls.from_dense(np.zeros((8, 8)), dtype="int8", **params)
    with pytest.raises(InvalidArgument, match="nonsense"):
        cls.from_dense(np.zeros((8, 8)), nonsense=1, **params)


def test_duplicates_are_summed_on_the_way_out_of_coo() -> None:
    row, col = np.array([2, 0, 2, 2], dtype=np.int32), np.array([1, 3, 1, 0], dtype=np.int32)
    coo = COO((4, 4), row, col, np.array([1.5, 2.0, 0.25, 4.0], dtype=np.float32))
    assert coo.nnz == 4
    for name in FORMATS:
        a = coo.convert(name, **PARAMS.get(name, {}))
        assert a.to_dense()[2, 1] == 1.75
        assert a.to_dense()[0, 3] == 2.0
        if name in ("csr", "csc", "bitmask", *MARKED):
            assert a.nnz == 3
