"""A decoder's part of the demo: prefill and decode speed, time to the first token, and what pruning costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...models import LoadedModel
from ...runtime import CompiledModel
from .. import quality
from ..rivals import TorchDecoder
from ..saved import arithmetic, what
from ..timer import Samples, settle
from .engines import Engine, fill, missing, ok
from .texts import PROMPTS

Ids = npt.NDArray[np.int32]
Progress = Callable[[str, int, int], None]

PREFILL_TOKENS = 512
# Largest difference of log-probabilities between a compiled model and torch on the same weights.
SAME_LOGITS = {"float32": 2e-3, "float16": 0.1, "bfloat16": 0.8}
# Mean divergence where kernels round x to 8 bits, in nats: twice the most that was seen, not derived. SmolLM2 at 50 %
# has 0.07 in int8, 0.16 in int4 and 0.26 in int4 8:16, over 128 tokens.
ROUNDED_KL = 0.5


def measure(
    dense: LoadedModel,
    compiled_dense: CompiledModel | None,
    compiled: CompiledModel,
    ids: Ids,
    *,
    decode_tokens: int,
    rounds: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The `speeds` entries: prefill, decode, each engine in turn on the same tokens."""
    rows: list[tuple[Engine, Callable[[], tuple[float, float]]]] = [
        (ok("torch", "torch", "dense float32, a bare greedy loop"), _torch_run(dense, ids, decode_tokens)),
    ]
    if compiled_dense is not None:
        label = ok("zeroskip_dense", "zeroskip, dense", f"the dense model, compiled, {compiled_dense.values} values")
        rows.append((label, _own_run(compiled_dense, ids, decode_tokens)))
    label = ok("zeroskip_sparse", "zeroskip, sparse", f"the pruned model, compiled, {compiled.values} values")
    rows.append((label, _own_run(compiled, ids, decode_tokens)))
    found = [(Samples(), Samples()) for _ in rows]
    for _, run in rows:
        run()
    for turn in range(rounds):
        for place in range(len(rows)):
            index = (place + turn) % len(rows)
            settle()
            for samples, spent in zip(found[index], rows[index][1](), strict=True):
                samples.times_s.append(spent)
            progress("measuring speed", turn * len(rows) + place + 1, rounds * len(rows))
    return _speeds([entry for entry, _ in rows], found, len(ids), decode_tokens)


def _speeds(
    entries: Sequence[Engine], found: Sequence[tuple[Samples, Samples]], prompt: int, steps: int
) -> list[dict[str, Any]]:
    prefill, decode = [dict(entry) for entry in entries], [dict(entry) for entry in entries]
    for first, second, (before, after) in zip(prefill, decode, found, strict=True):
        fill(first, before, prompt)
        first["first_token_s"] = before.median_s
        fill(second, after, steps)
    other = missing("onnxruntime", "ONNX Runtime", "not compared: it needs a generation loop of its own for decoders")
    return [
        {
            "key": "prefill",
            "title": "Prefill",
            "unit": "tokens/s",
            "what": f"a prompt of {prompt} tokens; its time is the time to the first token",
            "engines": [prefill[0], other, *prefill[1:]],
        },
        {
            "key": "decode",
            "title": "Decode",
            "unit": "tokens/s",
            "what": f"one sequence, {steps} tokens one at a time behind a prompt of {prompt}",
            "engines": [decode[0], dict(other), *decode[1:]],
        },
    ]


def _torch_run(dense: LoadedModel, ids: Ids, steps: int) -> Callable[[], tuple[float, float]]:
    decoder = TorchDecoder(dense)

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        token, cache = decoder.prefill(ids)
        middle = time.perf_counter()
        for _ in range(steps):
            token, cache = decoder.step(token, cache)
        return middle - start, time.perf_counter() - middle

    return run


def _own_run(model: CompiledModel, ids: Ids, steps: int) -> Callable[[], tuple[float, float]]:
    """The same through `next_logits`, which is what `generate` calls; no token ends it early."""

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        cache = model.new_cache(ids.size + steps)
        token = int(model.next_logits(ids, cache).argmax())
        middle = time.perf_counter()
        for _ in range(steps):
            token = int(model.next_logits(np.array([token], dtype=np.int32), cache).argmax())
        return middle - start, time.perf_counter() - middle

    return run


def judge(
    dense: LoadedModel, compiled: CompiledModel, ids: Ids, *, window: int, count: int, progress: Progress
) -> dict[str, Any]:
    """The `quality` entry: perplexity of both, divergence, agreement, and texts side by side."""
    reference = TorchDecoder(dense)
    compared = quality.compare_logits(
        reference.logits,
        lambda tokens: compiled.logits([tokens.astype(np.int32)]),
        quality.windows(ids, length=window, count=count),
        progress=progress,
    )
    return {
        "perplexity": {"dense": compared.perplexity_dense, "sparse": compared.perplexity_sparse},
        "kl": compared.kl,
        "top1": compared.top1_agreement,
        "windows": compared.windows,
        "predictions": compared.predictions,
    }


def side_by_side(
    dense: LoadedModel, compiled: CompiledModel, *, tokens: int, progress: Progress
) -> list[dict[str, str]]:
    """What both write behind the same prompts, the likeliest token each time."""
    reference, stops = TorchDecoder(dense), compiled.text.settings.stop_ids
    found = []
    for done, prompt in enumerate(PROMPTS, 1):
        ids = compiled.text.encode([prompt], cut=False)[0]
        theirs = compiled.text.decode(reference.generate(ids, tokens, stops))
        ours = compiled.generate(prompt, max_tokens=tokens).text
        found.append({"prompt": prompt, "dense": theirs, "sparse": ours})
        progress("writing", done, len(PROMPTS))
    return found


def check(compiled: CompiledModel, pruned: LoadedModel, ids: Ids) -> dict[str, Any]:
    """The compiled model against torch on the same weights (`saved.as_saved`): log-probabilities of the likely tokens.

    Where x is rounded to 8 bits single ones are far off, and the divergence is asked instead.
    """
    want, have = TorchDecoder(pruned).logits(ids), compiled.logits([ids])
    wanted, found = _log_probabilities(want), _log_probabilities(have)
    kind = arithmetic(compiled)
    if kind == "int8":
        value, limit = float((np.exp(wanted) * (wanted - found)).sum(axis=1).mean()), ROUNDED_KL
        text = f"mean divergence is {value:.2g} nats over {ids.size} tokens, {limit:g} is allowed"
    else:
        value = float(np.abs(wanted - found)[wanted > np.log(1e-3)].max())
        limit = SAME_LOGITS[kind]
        text = f"likely log-probabilities differ by at most {value:.2g} over {ids.size} tokens, {limit:g} is allowed"
    return {"what": what(compiled), "value": value, "limit": limit, "passed": bool(value <= limit), "text": text}


def _log_probabilities(logits: Any) -> npt.NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def summary(entry: dict[str, Any]) -> str:
    """One line for the terminal."""
    perplexity = entry["perplexity"]
    return (
        f"perplexity {perplexity['dense']:.2f} dense, {perplexity['sparse']:.2f} sparse; "
        f"KL {entry['kl']:.3f} nats; same likeliest token in {entry['top1']:.1%} of {entry['predictions']} places"
    )
