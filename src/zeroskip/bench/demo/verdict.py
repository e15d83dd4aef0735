"""What the figures mean, in plain words. The thresholds are here and in docs/demo.md, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

GOOD, FAIR, POOR = "good", "fair", "poor"

# From here on good, from here on fair, below poor.
NEIGHBOURS = (0.85, 0.70)
COSINE = (0.95, 0.88)
TOP1 = (0.85, 0.70)
# Up to here good, up to here fair, above poor.
PERPLEXITY_RATIO = (1.10, 1.50)
# Sparse over the best rival: from here faster, from here about as fast, below slower.
SPEED = (1.10, 0.95)


class Verdict(NamedTuple):
    """One judgement: `level` is good, fair or poor."""

    level: str
    title: str
    text: str


def verdicts(doc: Mapping[str, Any]) -> list[Verdict]:
    """Speed, size and quality of a demo's results, each in a sentence or two."""
    found = [_speed(speed) for speed in doc["speeds"]]
    found.append(_size(doc["sizes"]))
    quality = doc["quality"]
    found.append(_encoder(quality, doc) if "cosine" in quality else _decoder(quality, doc))
    broken = [check for check in doc["checks"] if not check["passed"]]
    for check in broken:
        found.insert(0, Verdict(POOR, "A check failed", f"{check['what']}: {check['text']}. Do not use this model."))
    return found


def _at_least(value: float, limits: tuple[float, float]) -> str:
    return GOOD if value >= limits[0] else FAIR if value >= limits[1] else POOR


def _at_most(value: float, limits: tuple[float, float]) -> str:
    return GOOD if value <= limits[0] else FAIR if value <= limits[1] else POOR


def _speed(speed: Mapping[str, Any]) -> Verdict:
    rates = {engine["key"]: engine["rate"] for engine in speed["engines"] if engine["status"] == "ok"}
    labels = {engine["key"]: engine["label"] for engine in speed["engines"]}
    ours = rates.pop("zeroskip_sparse")
    dense = rates.pop("zeroskip_dense", None)
    best = max(rates, key=lambda key: rates[key])
    ratio = ours / rates[best]
    level = _at_least(ratio, SPEED)
    words = {GOOD: "faster", FAIR: "about as fast", POOR: "slower"}[level]
    text = f"The sparse model makes {ours:,.0f} {speed['unit']}: {ratio:.2f} times {labels[best]}, the best rival."
    if dense:
        share = ours / dense
        because = "that part is due to the zeros" if share > 1 else "the zeros themselves gain nothing here"
        text += f" It is {share:.2f} times as fast as our own dense run: {because}."
    if level == POOR:
        text += " On this machine sparsity does not pay for this use: keep the dense model."
    return Verdict(
        level, f"{speed['title']}: {words} than dense" if level != FAIR else f"{speed['title']}: {words} as dense", text
    )


def _size(sizes: Mapping[str, Any]) -> Verdict:
    memory = {row["key"]: row["bytes"] for row in sizes["memory"]}
    share = memory["zeroskip_sparse"] / memory["torch"]
    level = GOOD if share < 0.8 else FAIR if share <= 1.0 else POOR
    words = {GOOD: "smaller", FAIR: "little gained", POOR: "larger"}[level]
    return Verdict(
        level, f"Size: {words}", f"Its weights take {share:.0%} of the memory that the dense float32 weights take."
    )


def _encoder(quality: Mapping[str, Any], doc: Mapping[str, Any]) -> Verdict:
    kept, cosine = quality["neighbours"]["kept"], quality["cosine"]["mean"]
    count = quality["neighbours"]["k"]
    level = _worse(_at_least(kept, NEIGHBOURS), _at_least(cosine, COSINE))
    text = f"Of each text's {count} nearest neighbours {kept:.0%} stay among them; the mean cosine is {cosine:.3f}."
    text += {
        GOOD: " Search and clustering should hardly notice.",
        FAIR: " Search results will differ in places: measure your own task before you switch, and do not mix "
        "sparse and dense vectors in one index.",
        POOR: " This is a different model now: search results will change visibly. Lower the sparsity, or fine-tune "
        "after pruning.",
    }[level]
    return Verdict(level, f"Quality: {_quality_words(level)}", text)


def _decoder(quality: Mapping[str, Any], doc: Mapping[str, Any]) -> Verdict:
    perplexity = quality["perplexity"]
    ratio = perplexity["sparse"] / perplexity["dense"]
    level = _worse(_at_most(ratio, PERPLEXITY_RATIO), _at_least(quality["top1"], TOP1))
    text = (
        f"Perplexity goes from {perplexity['dense']:.1f} to {perplexity['sparse']:.1f} ({ratio:.2f} times), and the "
        f"likeliest next token is the same in {quality['top1']:.0%} of places."
    )
    text += {
        GOOD: " The texts should read alike.",
        FAIR: " The texts stay fluent but differ, and facts suffer first: measure your own task before you switch.",
        POOR: " The loss is large and shows in the text below. One-shot pruning takes much from a small language "
        "model: lower the sparsity, or fine-tune after pruning.",
    }[level]
    return Verdict(level, f"Quality: {_quality_words(level)}", text)


def _quality_words(level: str) -> str:
    return {GOOD: "kept", FAIR: "lower, usable with care", POOR: "suffers"}[level]


def _worse(first: str, second: str) -> str:
    order = (GOOD, FAIR, POOR)
    return order[max(order.index(first), order.index(second))]
