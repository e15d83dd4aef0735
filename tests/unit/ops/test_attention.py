"""The contract of attention: what it takes, what it refuses, and what masks, heads, lengths and caches mean."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from zeroskip import ops
from zeroskip._errors import DtypeError, InvalidArgument, KernelUnavailable, ShapeError
from zeroskip.formats import BSR, COO, CSR
from zeroskip.ops import Rule
from zeroskip.ops import attention_reference as reference
from zeroskip.testing import random_dense
from zeroskip.testing.attention import assert_attended

RULES = [
    Rule(),
    Rule(causal=True),
    Rule(window=0),
    Rule(window=5),
    Rule(window=5, causal=True),
    Rule(window=12, dilation=3),
    Rule(dilation=4),
    Rule(dilation=4, causal=True),
    Rule(global_tokens=3),
    Rule(global_tokens=3, causal=True),
    Rule(window=4, global_tokens=6),
    Rule(window=12, dilation=5, global_tokens=6, causal=True),
    Rule(window=1000),
]
SHAPES = [(1, 1), (7, 7), (40, 40), (3, 40), (40, 3), (1, 20)]


def arrays(n: int = 50, m: int = 50, heads: int = 2, d: int = 16, batch: tuple[int, ...] = ()) -> tuple[Any, Any, Any]:
    return (
        random_dense((*batch, heads, n, d), 0.0, seed=1),
        random_dense((*batch, heads, m, d), 0.0, seed=2),
        random_dense((*batch, heads, m, d), 0.0, seed=3),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_all_forms_of_a_rule_agree(rule: Rule, shape: tuple[int, int]) -> None:
    """`contains` is the definition; the others skip what it would look at."""
    n, m = shape
    dense = np.array([[bool(rule.contains(i + m - n, j)) for j in range(m)] for i in range(n)])
    np.testing.assert_array_equal(rule.matrix(n, m), dense)
    for i in range(n):
        np.testing.assert_array_equal(rule.row(i + m - n, m), np.flatnonzero(dense[i]))
    csr = rule.csr(n, m)
    np.testing.assert_array_equal(csr.to_dense() != 0, dense)
    assert rule.count(n, m) == int(dense.sum())
    for first, last in ((0, n), (0, 1), (n // 2, n), (n, n)):
        inside = np.zeros(m, dtype=bool)
        found = rule.intervals(first + m - n, last + m - n, m)
        for low, high in found:
            assert 0 <= low < high <= m
            inside[low:high] = True
        assert all(one[1] < other[0] for one, other in pairwise(found))
        assert not (dense[first:last].any(axis=0) & ~inside).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_and_its_entries_give_the_same(rule: Rule, shape: tuple[int, int]) -> None:
    n, m = shape
    q, k, v = arrays(n, m)
    expected = reference.attention(q[None], k[None], v[None], (rule,), scale=0.25)
    for mask in (rule, rule.csr(n, m), BSR.from_dense(rule.csr(n, m).to_dense(), block=(1, 1))):
        assert_attended(ops.attention(q, k, v, mask)[None], expected, 16, m)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"window": -1}, "window is -1"),
        ({"window": 1.5}, "window is 1.5"),
        ({"dilation": 0}, "dilation is 0"),
        ({"global_tokens": True}, "global_tokens is True"),
        ({"causal": 1}, "causal is 1"),
        ({"window": 2**62}, "window is"),
    ],
)
def test_a_rule_refuses_what_is_out_of_range(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        Rule(**settings)


def test_no_mask_is_all_keys() -> None:
    q, k, v = arrays(20, 30)
    np.testing.assert_array_equal(ops.attention(q, k, v), ops.attention(q, k, v, Rule()))


def test_causal_goes_with_any_mask() -> None:
    q, k, v = arrays()
    a = CSR.from_dense((np.random.default_rng(0).random((50, 50)) < 0.5).astype(np.float32))
    both = CSR.from_dense(np.tril(a.to_dense()))
    assert np.allclose(ops.attention(q, k, v, a, causal=True), ops.attention(q, k, v, both), atol=1e-6)


def test_other_formats_are_taken_as_csr() -> None:
    q, k, v = arrays()
    a = CSR.from_dense((np.random.default_rng(0).random((50, 50)) < 0.5).astype(np.float32))
    expected = ops.attention(q, k, v, a)
    for name in ("coo", "bitmask", "csc", "ell"):
        np.testing.assert_array_equal(ops.attention(q, k, v, a.convert(name)), expected)


def test_a_stored_zero_is_seen() -> None:
    q, k, v = arrays(2, 3)
    coo = COO.of((2, 3), np.array([0, 1]), np.array([2, 0]), np.zeros(2, dtype=np.float32), "float32")
    out = ops.attention(q, k, v, CSR.from_coo(coo))
    np.testing.assert_allclose(out[:, 0], v[:, 2], rtol=1e-6)
    np.testing.assert_allclose(out[:, 1], v[:, 0], rtol=1e-6)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    q, k, v = arrays(30, 40)
    seen = np.ones((30, 40), dtype=np.float32)
    seen[3] = seen[29] = 0
    out = ops.attention(q, k, v, CSR.from_dense(seen))
    assert (out[:, [3, 29]] == 0).all()
    assert (np.abs(np.delete(out, [3, 29], axis=1)).sum(axis=-1) > 0).all()
    assert (ops.attention(q, k[:, :0], v[:, :0]) == 0).all()
    assert ops.attention(q[:, :0], k, v).shape == (2, 0, 16)
    assert ops.attention(q, k, v[..., :0]).shape == (2, 30, 0)


def test_one_mask_a_head_and_one_a_sequence() -> None:
    q, k, v = arrays(20, 20, heads=3, batch=(2,))
    masks = [
        CSR.from_dense((np.random.default_rng(seed).random((20, 20)) < 0.4).astype(np.float32)) for seed in range(6)
    ]
    out = ops.attention(q, k, v, masks)
    for b in range(2):
        for h in range(3):
            one = ops.attention(q[b, h : h + 1], k[b, h : h + 1], v[b, h : h + 1], masks[3 * b + h])
            np.testing.assert_array_equal(out[b, h], one[0])
    np.testing.assert_array_equal(
        ops.attention(q, k, v, masks[:3])[1, 2], ops.attention(q[1], k[1], v[1], masks[:3])[2]
    )


def test_rules_may_differ_by_head() -> None:
    q, k, v = arrays(60, 60, heads=3)
    rules = [Rule(window=3), Rule(window=30, dilation=2), Rule(global_tokens=4)]
    out = ops.attention(q, k, v, rules)
    for h, rule in enumerate(rules):
        one = slice(h, h + 1)
        np.testing.assert_array_equal(out[one], ops.attention(q[one], k[one], v[one], rule))


@pytest.mark.parametrize("n", [1, 3, 40])
def test_heads_share_keys_in_groups(n: int) -> None:
    q = random_dense((2, 6, n, 16), 0.0, seed=1)
    k, v = (random_dense((2, 2, 40, 16), 0.0, seed=seed) for seed in (2, 3))
    repeated = [np.repeat(array, 3, axis=1) for array in (k, v)]
    rule = Rule(window=9)
    np.testing.assert_allclose(ops.attention(q, k, v, rule), ops.attention(q, *repeated, rule), atol=1e-6)


@pytest.mark.parametrize("new", [1, 2, 5, 17])
@pytest.mark.parametrize("rule", [None, Rule(window=30, global_tokens=2), Rule(window=60, dilation=2)], ids=str)
def test_decoding_with_a_cache_continues_the_whole(rule: Rule | None, new: int) -> None:
    q, k, v = arrays(200, 200, heads=3)
    whole = ops.attention(q, k, v, rule, causal=True)
    for length in (new, 64, 199, 200):
        step = ops.attention(q[:, length - new : length], k[:, :length], v[:, :length], rule, causal=True)
        np.testing.assert_allclose(step, whole[:, length - new : length], atol=2e-6)


@pytest.mark.parametrize("rule", [None, Rule(window=9), Rule(window=20, dilation=3, global_tokens=2)], ids=str)
def test_lengths_cut_each_sequence(rule: Rule | None) -> None:
    lengths = np.array([70, 33, 0, 1])
    q, k, v = arrays(70, 70, batch=(4,))
    k[1, :, 33:] = v[1, :, 33:] = np.nan
    out = ops.attention(q, k, v, rule, causal=True, lengths=lengths)
    for b, length in enumerate(lengths):
        cut = slice(0, length)
        np.testing.assert_allclose(
            out[b, :, cut], ops.attention(q[b, :, cut], k[b, :, cut], v[b, :, cut], rule, causal=True), atol=2e-6
        )
        assert (out[b, :, length:] == 0).all()


@pytest.mark.parametrize("new", [1, 20])
def test_lengths_of_caches(new: int) -> None:
    """New tokens are the last of each sequence, whatever room its cache has."""
    lengths = np.array([90, 47, new])
    q, k, v = arrays(new, 90, batch=(3,))
    rule = Rule(window=25)
    out = ops.attention(q, k, v, rule, causal=True, lengths=lengths)
    for b, length in enumerate(lengths):
        one = ops.attention(q[b], k[b, :, :length], v[b, :, :length], rule, causal=True)
        np.testing.assert_allclose(out[b], one, atol=2e-6)


def test_operands_need_not_be_contiguous() -> None:
    q, k, v = arrays(30, 40)
    expected = ops.attention(q, k, v)
    turned = [np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1) for array in (q, k, v)]
    assert not turned[0].flags.c_contiguous
    np.testing.assert_array_equal(ops.attention(*turned), expected)
    back = ops.attention(q[..., ::-1], k[..., ::-1], v[..., ::-1])[..., ::-1]
    np.testing.assert_allclose(back, expected, atol=2e-6)


def test_any_number_of_dimensions_in_front() -> None:
    q, k, v = arrays(20, 30, batch=(2, 3))
    out = ops.attention(q, k, v, lengths=np.full((2, 3), 30))
    assert out.shape == (2, 3, 2, 20, 16)
    np.testing.assert_array_equal(out[1, 2], ops.attention(q[1, 2], k[1, 2], v[1, 2]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_torch_tensors_keep_their_type(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(array).to(getattr(torch, dtype)) for array in arrays(20, 30))
    out = ops.attention(q, k, v, Rule(window=8))
    assert isinstance(out, torch.Tensor)
    assert out.dtype == q.dtype
    expected = reference.attention(*(x.float().numpy()[None] for x in (q, k, v)), (Rule(window=8),), scale=0.25)
    assert_attended(out.float().numpy()[None], expected, 16, 30, out_dtype=dtype)


def test_float16_of_numpy() -> None:
    q, k, v = (array.astype(np.float16) for array in arrays(20, 30))
    out = ops.attention(q, k, v)
    assert out.dtype == np.float16
    expected = reference.attention(q[None], k[None], v[None], (Rule(),), scale=0.25)
    assert_attended(out[None], expected, 16, 30, out_dtype="float16")


def test_scale() -> None:
    q, k, v = arrays()
    expected = reference.attention(q[None], k[None], v[None], (Rule(),), scale=-0.7)
    assert_attended(ops.attention(q, k, v, scale=-0.7)[None], expected, 16, 50)
    mean = np.broadcast_to(v.mean(axis=1, keepdims=True), v.shape)
    np.testing.assert_allclose(ops.attention(q, k, v, scale=0), mean, atol=1e-6)


def bad_calls() -> list[Any]:
    q, k, v = arrays(8, 9)
    square = CSR.from_dense(np.eye(8, dtype=np.float32))
    fits = CSR.from_dense(np.ones((8, 9), dtype=np.float32))
    mixed = [fits, BSR.from_dense(np.ones((8, 9), dtype=np.float32), block=(2, 3))]
    return [
        ((q[0], k, v), {}, ShapeError, "q has shape .8, 16."),
        ((q, k[..., :8], v), {}, ShapeError, "k has shape"),
        ((q[..., :0], k[..., :0], v), {}, ShapeError, "at least 1"),
        ((q, k, v[:, :8]), {}, ShapeError, "v has shape"),
        ((q[None], k, v), {}, ShapeError, "k has shape"),
        ((np.concatenate((q, q[:1])), k, v), {}, ShapeError, "2 heads but q has 3"),
        ((q, k, v, square), {}, ShapeError, "mask has shape .8, 8."),
        ((q, k, v, np.ones((8, 9))), {}, InvalidArgument, "mask is a ndarray"),
        ((q, k, v, [fits] * 3), {}, InvalidArgument, "mask has 3 entries"),
        ((q, k, v, []), {}, InvalidArgument, "mask has 0 entries"),
        ((q, k, v, [fits, None]), {}, InvalidArgument, r"mask\[1\] is a NoneType"),
        ((q, k, v, mixed), {}, InvalidArgument, "kinds BSR, CSR"),
        ((q.astype(np.float64), k, v), {}, DtypeError, "q has dtype float64"),
        ((q, k.astype(np.int32), v), {}, DtypeError, "k has dtype int32"),
        (("q", k, v), {}, InvalidArgument, "q is a str"),
        ((q, k, v), {"scale": np.nan}, InvalidArgument, "scale is nan"),
        ((q, k, v), {"scale": "big"}, InvalidArgument, "scale is 'big'"),
        ((q, k, v), {"causal": "yes"}, InvalidArgument, "causal is 'yes'"),
        ((q[None], k[None], v[None]), {"lengths": [10]}, InvalidArgument, "lengths has 10"),
        ((q[None], k[None], v[None]), {"lengths": [7]}, InvalidArgument, "lengths has 7"),
        ((q[None], k[None], v[None]), {"lengths": [9, 9]}, ShapeError, "lengths has shape"),
        ((q[None], k[None], v[None]), {"lengths": [9.0]}, DtypeError, "lengths has dtype"),
        ((q, k, v), {"kernel": "fastest"}, KernelUnavailable, "'fastest', which is not known"),
        ((q, k, v), {"kernel": "attention_csr_f32_scalar"}, KernelUnavailable, "not attention of rule"),
    ]


@pytest.mark.parametrize(("given", "settings", "error", "match"), bad_calls())
def test_refuses_what_it_cannot_use(given: Any, settings: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        ops.attention(*given, **settings)
    assert "\n" not in str(caught.value)


def test_memory_does_not_grow_with_scores() -> None:
    """Scores of this size would be 2^46 bytes."""
    n = 2**22
    q, k, v = (np.ones((1, n, 1), dtype=np.float32) for _ in range(3))
    out = ops.attention(q, k, v, Rule(window=1, causal=True))
    np.testing.assert_allclose(out, 1.0, rtol=1e-6)
