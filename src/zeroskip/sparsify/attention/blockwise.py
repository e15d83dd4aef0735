"""Blockwise: chunks of queries that see whole chunks of keys."""

from __future__ import annotations

import numpy as np

from ..._errors import InvalidArgument, ShapeError
from ._grid import Grid, Int64, Mask, draw, one_of, random_for, rows_from, whole
from ._method import MaskMethod, registry


class Blockwise(MaskMethod):
    """The sequence is cut into chunks; one of queries sees its own chunk of keys and those before it, `chunks` in all.

    Without `causal` it goes round, the first chunks see the last ones, so that every row has as many keys. Causal, its
    own chunk is a triangle. For a sparsity whole rings of chunks are taken while they fit, then chunks of the next ring
    by lot, and what still lacks by lot from one more chunk.

    Source: Qiu et al., "Blockwise Self-Attention for Long Document Understanding", 2020: one ring is what one of its
    heads has, a shifted permutation of the chunks.
    """

    name = "blockwise"
    summary = "chunks of queries see whole chunks of keys"

    def make(
        self,
        queries: int,
        keys: int,
        *,
        chunk: int = 64,
        chunks: int | None = None,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; give `chunks` or `sparsity`. `chunk` is the size of one (in blocks, with `block`)."""
        grid = Grid.of("blockwise mask", queries, keys, block)
        coarse = _coarse(grid, chunk)
        random = random_for(grid.where, seed)
        one_of(grid.where, chunks=chunks, sparsity=sparsity)
        sizes = _ring_sizes(coarse, chunk, causal)
        if sparsity is None:
            assert chunks is not None
            taken = min(whole(grid.where, "chunks", chunks, least=1), coarse.cols)
            wanted = int(sizes[:taken].sum())
        else:
            wanted = _wanted(grid, sizes, chunk, sparsity)
        grid.check_room(wanted)
        return grid.finish(rows_from(grid, *_places(coarse, chunk, sizes, wanted, causal, random)))

    def entries(
        self,
        queries: int,
        keys: int,
        *,
        sparsity: float,
        causal: bool = False,
        block: int = 1,
        chunk: int = 64,
    ) -> int:
        """See `MaskMethod`."""
        grid = Grid.of("blockwise mask", queries, keys, block)
        return _wanted(grid, _ring_sizes(_coarse(grid, chunk), chunk, causal), chunk, sparsity)


def _wanted(grid: Grid, sizes: Int64, chunk: int, sparsity: float) -> int:
    return grid.reached(sparsity, int(sizes[0]), int(sizes.sum()), f"another size than chunk = {chunk}")


def _coarse(grid: Grid, chunk: int) -> Grid:
    """The grid of chunks."""
    whole(grid.where, "chunk", chunk, least=1)
    if grid.rows % chunk or grid.cols % chunk:
        raise ShapeError(
            f"{grid.where}: chunk is {chunk}, it must divide the {grid.text} of the mask; choose another chunk."
        )
    if grid.rows > grid.cols:
        raise InvalidArgument(
            f"{grid.where}: there are {grid.rows} queries and {grid.cols} keys, every chunk of queries needs its own "
            "chunk of keys; use another kind of mask."
        )
    return Grid(grid.where, grid.rows // chunk, grid.cols // chunk, 1)


def _ring(coarse: Grid, shift: int, causal: bool) -> tuple[Int64, Int64]:
    """The chunks that stand `shift` before their own, one for each chunk of queries."""
    rows = np.arange(coarse.rows, dtype=np.int64)
    cols = coarse.positions - shift
    if causal:
        return rows[cols >= 0], cols[cols >= 0]
    return rows, cols % coarse.cols


def _ring_sizes(coarse: Grid, chunk: int, causal: bool) -> Int64:
    """Entries of each ring; causal, those of the first are triangles."""
    chunks = [_ring(coarse, shift, causal)[0].size for shift in range(coarse.cols)]
    sizes = np.array(chunks, dtype=np.int64) * chunk**2
    if causal:
        sizes[0] = coarse.rows * (chunk * (chunk + 1) // 2)
    return sizes


def _places(
    coarse: Grid, chunk: int, sizes: Int64, wanted: int, causal: bool, random: np.random.Generator
) -> tuple[Int64, Int64]:
    """Exactly `wanted` entries: rings while they fit, then chunks by lot, then entries by lot."""
    rings = int(np.searchsorted(np.cumsum(sizes), wanted, side="right"))
    parts = [
        _entries(*_ring(coarse, shift, causal), chunk, triangle=causal and shift == 0)
        for shift in range(rings)
        if sizes[shift]
    ]
    chunks, entries = divmod(wanted - int(sizes[:rings].sum()), chunk**2)
    if chunks or entries:
        rows, cols = _ring(coarse, rings, causal)
        order = random.permutation(rows.size)
        parts.append(_entries(rows[order[:chunks]], cols[order[:chunks]], chunk))
        if entries:
            last = order[chunks : chunks + 1]
            within = draw(random, chunk**2, entries)
            parts.append(tuple(part[within] for part in _entries(rows[last], cols[last], chunk)))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _entries(rows: Int64, cols: Int64, chunk: int, *, triangle: bool = False) -> tuple[Int64, ...]:
    """The entries of whole chunks, or of their lower triangles."""
    inside = np.ones((chunk, chunk), dtype=bool)
    down, right = np.nonzero(np.tril(inside) if triangle else inside)
    return (rows[:, None] * chunk + down).ravel(), (cols[:, None] * chunk + right).ravel()


registry.add("blockwise", Blockwise())
