"""SpMM, SpMV and linear against the reference over random shapes, patterns, dtypes and kernels."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from zeroskip import ops
from zeroskip.formats import registry as formats
from zeroskip.kernels import ACTIVATIONS, registry
from zeroskip.testing import assert_within_bound, random_dense, random_matrix, sums_of

KERNELS = [kernel.name for kernel in registry if kernel.why_not() is None]
SIZE = st.integers(1, 70)
SPARSITY = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])


@st.composite
def problems(draw: st.DrawFn) -> tuple[str, str, tuple[int, int], float, int, int]:
    """Kernel, format, shape, sparsity, N, seed."""
    return (
        draw(st.sampled_from(KERNELS)),
        draw(st.sampled_from([name for name in formats.names() if name not in ("bsr", "nm", "vnm")])),
        (draw(SIZE), draw(SIZE)),
        draw(SPARSITY),
        draw(st.integers(1, 40)),
        draw(st.integers(0, 2**16)),
    )


@given(problems(), st.booleans(), st.sampled_from([None, *ACTIVATIONS]))
def test_all_forms_agree_with_the_reference(
    problem: tuple[str, str, tuple[int, int], float, int, int], with_bias: bool, activation: str | None
) -> None:
    name, format, shape, sparsity, n, seed = problem
    kernel = registry.get(name)
    a = random_matrix(shape, sparsity, seed, format=format, dtype=kernel.dtype, group=(0, 32, 64, 128)[seed % 4])
    assume(kernel.rejects(a, n) is None)
    x = random_dense((shape[1], n), seed=seed + 1)
    bias = random_dense((shape[0],), seed=seed + 2) if with_bias else None
    # Kernels that round x are held against the product of the rounded x.
    how = {**sums_of(kernel), "rounded_x": True}
    y = ops.spmm(a, x, bias=bias, activation=activation, kernel=name)
    assert_within_bound(y, a, x, bias=bias, activation=activation, **how)
    y = ops.linear(x.T, a, bias=bias, activation=activation, kernel=name)
    assert_within_bound(y, a, x.T, bias=bias, activation=activation, transposed=True, **how)
    y = ops.spmv(a, x[:, 0], bias=bias, activation=activation, kernel=name)
    assert_within_bound(y[:, None], a, x[:, :1], bias=bias, activation=activation, **how)


@given(st.tuples(SIZE, SIZE), SPARSITY, st.integers(0, 2**16))
def test_columns_do_not_depend_on_each_other(shape: tuple[int, int], sparsity: float, seed: int) -> None:
    """A NaN in one column of x stays in that column, for every kernel."""
    x = random_dense((shape[1], 11), seed=seed)
    x[:, 4] = np.nan
    name = KERNELS[seed % len(KERNELS)]
    a = random_matrix(shape, sparsity, seed)
    assume(registry.get(name).rejects(a, 11) is None)
    y = ops.spmm(a, x, kernel=name)
    assert not np.isnan(np.delete(y, 4, axis=1)).any()
