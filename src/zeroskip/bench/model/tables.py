"""The comparison as text."""

from __future__ import annotations

from collections.abc import Sequence

from ..drawing import number
from ..tables import megabytes, seconds, table
from .fronts import Row, verdicts
from .rows import FIRST


def terminal(rows: Sequence[Row]) -> str:
    """All tables, what was not measured, and what sparsity is worth."""
    done = [row for row in rows if row["status"] == "ok"]
    parts = []
    if done:
        first = done[0]
        title = f"{first['model']}: speed with a prompt of {first['prompt']} tokens, and behind {first['context']}"
        parts += [title, table([speed_line(row) for row in done]), ""]
        parts += ["size, and quality against the dense model in torch, float32", table([line(row) for row in done]), ""]
    parts += [f"{row['label']}: {row['status']}: {row['reason']}" for row in rows if row["status"] != "ok"]
    parts += [f"{verdict['title']}: {verdict['text']}" for verdict in verdicts(done)]
    return "\n".join(parts).rstrip()


def speed_line(row: Row) -> dict[str, str]:
    """How fast a row is, and how many times torch's float32 in brackets."""
    found = {"engine": row["label"], "first token": seconds(row["first_token_s"]) + _times(row, FIRST)}
    for batch, rate in row["decode_tokens_per_s"].items():
        found[f"tokens/s of {batch}"] = number(rate) + _times(row, batch)
    return found


def line(row: Row) -> dict[str, str]:
    """What a row takes, and what it is worth."""
    known = row["kl"] is not None
    return {
        "engine": row["label"],
        "zeros": f"{row['sparsity']:.0%}",
        "bits a weight": "" if row["bits_per_weight"] is None else f"{row['bits_per_weight']:.1f}",
        "on disk": megabytes(row["disk_bytes"]),
        "resident": megabytes(row["resident_bytes"]),
        "peak": megabytes(row["peak_bytes"]),
        "load": seconds(row["load_s"]),
        "perplexity": f"{row['perplexity']:.2f}" if known else "",
        "divergence": f"{row['kl']:.2g}" if known else "",
        "same token": f"{row['top1']:.1%}" if known else "",
    }


def _times(row: Row, name: str) -> str:
    return f" ({row['ratio'][name]:.2f}x)" if name in row["ratio"] else ""
