"""How long each rung of each layer takes: kernels of every sparsity and value type, on weights of the model's shapes.

How long a kernel takes is a matter of shape, number of entries and pattern, not of which entries are kept: the weights
are pruned by magnitude here. Every time is taken as a ratio to the dense float32 kernel that ran in turns with it, so
that a machine with other work does not favour whoever was measured in a quiet minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from ..io import DENSE
from ..kernels import X_DTYPES, registry, rounds_within
from ..sparsify import Pattern, mask_from_scores
from .compile import read_layers
from .floor import Rung
from .measure import WORTH_TRYING, Group, Progress, Timing, measure_groups
from .values import Values

Float32 = npt.NDArray[np.float32]
Kind = tuple[tuple[int, int], int]

PRUNE: tuple[float | str, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, "8:16", "4:16")
VALUES = (
    ("float32", "float32"),
    ("bfloat16", "float32"),
    ("bfloat16", "bfloat16"),
    ("int8", "float32"),
    ("int8", "int8"),
)
# A layer that is sparse already is pruned further only by this much at least.
_FURTHER = 0.05
# Rounded values must be this much faster than float32 of the same pattern: below it two measurements are the same.
_GAINS = 1.03
# Of a layer whose dense kernel could not be timed: any number will do, it is the same on every rung.
_SECONDS_A_WEIGHT = 5e-9


def sparsity_of(weight: Float32) -> float:
    """Share of zeros."""
    return 1.0 - np.count_nonzero(weight) / weight.size


def steps_for(weight: Float32) -> list[float | str]:
    """What a layer may be pruned to, as given (0.0) first: more than it is already, in patterns that divide it."""
    given = sparsity_of(weight)
    found: list[float | str] = [0.0]
    for step in PRUNE:
        if isinstance(step, str):
            if given < WORTH_TRYING and weight.shape[1] % Pattern.parse(step).m == 0:
                found.append(step)
        elif step >= given + _FURTHER:
            found.append(step)
    return found


def masked(weight: Float32, step: float | str) -> Float32:
    """A weight with the smallest entries dropped."""
    if step == 0.0:
        return weight
    import torch

    pattern = step if isinstance(step, str) else "unstructured"
    share = None if isinstance(step, str) else step
    mask = mask_from_scores(torch.from_numpy(np.abs(weight)), sparsity=share, pattern=pattern, scope="layer")
    return np.where(mask.numpy(), weight, np.float32(0))


def kind_of(weight: Float32) -> Kind:
    """Layers of one kind share their times: equal shapes, sparsities as given within 5 %."""
    rows, columns = weight.shape
    return (rows, columns), round(sparsity_of(weight) / _FURTHER)


def times_of(
    weights: Mapping[str, Float32],
    values: Sequence[Values],
    *,
    tokens: int,
    only: Sequence[str] | None,
    budget_s: float,
    cache: bool,
    progress: Progress,
) -> dict[Kind, dict[Rung, float]]:
    """Seconds of each rung of each kind of layer.

    Args:
        weights: By name, (out, in).
        values: The value types of the rungs; those that differ in `x_dtype` alone are measured together.
        tokens: At a time.
        only: Names of sparse kernels to choose from; None for all.
        budget_s: Time for all.
        cache: Whether to take what an earlier run measured.
        progress: Called with ("times", done, total).
    """
    examples = {kind_of(weight): weight for weight in reversed(list(weights.values()))}
    coarsest = {item.dtype: item for item in sorted(values, key=lambda item: X_DTYPES.index(item.x_dtype))}
    groups: dict[tuple[Kind, float | str, str], Group] = {}
    for kind, weight in examples.items():
        for step in steps_for(weight):
            pruned = masked(weight, step)
            for dtype, stored in coarsest.items():
                layer = read_layers({f"{kind} {step} {dtype}": pruned}, stored, _silent)[0]
                groups[kind, step, dtype] = Group([layer])
    measure_groups(
        list(groups.values()),
        (tokens,),
        float32_too=False,
        only=only,
        budget_s=budget_s,
        cold_bytes=0,
        cache=cache,
        progress=lambda _stage, done, total: progress("times", done, total),
    )
    timings = {key: group.timings for key, group in groups.items()}
    return {kind: _rungs(kind, timings, values, tokens) for kind in examples}


def _silent(stage: str, done: int, total: int) -> None:
    """Progress for nobody."""


def _rungs(
    kind: Kind, timings: Mapping[tuple[Kind, float | str, str], Sequence[Timing]], values: Sequence[Values], n: int
) -> dict[Rung, float]:
    """The seconds of one kind's rungs."""
    own = {(step, dtype): found for (one, step, dtype), found in timings.items() if one == kind}
    alike = [found for (one, _, _), found in timings.items() if one[0] == kind[0] and found]
    dense_s = median([_dense(found, "float32", n) for found in alike]) if alike else None
    whole = dense_s or _SECONDS_A_WEIGHT * kind[0][0] * kind[0][1]
    rungs = {}
    for (step, dtype), found in own.items():
        for stored in values:
            if stored.dtype == dtype:
                ratio = _ratio(found, stored, n) if found else _dense_ratio(own, stored, n)
                rungs[Rung(step, dtype, stored.x_dtype)] = ratio * whole
    return {rung: span for rung, span in rungs.items() if _pays(rung, span, rungs)}


def _pays(rung: Rung, span: float, rungs: Mapping[Rung, float]) -> bool:
    """Whether a rung is float32, or faster than float32 by more than noise."""
    plain = rungs.get(Rung(rung.prune))
    return rung.values == "float32" or plain is None or span * _GAINS <= plain


def _ratio(timings: Sequence[Timing], values: Values, n: int) -> float:
    """Time of the best kernel that may run these values, over the dense one of float32 beside it."""
    allowed = [item for item in timings if rounds_within(registry.get(item.kernel), values.x_dtype)]
    return min(item.times[n] for item in allowed) / _dense(timings, "float32", n)


def _dense_ratio(own: Mapping[tuple[float | str, str], Sequence[Timing]], values: Values, n: int) -> float:
    """The same for a dense layer of numbers, which is not measured by itself: as beside the sparse ones."""
    ratios = [
        min(_dense(found, dtype, n, x_dtype=values.x_dtype) for dtype in (values.dtype, "float32"))
        / _dense(found, "float32", n)
        for (_, dtype_of), found in own.items()
        if dtype_of == values.dtype and found
    ]
    return median(ratios) if ratios else 1.0


def _dense(timings: Sequence[Timing], dtype: str, n: int, *, x_dtype: str = "float32") -> float:
    """Seconds of the fastest dense kernel of a value type; infinite where none may run."""
    return min(
        (
            item.times[n]
            for item in timings
            if item.format == DENSE and item.dtype == dtype and rounds_within(registry.get(item.kernel), x_dtype)
        ),
        default=float("inf"),
    )
