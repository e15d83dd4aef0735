"""An encoder's part of the demo: sentences a second in each engine, and how close the embeddings stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...models import LoadedModel
from ...runtime import CompiledModel
from .. import quality
from ..rivals import BATCH, OnnxEncoder, TorchEncoder
from ..saved import SAME_COSINE, arithmetic, what
from ..timer import Candidate
from .engines import Engine, missing, ok, rates

Float32 = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
NEIGHBOURS = 10
_EXAMPLES = 3


def measure(
    dense: LoadedModel,
    compiled_dense: CompiledModel | None,
    compiled: CompiledModel,
    texts: Sequence[str],
    *,
    work: Path,
    threads: int,
    rounds: int,
    fuse: bool,
    progress: Progress,
) -> tuple[dict[str, Any], Float32, Float32]:
    """Time every engine on the same texts, interleaved.

    Returns:
        The `speed` entry of the results, and the embeddings by dense torch and by the sparse model.
    """
    torch_encoder = TorchEncoder(dense)
    entries: list[Engine] = [ok("torch", "torch", "dense, batches sorted by tokens and padded")]
    calls: list[Callable[[], object]] = [partial(torch_encoder.embed, texts)]
    onnx = _onnx(dense, work, threads=threads, fuse=fuse)
    if isinstance(onnx, OnnxEncoder):
        entries.append(ok("onnxruntime", "ONNX Runtime", f"dense, {onnx.how}"))
        calls.append(partial(onnx.embed, texts))
    if compiled_dense is not None:
        entries.append(ok("zeroskip_dense", "zeroskip, dense", "the dense model, compiled"))
        calls.append(partial(compiled_dense.embed, texts, batch_size=BATCH))
    entries.append(ok("zeroskip_sparse", "zeroskip, sparse", "the pruned model, compiled"))
    calls.append(partial(compiled.embed, texts, batch_size=BATCH))
    dense_vectors = torch_encoder.embed(texts)
    sparse_vectors = compiled.embed(texts, batch_size=BATCH)
    candidates = [Candidate(entry["key"], [call]) for entry, call in zip(entries, calls, strict=True)]
    rates(entries, candidates, len(texts), rounds=rounds, progress=progress)
    if not isinstance(onnx, OnnxEncoder):
        entries.insert(1, onnx)
    speed = {
        "key": "embed",
        "title": "Embedding",
        "unit": "sentences/s",
        "what": f"{len(texts)} paragraphs, tokenising included, in batches of up to {BATCH}",
        "engines": entries,
    }
    return speed, dense_vectors, sparse_vectors


def _onnx(dense: LoadedModel, work: Path, *, threads: int, fuse: bool) -> OnnxEncoder | Engine:
    """The exported model, or a row that says why there is none."""
    key, label = "onnxruntime", "ONNX Runtime"
    try:
        import onnx  # noqa: F401 - torch's exporter needs it
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return missing(key, label, f"not installed ({error.name}): pip install onnx onnxruntime")
    try:
        return OnnxEncoder(dense, work, threads=threads, fuse=fuse)
    except Exception as error:  # an export can fail in any way; the demo goes on without it and says so
        return missing(key, label, f"export failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}")


def judge(dense: Float32, sparse: Float32, texts: Sequence[str]) -> dict[str, Any]:
    """The `quality` entry: cosine of each text, neighbours kept, rank correlation, and examples."""
    each = quality.cosines(dense, sparse)
    k = min(NEIGHBOURS, len(texts) - 1)
    return {
        "cosine": {
            "mean": float(each.mean()),
            "p10": float(np.quantile(each, 0.1)),
            "min": float(each.min()),
            "values": [round(float(value), 5) for value in each],
        },
        "neighbours": {"k": k, "kept": quality.neighbours_kept(dense, sparse, k=k) if k else 1.0},
        "rank_correlation": quality.rank_correlation(dense, sparse) if len(texts) >= 3 else 1.0,
        "texts": len(texts),
        "examples": _examples(dense, sparse, texts),
    }


def _examples(dense: Float32, sparse: Float32, texts: Sequence[str]) -> list[dict[str, str]]:
    """The nearest other text of some texts, by dense and by sparse vectors."""
    if len(texts) < 2:
        return []
    found = []
    for place in range(0, len(texts), max(1, len(texts) // _EXAMPLES))[:_EXAMPLES]:
        best = {}
        for name, vectors in (("dense", dense), ("sparse", sparse)):
            close = vectors @ vectors[place]
            close[place] = -np.inf
            best[name] = texts[int(close.argmax())]
        found.append({"text": texts[place], **best})
    return found


def check(compiled: CompiledModel, pruned: LoadedModel, texts: Sequence[str]) -> dict[str, Any]:
    """The compiled model against torch on the same pruned weights (`saved.as_saved`)."""
    want = TorchEncoder(pruned).embed(texts)
    worst = float(quality.cosines(want, compiled.embed(texts)).min())
    limit = SAME_COSINE[arithmetic(compiled)]
    return {
        "what": what(compiled),
        "value": worst,
        "limit": limit,
        "passed": bool(worst >= limit),
        "text": f"smallest cosine of {len(texts)} embeddings is {worst:.7f}, at least {limit:g} is asked",
    }


def summary(quality_entry: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    neighbours = quality_entry["neighbours"]
    return (
        f"cosine to dense {quality_entry['cosine']['mean']:.4f} (lowest tenth {quality_entry['cosine']['p10']:.4f}), "
        f"{neighbours['kept']:.1%} of the {neighbours['k']} nearest neighbours kept, "
        f"rank correlation {quality_entry['rank_correlation']:.4f}"
    )
