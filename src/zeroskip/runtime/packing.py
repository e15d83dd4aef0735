"""Weight matrices into what a kernel runs on, without detours through other formats where none is needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .._errors import DamagedFile, FormatError, KernelUnavailable
from ..formats import BSR, CSR, INTEGERS, NM, SHORT, Bitmask, SparseMatrix
from ..io import DENSE, Matrix
from ..kernels import Kernel, Prepared, newest, registry
from .layerplan import rounds_x
from .values import dense_codes

T = TypeVar("T")
R = TypeVar("R")

_LONG = {short: dtype for dtype, short in SHORT.items()}


@dataclass(frozen=True)
class Packed:
    """A matrix packed by the native module: what `kernels.Prepared` asks for."""

    kernel: str
    shape: tuple[int, int]
    packed: Any

    @property
    def nbytes(self) -> int:
        return int(self.packed.nbytes)

    def run(
        self, x: Any, out: Any, *, bias: Any = None, activation: str | None = None, transposed: bool = False
    ) -> None:
        native().run(self.packed, x, out, bias, activation or "none", transposed)


def native() -> Any:
    """The native module, imported when it is needed."""
    return importlib.import_module("zeroskip._native")


def pack(kernel: str, matrix: Matrix) -> Packed:
    """Pack `matrix` for a native kernel, from whatever format it is in.

    Raises:
        KernelUnavailable: If the kernel is not native, or cannot run here.
        FormatError: If the native module finds the arrays broken.
    """
    if kernel not in registry or registry.get(kernel).origin != "native":
        raise KernelUnavailable(
            f"compile: kernel {kernel!r} is no native kernel; choose one of: {', '.join(_names())}."
        )
    known = registry.get(kernel)
    if matrix.scales is not None and known.dtype not in INTEGERS:
        matrix = matrix.astype("float32")
    elif matrix.scales is not None and known.format == DENSE:
        matrix = dense_codes(matrix)
    kind, arrays, dtype, params = source_of(matrix)
    rows, columns = matrix.shape
    try:
        packed = native().pack(kernel, rows, columns, kind, arrays, dtype, params)
    except ValueError as error:
        if "cannot read that format" not in str(error):
            raise FormatError(f"pack: {kernel} refuses the matrix ({error}).") from None
        return _pack_converted(known, matrix)
    return Packed(kernel, matrix.shape, packed)


def _pack_converted(kernel: Kernel, matrix: Matrix) -> Packed:
    """For kernels that read their own format only."""
    if kernel.dtype in INTEGERS:
        raise FormatError(f"pack: {kernel.name} does not take this matrix of {matrix.dtype} in {matrix.name}.")
    if kernel.format == DENSE:
        whole = np.ascontiguousarray(matrix.to_dense())
        packed = native().pack(kernel.name, *matrix.shape, DENSE, {"data": whole}, "float32", {})
        return Packed(kernel.name, matrix.shape, packed)
    sparse = matrix if isinstance(matrix, SparseMatrix) else Bitmask.from_dense(matrix.to_dense(), dtype=matrix.dtype)
    prepared: Any = kernel.prepare(sparse)
    return Packed(kernel.name, matrix.shape, prepared.packed)


def source_of(matrix: Matrix) -> tuple[str, dict[str, Any], str, dict[str, int]]:
    """Kind, arrays, value type and parameters as the native module takes them; views where types agree."""
    arrays: dict[str, Any] = {**matrix.arrays(), "data": _bits(matrix.data)}
    params: dict[str, int] = {}
    if isinstance(matrix, CSR):
        arrays["indices"] = matrix.indices.astype(np.int32, copy=False)
    elif isinstance(matrix, BSR):
        params = {"r": matrix.block[0], "c": matrix.block[1]}
    elif isinstance(matrix, NM):
        params = {"n": matrix.n, "m": matrix.m}
    if matrix.scales is not None:
        arrays.update({**matrix.scales.arrays(), "scales": _bits(matrix.scales.values)})
        params["group"] = matrix.scales.group
    return matrix.name, arrays, matrix.dtype, params


def _bits(data: Any) -> Any:
    return data.view(np.uint16) if data.dtype == np.float16 else data


def native_kernels() -> list[Kernel]:
    """Native kernels that run here, of each the newest instruction set only."""
    return newest(kernel for kernel in registry if kernel.origin == "native" and kernel.why_not() is None)


def stand_in(name: str, format: str, dtype: str) -> tuple[str, str | None]:
    """A kernel that runs here in place of the one that a plan names, and why it is another; None where it is the same.

    Args:
        name: The kernel of the plan, which this machine may not have.
        format: Format of the stored matrix.
        dtype: Its value type.
    """
    known = registry.get(name) if name in registry else None
    if known is not None and known.origin == "native" and known.why_not() is None:
        return name, None
    why = "is not known here" if known is None else (known.why_not() or "is no native kernel")
    parts = name.split("_")
    wanted_format, wanted_dtype = (parts[1], _LONG.get(parts[2], dtype)) if len(parts) > 2 else (format, dtype)
    integer = rounds_x(name)
    for trial_format in (wanted_format, format, "bitmask", "csr", DENSE):
        for trial_dtype in (wanted_dtype, dtype, "float32"):
            found = [k for k in native_kernels() if (k.format, k.dtype) == (trial_format, trial_dtype)]
            fits = [k for k in found if k.dtype not in INTEGERS or (k.dtype == dtype and rounds_x(k.name) <= integer)]
            if fits and (trial_format not in ("nm", "bsr") or trial_format == format):
                text = f"{fits[0].name} instead of {name}, which {why}"
                dequantised = dtype in INTEGERS and fits[0].dtype not in INTEGERS
                return fits[0].name, text + (f"; the {dtype} weights run dequantised" if dequantised else "")
    raise KernelUnavailable(f"load: no native kernel runs {format} {dtype} weights here; reinstall zeroskip.")


def threaded(work: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> list[R]:
    """Apply `work` to all items over some threads, results in order; the first error is raised."""
    listed = list(items)
    count = min(threads or int(native().get_num_threads()), len(listed))
    if count <= 1:
        return [work(item) for item in listed]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, item) for item in listed]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def packed_bytes(packed: Mapping[str, Iterable[tuple[int | None, Prepared]]]) -> int:
    """Bytes of packed weights, each counted once however many batch sizes use it."""
    seen = {id(item): item.nbytes for ranges in packed.values() for _, item in ranges}
    return sum(seen.values())


def _names() -> list[str]:
    return [kernel.name for kernel in registry if kernel.origin == "native"]


def damaged(where: str, error: Exception) -> DamagedFile:
    """A layout error of a stored matrix as what it is: a damaged file."""
    return DamagedFile(f"{where}: {error}")
