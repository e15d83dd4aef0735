"""SparseLinear is a Linear in all that inference asks for."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from zeroskip import DtypeError, InvalidArgument, ShapeError  # noqa: E402
from zeroskip.formats import CSR  # noqa: E402
from zeroskip.kernels import registry  # noqa: E402
from zeroskip.nn import SparseLinear  # noqa: E402


def pruned_linear(rows=24, columns=40, *, bias=True, sparsity=0.6, seed=0):
    torch.manual_seed(seed)
    linear = torch.nn.Linear(columns, rows, bias=bias)
    with torch.no_grad():
        linear.weight[torch.rand(rows, columns) < sparsity] = 0
    return linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(), (1,), (7,), (2, 3), (2, 1, 65)])
def test_equals_linear_for_any_leading_dimensions(bias, leading):
    linear = pruned_linear(bias=bias)
    layer = SparseLinear.from_linear(linear, kernel="spmm_csr_f32_scalar")
    x = torch.randn(*leading, 40)
    with torch.inference_mode():
        expected = linear(x)
        found = layer(x)
    assert found.shape == expected.shape
    # 40 products and sums in float32 on either side.
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * 41 * 2**-24 * 40)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_converted_and_given_back(dtype):
    layer = SparseLinear.from_linear(pruned_linear(), kernel="spmm_csr_f32_scalar")
    x = torch.randn(3, 40).to(dtype)
    assert layer(x).dtype == dtype
    torch.testing.assert_close(layer(x), layer(x.float()).to(dtype))


def test_auto_measures_and_names_a_kernel():
    layer = SparseLinear.from_linear(pruned_linear(), n=4)
    assert layer.kernel in registry
    assert layer.kernel in repr(layer)
    assert layer.weight_nbytes > 0


def test_activation_is_fused():
    linear = pruned_linear()
    plain = SparseLinear.from_linear(linear, kernel="spmm_csr_f32_scalar")
    packed = registry.get("spmm_csr_f32_scalar").prepare(CSR.from_dense(linear.weight.detach()))
    fused = SparseLinear([(None, packed)], linear.bias, activation="relu")
    x = torch.randn(5, 40)
    torch.testing.assert_close(fused(x), plain(x).relu())


def test_rows_choose_the_packing():
    ones, twos = (
        registry.get("spmm_csr_f32_scalar").prepare(CSR.from_dense(np.full((2, 3), value, dtype=np.float32)))
        for value in (1, 2)
    )
    layer = SparseLinear([(4, ones), (None, twos)])
    assert layer(torch.ones(4, 3)).unique().tolist() == [3.0]
    assert layer(torch.ones(5, 3)).unique().tolist() == [6.0]


def test_no_rows_and_views():
    layer = SparseLinear.from_linear(pruned_linear(), kernel="spmm_csr_f32_scalar")
    assert layer(torch.zeros(0, 40)).shape == (0, 24)
    x = torch.randn(40, 6).t()
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


def test_deepcopy_shares_the_packed_weight():
    layer = SparseLinear.from_linear(pruned_linear(), kernel="spmm_csr_f32_scalar")
    twin = copy.deepcopy(torch.nn.Sequential(layer))[0]
    assert twin._choices[0][1] is layer._choices[0][1]
    x = torch.randn(2, 40)
    torch.testing.assert_close(twin(x), layer(x))


def test_gradients_are_refused():
    layer = SparseLinear.from_linear(pruned_linear(), kernel="spmm_csr_f32_scalar")
    x = torch.randn(2, 40, requires_grad=True)
    with pytest.raises(InvalidArgument, match="requires grad"):
        layer(x)
    with torch.no_grad():
        assert layer(x).shape == (2, 24)


def test_wrong_input_is_refused():
    layer = SparseLinear.from_linear(pruned_linear(), kernel="spmm_csr_f32_scalar")
    with pytest.raises(ShapeError, match="40 columns"):
        layer(torch.randn(2, 41))
    with pytest.raises(DtypeError, match="int64"):
        layer(torch.ones(2, 40, dtype=torch.int64))
    with pytest.raises(ShapeError, match="24 rows"):
        SparseLinear(layer._choices, torch.zeros(3))
    with pytest.raises(InvalidArgument, match="ascend"):
        SparseLinear([(4, layer._choices[0][1])])
    with pytest.raises(InvalidArgument, match="activation"):
        SparseLinear(layer._choices, activation="nope")
