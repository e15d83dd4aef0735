"""What SDDMM and masked softmax refuse, in one line each, and what kinds of arrays go in and come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zeroskip import DtypeError, InvalidArgument, KernelUnavailable, ShapeError, ops
from zeroskip.formats import BSR, COO, CSR, Bitmask
from zeroskip.kernels import operations
from zeroskip.ops import _operands
from zeroskip.ops.sddmm_reference import places
from zeroskip.testing import assert_close, random_dense, random_matrix
from zeroskip.testing.sddmm_bounds import sddmm_bound, softmax_bound

P = random_matrix((24, 40), 0.6, seed=1)
A = random_dense((24, 16), seed=2)
B = random_dense((16, 40), seed=3)
SCORES = random_dense((P.nnz,), seed=4)


def float32(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            float32((23, 16)),
            B,
            r"a has shape \(23, 16\) but the pattern has M = 24 rows; pass a of shape \(..., 24, K\)",
        ),
        (float32((16,)), B, r"a has shape \(16,\)"),
        (A, float32((16, 41)), r"b has shape \(16, 41\) but the pattern has N = 40 columns; pass b of shape"),
        (A, float32((40, 16)), r"for example b.swapaxes\(-1, -2\)"),
        (A, float32((40,)), r"b has shape \(40,\)"),
        (A, float32((17, 40)), r"their K differ \(16 and 17\)"),
        (float32((2, 24, 16)), float32((3, 16, 40)), r"leading sizes \(2,\) and \(3,\) do not broadcast"),
    ],
)
def test_shapes_of_operands(a: np.ndarray, b: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=r"^sddmm: .*" + message) as caught:
        ops.sddmm(P, a, b)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.complex64])
def test_types_of_operands(dtype: Any) -> None:
    for a, b, name in ((A.astype(dtype), B, "a"), (A, B.astype(dtype), "b")):
        with pytest.raises(DtypeError, match=rf"sddmm: {name} has dtype {np.dtype(dtype).name}.*; convert"):
            ops.sddmm(P, a, b)
    with pytest.raises(DtypeError, match="masked_softmax: scores has dtype"):
        ops.masked_softmax(P, SCORES.astype(dtype))
    with pytest.raises(DtypeError, match="masked_softmax: bias has dtype"):
        ops.masked_softmax(P, SCORES, bias=SCORES.astype(dtype))


@pytest.mark.parametrize("bad", [[[1.0]], None, "x", 3.0])
def test_what_is_no_array(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"sddmm: a is a .*not an array"):
        ops.sddmm(P, bad, B)
    with pytest.raises(InvalidArgument, match=r"masked_softmax: scores is a .*not an array"):
        ops.masked_softmax(P, bad)


def test_what_is_no_pattern() -> None:
    with pytest.raises(InvalidArgument, match=r"sddmm: pattern is a ndarray, not a sparse matrix"):
        ops.sddmm(P.to_dense(), A, B)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"masked_softmax: pattern is a ndarray, not a sparse matrix"):
        ops.masked_softmax(P.to_dense(), SCORES)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39, "1", None, True])
def test_factors_are_finite_numbers(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"sddmm: alpha is .*must be a finite number; pass alpha=1.0"):
        ops.sddmm(P, A, B, alpha=bad)
    with pytest.raises(InvalidArgument, match=r"masked_softmax: scale is .*must be a finite number"):
        ops.masked_softmax(P, SCORES, scale=bad)


def test_shapes_of_scores_and_bias() -> None:
    wanted = rf"scores has shape \({P.nnz + 1},\) but the pattern has {P.nnz} entries; pass scores of shape"
    with pytest.raises(ShapeError, match=wanted):
        ops.masked_softmax(P, float32((P.nnz + 1,)))
    with pytest.raises(ShapeError, match=r"scores has shape \(\)"):
        ops.masked_softmax(P, np.array(1.0, np.float32))
    for shape in ((P.nnz - 1,), (2, P.nnz), (1,), ()):
        with pytest.raises(ShapeError, match=r"masked_softmax: bias has shape .*pass bias of shape"):
            ops.masked_softmax(P, SCORES, bias=float32(shape))


def test_kernels_by_name() -> None:
    with pytest.raises(KernelUnavailable, match="sddmm: kernel is 'none', which is not known; choose"):
        ops.sddmm(P, A, B, kernel="none")
    with pytest.raises(KernelUnavailable, match="is for sddmm of bsr in float32, not sddmm of csr in float32"):
        ops.sddmm(P, A, B, kernel="sddmm_bsr_f32_scalar")
    with pytest.raises(KernelUnavailable, match="is for sddmm of csr in float32, not masked_softmax of csr"):
        ops.masked_softmax(P, SCORES, kernel="sddmm_csr_f32_scalar")


def test_a_damaged_pattern_is_refused_by_the_native_module() -> None:
    kernel = operations.get("sddmm_bitmask_f32_scalar")
    broken = _operands.with_values(P.convert("bitmask"), SCORES)
    object.__setattr__(broken, "bits", np.zeros_like(broken.bits))  # type: ignore[attr-defined]
    out = np.full(P.nnz, 7.0, dtype=np.float32)
    with pytest.raises(ValueError, match="bits do not fit the entries"):
        kernel.function(broken, A, np.ascontiguousarray(B.T), out, None, 1.0)
    assert (out == 7.0).all()


@pytest.mark.parametrize(
    "pattern", [P, P.convert("bitmask"), P.convert("bsr", block=(4, 8))], ids=lambda pattern: str(pattern.name)
)
def test_the_result_has_the_layout_of_the_pattern(pattern: Any) -> None:
    found = ops.sddmm(pattern, A, B)
    assert type(found) is type(pattern)
    assert found.dtype == "float32"
    assert found.shape == pattern.shape
    found.validate()
    rows, cols = places(pattern)
    product = A.astype(np.float64) @ B.astype(np.float64)
    np.testing.assert_allclose(found.to_dense()[rows, cols], product[rows, cols], rtol=0, atol=1e-5)
    values = ops.sddmm(pattern, A, B, values_only=True)
    assert (values == found.data.reshape(-1)).all()
    assert_close(values[None], sddmm_bound(pattern, A, B))
    weights = ops.masked_softmax(pattern, values, scale=0.25)
    assert_close(weights[None], softmax_bound(pattern, values[None], scale=0.25))


def test_other_formats_come_back_as_csr() -> None:
    coo = COO.from_dense(P.to_dense())
    found = ops.sddmm(coo, A, B)
    assert isinstance(found, CSR)
    assert (found.data == ops.sddmm(P, A, B).data).all()


def test_values_of_the_pattern_and_alpha() -> None:
    plain, scaled = ops.sddmm(P, A, B), ops.sddmm(P, A, B, scale_values=True, alpha=0.5)
    np.testing.assert_allclose(scaled.data, plain.data * P.data * 0.5, rtol=1e-6)


def test_an_entry_of_zero_is_an_entry() -> None:
    zeros = CSR(P.shape, P.indptr, P.indices, np.zeros_like(P.data))  # type: ignore[attr-defined]
    assert (ops.sddmm(zeros, A, B).data == ops.sddmm(P, A, B).data).all()
    weights = ops.masked_softmax(zeros, np.zeros_like(SCORES))
    counts = np.diff(P.indptr)  # type: ignore[attr-defined]
    np.testing.assert_allclose(weights, np.repeat(1.0 / counts[counts > 0], counts[counts > 0]), rtol=1e-6)


def test_no_entries_and_no_batches() -> None:
    empty = CSR.from_dense(float32((24, 40)))
    assert ops.sddmm(empty, A, B).nnz == 0
    assert ops.sddmm(empty, float32((3, 24, 16)), B).shape == (3, 0)
    assert ops.masked_softmax(empty, float32((3, 0))).shape == (3, 0)
    assert ops.sddmm(P, float32((0, 24, 16)), B).shape == (0, P.nnz)
    assert ops.masked_softmax(P, float32((0, P.nnz))).shape == (0, P.nnz)


def test_leading_sizes_broadcast() -> None:
    a, b = random_dense((2, 1, 24, 16), seed=5), random_dense((3, 16, 40), seed=6)
    found = ops.sddmm(P, a, b)
    assert found.shape == (2, 3, P.nnz)
    for i in range(2):
        for j in range(3):
            assert (found[i, j] == ops.sddmm(P, a[i, 0], b[j], values_only=True)).all()
    bias = random_dense((3, 1), seed=7) + SCORES
    weights = ops.masked_softmax(P, found, bias=bias)
    assert (weights[1, 2] == ops.masked_softmax(P, found[1, 2], bias=bias[2])).all()


def test_any_layout_gives_the_same_bits() -> None:
    wanted = ops.sddmm(P, A, B).data
    wide = float32((24, 40))
    wide[:, 3:19] = A
    reversed_rows = np.ascontiguousarray(A[::-1])[::-1]
    odd = np.frombuffer(b"x" + A.tobytes(), dtype=np.uint8)[1:].view(np.float32).reshape(A.shape)
    for a in (np.asfortranarray(A), wide[:, 3:19], reversed_rows, np.repeat(A, 2, axis=1)[:, ::2], odd):
        for b in (np.asfortranarray(B), np.repeat(B, 2, axis=1)[:, ::2]):
            assert (ops.sddmm(P, a, b).data == wanted).all()


def test_the_transpose_of_a_contiguous_array_is_read_in_place() -> None:
    keys = random_dense((2, 3, 40, 16), seed=8)
    rows = _operands.rows_in_place(keys.swapaxes(-1, -2).swapaxes(-1, -2))
    assert np.shares_memory(rows, keys)
    heads = keys.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)  # (batch, rows, heads, depth) in memory
    assert _operands.rows_in_place(heads) is heads
    assert not np.shares_memory(_operands.rows_in_place(B.T), B)


def test_torch_in_torch_out() -> None:
    torch = pytest.importorskip("torch")
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    found = ops.sddmm(P, a.requires_grad_(), b, values_only=True)
    assert found.dtype == torch.float32
    assert (found.numpy() == ops.sddmm(P, A, B).data).all()
    assert isinstance(ops.sddmm(P, a, b), CSR)
    weights = ops.masked_softmax(P, found.bfloat16())
    assert weights.dtype == torch.float32
    assert_close(weights.numpy()[None], softmax_bound(P, found.bfloat16().float().numpy()[None]))


def test_sixteen_bit_operands() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.bfloat16, torch.float16):
        a, b = torch.from_numpy(A).to(dtype), torch.from_numpy(B).to(dtype)
        means = a.float().numpy(), b.float().numpy()
        limits = sddmm_bound(P, *means)
        assert_close(ops.sddmm(P, a, b).data[None], limits)
        assert_close(ops.sddmm(P, a.float(), b).data[None], limits)
        keys = torch.from_numpy(np.ascontiguousarray(B.T)).to(dtype)
        assert_close(ops.sddmm(P, a, keys.transpose(0, 1)).data[None], limits)
        found = ops.sddmm(P, a[None], b, values_only=True)
        assert found.dtype == torch.float32
        assert found.shape == (1, P.nnz)
    half = ops.sddmm(P, A.astype(np.float16), B)
    assert_close(half.data[None], sddmm_bound(P, A.astype(np.float16), B))


def test_dlpack_in() -> None:
    class Exported:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **settings: Any) -> Any:
            return self.array.__dlpack__(**settings)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    assert (ops.sddmm(P, Exported(A), Exported(B)).data == ops.sddmm(P, A, B).data).all()


def test_formats_that_kernels_read_are_those_of_the_registry() -> None:
    native = {kernel.format for kernel in operations if kernel.op == "sddmm" and kernel.origin == "native"}
    assert native == set(_operands.NATIVE_PATTERNS) == {CSR.name, BSR.name, Bitmask.name}
