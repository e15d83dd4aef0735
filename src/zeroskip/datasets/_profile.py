"""How the entries of a pruned weight spread over its rows and columns: fitted to real masks, and drawn again.

A row's share of entries follows a beta distribution around the density, so its count is beta-binomial; the same for
columns. Each is one number, the correlation rho of two entries of the same row (column): 0 is a binomial count, as
random pruning gives it. Methods that keep equally many entries in each row have counts that are exact. (A normal
distribution of the shares' log-odds came no closer to any of the masks in benchmarks/llm_dlmc_fit.py.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from ..formats import CSR
from .io.smtx import Structure

Int64 = npt.NDArray[np.int64]

# Counts whose variance is below this share of the binomial one do not vary by chance.
_EXACT = 0.25
_CHUNK_ELEMS = 2**22


@dataclass(frozen=True)
class Profile:
    """Spread of the entries of a matrix.

    Args:
        row_rho: In [0, 1); the variance of a row's count is K p (1 - p) (1 + (K - 1) row_rho), p the density.
        col_rho: The same of columns.
        exact_rows: All rows have the same count, but for the remainder; `row_rho` is then 0.
    """

    row_rho: float
    col_rho: float
    exact_rows: bool

    @classmethod
    def of(cls, a: CSR) -> Profile:
        """Fitted by moments; a matrix that is full or empty spreads nothing."""
        rows, columns = np.diff(a.indptr), np.bincount(a.indices, minlength=a.shape[1])
        row = _ratio(rows, a.shape[1], a.density)
        column = _ratio(columns, a.shape[0], a.density)
        exact = row < _EXACT
        return cls(0.0 if exact else _rho(row, a.shape[1]), _rho(column, a.shape[0]), exact)


def _ratio(counts: Int64, most: int, density: float) -> float:
    """The variance of counts over that of binomial ones."""
    chance = most * density * (1 - density)
    return float(counts.var()) / chance if chance else 1.0


def _rho(ratio: float, most: int) -> float:
    return min(max((ratio - 1) / (most - 1), 0.0), 0.99) if most > 1 else 0.0


def draw(shape: tuple[int, int], entries: int, profile: Profile, random: np.random.Generator) -> Structure:
    """A pattern with exactly `entries`, spread as the profile says.

    Raises:
        InvalidArgument: If there are more entries than places.
    """
    rows, columns = shape
    if not 0 <= entries <= rows * columns:
        raise InvalidArgument(f"draw: entries is {entries}, a matrix of {rows} x {columns} has 0 to {rows * columns}.")
    density = entries / (rows * columns)
    counts = _row_counts(rows, columns, entries, profile, random)
    # At threshold 1 an exponential time with this rate is over with the chance of the column.
    rates = -np.log1p(-np.clip(_shares(columns, density, profile.col_rho, random), 1e-7, 1 - 1e-7))
    found = np.empty(entries, dtype=np.int64)
    indptr = np.concatenate(([0], np.cumsum(counts)))
    inverse, step = (1 / rates).astype(np.float32), max(1, _CHUNK_ELEMS // columns)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        times = random.standard_exponential((last - first, columns), dtype=np.float32) * inverse
        for row in range(first, last):
            count = counts[row]
            if count:
                chosen = np.argpartition(times[row - first], count - 1)[:count]
                chosen.sort()
                found[indptr[row] : indptr[row + 1]] = chosen
    return Structure(shape, indptr, found)


def _shares(count: int, density: float, rho: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    if rho <= 0 or density in (0, 1):
        return np.full(count, density)
    size = (1 - rho) / rho
    return random.beta(density * size, (1 - density) * size, count)


def _row_counts(rows: int, columns: int, entries: int, profile: Profile, random: np.random.Generator) -> Int64:
    if profile.exact_rows:
        counts = np.full(rows, entries // rows, dtype=np.int64)
        counts[random.permutation(rows)[: entries % rows]] += 1
        return counts
    counts = random.binomial(columns, _shares(rows, entries / (rows * columns), profile.row_rho, random))
    counts = counts.astype(np.int64)
    while (missing := entries - int(counts.sum())) != 0:  # by lot, one a row, until the sum is exact
        sign = 1 if missing > 0 else -1
        room = np.flatnonzero(counts < columns) if sign > 0 else np.flatnonzero(counts > 0)
        counts[random.permutation(room)[: abs(missing)]] += sign
    return counts


def kolmogorov_smirnov(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    """The largest distance of the distribution functions of two samples, in [0, 1]."""
    every = np.concatenate([a, b])
    below = (np.searchsorted(np.sort(one), every, side="right") / one.size for one in (a, b))
    return float(np.abs(next(below) - next(below)).max())
