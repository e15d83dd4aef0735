"""A matrix that is stored whole. No format of sparse matrices, but stored, quantised and saved like one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ._base import SparseMatrix, check_data, check_shape
from ._dtypes import Array, check_dtype, check_floating, to_bits, to_float32, value_bytes
from ._scales import Scales, check_codes, check_scales


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """A weight matrix that is stored whole.

    Args:
        data: (M, K) in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    data: Array
    dtype: str
    scales: Scales | None = None
    name = "dense"

    def __post_init__(self) -> None:
        check_dtype("DenseMatrix", self.dtype)
        check_data("DenseMatrix", self.data, self.dtype, 2)
        check_scales("DenseMatrix", self.scales, self.dtype, check_shape("DenseMatrix", self.data.shape))
        if self.scales is not None:
            check_codes("DenseMatrix", self.data, self.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        return self.data.shape[0], self.data.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together, two int4 codes in one."""
        return value_bytes(self.data.size, self.dtype) + (0 if self.scales is None else self.scales.nbytes)

    @property
    def params(self) -> dict[str, Any]:
        return {}

    @property
    def sparsity(self) -> float:
        """Share of zeros; they are stored all the same."""
        return 1.0 - int(np.count_nonzero(self.to_dense())) / self.data.size

    def places(self) -> tuple[Array, Array]:
        """The row and the column of each element, in arrays that broadcast to the shape."""
        rows, cols = np.ogrid[: self.shape[0], : self.shape[1]]
        return rows, cols

    def to_dense(self) -> npt.NDArray[np.float32]:
        """The values in float32, exact; `data` itself where it is float32."""
        if self.scales is None:
            return to_float32(self.data, self.dtype)
        return self.scales.decode(self.data, *self.places())

    def astype(self, dtype: str) -> DenseMatrix:
        """The values rounded to a floating value type."""
        if dtype == self.dtype:
            return self
        data = to_bits(self.to_dense(), check_floating("astype", dtype))
        return replace(self, data=data, dtype=dtype, scales=None)

    def arrays(self) -> dict[str, Array]:
        """`data`, and the arrays of the scales if there are any."""
        return {"data": self.data} if self.scales is None else {"data": self.data, **self.scales.arrays()}


def dense_codes(matrix: SparseMatrix | DenseMatrix) -> DenseMatrix:
    """A symmetric quantised matrix with every place stored: 0 where it had none."""
    if isinstance(matrix, DenseMatrix):
        return matrix
    entries = matrix.entries()
    codes = np.zeros(matrix.shape, dtype=np.int8)
    codes[entries.rows, entries.cols] = entries.data
    return DenseMatrix(codes, matrix.dtype, matrix.scales)
