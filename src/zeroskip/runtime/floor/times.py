"""How long each rung of each layer takes: kernels of every sparsity and value type, on weights of the model's shapes.

How long a kernel takes is a matter of shape, number of entries and pattern, not of which entries are kept: the weights
are pruned by magnitude here. The dense float32 kernel runs in turns with all of them: its fastest round counts, and
where it was slower the others' times are made good for it, by 20 % at most. Taken as plain ratios, rounds in which
somebody took a core from the dense kernel alone made sparse ones look five times as fast (Zen 3, 2 cores, other work).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from ...io import DENSE
from ...kernels import X_DTYPES, registry, rounds_within
from ...sparsify import Pattern, mask_from_scores
from ..compile import read_layers
from ..measure import WORTH_TRYING, Group, Progress, Timing, measure_groups
from ..values import Values
from .allocation import Rung

Float32 = npt.NDArray[np.float32]
Kind = tuple[tuple[int, int], int]

PRUNE: tuple[float | str, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, "8:16", "4:16")
VALUES = (
    ("float32", "float32"),
    ("float32", "int16"),
    ("bfloat16", "float32"),
    ("bfloat16", "bfloat16"),
    ("int8", "float32"),
    ("int8", "int8"),
)
# A layer that is sparse already is pruned further only by this much at least.
_FURTHER = 0.05
# Rounded values must be this much faster than float32 of the same pattern: below it two measurements are the same.
_GAINS = 1.03
# A round in which dense float32 is slower than this share says is one that only the dense kernel was disturbed in.
_SLOWEST = 0.8
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
    dense_s = [_dense(found, "float32", n) for (one, _, _), found in timings.items() if one[0] == kind[0] and found]
    whole = min(dense_s, default=_SECONDS_A_WEIGHT * kind[0][0] * kind[0][1])
    rungs = {}
    for (step, dtype), found in own.items():
        for stored in values:
            if stored.dtype == dtype:
                span = _best(found, stored, n, whole) if found else _best_dense(own, stored, n, whole)
                rungs[Rung(step, dtype, stored.x_dtype)] = min(span, whole)
    return {rung: span for rung, span in rungs.items() if _pays(rung, span, rungs)}


def _pays(rung: Rung, span: float, rungs: Mapping[Rung, float]) -> bool:
    """Whether a rung is float32, or faster than float32 by more than noise."""
    plain = rungs.get(Rung(rung.prune))
    return rung.values == "float32" or plain is None or span * _GAINS <= plain


def _best(timings: Sequence[Timing], values: Values, n: int, whole: float) -> float:
    """Seconds of the best kernel that may run these values."""
    allowed = [item for item in timings if rounds_within(registry.get(item.kernel), values.x_dtype)]
    return min(item.times[n] for item in allowed) * _quiet(timings, n, whole)


def _best_dense(own: Mapping[tuple[float | str, str], Sequence[Timing]], values: Values, n: int, whole: float) -> float:
    """The same for a dense layer of numbers, which is not measured by itself but beside the sparse ones."""
    spans = [
        _dense(found, values.dtype, n, x_dtype=values.x_dtype) * _quiet(found, n, whole)
        for (_, dtype), found in own.items()
        if dtype == values.dtype and found
    ]
    return median(spans) if spans else whole


def _quiet(timings: Sequence[Timing], n: int, whole: float) -> float:
    """What makes good for a slow minute, in which dense float32 was slower than in the best one: down to 0.8."""
    return max(_SLOWEST, whole / _dense(timings, "float32", n))


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
