"""Every attention kernel of the registry, ours and rivals, against the float64 reference within the derived bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from zeroskip.formats import BSR, CSR
from zeroskip.kernels import OperationKernel, operations
from zeroskip.ops import Rule
from zeroskip.ops import attention_reference as reference
from zeroskip.testing import guarded, random_dense
from zeroskip.testing.attention import assert_attended

KERNELS = {kernel.name: kernel for kernel in operations if kernel.op == "attention"}
USABLE = [name for name, kernel in KERNELS.items() if kernel.why_not() is None]
NATIVE = [name for name in USABLE if KERNELS[name].origin == "native"]


@dataclass(frozen=True)
class Case:
    """Sizes, and a mask in one of the three kinds."""

    name: str
    queries: int
    keys: int
    masks: dict[str, Callable[[int, int], tuple[Any, ...]]] = field(repr=False)
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    d: int = 64
    dv: int = 64
    causal: bool = False
    lengths: tuple[int, ...] | None = None
    spread: float = 1.0

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        q = random_dense((self.batch, self.heads, self.queries, self.d), 0.0, seed=1) * np.float32(self.spread)
        k = random_dense((self.batch, self.kv_heads, self.keys, self.d), 0.0, seed=2)
        return q, k, random_dense((self.batch, self.kv_heads, self.keys, self.dv), 0.0, seed=3)

    def valid(self) -> np.ndarray:
        return np.array(self.lengths if self.lengths else (self.keys,) * self.batch, dtype=np.int64)


def rule(**settings: Any) -> dict[str, Callable[[int, int], tuple[Any, ...]]]:
    return {"rule": lambda n, m: (Rule(**settings),)}


def csr(density: float, *, index: type = np.int32, heads: int = 1, row: str = "") -> dict[str, Any]:
    """Random entries; with `row` its first row full, or every other row empty."""

    def make(n: int, m: int) -> tuple[CSR, ...]:
        found = []
        for h in range(heads):
            seen = np.random.default_rng(7 + h).random((n, m)) < density
            if row == "full":
                seen[0] = True
            if row == "empty":
                seen[::2] = False
            a = CSR.from_dense(seen.astype(np.float32))
            found.append(CSR(a.shape, a.indptr, a.indices.astype(index), a.data))
        return tuple(found)

    return {"csr": make}


def bsr(density: float, block: tuple[int, int]) -> dict[str, Any]:
    def make(n: int, m: int) -> tuple[BSR, ...]:
        kept = np.random.default_rng(9).random((n // block[0], m // block[1])) < density
        return (BSR.from_dense(np.kron(kept, np.ones(block, dtype=np.float32)), block=block),)

    return {"bsr": make}


CASES = [
    Case("full", 70, 70, {**rule(), **csr(1.1), **bsr(1.1, (10, 10))}),
    Case("causal", 100, 100, {**rule(causal=True), **csr(0.5), **bsr(0.6, (20, 10))}, causal=True),
    *(
        Case(f"causal of {n}", n, n, {**rule(causal=True), **csr(0.7)}, causal=True)
        for n in (1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)
    ),
    *(
        Case(f"{m} keys", 40, m, {**rule(window=20), **csr(0.8)})
        for m in (1, 2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 71, 255, 256, 257)
    ),
    *(
        Case(f"{d} and {dv} features", 33, 50, {**rule(), **csr(0.1), **bsr(0.5, (11, 5))}, d=d, dv=dv)
        for d, dv in ((1, 1), (3, 5), (7, 6), (8, 9), (16, 17), (31, 33), (65, 12), (80, 96), (128, 128), (12, 130))
    ),
    Case("window", 300, 300, rule(window=40)),
    Case("window of one", 130, 130, rule(window=0)),
    Case("causal window", 300, 300, rule(window=70, causal=True)),
    Case("window and global", 260, 260, rule(window=20, global_tokens=5)),
    Case("many global", 260, 260, rule(window=9, global_tokens=70)),
    Case("global alone", 200, 200, rule(global_tokens=3)),
    Case("causal global", 200, 200, rule(window=10, global_tokens=20, causal=True)),
    Case("dilated", 300, 300, rule(window=60, dilation=3)),
    Case("dilated without limit", 200, 200, rule(dilation=4)),
    Case("dilated, global, causal", 257, 257, rule(window=100, dilation=2, global_tokens=7, causal=True)),
    Case("dilation above the queries", 30, 30, rule(window=29, dilation=50)),
    Case("window beyond everything", 50, 50, rule(window=2**40)),
    Case("scattered", 200, 333, csr(0.02)),
    Case("scattered, wide indices", 200, 333, csr(0.05, index=np.int64)),
    Case("scattered, narrow indices", 200, 333, csr(0.05, index=np.uint16)),
    Case("dense entries", 100, 150, csr(0.6)),
    Case("no entries", 40, 50, {**csr(0.0), **bsr(0.0, (8, 10))}),
    Case("empty rows", 90, 80, csr(0.3, row="empty")),
    Case("one full row", 90, 300, csr(0.01, row="full")),
    Case("one mask a head", 60, 60, csr(0.3, heads=4), heads=4, kv_heads=2),
    Case("one mask a head and sequence", 60, 60, csr(0.3, heads=6), heads=3, kv_heads=1, batch=2),
    Case("blocks of 64", 256, 320, bsr(0.4, (64, 64))),
    Case("blocks of 16", 128, 128, bsr(0.3, (16, 16)), causal=True),
    Case("blocks of 4 by 3", 64, 60, bsr(0.2, (4, 3))),
    Case("blocks of one row", 64, 64, bsr(0.2, (1, 8))),
    Case("tall blocks", 96, 64, bsr(0.3, (48, 1))),
    Case("grouped heads", 70, 70, {**rule(window=15), **csr(0.2)}, heads=6, kv_heads=2, batch=2),
    Case("one key head", 70, 70, rule(causal=True), heads=5, kv_heads=1),
    Case("one new token", 1, 1000, {**rule(), **csr(0.3)}, causal=True),
    Case("one new token, window", 1, 3000, rule(window=200, global_tokens=4), causal=True),
    Case("one new token, grouped", 1, 777, {**rule(causal=True), **csr(0.5)}, heads=9, kv_heads=3, causal=True),
    Case("one new token, 4 heads a key head", 1, 2100, rule(causal=True), heads=8, kv_heads=2, batch=2),
    Case("two new tokens", 2, 600, {**rule(window=100), **csr(0.2)}, heads=4, kv_heads=2, causal=True),
    Case("some new tokens", 24, 500, {**rule(window=100), **csr(0.2)}, heads=4, kv_heads=2, causal=True),
    Case("more queries than keys", 90, 30, {**rule(window=50), **csr(0.4)}, causal=True),
    Case("lengths", 100, 100, {**rule(window=30), **csr(0.4)}, batch=4, lengths=(100, 64, 1, 0), causal=True),
    Case("lengths, new tokens", 3, 900, rule(window=64), batch=3, lengths=(900, 500, 3), causal=True),
    Case("lengths, more new tokens", 20, 90, rule(causal=True), batch=3, lengths=(90, 50, 20)),
    Case("large scores", 130, 200, {**rule(), **csr(0.3)}, spread=30.0),
    Case("no queries", 0, 20, rule()),
]


def run(kernel: OperationKernel, case: Case, masks: Any, arrays: Any, *, shift: int = 0) -> np.ndarray:
    """The kernel's result into memory full of NaN, with guards around it."""
    q, k, v = arrays
    out = guarded((case.batch, case.heads, case.queries, v.shape[-1]), shift=shift)
    kernel.function(q, k, v, out.array, masks, 1.0 / case.d**0.5, case.causal, case.valid())
    assert out.intact()
    return out.array


