"""The definitions themselves, against plain loops, dense products and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zeroskip import InvalidArgument
from zeroskip.formats import CSR
from zeroskip.kernels import ACTIVATIONS
from zeroskip.ops import reference
from zeroskip.testing import random_dense, random_matrix


def test_spmm_is_the_sum_over_entries() -> None:
    a = random_matrix((7, 9), 0.6, seed=1)
    x = random_dense((9, 3), seed=2)
    dense = a.to_dense()
    expected = [
        [sum(float(dense[i, k]) * float(x[k, j]) for k in range(9) if dense[i, k]) for j in range(3)] for i in range(7)
    ]
    np.testing.assert_allclose(reference.spmm(a, x), expected, rtol=1e-14)


@pytest.mark.parametrize("format", ["coo", "csr", "csc", "bitmask", "bsr", "nm", "vnm", "ell", "sell", "dia"])
def test_formats_mean_the_same(format: str) -> None:
    params = {"bsr": {"block": (4, 4)}, "nm": {"n": 2, "m": 4}, "vnm": {"v": 4, "n": 2, "m": 8}}.get(format, {})
    a = random_matrix((40, 64), 0.5, seed=3, format=format, **params)
    x = random_dense((64, 5), seed=4)
    np.testing.assert_allclose(reference.spmm(a, x), a.to_dense().astype(np.float64) @ x, rtol=1e-12, atol=1e-12)


def test_large_products_are_cut_into_chunks_at_any_place(monkeypatch: pytest.MonkeyPatch) -> None:
    a = random_matrix((40, 64), 0.5, seed=3)
    x = random_dense((64, 5), seed=4)
    whole = reference.spmm(a, x)
    monkeypatch.setattr(reference, "_CHUNK_ELEMS", 5 * 7)
    np.testing.assert_allclose(reference.spmm(a, x), whole, rtol=1e-13, atol=1e-13)


def test_linear_and_spmv_are_forms_of_spmm() -> None:
    a = random_matrix((6, 8), 0.5, seed=5)
    x = random_dense((2, 3, 8), seed=6)
    bias = random_dense((6,), seed=7)
    y = reference.linear(x, a, bias=bias, activation="relu")
    assert y.shape == (2, 3, 6)
    np.testing.assert_allclose(y[1, 2], reference.spmv(a, x[1, 2], bias=bias, activation="relu"), rtol=1e-13)


def test_only_stored_entries_meet_x() -> None:
    a = CSR.from_dense(np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32))
    x = np.array([[np.nan], [3.0]], dtype=np.float32)
    y = reference.spmm(a, x)
    assert np.isnan(y[0, 0])
    assert y[1, 0] == 6.0
    stored = CSR(a.shape, np.array([0, 2, 4]), np.array([0, 1, 0, 1], dtype=np.uint16), a.to_dense().ravel())
    assert np.isnan(reference.spmm(stored, x)).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_agree_with_torch(activation: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.linspace(-12, 12, 4001).reshape(1, -1)
    functional = torch.nn.functional
    theirs = {
        "relu": functional.relu,
        "tanh": torch.tanh,
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda t: functional.gelu(t, approximate="tanh"),
    }[activation](torch.from_numpy(x))
    np.testing.assert_allclose(reference.activate(x, activation), theirs.numpy(), rtol=1e-12, atol=1e-15)


def test_gelu_is_the_erf_form() -> None:
    assert reference.activate(np.array([[1.0]]), "gelu")[0, 0] == pytest.approx(0.5 * (1 + math.erf(math.sqrt(0.5))))


def test_unknown_activations_list_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="relu, gelu, gelu_tanh, silu, tanh"):
        reference.activate(np.zeros((1, 1)), "swish")
