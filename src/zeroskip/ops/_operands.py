"""Dense operands of operations on a pattern, and the patterns: checked, and read where they lie if they can be."""

from __future__ import annotations

import math
import sys
from functools import cache
from typing import Any

import numpy as np

from .._errors import DtypeError, InvalidArgument
from ..formats import SparseMatrix, is_torch, registry, to_float32, to_numpy
from ..formats._dtypes import Array
from ..formats._interchange import _importer
from ..kernels import OperationKernel, operation_kernel
from ._check import check_matrix

NATIVE_PATTERNS = ("csr", "bsr", "bitmask")
_NATIVE_TYPES = frozenset(registry.get(name) for name in NATIVE_PATTERNS)
_LARGEST = float(np.finfo(np.float32).max)


def check_pattern(where: str, pattern: Any) -> SparseMatrix:
    """`pattern` itself where a kernel reads its format, else as CSR."""
    if type(pattern) in _NATIVE_TYPES:  # an abstract class takes ten times as long to ask
        return pattern  # type: ignore[no-any-return]
    check_matrix(where, "pattern", pattern)
    found: SparseMatrix = pattern if pattern.name in NATIVE_PATTERNS else pattern.convert("csr")
    return found


def check_number(where: str, name: str, value: Any) -> float:
    """`value` as a float that float32 holds."""
    # The plain float first: to make the union and ask for NumPy's abstract types takes half a microsecond.
    number = type(value) is float or (
        isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    )
    if not number or not math.isfinite(value) or abs(value) > _LARGEST:
        raise InvalidArgument(f"{where}: {name} is {value!r}, it must be a finite number; pass {name}=1.0.")
    return float(value)


def dense_operand(where: str, argument: str, array: Any) -> tuple[Array, str]:
    """A view of `array` with its value type: float32, or bfloat16 as bit patterns (uint16). float16 is widened.

    Raises:
        DtypeError: If the values are of another type. float64 is refused: the sums are in float32.
        InvalidArgument: If it is not an array on the CPU.
    """
    if type(array) is np.ndarray and array.dtype == np.float32:
        return array, "float32"
    torch = sys.modules.get("torch")
    if torch is not None and type(array) is torch.Tensor and not array.requires_grad and array.dtype is torch.float32:
        try:
            return array.numpy(), "float32"
        except (TypeError, RuntimeError):  # not on the CPU, sparse or with a pending sign: told apart below
            pass
    if is_torch(array) and _is_plain(array):
        torch = sys.modules["torch"]
        if array.dtype == torch.float32:
            return (array.detach() if array.requires_grad else array).numpy(), "float32"
        if array.dtype == torch.bfloat16:
            return array.detach().view(torch.int16).numpy().view(np.uint16), "bfloat16"
    if isinstance(array, np.ndarray) and array.dtype.kind == "V" and array.dtype.name == "bfloat16":
        return array.view(np.uint16), "bfloat16"
    found = to_numpy(where, argument, array)
    if found.dtype.itemsize > 4:
        raise DtypeError(
            f"{where}: {argument} has dtype {found.dtype}, sums are in float32; convert {argument} to float32."
        )
    return found.astype(np.float32, copy=False), "float32"


def widened(array: Array, dtype: str) -> Array:
    """What `dense_operand` gave as float32."""
    return array if dtype == "float32" else to_float32(array, dtype)


def rows_in_place(array: Array) -> Array:
    """`array` (..., rows, depth) itself where its rows are contiguous and its strides whole elements, else a copy."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        return array
    size = array.itemsize
    whole = all(stride >= 0 and stride % size == 0 for stride in array.strides)
    if whole and flags.aligned and (array.shape[-1] <= 1 or array.strides[-1] == size):
        return array
    return np.array(array, order="C")


def with_values(pattern: SparseMatrix, values: Array) -> SparseMatrix:
    """The pattern with other values, float32 in the order of its `data`; its layout was checked when it was made."""
    found = object.__new__(type(pattern))
    found.__dict__.update(pattern.__dict__, data=values.reshape(pattern.data.shape), dtype="float32", scales=None)
    return found


def same_kind(array: Array, template: Any) -> Any:
    """A float32 NumPy `array` as the kind of array that `template` is, float32 whatever the type of that."""
    if isinstance(template, np.ndarray):
        return array
    if is_torch(template):
        return sys.modules["torch"].from_numpy(array)
    back = _importer(template)
    return array if back is None else back(array)


def find_kernel(op: str, format: str, dtype: str, name: Any) -> OperationKernel:
    """`operation_kernel`, which looks through all of them, once for each question: some calls take 30 us."""
    return _find(op, format, dtype, name) if isinstance(name, str) else operation_kernel(op, op, format, dtype, name)


@cache
def _find(op: str, format: str, dtype: str, name: str) -> OperationKernel:
    return operation_kernel(op, op, format, dtype, name)


def _is_plain(tensor: Any) -> bool:
    """Whether a tensor's memory holds its values; what it does not, `to_numpy` converts or refuses."""
    return bool(tensor.is_cpu and tensor.layout == sys.modules["torch"].strided and not tensor.is_neg())
