"""From timings to storage: which kernels a layer is packed for, and the reason at each batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..formats import INTEGERS, SHORT
from ..io import DENSE
from ..ops.choice import rounding_of
from .layerplan import Choice, rounds_x_to
from .measure import WORTH_TRYING, Group, Timing
from .packing import native_kernels

OPTIMIZE = ("balanced", "speed", "memory")
# "balanced" runs another packing only where those held would be this much slower.
ANOTHER_GAINS = 1.10
# "balanced" makes time times the fourth root of bytes least, so a third fewer bytes outweigh 10 % of time, and a second
# packing as large as the first has to save 16 % of the time over all sizes.
BYTES_WEIGH = 0.25
# Two packings closer than this at one size are equally fast; the smaller one is taken.
TIE = 1.01


def choose(group: Group, sizes: Sequence[int], optimize: str) -> tuple[Choice, ...]:
    """The kernel of each batch size, with reasons.

    Args:
        group: Measured layers.
        sizes: Batch sizes, ascending.
        optimize: "speed": the fastest at each size. "memory": one packing, the smallest that is no slower than dense
            over all sizes. "balanced": one packing, time and a little of bytes weighed, and another
            where those held would lose to dense, or where the one is dense and keeps codes, or where its time outweighs
            its bytes.
    """
    timings = group.timings
    if not timings:
        return _only_dense(group, sizes)
    dense = [item for item in timings if item.format == DENSE]
    picks = _picks(timings, dense, sizes, optimize, codes=group.quantised)
    single = picks[sizes[0]] if optimize == "memory" else _single(timings, sizes)
    choices = []
    for n in sizes:
        pick = picks[n]
        rival = min(dense, key=lambda item: item.times[n])
        again = len({item.kernel for item in picks.values()}) > 1 and pick is not single
        reason = _reason(group, pick, rival, timings, n, again)
        choices.append(Choice(n, pick.kernel, pick.times[n], rival.kernel, rival.times[n], reason))
    return tuple(choices)


def _only_dense(group: Group, sizes: Sequence[int]) -> tuple[Choice, ...]:
    """The dense kernel of the value type, where there was nothing to choose."""
    layer = group.layers[0]
    allowed = [k for k in native_kernels() if layer.values.allow(k, layer.matrix, layer.structured)]
    dense = {kernel.dtype: kernel.name for kernel in allowed if kernel.format == DENSE}
    name = dense.get(layer.values.dtype) or dense.get(layer.values.floating) or dense["float32"]
    sparsity = layer.sparsity
    why = "too few for a sparse kernel" if sparsity < WORTH_TRYING else "and no sparse kernel is a candidate"
    reason = f"dense: {sparsity:.0%} of the weights are zero, {why}"
    return tuple(Choice(n, name, None, name, None, reason) for n in sizes)


def _picks(
    timings: Sequence[Timing], dense: Sequence[Timing], sizes: Sequence[int], optimize: str, *, codes: bool
) -> dict[int, Timing]:
    if optimize == "speed":
        return {n: _fastest(timings, n) for n in sizes}
    if optimize == "memory":
        beats = [item for item in timings if _mean_ratio([item], dense, sizes) <= 1.0]
        small = min(beats or dense, key=lambda item: (item.nbytes, _mean_ratio([item], dense, sizes)))
        return dict.fromkeys(sizes, small)
    held = [_single(timings, sizes)]
    while paying := [item for item in timings if _pays(held, item, timings, dense, sizes, codes=codes)]:
        held.append(max(paying, key=lambda item: math.prod(_gains(held, item, sizes).values())))
    picks = dict.fromkeys(sizes, held[0])
    for place, item in enumerate(held[1:], 1):
        picks.update(dict.fromkeys(_gains(held[:place], item, sizes), item))
    return picks


def _gains(held: Sequence[Timing], another: Timing, sizes: Sequence[int]) -> dict[int, float]:
    """The sizes at which another packing would run, and how much faster it is there than the best of those held."""
    ratios = {n: min(item.times[n] for item in held) / another.times[n] for n in sizes}
    return {n: ratio for n, ratio in ratios.items() if ratio > ANOTHER_GAINS}


def _pays(
    held: Sequence[Timing],
    another: Timing,
    timings: Sequence[Timing],
    dense: Sequence[Timing],
    sizes: Sequence[int],
    *,
    codes: bool,
) -> bool:
    """Whether another packing is held.

    It is where those held lose to dense, and where its time saves more, over all sizes, than its bytes weigh. Codes may
    be dense for many tokens, where integer sums are fast, and a second packing for one token costs less than a first
    one of numbers would.
    """
    gains = _gains(held, another, sizes)
    if not gains:
        return False
    if any(min(item.times[n] for item in held) > min(item.times[n] for item in dense) for n in gains):
        return True
    if codes and len(held) == 1 and held[0].format == DENSE and another.dtype in INTEGERS:
        return True
    return _weighed([*held, another], timings, sizes) < _weighed(held, timings, sizes)


def _single(timings: Sequence[Timing], sizes: Sequence[int]) -> Timing:
    """The packing that loses least against the best of each size, over all sizes, its bytes weighed in."""
    return min(timings, key=lambda item: _weighed([item], timings, sizes))


def _weighed(held: Sequence[Timing], timings: Sequence[Timing], sizes: Sequence[int]) -> float:
    """What holding these packings costs: the mean loss against the best of each size, and a little of their bytes."""
    nbytes = sum(item.nbytes for item in held)
    weight: float = max(nbytes, 1) ** BYTES_WEIGH
    return _mean_ratio(held, timings, sizes) * weight


def _fastest(timings: Sequence[Timing], n: int) -> Timing:
    limit = TIE * min(item.times[n] for item in timings)
    return min((item for item in timings if item.times[n] <= limit), key=lambda item: item.nbytes)


def _mean_ratio(held: Sequence[Timing], rivals: Sequence[Timing], sizes: Sequence[int]) -> float:
    """Geometric mean over the sizes of the time of the fastest held over the fastest rival's."""
    best = {n: min(item.times[n] for item in held) for n in sizes}
    logs = [math.log(best[n] / min(rival.times[n] for rival in rivals)) for n in sizes]
    return math.exp(sum(logs) / len(logs))


