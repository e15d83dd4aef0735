"""The patterns that a mask can have, and how they are written."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .._errors import InvalidArgument, ShapeError

Kind = Literal["unstructured", "nm", "vnm", "block"]
_DEFAULT_SPARSITY = 0.5
# Columns of a V:N:M block that are kept: the format's, and the four of which sparse tensor cores take two.
VNM_COLUMNS = 4


@dataclass(frozen=True)
class Pattern:
    """Which entries may be dropped together.

    Args:
        kind: `unstructured` (any entry), `nm` (at most `n` kept of each `m` along K), `vnm` (that, and within blocks of
            `v` rows all of them in the same 4 columns of `m`), `block` (whole `rows` x `cols` blocks).
        n, m: Of an N:M or V:N:M pattern; N is the number KEPT.
        rows, cols: Of a block pattern; rows run along M (out_features), columns along K (in_features).
        v: Rows of a block of V:N:M.
    """

    kind: Kind = "unstructured"
    n: int = 0
    m: int = 0
    rows: int = 1
    cols: int = 1
    v: int = 1

    @classmethod
    def parse(cls, text: str | Pattern) -> Pattern:
        """The pattern written as `unstructured`, `2:4` (2 kept of each 4), `vnm:16x2:8` (V = 16) or `block:16x1`.

        Raises:
            InvalidArgument: If it is written in no such way, N:M has no 0 < N < M, or V:N:M no 0 < N <= 4 < M.
        """
        if isinstance(text, Pattern):
            return text
        spelled = str(text).strip().lower()
        if spelled == "unstructured":
            return cls()
        if found := re.fullmatch(r"(\d+):(\d+)", spelled):
            n, m = int(found[1]), int(found[2])
            if not 0 < n < m:
                raise InvalidArgument(f"pattern: {text!r} keeps {n} of each {m}, but 0 < N < M is needed; try 2:4.")
            return cls("nm", n=n, m=m)
        if found := re.fullmatch(r"vnm:(\d+)x(\d+):(\d+)", spelled):
            v, n, m = (int(part) for part in found.groups())
            if not (v >= 1 and 0 < n <= VNM_COLUMNS < m):
                raise InvalidArgument(
                    f"pattern: {text!r} keeps {n} in 4 columns of {m} for {v} rows, but 0 < N <= 4 < M and 0 < V are "
                    "needed; try vnm:16x2:8."
                )
            return cls("vnm", n=n, m=m, v=v)
        if found := re.fullmatch(r"block:(\d+)x(\d+)", spelled):
            rows, cols = int(found[1]), int(found[2])
            if rows < 1 or cols < 1:
                raise InvalidArgument(f"pattern: {text!r} has an empty block; try block:16x1.")
            return cls("block", rows=rows, cols=cols)
        raise InvalidArgument(
            f"pattern: {text!r} is not known; write unstructured, N:M such as 2:4 or 8:16, vnm:VxN:M such as "
            "vnm:16x2:8, or block:RxC such as block:16x1."
        )

    def __str__(self) -> str:
        if self.kind == "nm":
            return f"{self.n}:{self.m}"
        if self.kind == "vnm":
            return f"vnm:{self.v}x{self.n}:{self.m}"
        return f"block:{self.rows}x{self.cols}" if self.kind == "block" else "unstructured"

    @property
    def grouped(self) -> bool:
        """Whether each group of `m` columns is chosen by itself: N:M and V:N:M."""
        return self.kind in ("nm", "vnm")

    @property
    def min_sparsity(self) -> float:
        """The least sparsity that the pattern allows: 1 - N/M, or 0."""
        return 1 - self.n / self.m if self.grouped else 0.0

    def sparsity_or_default(self, sparsity: float | None, *, where: str = "prune") -> float:
        """`sparsity` checked, or what the pattern implies where it is None (0.5 if it implies nothing).

        N:M with a sparsity above 1 - N/M means at most N kept of each M, and that sparsity in all.

        Raises:
            InvalidArgument: If it is outside [0, 1) or below what N:M allows.
        """
        if sparsity is None:
            return self.min_sparsity if self.grouped else _DEFAULT_SPARSITY
        if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)):
            raise InvalidArgument(f"{where}: sparsity is {sparsity!r}, not a number; pass one in [0, 1).")
        if not (math.isfinite(sparsity) and 0 <= sparsity < 1):
            hint = f"; {sparsity:g} % is written {sparsity / 100:g}" if 1 < sparsity < 100 else ""
            raise InvalidArgument(
                f"{where}: sparsity is {sparsity:g}, outside [0, 1); pass a fraction such as 0.6{hint}."
            )
        if sparsity < self.min_sparsity - 1e-9:
            raise InvalidArgument(
                f"{where}: sparsity is {sparsity:g}, but {self} drops at least {self.min_sparsity:g}; "
                "leave sparsity out, or choose another pattern."
            )
        return float(sparsity)

    def check_shape(self, shape: Sequence[int], *, where: str = "mask_from_scores") -> None:
        """Refuse a matrix that the pattern does not divide.

        Raises:
            ShapeError: If it is not two-dimensional, M does not divide K, V the rows, or the blocks do not tile it.
        """
        if len(shape) != 2:
            raise ShapeError(f"{where}: the matrix has shape {tuple(shape)}; pass two dimensions (out, in).")
        rows, cols = shape
        if self.grouped and cols % self.m:
            raise ShapeError(
                f"{where}: pattern {self} needs K to be a multiple of {self.m}, but K = {cols}; "
                "choose another N:M, or leave this layer out with exclude=."
            )
        if self.kind == "vnm" and rows % self.v:
            raise ShapeError(
                f"{where}: pattern {self} needs M to be a multiple of {self.v}, but M = {rows}; "
                "choose another V, or leave this layer out with exclude=."
            )
        if self.kind == "block" and (rows % self.rows or cols % self.cols):
            raise ShapeError(
                f"{where}: pattern {self} does not tile a {rows} x {cols} matrix; "
                "choose a block that divides both, or leave this layer out with exclude=."
            )
