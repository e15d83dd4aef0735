"""A kernel's result beside float64, before it is timed.

All of a result must be numbers; in three stripes of rows (the first, a middle and the last one), the first, the middle
and the last column of every N must be within the bound of `testing.bound`. Whole results take longer than everything
else: the float64 product of a 4096x4096 matrix at 50 % and four columns is 0.8 s, of the stripes 20 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...formats import SparseMatrix
from ...testing import Bound, bound
from .operands import stripe

Float32 = npt.NDArray[np.float32]

_STRIPE_ROWS = 32


class Check:
    """What rows of one matrix times x must be.

    Args:
        a: The matrix.
        x: x by N; of every N the first columns are the same.
        x_dtype: What the kernel rounds x to; compared is the product of the rounded x.
    """

    def __init__(self, a: SparseMatrix, x: Mapping[int, Float32], *, x_dtype: str) -> None:
        self._x = x
        self._columns = sorted({column for n in x for column in (0, n // 2, n - 1)})
        options: dict[str, Any] = {"x_dtype": x_dtype, "rounded_x": True}
        some = x[max(x)][:, self._columns]
        self._stripes = [(part, bound(stripe(a, part.start, part.stop), some, **options)) for part in _parts(a)]

    def wrong(self, packed: Any, ns: Sequence[int]) -> tuple[int, str] | None:
        """The first N at which the result is wrong, and how; None where all are right."""
        for n in ns:
            x = self._x[n]
            out = np.full((packed.shape[0], n), np.nan, dtype=np.float32)
            packed.run(x, out)
            if not np.isfinite(out).all():
                return n, "wrong result: not every element is a number"
            worst = max(self._worst(out, part, limits) for part, limits in self._stripes)
            if not worst <= 1:
                return n, f"wrong result: an error is {worst:.3g} times its bound"
        return None

    def _worst(self, out: Float32, part: slice, limits: Bound) -> float:
        places = [place for place, column in enumerate(self._columns) if column < out.shape[1]]
        found = out[part][:, [self._columns[place] for place in places]]
        error = np.abs(found - limits.expected[:, places])
        return float((error / np.maximum(limits.allowed[:, places], np.finfo(np.float64).tiny)).max())


def _parts(a: SparseMatrix) -> list[slice]:
    """Three stripes of whole block rows, fewer of a small matrix."""
    rows, unit = a.shape[0], getattr(a, "block", (1, 1))[0]
    step = -(-_STRIPE_ROWS // unit) * unit
    starts = sorted({0, rows // 2 // step * step, (rows - 1) // step * step})
    return [slice(start, min(start + step, rows)) for start in starts]
