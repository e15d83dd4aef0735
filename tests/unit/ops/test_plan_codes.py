"""Plans of int8 and int4 matrices: x is rounded only where the caller says that it may be."""

import numpy as np
import pytest

import zeroskip
from zeroskip import InvalidArgument
from zeroskip.formats import CSR, NM
from zeroskip.kernels import registry
from zeroskip.ops import choice
from zeroskip.quantize import quantize
from zeroskip.testing import assert_within_bound, random_dense, random_matrix


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))


def codes(form, dtype="int8", group=0):
    if form is CSR:
        return quantize(random_matrix((64, 96), 0.7, seed=1).convert("csr"), dtype, group=group)
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((64, 96)).astype(np.float32)
    rank = np.abs(dense).reshape(64, -1, 16).argsort(-1).argsort(-1)
    dense[(rank < 8).reshape(dense.shape)] = 0
    return quantize(NM.from_dense(dense, n=8, m=16), dtype, group=group)


def integer(name):
    return choice.rounds_x(registry.get(name))


@pytest.mark.parametrize("form", [CSR, NM])
@pytest.mark.parametrize(("dtype", "group"), [("int8", 0), ("int8", 32), ("int4", 64)])
@pytest.mark.parametrize("n", [1, 8])
def test_x_is_multiplied_as_it_is(form, dtype, group, n):
    a, x = codes(form, dtype, group), random_dense((96, n), seed=3)
    plan = zeroskip.plan("spmm", a, n=n, budget_s=0.02)
    assert not any(integer(item.kernel) for item in plan.measured)
    assert "8 bits" not in plan.reason
    assert_within_bound(plan(x), a, x)
    # Codes have sparse kernels of their own, a quarter of the size and less; at one column float32 ones may be faster,
    # and are compared.
    own = f"spmm_csr_{'i8' if dtype == 'int8' else 'i4'}_"
    assert any(item.kernel.startswith(own) and item.time_s for item in plan.measured)
    assert any(item.kernel.startswith("spmm_csr_f32") for item in plan.measured) == (n == 1)


@pytest.mark.parametrize("form", [CSR, NM])
@pytest.mark.parametrize(("dtype", "group"), [("int8", 0), ("int4", 32)])
def test_with_x_in_8_bits_integer_kernels_are_candidates(form, dtype, group, monkeypatch):
    a, x = codes(form, dtype, group), random_dense((96, 8), seed=3)
    names = [kernel.name for kernel in choice.candidates(a, 8, "int8")]
    assert any(integer(name) and "_dense_" in name for name in names)
    assert any(integer(name) and "_nm_" in name for name in names) == (form is NM)
    allowed = [kernel for kernel in registry if integer(kernel.name) or kernel.name == "spmm_dense_f32_numpy"]
    monkeypatch.setattr(choice, "registry", allowed)
    plan = zeroskip.plan("spmm", a, n=8, budget_s=0.02, x_dtype="int8")
    assert ("x rounded to 8 bits" in plan.reason) == integer(plan.kernel)
    assert_within_bound(plan(x), a, x, x_dtype="int8" if integer(plan.kernel) else "float32")


def test_the_reason_says_that_values_are_dequantised_or_x_is_rounded(monkeypatch):
    a = codes(NM)

    def fastest(wanted):
        def measure(prepared, n, **settings):
            return [choice.Span(1e-6 if item.kernel.startswith(wanted) else 2e-6) for item in prepared]

        return measure

    where = zeroskip.plan.__globals__
    monkeypatch.setitem(where, "measure", fastest("spmm_nm_f32"))
    assert "the int8 values run dequantised to float32" in zeroskip.plan("spmm", a, n=1, cache=False).reason
    monkeypatch.setitem(where, "measure", fastest("spmm_nm_i8"))
    found = zeroskip.plan("spmm", a, n=8, cache=False)
    assert found.kernel.startswith("spmm_nm_i8_")
    assert "dequantised" not in found.reason
    assert "8 bits" not in found.reason
    monkeypatch.setitem(where, "measure", fastest("spmm_nm_i8_i32acc"))
    found = zeroskip.plan("spmm", a, n=8, cache=False, x_dtype="int8")
    assert found.kernel.startswith("spmm_nm_i8_i32acc_")
    assert found.reason.endswith("; x rounded to 8 bits")
    again = zeroskip.plan("spmm", a, n=8, x_dtype="int8")
    assert again.kernel == found.kernel
    assert "8 bits" in again.reason
    assert "from cache" in again.reason
    assert not integer(zeroskip.plan("spmm", a, n=8).kernel)


def test_a_named_kernel_does_what_it_does():
    names = [kernel.name for kernel in registry if kernel.why_not() is None]
    name = next(name for name in names if name.startswith("spmm_nm_i8_i32acc_"))
    a, x = codes(NM), random_dense((96, 3), seed=3)
    assert_within_bound(zeroskip.plan("spmm", a, n=3, kernel=name)(x), a, x, x_dtype="int8")


def test_another_x_dtype_is_refused():
    with pytest.raises(InvalidArgument, match="x_dtype is 'int4'; choose one of: float32, int16, bfloat16, int8"):
        zeroskip.plan("spmm", codes(CSR), n=1, x_dtype="int4")