def pairs(names: list[str], cases: list[Case]) -> Any:
    """Each kernel with the cases that have a mask of its kind."""
    fitting = [(name, case) for name in names for case in cases if KERNELS[name].format in case.masks]
    return pytest.mark.parametrize(
        ("name", "case"), fitting, ids=[f"{name}-{case.name.replace(' ', '-')}" for name, case in fitting]
    )


@pairs(USABLE, CASES)
def test_keeps_the_error_bound(name: str, case: Case, record_property: Callable[[str, object], None]) -> None:
    kernel = KERNELS[name]
    masks, arrays = case.masks[kernel.format](case.queries, case.keys), case.arrays()
    for array in arrays:
        array.setflags(write=False)
    expected = reference.attention(*arrays, masks, scale=1.0 / case.d**0.5, causal=case.causal, lengths=case.valid())
    for shift in (0, 1):
        assert_attended(run(kernel, case, masks, arrays, shift=shift), expected, case.d, case.keys)
    record_property("isa", kernel.isa)
    record_property("checks", 2)


SPREADING = [
    Case("window", 100, 100, rule(window=10)),
    Case("causal window and global", 100, 100, rule(window=10, global_tokens=2, causal=True)),
    Case("dilated", 100, 100, rule(window=30, dilation=3)),
    Case("scattered", 100, 90, csr(0.05)),
    Case("dense entries", 100, 90, csr(0.6)),
    Case("blocks of 16", 96, 96, bsr(0.4, (16, 16))),
    Case("blocks of 4", 96, 96, bsr(0.4, (4, 4))),
    Case("causal blocks", 96, 96, bsr(0.4, (32, 32)), causal=True),
    Case("one new token", 1, 200, {**rule(window=50), **csr(0.9)}, causal=True),
]


