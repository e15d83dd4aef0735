"""The bound of kernels that round x to bfloat16: a plain one keeps it, one with a fault does not; who may round x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from zeroskip.formats import CSR, FLOATS
from zeroskip.kernels import X_DTYPES, newest, rounds_within
from zeroskip.ops import choice
from zeroskip.runtime.layerplan import rounds_x_to
from zeroskip.testing import assert_within_bound, bound, random_dense, random_matrix

FLUSHED = 2.0**-126


def to_bfloat16(x, *, offset=0x7FFF, even=True):
    """Rounded as `offset` says: 0x7FFF and `even` to nearest, ties to even; 0 down."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    odd = (bits >> 16 & 1) if even else np.uint32(0)
    near = ((bits + odd + np.uint32(offset)) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isfinite(near), near, x).astype(np.float32)


def flushed(values):
    return np.where(np.abs(values) < FLUSHED, np.float32(0), values).astype(np.float32)


def kernel(a, x, rounding=to_bfloat16, flush=lambda values: values):
    """C as a kernel makes it: x rounded, all else in float32, one product at a time."""
    dense, rounded = flush(a.to_dense()), flush(rounding(x))
    out = np.zeros((a.shape[0], x.shape[1]), dtype=np.float32)
    for k in range(a.shape[1]):
        out = flush(out + flush(dense[:, k : k + 1] * rounded[k]))
    return out


def matrix(scale=1.0):
    a = random_matrix((24, 70), 0.5, seed=1, format="csr", dtype="bfloat16")
    return a if scale == 1.0 else CSR.from_dense(a.to_dense() * np.float32(scale), dtype="bfloat16")


@pytest.mark.parametrize("rounded_x", [False, True])
@pytest.mark.parametrize("flush", [flushed, lambda values: values], ids=["flushed", "kept"])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e-20, 1e-20), (1e-38, 1e20), (1e20, 1e-38)])
def test_a_plain_kernel_keeps_it(rounded_x, flush, scales):
    a, x = matrix(scales[0]), random_dense((70, 9), 0.0, seed=2) * np.float32(scales[1])
    with np.errstate(under="ignore"):
        found = kernel(a, x, flush=flush)
    assert_within_bound(found, a, x, x_dtype="bfloat16", rounded_x=rounded_x)
    if scales == (1.0, 1.0):
        bias = random_dense((24,), 0.0, seed=3)
        assert_within_bound(found + bias[:, None], a, x, bias=bias, x_dtype="bfloat16", rounded_x=rounded_x)


def test_with_rounded_x_another_rounding_is_seen():
    a, x = matrix(), random_dense((70, 9), 0.0, seed=2)
    halfway = x.view(np.uint32) & np.uint32(0xFFFF0000) | np.uint32(0x8000)
    middle = halfway.view(np.float32)
    down, up = (lambda v, offset=offset: to_bfloat16(v, offset=offset, even=False) for offset in (0, 0x8000))
    for other in (down, up, lambda v: v):
        assert_within_bound(kernel(a, middle, other), a, middle, x_dtype="bfloat16")
        with pytest.raises(AssertionError, match="outside the error bound"):
            assert_within_bound(kernel(a, middle, other), a, middle, x_dtype="bfloat16", rounded_x=True)


def test_a_lost_product_is_seen():
    a, x = matrix(), random_dense((70, 9), 0.0, seed=2)
    indptr, data = a.indptr, a.data.copy()
    data[indptr[5]] = 0
    lost = kernel(CSR(a.shape, indptr, a.indices, data, "bfloat16"), x)
    with pytest.raises(AssertionError, match="outside the error bound"):
        assert_within_bound(lost, a, x, x_dtype="bfloat16", rounded_x=True)


def test_what_bfloat16_cannot_hold_stays_as_it_is():
    a = CSR.from_dense(np.array([[0.5, 0.0], [0.0, 1.0]], dtype=np.float32), dtype="bfloat16")
    x = np.array([[3.4e38, np.inf], [1.0, 2.0]], dtype=np.float32)
    for rounded_x in (False, True):
        expected = bound(a, x, x_dtype="bfloat16", rounded_x=rounded_x).expected
        np.testing.assert_array_equal(expected, [[0.5 * np.float64(x[0, 0]), np.inf], [1.0, 2.0]])
        with pytest.raises(AssertionError, match="outside the error bound"):
            assert_within_bound(np.array([[np.inf, np.inf], [1.0, 2.0]]), a, x, x_dtype="bfloat16", rounded_x=rounded_x)


def test_it_lies_between_those_of_its_neighbours():
    """No type allows as much as the next one, so that who may round x to int8 may round it to bfloat16 or int16."""
    a, x = random_matrix((24, 64), 0.5, seed=1, format="csr", dtype="int8"), random_dense((64, 9), 0.0, seed=2)
    exact, int16, bfloat16, int8 = (bound(a, x, x_dtype=x_dtype).allowed for x_dtype in X_DTYPES)
    full = a.density * 64 > 0
    assert full
    assert (exact < int16).all()
    assert (int16 < int8).all()
    assert int16.mean() < bfloat16.mean()
    assert (exact < bfloat16).all()
    assert (bfloat16 < int8).all()


@dataclass(frozen=True)
class Named:
    name: str
    isa: str
    x_dtype: str = "float32"
    format: str = "dense"
    dtype: str = "bfloat16"
    origin: str = "native"

    def why_not(self):
        return None

    def rejects(self, a, n):
        return None


PLAIN = Named("spmm_dense_bf16_avx512", "avx512")
OLDER = Named("spmm_dense_bf16_avx2", "avx2")
TILES = Named("spmm_dense_bf16_amx", "amx", "bfloat16")


def test_a_newer_instruction_set_that_rounds_x_replaces_none_that_does_not():
    assert newest([OLDER, PLAIN, TILES]) == [PLAIN, TILES]


@pytest.mark.parametrize(("x_dtype", "allowed"), [("float32", False), ("bfloat16", True), ("int8", True)])
def test_kernels_that_round_x_are_candidates_where_that_is_allowed(x_dtype, allowed, monkeypatch):
    monkeypatch.setattr(choice, "registry", [OLDER, PLAIN, TILES])
    found = choice.candidates(matrix(), 64, x_dtype)
    assert PLAIN in found
    assert (TILES in found) == allowed == rounds_within(TILES, x_dtype)


@pytest.mark.parametrize(
    ("name", "x_dtype"),
    [
        ("spmm_dense_bf16_amx", "bfloat16"),
        ("spmm_bitmask_bf16_amx", "bfloat16"),
        ("spmm_dense_i8_i32acc_amx", "int8"),
        ("spmm_nm_i8_i32acc_avxvnni", "int8"),
        ("spmm_csr_bf16_avx512", "float32"),
    ],
)
def test_the_name_of_a_kernel_says_what_it_rounds_x_to(name, x_dtype):
    assert rounds_x_to(name) == x_dtype


def test_the_native_table_agrees_with_the_names():
    from zeroskip.kernels import registry

    native = [kernel for kernel in registry if kernel.origin == "native"]
    assert {kernel.name: kernel.x_dtype for kernel in native} == {k.name: rounds_x_to(k.name) for k in native}
    assert {kernel.x_dtype for kernel in native if kernel.dtype in FLOATS} >= {"float32"}
