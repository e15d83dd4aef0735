"""Before anything is pruned: the sparsity from which each format and value type beats dense on this processor."""

from __future__ import annotations

import datetime
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._errors import InvalidArgument
from ...formats import DTYPES
from ...kernels import X_DTYPES
from .. import machine
from . import tables
from .breakeven import BreakEven, break_even, speedup_at
from .layers import LayerShape, layers_of, shapes_of
from .operands import Form
from .roofline import Roofline, cold_bytes, measure_roofline
from .search import TARGETS, Search, Settings
from .spots import Point, Spots, allowed_dense, anchor_name, import_libraries

Progress = Callable[[str, int, int], None]

SCHEMA, VERSION = "zeroskip.analysis", 1
SHAPES = ((4096, 4096),)
NS = (1, 8, 32, 128)
SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
FORMATS = ("csr", "bitmask", "nm", "bsr")
BUDGET_S = 48.0
# Time for the kernels of one pattern, sparsity and N together.
_SHARE_S = 0.1


@dataclass(frozen=True)
class Analysis:
    """What was found. `doc` is the JSON document; docs/analyze.md describes it."""

    doc: dict[str, Any]

    def table(self) -> str:
        """For each shape and N, what the best format of each value type gains."""
        return tables.summary(self.doc)

    def formats_table(self) -> str:
        """The same for every format by itself."""
        return tables.by_format(self.doc)

    def as_json(self) -> dict[str, Any]:
        return self.doc

    def save_png(self, path: Any) -> None:
        """Write the picture: speed-up over dense against sparsity, a panel for each shape and N.

        Raises:
            MissingDependency: If matplotlib is not installed.
        """
        from .figures import save_png

        save_png(self.doc, path)

    def save_html(self, path: Any) -> None:
        """Write a page with the picture and the tables; it needs nothing else.

        Raises:
            MissingDependency: If matplotlib is not installed.
        """
        from .figures import save_html

        save_html(self, path)

    @property
    def failures(self) -> list[str]:
        """Kernels that gave a wrong result or raised, one line each."""
        return [tables.failure_line(shape, item) for shape in self.doc["shapes"] for item in shape["failures"]]

    def __repr__(self) -> str:
        return f"Analysis({len(self.doc['shapes'])} shapes on {self.doc['machine']['cpu']})"