# An infinite score is a NaN, or hides all others, by its sign.
@pytest.mark.parametrize(("where", "bad"), [("q", np.nan), ("k", np.nan), ("v", np.nan), ("v", np.inf)])
@pairs(NATIVE, SPREADING)
def test_what_is_not_finite_reaches_who_sees_it_and_no_other(name: str, case: Case, where: str, bad: float) -> None:
    """Rivals are left out: a weight of 0 times NaN is NaN there."""
    kernel = KERNELS[name]
    masks = case.masks[kernel.format](case.queries, case.keys)
    arrays = dict(zip("qkv", case.arrays(), strict=True))
    rows = arrays[where].shape[2]
    for head, row in ((0, rows // 2), (1, rows - 1), (1, 0)):
        arrays[where][0, head, row, 5] = bad
    given = tuple(arrays.values())
    expected = reference.attention(*given, masks, scale=1.0 / case.d**0.5, causal=case.causal, lengths=case.valid())
    assert np.isnan(expected.out).any()
    assert case.queries == 1 or np.isfinite(expected.out).any()
    assert_attended(run(kernel, case, masks, given), expected, case.d, case.keys)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", NATIVE)
def test_any_number_of_threads_gives_the_same(name: str, threads: int) -> None:
    from zeroskip.kernels.cpu import get_num_threads, set_num_threads

    kernel = KERNELS[name]
    case = Case("threads", 200, 200, {**rule(window=30), **csr(0.2), **bsr(0.3, (20, 20))}, heads=3, kv_heads=3)
    masks, arrays = case.masks[kernel.format](200, 200), case.arrays()
    before = get_num_threads()
    try:
        set_num_threads(1)
        alone = run(kernel, case, masks, arrays)
        set_num_threads(threads)
        np.testing.assert_array_equal(run(kernel, case, masks, arrays), alone)
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("name", [name for name in NATIVE if KERNELS[name].format != "rule"])
def test_stored_values_do_not_matter(name: str) -> None:
    kernel = KERNELS[name]
    case = Case("values", 64, 64, {**csr(0.3), **bsr(0.3, (16, 16))})
    (mask,), arrays = case.masks[kernel.format](64, 64), case.arrays()
    other = type(mask)(**{**mask.__dict__, "data": np.full_like(mask.data, np.nan)})
    np.testing.assert_array_equal(run(kernel, case, (mask,), arrays), run(kernel, case, (other,), arrays))


@pytest.mark.parametrize("name", KERNELS)
def test_can_run_here(name: str) -> None:
    """Lists what is not tested on this machine, each with its own reason."""
    reason = KERNELS[name].why_not()
    if reason is not None:
        pytest.skip(reason)


def test_every_kind_of_mask_has_a_portable_kernel() -> None:
    assert {f"attention_{kind}_f32_scalar" for kind in ("rule", "csr", "bsr")} <= set(NATIVE)
