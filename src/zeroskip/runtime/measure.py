"""Time every kernel that could run a layer, on the layer's own weights, sharing what equal layers have in common.

Why not `ops.choice.measure`: there a matrix is alone. Here are the layers of a model, which evict each other from the
caches, so a kernel at one token is timed over several of them, with weights that no cache holds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..formats import SparseMatrix
from ..io import DENSE, Matrix
from ..kernels import Kernel
from ..ops import _cache
from ..ops.choice import hopeless, statistics_of
from ..ops.clock import CLOSE, HOPELESS, quartile
from .packing import native, native_kernels, pack, threaded
from .values import FLOAT32, Values

if TYPE_CHECKING:
    from ..kernels.cpu import NativePrepared

Progress = Callable[[str, int, int], None]

# Below this sparsity no sparse kernel is tried: none gains where so little is left out.
WORTH_TRYING = 0.2
SAME_SPARSITY = 0.01
_SAMPLE_S = 50e-6
_ROUNDS = (3, 31)
# One run of a kernel may be disturbed, and it would be hopeless; so many tell.
_TRIES = 3
_MOST_COPIES = 16
_SHARE_S = 0.4


@dataclass(frozen=True)
class Timing:
    """One kernel on one kind of layer: bytes of a packed copy, and seconds of a run by batch size."""

    kernel: str
    format: str
    dtype: str
    nbytes: int
    times: Mapping[int, float]


@dataclass(frozen=True)
class Layer:
    """A layer to choose for: `matrix` has its values rounded to what is stored, which `values` describes."""

    name: str
    matrix: Matrix
    sparsity: float
    structured: SparseMatrix | None = None
    values: Values = FLOAT32

    @property
    def key(self) -> tuple[tuple[int, int], int, tuple[str, ...]]:
        """Layers with equal keys share a measurement."""
        structured = self.structured
        pattern = () if structured is None else (structured.name, str(structured.params))
        return (self.matrix.shape, round(self.sparsity / SAME_SPARSITY), (str(self.values), *pattern))


@dataclass
class Group:
    """Layers that share a measurement.

    Args:
        layers: They are alike in shape, sparsity and pattern.
        timings: None where no sparse kernel was a candidate.
        borrowed: The sparsity whose measurement was taken when time had run out.
        cached: Whether an earlier run measured it.
    """

    layers: list[Layer]
    timings: list[Timing] = field(default_factory=list)
    borrowed: float | None = None
    cached: bool = False

    @property
    def quantised(self) -> bool:
        """Whether the weights are codes."""
        return self.layers[0].values.quantised


def groups_of(layers: Sequence[Layer]) -> list[Group]:
    """Layers by shape, sparsity and pattern, in order of first appearance."""
    found: dict[object, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.key, []).append(layer)
    return [Group(items) for items in found.values()]


def measure_groups(
    groups: Sequence[Group],
    sizes: Sequence[int],
    *,
    float32_too: bool,
    only: Sequence[str] | None,
    budget_s: float,
    cold_bytes: int,
    cache: bool = True,
    progress: Progress | None = None,
) -> None:
    """Fill in the timings of each group.

    Args:
        groups: What to measure; a shape that is there with several sparsities is first measured once.
        sizes: Tokens at a time.
        float32_too: Whether sparse kernels with float32 values are tried as well.
        only: Names of sparse kernels to try; None for all.
        budget_s: Time for all. When it is spent, what is left borrows from the nearest sparsity of its shape.
        cold_bytes: At one token, run over this many bytes of weights in turn; 0 where the model fits the caches.
        cache: Whether to take what an earlier run measured on layers like these; what is measured is kept either way.
        progress: Called with ("measure", done, total).
    """
    end = time.perf_counter() + budget_s
    order = _new_shapes_first(groups)
    for done, group in enumerate(order):
        if progress:
            progress("measure", done, len(order))
        kernels = candidates(group, float32_too=float32_too, only=only, sizes=sizes)
        if len(kernels) < 2 or (not group.quantised and all(kernel.format == DENSE for kernel in kernels)):
            continue  # there is nothing to choose
        key = _cache_key(group, kernels, sizes, cold_bytes)
        known = timings_from(_cache.recall(key, budget_s=budget_s), kernels, sizes) if cache else None
        if known is not None:
            group.timings, group.cached = known, True
            continue
        left = end - time.perf_counter()
        nearest = _nearest(group, [other for other in order[:done] if other.borrowed is None])
        if left <= 0 and nearest is not None:
            group.timings, group.borrowed = nearest.timings, nearest.layers[0].sparsity
            continue
        share = max(0.0, left) / (len(order) - done)
        group.timings = _measure(group, kernels, sizes, min(share / len(sizes), _SHARE_S), cold_bytes)
        _cache.remember(
            key, [[item.kernel, item.nbytes, *item.times.values()] for item in group.timings], budget_s=budget_s
        )
    _cache.flush()
    if progress:
        progress("measure", len(order), len(order))


def candidates(group: Group, *, float32_too: bool, only: Sequence[str] | None, sizes: Sequence[int]) -> list[Kernel]:
    """Dense kernels, and the sparse ones that the cost model gives a chance at one of the sizes at least.

    Dense ones are tried in float32 as well. Where weights are codes, kernels of codes join those of the numbers that
    they mean.
    """
    layer = group.layers[0]
    values, matrix, structured = layer.values, layer.matrix, layer.structured
    usable = [kernel for kernel in native_kernels() if values.allow(kernel, matrix, structured)]
    own = {values.dtype, values.floating}
    dense = [kernel for kernel in usable if kernel.format == DENSE and kernel.dtype in own | {"float32"}]
    if layer.sparsity < WORTH_TRYING or not isinstance(matrix, SparseMatrix):
        return dense
    pattern = structured.name if structured is not None else ""
    wanted = own | {"float32"} if float32_too else own
    sparse = [
        kernel
        for kernel in usable
        if kernel.format in ("csr", "bitmask", pattern)
        and kernel.dtype in wanted
        and (only is None or kernel.name in only)
        and (structured is None or kernel.format != pattern or not kernel.rejects(structured, sizes[0]))
    ]
    ruled_out = [set(hopeless([*dense, *sparse], matrix, n)) for n in sizes]
    everywhere = set.intersection(*ruled_out) if ruled_out else set()
    return [*dense, *(kernel for kernel in sparse if kernel.name not in everywhere)]


def _cache_key(group: Group, kernels: Sequence[Kernel], sizes: Sequence[int], cold_bytes: int) -> dict[str, object]:
    matrix, structured = group.layers[0].matrix, group.layers[0].structured
    return {
        "what": "layer",
        **(statistics_of(matrix) if isinstance(matrix, SparseMatrix) else {"format": DENSE, "shape": matrix.shape}),
        "structured": None if structured is None else statistics_of(structured),
        "kernels": [kernel.name for kernel in kernels],
        "sizes": list(sizes),
        "cold_bytes": cold_bytes,
    }


def timings_from(value: object, kernels: Sequence[Kernel], sizes: Sequence[int]) -> list[Timing] | None:
    """Timings of these kernels at these sizes as the cache holds them; None where they are damaged or missing."""
    if not isinstance(value, list) or len(value) != len(kernels):
        return None
    found = []
    for row, kernel in zip(value, kernels, strict=True):
        if not isinstance(row, list) or len(row) != 2 + len(sizes) or row[0] != kernel.name:
            return None
        if any(isinstance(item, bool) or not isinstance(item, int | float) for item in row[1:]):
            return None
        if not all(0 < item < math.inf for item in row[1:]):
            return None
        times = dict(zip(sizes, row[2:], strict=True))
        found.append(Timing(kernel.name, kernel.format, kernel.dtype, int(row[1]), times))
    return found


def matrix_for(kernel: Kernel, layer: Layer) -> Matrix:
    """The form of a layer that a kernel packs from: the structured one where it asks for that."""
    if layer.structured is not None and kernel.format == layer.structured.name:
        return layer.structured
    return layer.matrix


def _measure(
    group: Group, kernels: Sequence[Kernel], sizes: Sequence[int], share_s: float, cold_bytes: int
) -> list[Timing]:
    first = {kernel.name: pack(kernel.name, matrix_for(kernel, group.layers[0])) for kernel in kernels}
    times: dict[str, dict[int, float]] = {kernel.name: {} for kernel in kernels}
    keep = {kernel.name for kernel in kernels if kernel.format == DENSE}
    for n in sizes:
        cold = cold_bytes if n == 1 else 0
        packs = {kernel.name: _copies(kernel, group, first[kernel.name], cold) for kernel in kernels}
        for name, span in interleaved(packs, n, share_s, keep, cold, close=CLOSE).items():
            times[name][n] = span
    return [Timing(k.name, k.format, k.dtype, first[k.name].nbytes, times[k.name]) for k in kernels]


def _copies(kernel: Kernel, group: Group, first: NativePrepared, cold_bytes: int) -> list[NativePrepared]:
    """Packings of some of the group's layers, again in memory of their own if it is small."""
    count = min(_MOST_COPIES, -(-cold_bytes // max(1, first.nbytes)))
    layers = [group.layers[index % len(group.layers)] for index in range(1, count)]
    return [first, *threaded(lambda layer: pack(kernel.name, matrix_for(kernel, layer)), layers)]


class HasPacked(Protocol):
    """What is timed: a matrix packed by the native module, as `kernels.cpu.NativePrepared` holds it."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def packed(self) -> Any: ...


def interleaved(
    packs: Mapping[str, Sequence[HasPacked]],
    n: int,
    share_s: float,
    keep: Collection[str],
    cold_bytes: int,
    *,
    close: float = math.inf,
) -> dict[str, float]:
    """Seconds of one run of each, taking turns so that a change of clock meets all of them.

    A disturbance makes a run longer and never shorter, so the lower quartile of the samples counts.

    With `cold_bytes`, a sample runs each copy once, and at least so much other memory is read between two samples of a
    kernel: the weights of the others in the round, and a walk over what these lack. Packing enough copies to overflow
    the caches took longer than everything else; walking over all of it each time, half of the measuring.

    Args:
        packs: By name, copies of a matrix as one kernel takes it.
        n: Columns of x.
        share_s: Time for all together; fewer than three rounds are run only where a round takes longer than that.
        keep: Names that are not hopeless however slow they are: the dense ones, which are a side of their own.
        cold_bytes: Memory that the caches cannot hold; 0 to leave weights where they are.
        close: After three rounds go on with those that are at most this much slower than the best of their side.
    """
    rows, columns = next(iter(packs.values()))[0].shape
    x = np.random.default_rng(0).standard_normal((columns, n), dtype=np.float32)
    out = np.empty((rows, n), dtype=np.float32)
    other = np.ones(cold_bytes // 4, dtype=np.float32)  # pages of zeros would all be the same one
    run = native().run

    def walks(names: Collection[str], copies: int | None) -> dict[str, int]:
        own = {name: sum(int(copy.packed.nbytes) for copy in packs[name][:copies]) for name in names}
        total = sum(own.values())
        return {name: max(0, cold_bytes - (total - own[name])) // 4 for name in names}

    def sample(copies: Sequence[HasPacked], inner: int, walk: int) -> list[float]:
        if walk:
            other[:walk].max()
        found = []
        for copy in copies:
            handle = copy.packed
            start = time.perf_counter()
            for _ in range(inner):
                run(handle, x, out, None, "none", False)
            found.append((time.perf_counter() - start) / inner)
        return found

    walk = walks(packs, 1)
    once = dict.fromkeys(packs, math.inf)
    for done in range(_TRIES):
        limit = HOPELESS * min(once.values()) if done > 1 else 0.0
        for name in packs:
            if once[name] > limit:
                once[name] = min(once[name], sample(packs[name][:1], 1, walk[name])[0])
    alive = [name for name in packs if once[name] <= HOPELESS * min(once.values()) or name in keep]
    # One run a sample where it is long enough for the clock: whoever interrupts it spoils one sample, not an average.
    inner = {name: 1 if cold_bytes else max(1, round(_SAMPLE_S / max(once[name], 1e-7))) for name in alive}
    round_s = sum(once[name] * len(packs[name]) * inner[name] for name in alive)
    least = _ROUNDS[0] if round_s * _ROUNDS[0] < 4 * share_s else 0  # so long that once is enough: noise is short
    spans: dict[str, list[float]] = {name: [] for name in alive}
    walk = walks(alive, None)
    end = time.perf_counter() + share_s
    for done in range(_ROUNDS[1]):
        if done >= least and time.perf_counter() + round_s > end:
            break
        if done == _ROUNDS[0]:
            alive = _closest({name: min(spans[name]) for name in alive}, keep, close)
            walk = walks(alive, None)
            round_s = sum(once[name] * len(packs[name]) * inner[name] for name in alive)
        for name in alive:
            spans[name].extend(sample(packs[name], inner[name], walk[name]))
    return {name: quartile(spans[name])[0] if spans.get(name) else once[name] for name in packs}


def _closest(least: Mapping[str, float], dense: Collection[str], close: float) -> list[str]:
    """Of dense kernels and of sparse ones, those that are not far behind the best of them."""
    sides = [{name: least[name] for name in least if (name in dense) == side} for side in (True, False)]
    return [name for name in least for side in sides if name in side and side[name] <= close * min(side.values())]


def _new_shapes_first(groups: Sequence[Group]) -> list[Group]:
    seen: set[tuple[int, int]] = set()
    fresh: list[Group] = []
    again: list[Group] = []
    for group in groups:
        shape = group.layers[0].matrix.shape
        (again if shape in seen else fresh).append(group)
        seen.add(shape)
    return [*fresh, *again]


def _nearest(group: Group, measured: Sequence[Group]) -> Group | None:
    layer = group.layers[0]
    shape, _, pattern = layer.key
    same = [other for other in measured if other.layers[0].key[0] == shape and other.layers[0].key[2] == pattern]
    return min(same, key=lambda other: abs(other.layers[0].sparsity - layer.sparsity), default=None)


_NM_GROUPS = (4, 8, 16, 32)
_BLOCKS = ((16, 1), (16, 16), (8, 1), (4, 4), (4, 1), (1, 16), (1, 4))
_SAMPLE_ROWS = 64
# A pattern may store this much more than the entries there are.
_PADDING = 1.05


def structure_of(matrix: SparseMatrix, dense: npt.NDArray[np.float32]) -> SparseMatrix | None:
    """The matrix as N:M or as blocks, where the zeros of its values `dense` follow such a pattern; else None."""
    head = dense[:_SAMPLE_ROWS] != 0  # most matrices have no pattern, and some rows show it
    for m in _NM_GROUPS:
        n = _kept_of(head, m) and _kept_of(dense != 0, m)
        if n:
            return matrix.convert("nm", n=n, m=m)
    for block in _BLOCKS:
        if _in_blocks(head, block) and _in_blocks(dense != 0, block):
            return matrix.convert("bsr", block=block)
    return None


def _kept_of(nonzero: npt.NDArray[np.bool_], m: int) -> int:
    """The n of n:m if the pattern holds and pads next to nothing, else 0."""
    rows, columns = nonzero.shape
    if columns % m:
        return 0
    n = int(nonzero.reshape(rows, columns // m, m).sum(axis=2).max())
    return n if 0 < n < m and n / m <= nonzero.mean() * _PADDING else 0


def _in_blocks(nonzero: npt.NDArray[np.bool_], block: tuple[int, int]) -> bool:
    (rows, columns), (r, c) = nonzero.shape, block
    if rows % r or columns % c:
        return False
    filled = nonzero.reshape(rows // r, r, columns // c, c).any(axis=(1, 3)).mean()
    return bool(filled <= nonzero.mean() * _PADDING)