def analyze(
    model: Any = None,
    *,
    shapes: Sequence[tuple[int, int]] | None = None,
    n: Sequence[int] = NS,
    sparsities: Sequence[float] = SPARSITIES,
    values: Sequence[str] = DTYPES,
    formats: Sequence[str] = FORMATS,
    threads: int | None = None,
    budget_s: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Analysis:
    """Find the sparsity from which each format and value type beats dense on this processor, before pruning.

    Args:
        model: Anything that `models.load` takes: its prunable linear layers are looked at, equal shapes once.
        shapes: (M, K) instead of a model; with neither, 4096x4096.
        n: Vectors at a time. At 1 weights come from memory, as in a model that generates token by token.
        sparsities: What may be measured: 0.5, 0.8 and 0.9 first, then what lies near the break-even, then the highest.
        values: Value types of the sparse weights.
        formats: csr, bitmask, nm (N:16; nm:M for others), bsr (16x1 blocks; bsr:RxC).
        threads: Threads of every engine; None for ZEROSKIP_NUM_THREADS, or all cores.
        budget_s: Time to measure, in all; None for 48 seconds a shape. What is left out then is said.
        seed: Of the random operands.
        progress: Called with (stage, done, total).
    Returns:
        The analysis: `table()`, `as_json()`, `save_png(path)`, `save_html(path)`.
    Raises:
        InvalidArgument: If an argument is out of range or not known.
    """
    settings = _checked(n, sparsities, values, formats, seed)
    if model is not None and shapes is not None:
        raise InvalidArgument("analyze: model and shapes are both given, the model has its shapes; leave one out.")
    if budget_s is not None and not budget_s > 0:
        raise InvalidArgument(f"analyze: budget_s is {budget_s}, it must be above 0; leave it out for 48 a shape.")
    tell = progress or (lambda stage, done, total: None)
    layers = layers_of(model) if model is not None else shapes_of(SHAPES if shapes is None else shapes)
    load = _load()
    import_libraries()
    count = machine.use_threads(threads)
    started = time.perf_counter()
    end = started + (BUDGET_S * len(layers.shapes) if budget_s is None else budget_s)
    tell("roofline", 0, 1)
    roofline = measure_roofline(anchor_name())
    tell("roofline", 1, 1)
    found = []
    for place, layer in enumerate(layers.shapes):
        left = max(0.0, end - time.perf_counter()) / (len(layers.shapes) - place)
        found.append(_shape(layer, settings, roofline, time.perf_counter() + left, tell))
    return Analysis(
        {
            "schema": SCHEMA,
            "schema_version": VERSION,
            "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": machine.machine(),
            "versions": machine.versions(),
            "commit": machine.commit(),
            "threads": count,
            "load": load,
            "seed": seed,
            "model": layers.model,
            "ns": list(settings.ns),
            "sparsities": list(settings.grid),
            "targets": list(TARGETS),
            "values": list(settings.values),
            "formats": [str(form) for form in settings.forms],
            "roofline": {**roofline.as_json(), "cold_bytes": cold_bytes()},
            "measure_s": time.perf_counter() - started,
            "shapes": found,
        }
    )


def _load() -> float | None:
    """The load average before anything was measured; None where the system has none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _checked(
    n: Sequence[int], sparsities: Sequence[float], values: Sequence[str], formats: Sequence[str], seed: int
) -> Settings:
    """The arguments in order and without doubles.

    Raises:
        InvalidArgument: If one is wrong.
    """
    if not n or any(isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= 65536 for size in n):
        raise InvalidArgument(f"analyze: n is {n!r}, sizes lie in [1, 65536]; pass for example (1, 32).")
    if not sparsities or any(not 0 <= value < 1 for value in sparsities):
        raise InvalidArgument(f"analyze: sparsities is {sparsities!r}, each lies in [0, 1); pass for example (0.5,).")
    wrong = [value for value in values if value not in DTYPES]
    if wrong or not values:
        raise InvalidArgument(f"analyze: values is {values!r}, not value types; choose of: {', '.join(DTYPES)}.")
    if not formats:
        raise InvalidArgument(f"analyze: formats is empty; choose of: {', '.join(FORMATS)}.")
    return Settings(
        tuple(sorted(set(n))),
        tuple(sorted({float(value) for value in sparsities})),
        tuple(dict.fromkeys(values)),
        tuple(dict.fromkeys(Form.parse(text) for text in formats)),
        seed,
    )


def _shape(layer: LayerShape, settings: Settings, roofline: Roofline, end: float, tell: Progress) -> dict[str, Any]:
    """Measure one shape until all is known or time is up, and write down what came out."""
    spots = Spots(layer.shape, settings.ns, seed=settings.seed, share_s=_SHARE_S, cold_bytes=cold_bytes(), end=end)
    spots.measure_dense(sorted({other for value in settings.values for other in allowed_dense(value)}))
    search = Search(spots, settings)
    stage = f"{layer.shape[0]}x{layer.shape[1]}"
    done, spent = 0, 0.0
    while (job := search.next_job()) is not None:
        start = time.perf_counter()
        if start + spent > end and done:
            break
        tell(stage, done, done + search.waiting())
        spots.measure(*job)
        spent = time.perf_counter() - start
        done += 1
    tell(stage, done, done)
    return {
        **layer.as_json(),
        "unfit": {str(form): why for form in settings.forms if (why := form.fits(layer.shape))},
        "complete": job is None and not spots.cut,
        "failures": [vars(item) for item in spots.failures],
        "sizes": [_size(n, spots, search, settings, roofline) for n in settings.ns],
    }


def _size(n: int, spots: Spots, search: Search, settings: Settings, roofline: Roofline) -> dict[str, Any]:
    """Everything about one N."""
    fair, float32 = search.ratios(), search.ratios(("float32",))
    curves = []
    for (form, value, size), points in search.curves().items():
        if size == n:
            key = (form, value, size)
            grid = search.grids[form.pattern]
            curves.append(_curve(form, value, points, fair[key], float32[key], grid, spots, roofline))
    order = {str(form): place for place, form in enumerate(settings.forms)}
    curves.sort(key=lambda curve: (settings.values.index(curve["dtype"]), order[curve["format"]]))
    dense = sorted(spots.dense[n], key=lambda item: item.time_s)
    return {
        "n": n,
        "cold": n == 1,
        "dense": [vars(item) for item in dense],
        "curves": curves,
        "best": {value: _best([c for c in curves if c["dtype"] == value]) for value in settings.values},
    }


def _curve(
    form: Form,
    value: str,
    points: Mapping[float, Point],
    ratios: Mapping[float, float],
    float32: Mapping[float, float],
    grid: Sequence[float],
    spots: Spots,
    roofline: Roofline,
) -> dict[str, Any]:
    some = next(iter(points.values()))
    base = spots.baseline(some.n, allowed_dense(value))
    assert base is not None
    # Of all rounds at this N: one that something disturbed must not move the roofline.
    dense_s = statistics.median(point.dense_s for point in spots.points if point.n == some.n)
    return {
        "format": str(form),
        "dtype": value,
        "x": max((point.x for point in points.values()), key=X_DTYPES.index),
        "baseline": base.kernel,
        "break_even": _even(ratios, grid).as_json(),
        "break_even_float32": _even(float32, grid).as_json(),
        "speedup": {f"{target:g}": speedup_at(ratios, target) for target in TARGETS},
        "speedup_float32": {f"{target:g}": speedup_at(float32, target) for target in TARGETS},
        "points": [
            {
                "sparsity": s,
                "kernel": points[s].kernel,
                "nnz": points[s].nnz,
                "nbytes": points[s].nbytes,
                "time_s": points[s].time_s,
                "dense_s": base.ratio * points[s].dense_s,
                "speedup": ratios[s],
                "speedup_float32": float32[s],
                "bound": _bound(base.ratio * dense_s, points[s], spots.shape, roofline),
            }
            for s in sorted(points)
        ],
    }


def _even(ratios: Mapping[float, float], grid: Sequence[float]) -> BreakEven:
    return break_even(ratios, grid[0], grid[-1])


def _bound(dense_s: float, point: Point, shape: tuple[int, int], roofline: Roofline) -> float | None:
    """The speed-up on the roofline; None where nothing bounds a kernel.

    Weights are read from memory at N = 1, and where no cache can hold them. A kernel that rounds x multiplies
    integers or bfloat16, whose peaks were not measured: for it only bytes count.
    """
    moves = point.n == 1 or point.nbytes > cold_bytes()
    nbytes = point.nbytes + 4 * point.n * sum(shape) if moves else 0
    macs = point.nnz * point.n if point.x == "float32" else 0
    return dense_s / roofline.seconds(nbytes, macs) if nbytes or macs else None


def _best(curves: Sequence[Mapping[str, Any]]) -> str | None:
    """The format whose speed-ups at the targets have the highest geometric mean; None where there is no kernel."""

    def score(curve: Mapping[str, Any]) -> tuple[float, float]:
        known = [value for value in curve["speedup"].values() if value is not None]
        product = 1.0
        for value in known:
            product *= value
        last = curve["points"][-1]["speedup"]
        return (product ** (1 / len(known)) if known else 0.0, last)

    best = max(curves, key=score, default=None)
    return None if best is None else str(best["format"])
