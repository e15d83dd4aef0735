"""The value types that zeroskip stores, and the rounding between them.

`float32` and `float16` are NumPy's own. NumPy has no bfloat16, so such values are held as `uint16` bit patterns: the
upper half of the float32 of the same value. `int8` and `int4` are codes, one int8 each in memory, which mean nothing
without the scales of their matrix (`_scales.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DtypeError

FLOATS = ("float32", "bfloat16", "float16")
INTEGERS = ("int8", "int4")
DTYPES = FLOATS + INTEGERS
SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "i8", "int4": "i4"}
UNIT_ROUNDOFF = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
_STORAGE: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.uint16),
    "float16": np.dtype(np.float16),
    "int8": np.dtype(np.int8),
    "int4": np.dtype(np.int8),
}
_BITS = {"float32": 32, "bfloat16": 16, "float16": 16, "int8": 8, "int4": 4}

Array = npt.NDArray[Any]


def check_dtype(where: str, dtype: object) -> str:
    """`dtype` itself, if it names a value type.

    Raises:
        DtypeError: If it does not; the message lists the names.
    """
    if isinstance(dtype, str) and dtype in _STORAGE:
        return dtype
    raise DtypeError(f"{where}: dtype is {dtype!r}, which is not a value type; choose one of: {', '.join(DTYPES)}.")


def check_floating(where: str, dtype: object) -> str:
    """`dtype` itself, if it names a value type that numbers can be rounded to without scales.

    Raises:
        DtypeError: If it does not; the message lists the names.
    """
    if check_dtype(where, dtype) in INTEGERS:
        raise DtypeError(
            f"{where}: dtype is {dtype!r}, whose values need scales; choose one of: {', '.join(FLOATS)}, "
            f"and pass the matrix to zeroskip.quantize.quantize(..., {dtype!r})."
        )
    return str(dtype)


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype of the array that holds values of `dtype`: uint16 for bfloat16, int8 for int4."""
    return _STORAGE[check_dtype("storage_dtype", dtype)]


def value_bytes(count: int, dtype: str) -> int:
    """Bytes that `count` values take in the format: int4 has two in a byte."""
    return -(-count * _BITS[check_dtype("value_bytes", dtype)] // 8)


def to_bits(values: Array, dtype: str) -> Array:
    """Round float values to `dtype`, to nearest and ties to even, in the array form that formats store.

    Overflow becomes infinity; a NaN stays a NaN (it is made quiet, and keeps its sign).
    """
    check_floating("to_bits", dtype)
    if dtype == "float32":
        return np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, dtype=np.float16)
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Adding 0x7fff, and one more when the kept part is odd, carries into the kept part exactly when rounding goes up.
    rounded: Array = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if nan.any():
        rounded[nan] = ((bits[nan] >> 16) | np.uint32(0x40)).astype(np.uint16)
    return rounded


def to_float32(stored: Array, dtype: str) -> npt.NDArray[np.float32]:
    """The float32 values of an array stored as `dtype`; exact. The same array where it is float32 already."""
    check_floating("to_float32", dtype)
    if dtype == "bfloat16":
        values: npt.NDArray[np.float32] = (stored.astype(np.uint32) << 16).view(np.float32)
        return values
    return np.asarray(stored, dtype=np.float32)
