"""The contracts of the operations, checked here once; kernels trust what passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import DtypeError, InvalidArgument, KernelUnavailable, ShapeError
from ..formats import SparseMatrix, to_numpy
from ..kernels import ACTIVATIONS, Kernel, registry
from ..kernels._base import Float32

OPERATIONS = ("spmm", "spmv", "linear")


def check_matrix(where: str, argument: str, a: Any) -> None:
    """Refuse anything but a `SparseMatrix`."""
    if not isinstance(a, SparseMatrix):
        raise InvalidArgument(
            f"{where}: {argument} is a {type(a).__name__}, not a sparse matrix; "
            f"make one with zeroskip.formats.CSR.from_dense({argument})."
        )


def check_operation(where: str, op: Any) -> None:
    """Refuse an operation that does not exist."""
    if op not in OPERATIONS:
        raise InvalidArgument(f"{where}: op is {op!r}, which is not known; choose one of: {', '.join(OPERATIONS)}.")


def check_activation(where: str, activation: Any) -> None:
    """Refuse an activation that does not exist."""
    if activation is not None and activation not in ACTIVATIONS:
        raise InvalidArgument(
            f"{where}: activation is {activation!r}, which is not known; "
            f"choose None or one of: {', '.join(ACTIVATIONS)}."
        )


def check_count(where: str, name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidArgument(f"{where}: {name} is {value!r}, it must be a whole number of at least 1; pass {name}=1.")
    return int(value)


def as_float32(where: str, argument: str, array: Any) -> Float32:
    """A C-contiguous float32 NumPy view of `array`, or a copy where there is none.

    Raises:
        DtypeError: If the values are not float32, bfloat16 or float16. float64 is refused: the sums are in float32.
    """
    if type(array) is np.ndarray and array.dtype == np.float32:
        return np.asarray(array, order="C")
    found = to_numpy(where, argument, array)
    if found.dtype.itemsize > 4:
        raise DtypeError(
            f"{where}: {argument} has dtype {found.dtype}, sums are in float32; convert {argument} to float32."
        )
    return np.asarray(found, dtype=np.float32, order="C")


def check_operand(where: str, op: str, x: Any, shape: tuple[int, int]) -> Float32:
    """x as float32, of the shape that the operation takes: spmm (K, N), spmv (K,), linear (..., K)."""
    found = as_float32(where, "x", x)
    columns = shape[1]
    if op == "spmm":
        if found.ndim != 2:
            mend = "use spmv for a vector" if found.ndim == 1 else "reshape it"
            raise ShapeError(f"{where}: x has shape {found.shape}, spmm takes (K, N) with K = {columns}; {mend}.")
        if found.shape[0] != columns:
            raise ShapeError(
                f"{where}: x has shape {found.shape} but a has K = {columns}; "
                f"pass x with {columns} rows, or transpose it."
            )
    elif op == "spmv":
        if found.shape != (columns,):
            raise ShapeError(
                f"{where}: x has shape {found.shape} but a has K = {columns}; pass x of shape ({columns},)."
            )
    elif not found.ndim or found.shape[-1] != columns:
        raise ShapeError(
            f"{where}: x has shape {found.shape} but w has K = {columns}; pass x whose last size is {columns}."
        )
    return found


def check_bias(where: str, bias: Any, rows: int) -> Float32 | None:
    """bias as float32 of shape (M,), or None."""
    if bias is None:
        return None
    found = as_float32(where, "bias", bias)
    if found.shape != (rows,):
        raise ShapeError(f"{where}: bias has shape {found.shape} but there are M = {rows} rows; pass shape ({rows},).")
    return found


def check_kernel(where: str, name: Any, a: SparseMatrix, n: int) -> Kernel:
    """The kernel called `name`, able to run here and taking `a`.

    Raises:
        KernelUnavailable: If it is not known, cannot run on this machine, or does not take this matrix; says why.
    """
    usable = [kernel.name for kernel in registry if kernel.why_not() is None]
    mend = f'choose "auto" or one of: {", ".join(usable)}.'
    if name not in registry:
        gone = "".join(f" ({module} kernels: {why})" for module, why in registry.unavailable.items())
        raise KernelUnavailable(f"{where}: kernel is {name!r}, which is not known{gone}; {mend}")
    kernel = registry.get(name)
    reason = kernel.why_not()
    if reason is not None:
        raise KernelUnavailable(f"{where}: kernel is {name!r}, which cannot run here: {reason}; {mend}")
    reason = kernel.rejects(a, n)
    if reason is not None:
        raise KernelUnavailable(f"{where}: kernel is {name!r}, which does not take this matrix: {reason}.")
    return kernel
