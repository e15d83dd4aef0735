"""Weight matrices as named tensors of a file: a dense one under its name, a sparse one as `NAME::array`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import formats
from .._errors import DamagedFile, ZeroskipError
from ..formats import BSR, CSR, DTYPES, NM, Bitmask, SparseMatrix, storage_dtype, to_bits, to_float32
from .tensors import TensorFile

Array = npt.NDArray[Any]

DENSE = "dense"
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """A weight matrix that is stored whole.

    Args:
        data: (M, K) in the array form of `dtype`.
        dtype: Value type.
    """

    data: Array
    dtype: str
    name = DENSE

    @property
    def shape(self) -> tuple[int, int]:
        return self.data.shape[0], self.data.shape[1]

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def params(self) -> dict[str, Any]:
        return {}

    @property
    def sparsity(self) -> float:
        """Share of zeros; they are stored all the same."""
        zeros = self.data.size - int(np.count_nonzero(formats.to_float32(self.data, self.dtype)))
        return zeros / max(1, self.data.size)

    def to_dense(self) -> npt.NDArray[np.float32]:
        return to_float32(self.data, self.dtype)


Matrix = SparseMatrix | DenseMatrix


@dataclass(frozen=True)
class StoredMatrix:
    """What zeroskip.json says of one weight matrix.

    Args:
        tied: The dense tensor of the file that the matrix is, where it has no tensor of its own.
    """

    shape: tuple[int, int]
    format: str
    dtype: str
    params: Mapping[str, Any]
    tied: str | None = None

    def as_json(self) -> dict[str, Any]:
        found = {"shape": list(self.shape), "format": self.format, "dtype": self.dtype, "params": dict(self.params)}
        return found if self.tied is None else {**found, "tied": self.tied}


def describe(matrix: Matrix, tensors: Mapping[str, Array]) -> StoredMatrix:
    """The entry of a matrix in zeroskip.json; a dense one that is one of `tensors` is tied to it."""
    tied = None
    if isinstance(matrix, DenseMatrix):
        place = (matrix.data.ctypes.data, matrix.shape, matrix.data.dtype)
        tied = next((name for name, array in tensors.items() if _place(array) == place), None)
    return StoredMatrix(matrix.shape, matrix.name, matrix.dtype, matrix.params, tied)


def _place(array: Array) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    return array.ctypes.data, array.shape, array.dtype


def encode(weight: Array, dtype: str, format: str, params: Mapping[str, Any] | None = None) -> Matrix:
    """Store a float32 matrix in a format: `dense`, or a name of `formats.registry`."""
    if format == DENSE:
        return DenseMatrix(to_bits(weight, dtype), dtype)
    if format == "bitmask":
        # As Bitmask.from_dense, without coordinates on the way: a layer has millions.
        mask = weight != 0
        data = to_bits(weight[mask], dtype)
        bits = np.packbits(mask, axis=1, bitorder="little")
        return Bitmask((weight.shape[0], weight.shape[1]), bits, data, dtype)
    return formats.registry.get(format).from_dense(weight, dtype=dtype, **dict(params or {}))


def smallest_format(shape: tuple[int, int], nnz: int, dtype: str) -> str:
    """The smaller of bitmask and CSR for a matrix with `nnz` entries."""
    rows, columns = shape
    index_bytes = 2 if columns <= 65536 else 4
    bitmask = rows * -(-columns // 8)
    return "bitmask" if bitmask <= nnz * index_bytes + 8 * (rows + 1) else "csr"


def tensors_of(name: str, matrix: Matrix) -> dict[str, Array]:
    """The arrays of a matrix under the names that the file gives them."""
    if isinstance(matrix, DenseMatrix):
        return {name: matrix.data}
    return {f"{name}::{key}": array for key, array in matrix.arrays().items()}


def bfloat16_names(name: str, matrix: Matrix) -> set[str]:
    """Which of these tensors the header must call BF16: NumPy sees uint16."""
    if matrix.dtype != "bfloat16":
        return set()
    return {name if isinstance(matrix, DenseMatrix) else f"{name}::data"}


def read_matrix(file: TensorFile, name: str, stored: StoredMatrix) -> Matrix:
    """A matrix over the mapped arrays of a file, every rule of its layout checked.

    Raises:
        DamagedFile: If arrays are missing, of another type or size than zeroskip.json says, or break the layout.
    """
    where = f"load: {file.path}: matrix {name!r}"
    if stored.format == DENSE:
        held = name if stored.tied is None else stored.tied
        data = file.array(held)
        _check_code(where, file, held, stored.dtype)
        if data.shape != stored.shape:
            raise DamagedFile(f"{where} has shape {data.shape}, zeroskip.json says {stored.shape}; save it again.")
        return DenseMatrix(data, stored.dtype)
    if stored.format not in _FORMATS:
        raise DamagedFile(f"{where} has format {stored.format!r}, which is not one of {_names()}; update zeroskip.")
    cls = _FORMATS[stored.format]
    arrays = {key: file.array(f"{name}::{key}") for key in cls.array_names}
    _check_code(where, file, f"{name}::data", stored.dtype)
    try:
        return cls.from_arrays(stored.shape, stored.dtype, arrays, stored.params)
    except (ZeroskipError, TypeError, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise DamagedFile(f"{where} breaks its layout ({error}).") from error


_FORMATS: dict[str, type[SparseMatrix]] = {cls.name: cls for cls in (Bitmask, CSR, NM, BSR)}


def _names() -> str:
    return ", ".join([DENSE, *_FORMATS])


def _check_code(where: str, file: TensorFile, tensor: str, dtype: str) -> None:
    if dtype not in DTYPES or file.code(tensor) != _CODES[dtype]:
        raise DamagedFile(
            f"{where} holds {file.code(tensor)} values, zeroskip.json says {dtype}; save the model again."
        )
    assert file.array(tensor).dtype == storage_dtype(dtype)


def dense_tensor(file: TensorFile, name: str) -> Array:
    """A floating tensor of the file, mapped: float32, float16, or bfloat16 as uint16."""
    if file.code(name) not in _CODES.values():
        raise DamagedFile(
            f"load: {file.path}: tensor {name!r} is {file.code(name)}, it must be one of {', '.join(_CODES.values())}."
        )
    return file.array(name)
