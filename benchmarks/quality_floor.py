"""What `compile(keep_cosine=...)` chooses at several floors: speed over the dense model compiled, and cosine.

    python benchmarks/quality_floor.py [--model minilm] [--floors 0.99 0.98 0.97 0.95] [--uniform 0.4 0.5 0.6] [--json]

Each floor is searched for with one half of the paragraphs of the calibration text pruning and the other half deciding.
The models are then compared on text that took no part in the search: 500 paragraphs of the test text of WikiText-2,
each model and the dense one in turns, tokenising included; medians of whole passes. `--uniform` prunes every layer to
the same sparsity instead, SparseGPT with refit as the search does: what choosing layer by layer gains. With --lines 0
the held-back lines are measured on instead. `--details` prints what was chosen for each layer. What a search measured
is kept in the cache folder, so that a second run is short; --fresh measures anew. Needs ZEROSKIP_DATA_DIR and the
package of the model.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from _common import parser

import zeroskip
from zeroskip import datasets, kernels, models
from zeroskip.bench import machine
from zeroskip.bench.quality import compare_embeddings
from zeroskip.runtime.floor.search import halves


def main() -> None:
    """Print one line a model."""
    made = parser(__doc__)
    made.add_argument("--model", default="minilm")
    made.add_argument("--floors", type=float, nargs="*", default=[0.99, 0.98, 0.97, 0.95])
    made.add_argument("--uniform", type=float, nargs="*", default=[0.4, 0.5, 0.6])
    made.add_argument("--values", default=None, help="limit the rungs to float32 and this value type")
    made.add_argument("--calibration", default="pydoc", help="a file or a name")
    made.add_argument("--search-minutes", type=float, default=15.0)
    made.add_argument("--lines", type=int, default=500)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--fresh", action="store_true")
    made.add_argument("--details", action="store_true")
    made.add_argument("--json", action="store_true")
    options = made.parse_args()
    loaded = models.load(options.model)
    texts = datasets.paragraphs(datasets.wikitext2("test"))[: options.lines] if options.lines else []
    texts = texts or halves(options.calibration).held_back
    dense = zeroskip.compile(loaded, threads=options.threads, cache=not options.fresh)
    if not options.json:
        print(f"{options.model}, {machine.describe(kernels.num_threads())}, {len(texts)} paragraphs")
    for name, model, floor in candidates(loaded, options):
        slow, fast = seconds([dense, model], texts, options.rounds)
        found = compare_embeddings(dense.embed(texts), model.embed(texts), texts)
        row = {
            "model": options.model,
            "machine": machine.describe(kernels.num_threads()),
            "name": name,
            "speedup_over_dense": slow / fast,
            "sentences_per_s": len(texts) / fast,
            "cosine": found.mean_cosine,
            "rank_correlation": found.rank_correlation,
            "weights_bytes": model.memory.sparse + model.memory.dense,
            "texts": len(texts),
            "floor": floor,
        }
        print(json.dumps(row) if options.json else line(row), flush=True)
        if options.details and floor is not None:
            print(f"\n{model.floor}\n", file=sys.stderr)


def candidates(loaded: models.LoadedModel, options: Any) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
    """The name of each model, the model compiled, and what its search says."""
    settings = {"threads": options.threads, "cache": not options.fresh}
    for keep in options.floors:
        model = zeroskip.compile(
            loaded,
            keep_cosine=keep,
            values=options.values,
            calibration=options.calibration,
            search_s=60 * options.search_minutes,
            **settings,
        )
        assert model.floor is not None
        yield f"keep {keep:g}", model, model.floor.as_json()
    for sparsity in options.uniform:
        pruned = replace(loaded, model=copy.deepcopy(loaded.model))
        models.prune(pruned, sparsity=sparsity, calibration=halves(options.calibration).calibration)
        yield f"all at {sparsity:.0%}", zeroskip.compile(pruned, **settings), None


def seconds(compiled: Sequence[Any], texts: Sequence[str], rounds: int) -> list[float]:
    """Median seconds of a pass over all texts; the models take turns."""
    spans: list[list[float]] = [[] for _ in compiled]
    for number in range(rounds + 1):
        for model, own in zip(compiled, spans, strict=True):
            start = time.perf_counter()
            model.embed(texts)
            if number:
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in spans]


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    text = (
        f"{row['name']:11s} {row['speedup_over_dense']:5.2f}x dense  {row['sentences_per_s']:7.1f} sentences/s  "
        f"cosine {row['cosine']:.4f}"
    )
    floor = row["floor"]
    if floor is None:
        return text
    rungs: dict[str, int] = {}
    for layer in floor["layers"]:
        pruned = layer["prune"] if isinstance(layer["prune"], str) else f"{layer['prune']:.0%}"
        rungs[f"{pruned} {layer['values']}"] = rungs.get(f"{pruned} {layer['values']}", 0) + 1
    chosen = ", ".join(f"{count} x {rung}" for rung, count in sorted(rungs.items()))
    return (
        f"{text}, {floor['cosine']:.4f} held back; predicted {floor['predicted_speedup']:.2f}x, "
        f"{len(floor['trials'])} trials in {floor['search_s']:.0f} s; {chosen}"
    )


if __name__ == "__main__":
    main()
