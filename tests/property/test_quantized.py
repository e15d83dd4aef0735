"""Properties of quantised matrices over random shapes, patterns, weights and settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zeroskip import DamagedFile, DtypeError, FormatError, InvalidArgument
from zeroskip.formats import CODES, GROUPS, INTEGERS, Scales, grid_shape, pack_nibbles, registry, unpack_nibbles
from zeroskip.quantize import quantize
from zeroskip.testing import random_vnm

FORMATS = registry.names()
SETTINGS = st.fixed_dictionaries(
    {"dtype": st.sampled_from(INTEGERS), "group": st.sampled_from(GROUPS), "symmetric": st.booleans()}
)
VALUES = st.one_of(st.just(0.0), st.floats(-1e5, 1e5, width=32, allow_subnormal=True))


@st.composite
def stored(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A float matrix in any format, and the parameters of that format."""
    name = draw(st.sampled_from(FORMATS))
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 150))
    params: dict[str, Any] = {}
    if name == "bsr":
        r, c = draw(st.integers(1, 4)), draw(st.integers(1, 5))
        rows, columns, params = -(-rows // r) * r, -(-columns // c) * c, {"block": (r, c)}
    if name == "vnm":
        v, m = draw(st.integers(1, 3)), draw(st.integers(4, 9))
        rows, columns, params = -(-rows // v) * v, -(-columns // m) * m, {"v": v, "n": draw(st.integers(1, 4)), "m": m}
    if name == "nm":
        m = draw(st.integers(1, 12))
        columns, params = -(-columns // m) * m, {"n": m, "m": m}
    dense = draw(hnp.arrays(np.float32, (rows, columns), elements=VALUES, fill=st.just(0.0)))
    if name == "vnm":
        dense *= random_vnm(dense.shape, **params, seed=rows) != 0
    if name == "nm":
        most = int((dense.reshape(rows, -1, params["m"]) != 0).sum(axis=2).max())
        params["n"] = draw(st.integers(max(1, most), params["m"]))
    return registry.get(name).from_dense(dense, **params), params


@given(stored(), SETTINGS)
def test_quantised_matrices_keep_pattern_error_and_values(given_: tuple[Any, dict[str, Any]], how: Any) -> None:
    a, params = given_
    q = quantize(a, **how)
    width = how["group"] or a.shape[1]
    scale = np.repeat(q.scales.values.astype(np.float64), width, axis=1)[:, : a.shape[1]]
    exact, found = a.to_dense().astype(np.float64), q.to_dense().astype(np.float64)
    assert (np.abs(found - exact) <= scale / 2).all()
    assert q.nnz == a.nnz
    for one, other in zip(q.entries()[:2], a.entries()[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(q.decoded().ravel()[q.data.ravel() == 0] != 0, _off_zero(q))
    for name in ("coo", "csr", "bitmask"):
        other = q.convert(name)
        assert other.scales is q.scales
        np.testing.assert_array_equal(other.to_dense(), q.to_dense())
        np.testing.assert_array_equal(other.convert(a.name, **params).to_dense(), q.to_dense())
    again = type(q).from_arrays(q.shape, q.dtype, q.arrays(), q.params, group=how["group"])
    np.testing.assert_array_equal(again.to_dense(), q.to_dense())
    np.testing.assert_array_equal(q.astype("float32").to_dense(), q.to_dense())


def _off_zero(q: Any) -> np.ndarray:
    """Where the code 0 does not mean 0."""
    rows, cols = (np.broadcast_to(place, q.data.shape).ravel() for place in q.places())
    return (q.scales.zeros_at(rows, cols) != 0)[q.data.ravel() == 0]


@given(stored(), SETTINGS)
def test_the_packed_form_gives_the_codes_back(given_: tuple[Any, dict[str, Any]], how: Any) -> None:
    q = quantize(given_[0], **(how | {"dtype": "int4"}))
    arrays = {name: array for name, array in q.arrays().items() if name != "data"}
    shape = type(q).data_shape(q.shape, arrays, q.params)
    assert shape == q.data.shape
    packed = pack_nibbles(q.data)
    np.testing.assert_array_equal(unpack_nibbles(packed, shape), q.data)
    floats = given_[0].nbytes - 4 * q.data.size
    assert q.nbytes == floats + packed.nbytes + q.scales.nbytes


@given(stored(), st.sampled_from(INTEGERS), st.data())
def test_random_scales_never_do_worse_than_an_error(given_: tuple[Any, Any], dtype: str, data: Any) -> None:
    """Scales and zero points of arbitrary sizes and contents, as a hostile file could hold them."""
    a, _ = given_
    group = data.draw(st.sampled_from(GROUPS))
    fits = st.just(grid_shape(a.shape, group))
    shape = data.draw(fits | hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9))
    arrays = dict(a.arrays())
    low, high = data.draw(st.sampled_from([CODES[dtype], (-128, 127)]))
    arrays["data"] = data.draw(hnp.arrays(np.int8, a.data.shape, elements=st.integers(low, high), fill=st.just(0)))
    arrays["scales"] = data.draw(hnp.arrays(np.float16, shape, elements=st.just(0.5) | st.floats(width=16)))
    if data.draw(st.booleans()):
        arrays["zeros"] = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(low, high), fill=st.just(0)))
    try:
        q = type(a).from_arrays(a.shape, dtype, arrays, a.params, group=group)
    except (FormatError, InvalidArgument, DtypeError, DamagedFile):
        return
    assert isinstance(q.scales, Scales)
    assert np.isfinite(q.to_dense()).all()
    assert q.to_coo().convert("csr").nnz <= q.nnz
