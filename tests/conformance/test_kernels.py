"""Every kernel of the registry against the float64 reference: whatever is registered is tested, by nothing but that.

The kernels of all instruction sets that the processor has are in the registry under their own names, so one run tests
them all, not only the ones that dispatch would choose.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from zeroskip.formats import CSR, FLOATS, INTEGERS, SHORT, SparseMatrix
from zeroskip.formats import registry as formats
from zeroskip.kernels import ACTIVATIONS, Kernel, registry, rounds_x_to
from zeroskip.testing import (
    CASES,
    OWN_FORMAT,
    Bound,
    Case,
    assert_close,
    bound,
    guarded,
    random_dense,
    random_matrix,
    sums_of,
    with_values,
)

SIZES = (1, 2, 7, 8, 9, 17, 31, 32, 33, 55, 63, 64, 65, 128, 130)
EPILOGUES = ((False, None), (True, None), (False, "relu"), *((True, activation) for activation in ACTIVATIONS))
KERNELS = {kernel.name: kernel for kernel in registry}
USABLE = [name for name, kernel in KERNELS.items() if kernel.why_not() is None]
# At these sizes every bias and activation is tried, at the others a few of them.
ALL_EPILOGUES_AT = (1, 8, 33, 130)
Rounding = tuple[tuple[str, str], ...]
CASES_BY_NAME = {case.name: case for case in CASES}


def storage(kernel: Kernel) -> str:
    """What a kernel is given: its own format where it takes nothing else, CSR where it takes anything."""
    return kernel.format if kernel.format in OWN_FORMAT else "csr"


@cache
def matrix(case: str, format: str, dtype: str) -> SparseMatrix:
    return CASES_BY_NAME[case].matrix(format, dtype)


@cache
def inputs(case: str, columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    n = CASES_BY_NAME[case].max_n or max(SIZES)
    return CASES_BY_NAME[case].x(columns, n), random_dense((rows,), 0.0, seed=99)


@cache
def expected(
    case: str, format: str, dtype: str, with_bias: bool, activation: str | None, every_entry: bool, rounding: Rounding
) -> Bound:
    a = matrix(case, format, dtype)
    x, bias = inputs(case, a.shape[1], a.shape[0])
    if every_entry:
        a = stored_whole(a)
    return bound(a, x, bias=bias if with_bias else None, activation=activation, **sums(rounding))


def sums(rounding: Rounding) -> dict[str, object]:
    """How a kernel adds up, for `bound`: those that round x are held against the product of the rounded x."""
    return {**dict(rounding), "rounded_x": True}


def rounding_of(kernel: Kernel) -> Rounding:
    """What a kernel rounds beside the values, hashable."""
    return tuple(sums_of(kernel).items())


def is_integer(kernel: Kernel) -> bool:
    """Whether a kernel rounds x to int8."""
    return rounds_x_to(kernel) == "int8"


def scales_x(kernel: Kernel) -> bool:
    """Whether a kernel rounds x to codes, a scale for each column: one with a NaN or an infinity has none."""
    return rounds_x_to(kernel) in ("int8", "int16")


def stored_whole(a: SparseMatrix) -> CSR:
    """The matrix with all its zeros stored: what a dense kernel multiplies."""
    rows, columns = a.shape
    indptr = np.arange(rows + 1, dtype=np.int64) * columns
    indices = np.tile(np.arange(columns, dtype=np.int64), rows)
    return CSR(a.shape, indptr, indices, a.to_dense().ravel())


@pytest.mark.parametrize("transposed", [False, True], ids=["columns", "rows"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
@pytest.mark.parametrize("name", USABLE)
def test_keeps_the_error_bound(
    name: str, case: Case, transposed: bool, record_property: Callable[[str, object], None]
) -> None:
    kernel = KERNELS[name]
    a = matrix(case.name, storage(kernel), kernel.dtype)
    reason = kernel.rejects(a, max(SIZES))
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    if case.special_x and kernel.origin == "cusparselt":
        pytest.skip(f"{name}: it fills groups with zeros, and multiplies x by them")
    prepared = kernel.prepare(a)
    assert prepared.kernel == name
    assert prepared.shape == a.shape
    assert prepared.nbytes > 0
    x_all, bias = inputs(case.name, a.shape[1], a.shape[0])
    checks = 0
    for n in SIZES:
        if n > (case.max_n or n):
            break
        x = x_all[:, :n]
        source = guarded(x.T.shape if transposed else x.shape, shift=n % 3)
        source.array[...] = x.T if transposed else x
        for with_bias, activation in EPILOGUES if n in ALL_EPILOGUES_AT else EPILOGUES[:3]:
            out = guarded((n, a.shape[0]) if transposed else (a.shape[0], n), shift=n % 2)
            prepared.run(
                source.array, out.array, bias=bias if with_bias else None, activation=activation, transposed=transposed
            )
            every_entry = kernel.format == "dense" and case.special_x and not scales_x(kernel)
            limits = expected(
                case.name, storage(kernel), kernel.dtype, with_bias, activation, every_entry, rounding_of(kernel)
            ).columns(n)
            try:
                assert_close(out.array.T if transposed else out.array, limits, activation)
            except AssertionError as error:
                raise AssertionError(f"N = {n}, bias {with_bias}, activation {activation}: {error}") from None
            assert out.intact(), f"N = {n}: wrote outside of its output"
            checks += 1
        assert source.intact(), f"N = {n}: wrote around its input"
    record_property("isa", kernel.isa)
    record_property("checks", checks)


@cache
def large(format: str, dtype: str, rounding: Rounding) -> tuple[SparseMatrix, np.ndarray, Bound]:
    """Several tiles and blocks in every direction, and none of them full at the end."""
    params: dict[str, object] = {
        "bsr": {"block": (4, 4)},
        "nm": {"n": 1, "m": 4},
        "vnm": {"v": 20, "n": 2, "m": 10},
        "sell": {"c": 8, "sigma": 64},
    }.get(format, {})
    a = random_matrix((260, 1900), 0.8, seed=11, format=format, dtype=dtype, **params)
    x = random_dense((a.shape[1], 150), 0.0, seed=12)
    return a, x, bound(a, x, **sums(rounding))


@pytest.mark.parametrize("name", USABLE)
def test_many_tiles_and_blocks(name: str) -> None:
    kernel = KERNELS[name]
    a, x, limits = large(storage(kernel), kernel.dtype, rounding_of(kernel))
    prepared = kernel.prepare(a)
    columns, rows = guarded((260, 150)), guarded((150, 260))
    prepared.run(x, columns.array)
    assert_close(columns.array, limits)
    prepared.run(np.ascontiguousarray(x.T), rows.array, transposed=True)
    assert_close(rows.array.T, limits)
    assert columns.intact()
    assert rows.intact()


@pytest.mark.parametrize("name", [name for name in USABLE if KERNELS[name].dtype in FLOATS])
def test_rounds_a_float32_matrix_to_its_own_dtype(name: str) -> None:
    kernel = KERNELS[name]
    exact = CASES_BY_NAME["33x97"].matrix(storage(kernel))
    x = random_dense((exact.shape[1], 33), 0.0, seed=5)
    out = np.full((exact.shape[0], 33), np.nan, dtype=np.float32)
    kernel.prepare(exact).run(x, out)
    assert_close(out, bound(exact.astype(kernel.dtype), x, **sums(rounding_of(kernel))))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", [name for name in USABLE if KERNELS[name].dtype == "float32"])
def test_widens_a_narrow_matrix_exactly(name: str, dtype: str) -> None:
    kernel = KERNELS[name]
    narrow = CASES_BY_NAME["33x97"].matrix(storage(kernel), dtype)
    x = random_dense((narrow.shape[1], 9), 0.0, seed=5)
    out = np.full((narrow.shape[0], 9), np.nan, dtype=np.float32)
    kernel.prepare(narrow).run(x, out)
    assert_close(out, bound(narrow, x, **sums(rounding_of(kernel))))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("name", [name for name in USABLE if KERNELS[name].dtype in FLOATS])
def test_dequantises_a_matrix_of_codes(name: str, dtype: str, symmetric: bool) -> None:
    """A kernel that takes no codes multiplies what they mean."""
    kernel = KERNELS[name]
    codes = CASES_BY_NAME["33x97"].matrix(storage(kernel), dtype, group=32, symmetric=symmetric)
    x = random_dense((codes.shape[1], 9), 0.0, seed=5)
    out = np.full((codes.shape[0], 9), np.nan, dtype=np.float32)
    kernel.prepare(codes).run(x, out)
    assert_close(out, bound(codes.astype(kernel.dtype), x, **sums(rounding_of(kernel))))


@pytest.mark.parametrize("source", formats.names())
@pytest.mark.parametrize("name", USABLE)
def test_prepares_from_every_format_or_says_why_not(name: str, source: str) -> None:
    kernel = KERNELS[name]
    if source in ("nm", "vnm"):
        a = CASES_BY_NAME["31x95"].matrix(source)
    else:
        params: dict[str, object] = {"block": (4, 4)} if source == "bsr" else {}
        a = CASES_BY_NAME["64x256"].matrix("csr").convert(source, **params)
    a = with_values(a, kernel.dtype) if kernel.dtype in INTEGERS else a
    reason = kernel.rejects(a, 8)
    if reason is not None:
        assert kernel.format in reason
        return
    x = random_dense((a.shape[1], 8), 0.0, seed=6)
    out = np.full((a.shape[0], 8), np.nan, dtype=np.float32)
    kernel.prepare(a).run(x, out)
    assert_close(out, bound(a if a.scales else a.astype(kernel.dtype), x, **sums(rounding_of(kernel))))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("scale_group", [0, 32, 64, 128])
@pytest.mark.parametrize("name", [name for name in USABLE if KERNELS[name].dtype in INTEGERS])
def test_scales_for_groups_of_columns_and_zero_points(name: str, scale_group: int, symmetric: bool) -> None:
    kernel = KERNELS[name]
    for case in ("65x257", "long rows"):  # groups that a block of columns cuts, many groups
        a = CASES_BY_NAME[case].matrix(storage(kernel), kernel.dtype, group=scale_group, symmetric=symmetric)
        reason = kernel.rejects(a, 9)
        assert (reason is None) == takes_scales(kernel, scale_group, symmetric)
        if reason is not None:
            continue
        prepared = kernel.prepare(a)
        for n in (1, 9, 70):
            x = random_dense((a.shape[1], n), 0.0, seed=5)
            out = np.full((a.shape[0], n), np.nan, dtype=np.float32)
            prepared.run(x, out)
            assert_close(out, bound(a, x, **sums(rounding_of(kernel))))


def takes_scales(kernel: Kernel, group: int, symmetric: bool) -> bool:
    """Whether a kernel takes them: integer ones no zero points, those of whole rows (`_n1`) one scale a row alone."""
    if is_integer(kernel):
        return symmetric
    return not kernel.name.endswith("_n1") or (symmetric and group == 0)


@pytest.mark.parametrize("name", [name for name in USABLE if KERNELS[name].dtype in INTEGERS])
def test_refuses_values_that_are_no_codes_and_scales_that_it_does_not_take(name: str) -> None:
    kernel = KERNELS[name]
    other = {"int8": "int4", "int4": "int8"}[kernel.dtype]
    refused = [CASES_BY_NAME["33x97"].matrix(storage(kernel), dtype) for dtype in ("float32", other)]
    for group, symmetric in ((0, False), (32, True)):
        if not takes_scales(kernel, group, symmetric):
            refused.append(
                CASES_BY_NAME["33x97"].matrix(storage(kernel), kernel.dtype, group=group, symmetric=symmetric)
            )
    for a in refused:
        reason = kernel.rejects(a, 8)
        assert reason is not None
        assert "quantise" in reason


@pytest.mark.parametrize("name", USABLE)
def test_gives_the_same_bits_twice_and_leaves_its_inputs_alone(name: str) -> None:
    kernel = KERNELS[name]
    a = CASES_BY_NAME["65x257"].matrix(storage(kernel), kernel.dtype)
    before = {key: value.copy() for key, value in a.arrays().items()}
    x = random_dense((a.shape[1], 65), 0.0, seed=8)
    bias = random_dense((a.shape[0],), 0.0, seed=9)
    kept = x.copy(), bias.copy()
    prepared = kernel.prepare(a)
    first, second = (np.full((a.shape[0], 65), np.nan, dtype=np.float32) for _ in range(2))
    prepared.run(x, first, bias=bias)
    prepared.run(x, second, bias=bias)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(bias, kept[1])
    for key, value in a.arrays().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", USABLE)
def test_reads_memory_that_it_may_not_write(name: str) -> None:
    kernel = KERNELS[name]
    a = CASES_BY_NAME["32x96"].matrix(storage(kernel), kernel.dtype)
    if reason := kernel.rejects(a, 8):
        pytest.skip(f"{name}: {reason}")
    x = random_dense((a.shape[1], 8), 0.0, seed=8)
    bias = random_dense((a.shape[0],), 0.0, seed=9)
    for array in (x, bias, *a.arrays().values()):
        array.setflags(write=False)
    out = np.full((a.shape[0], 8), np.nan, dtype=np.float32)
    kernel.prepare(a).run(x, out, bias=bias)
    assert_close(out, bound(a, x, bias=bias, **sums(rounding_of(kernel))))


@pytest.mark.parametrize("name", KERNELS)
def test_can_run_here(name: str) -> None:
    """Lists what is not tested on this machine, each with its own reason."""
    reason = KERNELS[name].why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("name", KERNELS)
def test_names_follow_the_grammar(name: str) -> None:
    kernel = KERNELS[name]
    assert name.split("_")[:3] == [kernel.op, kernel.format, SHORT[kernel.dtype]]
    assert kernel.isa in name.split("_")[3:]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in USABLE if KERNELS[name].origin == "native"])
def test_any_number_of_threads(name: str, threads: int) -> None:
    from zeroskip.kernels.cpu import get_num_threads, set_num_threads

    kernel = KERNELS[name]
    a = matrix("tall", storage(kernel), kernel.dtype)
    x = random_dense((a.shape[1], 33), 0.0, seed=10)
    out = np.full((a.shape[0], 33), np.nan, dtype=np.float32)
    before = get_num_threads()
    try:
        set_num_threads(threads)
        kernel.prepare(a).run(x, out)
    finally:
        set_num_threads(before)
    assert_close(out, bound(a, x, **sums(rounding_of(kernel))))


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "i8"])
@pytest.mark.parametrize("sparsity", [0.7, 0.95, 0.998])
def test_one_column_has_the_same_bits_however_x_is_fetched(dtype: str, sparsity: float) -> None:
    """By the gather instruction (AVX-512 VNNI, where that is found faster) or element by element."""
    names = [f"spmm_csr_{dtype}_{isa}_n1" for isa in ("avx2", "avx512", "avx512vnni")]
    usable = [KERNELS[name] for name in names if name in USABLE]
    if len(usable) < 2:
        pytest.skip("one instruction set for it here")
    a = with_values(random_matrix((300, 3000), sparsity, seed=11), usable[0].dtype)
    x = random_dense((3000, 1), 0.0, seed=12)
    results = []
    for kernel in usable:
        results.append(np.full((300, 1), np.nan, dtype=np.float32))
        kernel.prepare(a).run(x, results[-1])
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_the_native_module_is_there() -> None:
    """Without it nothing here would be tested but other libraries."""
    assert not registry.unavailable, registry.unavailable
    native = [kernel for kernel in registry if kernel.origin == "native"]
    isas = {kernel.isa for kernel in native if kernel.why_not() is None}
    assert "scalar" in isas


def test_every_instruction_set_found_has_kernels_that_run() -> None:
    from zeroskip.kernels.cpu import cpu_info

    runnable = {kernel.isa for kernel in registry if kernel.origin == "native" and kernel.why_not() is None}
    info = cpu_info()
    found = [info["selected"]] if os.environ.get("ZEROSKIP_ISA") else info["isas"]
    assert set(found) <= runnable
