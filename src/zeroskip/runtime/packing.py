"""Weight matrices into what a kernel runs on, without detours through other formats where none is needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .._errors import DamagedFile, FormatError, KernelUnavailable
from ..formats import INTEGERS, SHORT, Bitmask, SparseMatrix, dense_codes
from ..io import DENSE, Matrix
from ..kernels import Kernel, Prepared, newest, registry, rounds_within
from .layerplan import rounds_x_to

if TYPE_CHECKING:
    from ..kernels.cpu import NativePrepared

T = TypeVar("T")
R = TypeVar("R")
# The packings of a layer by ranges of lanes: (most lanes, packed), ascending, the last without a limit.
Ranges: TypeAlias = "tuple[tuple[int | None, NativePrepared], ...]"

_LONG = {short: dtype for dtype, short in SHORT.items()}


def native() -> Any:
    """The native module, imported when it is needed."""
    return importlib.import_module("zeroskip._native")


def pack(kernel: str, matrix: Matrix) -> NativePrepared:
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
    cpu = _cpu()
    kind, arrays, dtype, params = cpu.source_of(matrix)
    rows, columns = matrix.shape
    try:
        packed = native().pack(kernel, rows, columns, kind, arrays, dtype, params)
    except ValueError as error:
        if "cannot read that format" not in str(error):
            raise FormatError(f"pack: {kernel} refuses the matrix ({error}).") from None
        return _pack_converted(known, matrix)
    prepared: NativePrepared = cpu.NativePrepared(matrix.shape, packed)
    return prepared


def _pack_converted(kernel: Kernel, matrix: Matrix) -> NativePrepared:
    """For kernels that read their own format only."""
    if kernel.dtype in INTEGERS:
        raise FormatError(f"pack: {kernel.name} does not take this matrix of {matrix.dtype} in {matrix.name}.")
    sparse = matrix if isinstance(matrix, SparseMatrix) else Bitmask.from_dense(matrix.to_dense(), dtype=matrix.dtype)
    prepared: Any = kernel.prepare(sparse)
    found: NativePrepared = prepared
    return found


def _cpu() -> Any:
    """The module of the native kernels, which needs the native one; imported when it is needed."""
    return importlib.import_module("zeroskip.kernels.cpu")


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
    allowed = rounds_x_to(name)
    for trial_format in (wanted_format, format, "bitmask", "csr", DENSE):
        for trial_dtype in (wanted_dtype, dtype, "float32"):
            found = [k for k in native_kernels() if (k.format, k.dtype) == (trial_format, trial_dtype)]
            fits = [k for k in found if rounds_within(k, allowed) and (k.dtype not in INTEGERS or k.dtype == dtype)]
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


def merge_ranges(ranges: Sequence[tuple[int | None, NativePrepared]]) -> Ranges:
    """Neighbouring ranges with one packing as one range."""
    kept: list[tuple[int | None, NativePrepared]] = []
    for limit, packed in ranges:
        if kept and kept[-1][1] is packed:
            kept.pop()
        kept.append((limit, packed))
    return tuple(kept)
