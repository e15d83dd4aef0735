"""Weight matrices as named tensors of a file: a dense one under its name, a sparse one as `NAME::array`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import formats
from .._errors import DamagedFile, ZeroskipError
from ..formats import (
    DTYPES,
    INTEGERS,
    NM,
    VNM,
    Bitmask,
    DenseMatrix,
    Scales,
    SparseMatrix,
    pack_nibbles,
    pack_positions,
    position_bits,
    storage_dtype,
    to_bits,
    unpack_nibbles,
    unpack_positions,
)
from .tensors import TensorFile

Array = npt.NDArray[Any]

DENSE = DenseMatrix.name
# The type of the values in a file. Two int4 codes share a byte.
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int8": "I8", "int4": "U8"}
_VNM_KEPT = 4
# coo, csc and dia bound no number of rows by an array of theirs, and loading makes offsets of all rows.
_FREE_SIZE = 2**20
_FLOATING = tuple(_CODES[dtype] for dtype in formats.FLOATS)

Matrix = SparseMatrix | DenseMatrix


@dataclass(frozen=True)
class StoredMatrix:
    """What zeroskip.json says of one weight matrix.

    Args:
        tied: The dense tensor of the file that the matrix is, where it has no tensor of its own.
        group: Columns that one scale covers, for int8 and int4; None for other value types.
        symmetric: Whether such a matrix has no zero points.
        position_bits: Bits of a position in its group, for nm and vnm; None where each takes a byte, as files had it
            before there were packed ones.
    """

    shape: tuple[int, int]
    format: str
    dtype: str
    params: Mapping[str, Any]
    tied: str | None = None
    group: int | None = None
    symmetric: bool = True
    position_bits: int | None = None

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "shape": list(self.shape),
            "format": self.format,
            "dtype": self.dtype,
            "params": dict(self.params),
        }
        if self.group is not None:
            found |= {"group": self.group, "symmetric": self.symmetric}
        if self.position_bits is not None:
            found["position_bits"] = self.position_bits
        return found if self.tied is None else {**found, "tied": self.tied}


def describe(matrix: Matrix, tensors: Mapping[str, Array]) -> StoredMatrix:
    """The entry of a matrix in zeroskip.json; a dense one that is one of `tensors` is tied to it."""
    tied = None
    if isinstance(matrix, DenseMatrix):
        place = (matrix.data.ctypes.data, matrix.shape, matrix.data.dtype)
        tied = next((name for name, array in tensors.items() if _place(array) == place), None)
    scales = matrix.scales
    group, symmetric = (None, True) if scales is None else (scales.group, scales.symmetric)
    groups_of = _groups_of(matrix)
    bits = None if groups_of is None else position_bits(groups_of)
    return StoredMatrix(matrix.shape, matrix.name, matrix.dtype, matrix.params, tied, group, symmetric, bits)


def _groups_of(matrix: Matrix) -> int | None:
    """How many positions `indices` tells apart, where it holds positions."""
    if isinstance(matrix, NM):
        return matrix.m
    return _VNM_KEPT if isinstance(matrix, VNM) else None


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
    if isinstance(matrix, DenseMatrix) and matrix.scales is None:
        return {name: matrix.data}
    found = {f"{name}::{key}": array for key, array in matrix.arrays().items()}
    if matrix.dtype == "int4":
        found[f"{name}::data"] = pack_nibbles(matrix.data)
    groups_of = _groups_of(matrix)
    if groups_of is not None:
        found[f"{name}::positions"] = pack_positions(found.pop(f"{name}::indices"), groups_of)
    return found


def bfloat16_names(name: str, matrix: Matrix) -> set[str]:
    """Which of these tensors the header must call BF16: NumPy sees uint16."""
    if matrix.dtype != "bfloat16":
        return set()
    return {name if isinstance(matrix, DenseMatrix) else f"{name}::data"}


def read_matrix(file: TensorFile, name: str, stored: StoredMatrix) -> Matrix:
    """A matrix over the mapped arrays of a file, every rule of its layout checked; codes and positions are unpacked.

    Raises:
        DamagedFile: If arrays are missing, of another type or size than zeroskip.json says, or break the layout.
    """
    where = f"load: {file.path}: matrix {name!r}"
    if stored.format != DENSE and stored.format not in formats.registry:
        raise DamagedFile(f"{where} has format {stored.format!r}, which is not one of {_names()}; update zeroskip.")
    quantised = stored.dtype in INTEGERS
    if quantised != (stored.group is not None) or (quantised and stored.tied is not None):
        raise DamagedFile(
            f"{where} is {stored.dtype} with group {stored.group} and tied {stored.tied}, 8 and 4 bits have a "
            "group and tensors of their own, other values no group; save the model again."
        )
    if max(stored.shape) > _FREE_SIZE + file.nbytes:
        raise DamagedFile(
            f"{where} has shape {stored.shape} in a file with {file.nbytes} bytes of tensors, sizes above {_FREE_SIZE} "
            "need as many; save the model again."
        )
    read = _read_dense if stored.format == DENSE else _read_sparse
    try:
        return read(where, file, name, stored)
    except DamagedFile:
        raise
    except (ZeroskipError, TypeError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise DamagedFile(f"{where} breaks its layout ({error}).") from error


def _read_dense(where: str, file: TensorFile, name: str, stored: StoredMatrix) -> DenseMatrix:
    held = name if stored.tied is None else stored.tied
    if stored.dtype in INTEGERS:
        held = f"{name}::data"
    _check_code(where, file, held, stored.dtype)
    data = file.array(held)
    if stored.dtype == "int4":
        data = unpack_nibbles(data, stored.shape)
    if data.shape != stored.shape:
        raise DamagedFile(f"{where} has shape {data.shape}, zeroskip.json says {stored.shape}; save it again.")
    scales = None
    if stored.group is not None:
        found = _scale_arrays(where, file, name, stored)
        scales = Scales(found["scales"], stored.group, found.get("zeros"))
    return DenseMatrix(data, stored.dtype, scales)


def _read_sparse(where: str, file: TensorFile, name: str, stored: StoredMatrix) -> SparseMatrix:
    cls = formats.registry.get(stored.format)
    packed = () if stored.position_bits is None else ("indices",)
    arrays = {key: file.array(f"{name}::{key}") for key in cls.array_names if key not in packed}
    _check_code(where, file, f"{name}::data", stored.dtype)
    if packed:
        arrays["indices"] = _positions(where, file.array(f"{name}::positions"), cls, arrays, stored)
    if stored.dtype == "int4":
        arrays["data"] = unpack_nibbles(arrays["data"], cls.data_shape(stored.shape, arrays, stored.params))
    if stored.group is None:
        return cls.from_arrays(stored.shape, stored.dtype, arrays, stored.params)
    arrays |= _scale_arrays(where, file, name, stored)
    return cls.from_arrays(stored.shape, stored.dtype, arrays, stored.params, group=stored.group)


def _positions(
    where: str, packed: Array, cls: type[SparseMatrix], arrays: Mapping[str, Array], stored: StoredMatrix
) -> Array:
    """`indices` of nm and vnm, where they are packed."""
    if cls not in (NM, VNM):
        raise DamagedFile(f"{where} is {cls.name} with position_bits, which nm and vnm have; save the model again.")
    shape = cls.data_shape(stored.shape, arrays, stored.params)
    groups_of = _VNM_KEPT if cls is VNM else stored.params["m"]
    if stored.position_bits != position_bits(groups_of):
        raise DamagedFile(
            f"{where} has {stored.position_bits} bits a position, groups of {groups_of} make it "
            f"{position_bits(groups_of)}; save the model again."
        )
    return unpack_positions(packed, groups_of, shape)


def _scale_arrays(where: str, file: TensorFile, name: str, stored: StoredMatrix) -> dict[str, Array]:
    """The scales, and the zero points where zeroskip.json says that there are some: their types checked."""
    codes = {"scales": "F16"} if stored.symmetric else {"scales": "F16", "zeros": "I8"}
    for key, code in codes.items():
        if file.code(f"{name}::{key}") != code:
            raise DamagedFile(
                f"{where} has {file.code(f'{name}::{key}')} {key}, they are {code}; save the model again."
            )
    if stored.symmetric and f"{name}::zeros" in file:
        raise DamagedFile(f"{where} has zeros but zeroskip.json says that it is symmetric; save the model again.")
    return {key: file.array(f"{name}::{key}") for key in codes}


def _names() -> str:
    return ", ".join([DENSE, *formats.registry.names()])


def _check_code(where: str, file: TensorFile, tensor: str, dtype: str) -> None:
    if dtype not in DTYPES or file.code(tensor) != _CODES[dtype]:
        raise DamagedFile(
            f"{where} holds {file.code(tensor)} values, zeroskip.json says {dtype}; save the model again."
        )
    assert dtype == "int4" or file.array(tensor).dtype == storage_dtype(dtype)


def dense_tensor(file: TensorFile, name: str) -> Array:
    """A floating tensor of the file, mapped: float32, float16, or bfloat16 as uint16."""
    if file.code(name) not in _FLOATING:
        raise DamagedFile(
            f"load: {file.path}: tensor {name!r} is {file.code(name)}, it must be one of {', '.join(_FLOATING)}."
        )
    return file.array(name)
