"""What operations refuse, in one line each, and what kinds of arrays go in and come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zeroskip
from zeroskip import DtypeError, InvalidArgument, KernelUnavailable, ShapeError, ops
from zeroskip.formats import CSR
from zeroskip.kernels import registry
from zeroskip.testing import assert_within_bound, random_dense, random_matrix

A = random_matrix((24, 40), 0.6, seed=1)
X = random_dense((40, 5), seed=2)
BIAS = random_dense((24,), seed=3)
NUMPY = "spmm_dense_f32_numpy"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((41, 5), np.float32), r"spmm: x has shape \(41, 5\) but a has K = 40; pass x with 40 rows"),
        (np.zeros((5, 40), np.float32), r"transpose it"),
        (np.zeros(40, np.float32), r"use spmv for a vector"),
        (np.zeros((1, 40, 5), np.float32), r"spmm takes \(K, N\)"),
    ],
)
def test_spmm_shapes(x: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        ops.spmm(A, x)
    assert "\n" not in str(caught.value)


def test_other_shapes() -> None:
    with pytest.raises(ShapeError, match=r"spmv: x has shape \(40, 1\) but a has K = 40; pass x of shape \(40,\)"):
        ops.spmv(A, X[:, :1])
    with pytest.raises(ShapeError, match=r"linear: x has shape \(40, 5\) but w has K = 40"):
        ops.linear(X, A)
    with pytest.raises(ShapeError, match=r"linear: x has shape \(\)"):
        ops.linear(np.array(1.0, np.float32), A)
    with pytest.raises(ShapeError, match=r"bias has shape \(5,\) but there are M = 24 rows"):
        ops.spmm(A, X, bias=np.zeros(5, np.float32), kernel=NUMPY)
    with pytest.raises(ShapeError, match=r"bias has shape \(24, 1\)"):
        ops.spmm(A, X, bias=BIAS[:, None], kernel=NUMPY)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.bool_, np.complex64])
def test_values_that_are_not_floating(dtype: Any) -> None:
    with pytest.raises(DtypeError, match="not a floating type"):
        ops.spmm(A, X.astype(dtype))


def test_float64_is_refused_since_its_precision_would_be_lost() -> None:
    with pytest.raises(DtypeError, match="x has dtype float64, sums are in float32; convert x to float32"):
        ops.spmm(A, X.astype(np.float64))
    with pytest.raises(DtypeError, match="bias has dtype float64"):
        ops.spmm(A, X, bias=BIAS.astype(np.float64), kernel=NUMPY)


@pytest.mark.parametrize("bad", [[[1.0]], None, "x", 3.0])
def test_what_is_no_array(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="not an array"):
        ops.spmm(A, bad)


def test_what_is_no_sparse_matrix() -> None:
    with pytest.raises(InvalidArgument, match=r"a is a ndarray, not a sparse matrix; make one with .*CSR.from_dense"):
        ops.spmm(A.to_dense(), X)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="w is a ndarray"):
        ops.linear(X, A.to_dense())  # type: ignore[arg-type]


def test_activations_are_known() -> None:
    with pytest.raises(InvalidArgument, match="activation is 'swish', which is not known; choose None or one of: relu"):
        ops.spmm(A, X, activation="swish")


def test_kernels_that_do_not_exist() -> None:
    with pytest.raises(KernelUnavailable, match=r'not known.*choose "auto" or one of: .*spmm_dense_f32_numpy'):
        ops.spmm(A, X, kernel="spmm_magic")


def test_kernels_that_cannot_run_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = registry.get("spmm_csr_f32_scipy")
    monkeypatch.setattr(type(kernel), "why_not", lambda self: "scipy has gone away")
    with pytest.raises(
        KernelUnavailable, match=r"cannot run here: scipy has gone away; choose \"auto\" or one of"
    ) as e:
        ops.spmm(A, X, kernel="spmm_csr_f32_scipy")
    assert "spmm_csr_f32_scipy" not in str(e.value).partition("one of")[2]


def test_kernels_that_do_not_take_the_matrix_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = registry.get("spmm_csr_f32_scipy")
    monkeypatch.setattr(type(kernel), "rejects", lambda self, a, n: f"it dislikes {a.name} with N = {n}")
    with pytest.raises(KernelUnavailable, match="does not take this matrix: it dislikes csr with N = 5"):
        zeroskip.plan("spmm", A, n=5, kernel="spmm_csr_f32_scipy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "sddmm", "n": 1}, "op is 'sddmm', which is not known; choose one of: spmm, spmv, linear"),
        ({"op": "spmm", "n": 0}, "n is 0, it must be a whole number of at least 1"),
        ({"op": "spmm", "n": 2.5}, "n is 2.5"),
        ({"op": "spmm", "n": True}, "n is True"),
        ({"op": "spmv", "n": 2}, "op is 'spmv', which takes one vector"),
        ({"op": "spmm", "n": 1, "budget_s": 0}, "budget_s is 0, it must be above 0"),
    ],
)
def test_plan_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        zeroskip.plan(arguments.pop("op"), A, **arguments)


def test_results_are_right_for_all_three() -> None:
    assert_within_bound(ops.spmm(A, X, bias=BIAS, activation="gelu"), A, X, bias=BIAS, activation="gelu")
    vector = np.ascontiguousarray(X[:, 0])
    assert_within_bound(ops.spmv(A, vector, bias=BIAS)[:, None], A, X[:, :1], bias=BIAS)
    rows = random_dense((2, 3, 40), seed=4)
    y = ops.linear(rows, A, bias=BIAS, activation="silu")
    assert y.shape == (2, 3, 24)
    assert_within_bound(y.reshape(6, 24), A, rows.reshape(6, 40), bias=BIAS, activation="silu", transposed=True)
    single = ops.linear(rows[0, 0], A)
    assert single.shape == (24,)


@pytest.mark.parametrize("x", [X[:, ::2], X[:, ::-1], np.asfortranarray(X), random_dense((5, 40), seed=2).T, X[:, :0]])
def test_operands_that_are_not_contiguous_or_empty(x: np.ndarray) -> None:
    y = ops.spmm(A, x, bias=BIAS[::1])
    assert y.shape == (24, x.shape[1])
    assert_within_bound(y, A, x, bias=BIAS)
    assert ops.linear(x.T, A).shape == (x.shape[1], 24)


def test_bias_that_is_not_contiguous() -> None:
    assert_within_bound(ops.spmm(A, X, bias=np.repeat(BIAS, 2)[::2]), A, X, bias=BIAS)


def test_half_precision_comes_back_as_it_was() -> None:
    x = X.astype(np.float16)
    y = ops.spmm(A, x)
    assert y.dtype == np.float16
    assert_within_bound(y, A, x, out_dtype="float16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_torch_in_torch_out(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X.copy()).to(getattr(torch, dtype))
    bias = torch.from_numpy(BIAS.copy()).to(getattr(torch, dtype))
    y = ops.spmm(A, x.requires_grad_(), bias=torch.nn.Parameter(bias))
    assert isinstance(y, torch.Tensor)
    assert y.dtype == x.dtype
    assert not y.requires_grad
    exact = x.detach().float().numpy()
    assert_within_bound(y, A, exact, bias=bias.float().numpy(), out_dtype=dtype)


def test_torch_elsewhere_than_on_the_cpu() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidArgument, match=r"x is on meta, not on the CPU; pass x.cpu\(\)"):
        ops.spmm(A, torch.zeros(40, 5, device="meta"))


class Alien:
    """An array of a library that is neither NumPy nor torch: DLPack and an array namespace is all it has."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.dtype = values.dtype

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.values.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()

    def __array_namespace__(self) -> Any:
        class Namespace:
            from_dlpack = staticmethod(lambda array: Alien(np.from_dlpack(array)))

        return Namespace


def test_dlpack_in_the_same_kind_out() -> None:
    y = ops.spmm(A, Alien(X))
    assert isinstance(y, Alien)
    assert_within_bound(y.values, A, X)


def test_dlpack_that_cannot_be_read_is_refused() -> None:
    class Broken(Alien):
        def __dlpack__(self, **kwargs: Any) -> Any:
            raise BufferError("it is on another planet")

    with pytest.raises(InvalidArgument, match="another planet"):
        ops.spmm(A, Broken(X))


def test_nan_in_x_reaches_only_what_meets_it() -> None:
    x = X.copy()
    x[3, 1] = np.nan
    y = ops.spmm(A, x, kernel="spmm_csr_f32_scalar")
    np.testing.assert_array_equal(np.isnan(y[:, 1]), A.to_dense()[:, 3] != 0)
    assert not np.isnan(y[:, [0, 2, 3, 4]]).any()


def test_the_names_of_the_package() -> None:
    assert zeroskip.plan is ops.plan
    assert zeroskip.formats.CSR is CSR
    assert {"plan", "ops", "formats", "compile", "load", "prune"} <= set(dir(zeroskip))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        zeroskip.nonsense  # noqa: B018