def _reason(group: Group, pick: Timing, rival: Timing, timings: Sequence[Timing], n: int, again: bool) -> str:
    """One line: what the choice gains or why it is dense, and what else explains it."""
    text = _versus_dense(pick, rival, timings, n)
    if again:
        text += f"; packed once more ({_mb(pick.nbytes)})"
    text += rounding_of(rounds_x_to(pick.kernel))
    if group.quantised:
        text += f"; compared: {_compared(timings, rival, n)}"
    if group.borrowed is not None:
        text += f"; measured at sparsity {group.borrowed:.2f}, time ran out"
    return text + ("; from cache" if group.cached else "")


def _versus_dense(pick: Timing, rival: Timing, timings: Sequence[Timing], n: int) -> str:
    sparse = [item for item in timings if item.format != DENSE]
    if pick.format == DENSE:
        if not sparse:
            return f"dense: no sparse kernel is a candidate, {pick.kernel} is kept"
        best = min(sparse, key=lambda item: item.times[n])
        text = f"dense: the best sparse kernel, {best.format}, is {rival.times[n] / best.times[n]:.2f}x dense"
        return text + (", which pays at this size alone" if best.times[n] < pick.times[n] else "")
    text = f"{pick.format} {rival.times[n] / pick.times[n]:.2f}x dense"
    fastest = _fastest(timings, n)
    if fastest.kernel != pick.kernel and fastest.times[n] * TIE < pick.times[n]:
        lost = pick.times[n] / fastest.times[n] - 1
        text += f"; {fastest.kernel} is {lost:.0%} faster, not worth {_mb(fastest.nbytes)} more"
    return text


def _compared(timings: Sequence[Timing], rival: Timing, n: int) -> str:
    """The best of each format and value type, fastest first, with its speed over the fastest dense one."""
    best: dict[tuple[str, str], Timing] = {}
    for item in sorted(timings, key=lambda item: item.times[n]):
        best.setdefault((item.format, item.dtype), item)
    speeds = {key: rival.times[n] / item.times[n] for key, item in best.items()}
    return ", ".join(f"{form} {SHORT[dtype]} {speed:.2f}x" for (form, dtype), speed in speeds.items())


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.2f} MB"
