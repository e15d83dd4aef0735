"""One row of `zeroskip bench embed`: an engine, a number of threads, a case (docs/bench-embed.md says more).

A change of meaning or a field taken away raises `VERSION`; a field added does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..schema import check_compared

NAME = "zeroskip.bench.embed"
VERSION = 1

_TEXT, _INT, _NUMBER, _DICT = (str,), (int,), (int, float), (dict,)

FIELDS: dict[str, tuple[tuple[type, ...], bool, str]] = {
    # name: types, whether it may be null, meaning
    "schema": (_TEXT, False, "always zeroskip.bench.embed"),
    "schema_version": (_INT, False, "1"),
    "row": (_TEXT, False, "the engine, and behind a colon the compiled model; unique with threads and case"),
    "label": (_TEXT, False, "the same for people"),
    "engine": (_TEXT, False, "zeroskip, torch, onnxruntime, onnxruntime-int8, openvino, openvino-int8, deepsparse"),
    "engine_version": (_TEXT, True, "version of its package; null where not installed as one"),
    "how": (_TEXT, True, "which way of the engine's it ran; null when not ok"),
    "model": (_TEXT, True, "folder of the compiled model; null for the dense one"),
    "dense": (_TEXT, False, "the dense model"),
    "values": (_TEXT, False, "value type of the weights"),
    "sparsity": (_NUMBER, True, "share of zeros in the linear layers"),
    "threads": (_INT, False, "of the engine's process"),
    "case": (_TEXT, False, "start, single, batchN or mixed"),
    "status": (_TEXT, False, "ok; failed (wrong result, no answer, no build); missing (not installed)"),
    "reason": (_TEXT, True, "why it failed or is missing; null when ok"),
    "rounds": (_INT, False, "turns that it had"),
    "lines": (_INT, False, "lines of text of a pass"),
    "tokens": (_INT, False, "tokens of the single sentence"),
    "batch": (_INT, True, "texts in a batch; null for start"),
    "seconds": (_NUMBER, True, "median over rounds of a whole pass; null for start"),
    "sentences_per_s": (_NUMBER, True, "lines over `seconds`"),
    "sentences_per_s_low": (_NUMBER, True, "of the slowest pass"),
    "sentences_per_s_high": (_NUMBER, True, "of the fastest pass"),
    "p50_s": (_NUMBER, True, "median over rounds of the median time of one text; for single and batch1"),
    "p95_s": (_NUMBER, True, "the same of the 95th percentile"),
    "ratio": (
        _NUMBER,
        True,
        "median over rounds of ONNX Runtime's seconds (float32, same threads; start_s for start) over this row's",
    ),
    "speedup": (_NUMBER, True, "median over rounds of the same seconds with the fewest threads over this row's"),
    "start_s": (_NUMBER, True, "median of seconds from the start of the process to its first answer; for start"),
    "resident_bytes": (_INT, True, "of the process after all lines; for start; null where the system does not say"),
    "peak_bytes": (_INT, True, "the most it had until then"),
    "disk_bytes": (_INT, True, "of the files that it loads"),
    "cosine_mean": (_NUMBER, True, "of each line's vector to that of the dense model in torch; mean over lines"),
    "cosine_p10": (_NUMBER, True, "lowest tenth"),
    "cosine_min": (_NUMBER, True, "smallest"),
    "neighbours_kept": (_NUMBER, True, "share of the 10 nearest lines by dense vectors that stay the nearest"),
    "rank_correlation": (_NUMBER, True, "Spearman's, of the similarities of all pairs of lines"),
    "machine": (_DICT, False, "processor, caches, instruction sets, memory, system"),
    "versions": (_DICT, False, "of Python, zeroskip and the libraries; null where not installed"),
    "commit": (_TEXT, True, "commit of zeroskip's checkout, + behind it if files differ; null outside of one"),
    "when": (_TEXT, False, "UTC, ISO 8601"),
}


def check_row(row: Mapping[str, Any]) -> None:
    """Refuse a row that does not follow the schema.

    Raises:
        InvalidArgument: Naming the field, its value and the rule.
    """
    check_compared(row, FIELDS, NAME, VERSION)
