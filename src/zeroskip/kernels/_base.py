"""What a kernel is, and the registry that finds them all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .._registry import Registry
from ..formats import SparseMatrix

Float32 = npt.NDArray[np.float32]

# From the one that runs everywhere to the newest; a later one is preferred.
ISAS = ("scalar", "neon", "neondot", "avx2", "avxvnni", "avx512", "avx512vnni", "amx")
# What kernels round x to before they multiply, from nothing to the coarsest: int16 moves an x by 1/65534 of the largest
# |x| of its column (and rounds products as well), bfloat16 by |x| / 256 at most, int8 by 1/254 of the largest.
X_DTYPES = ("float32", "int16", "bfloat16", "int8")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh")


class Prepared(Protocol):
    """A matrix packed for one kernel."""

    @property
    def kernel(self) -> str:
        """Name of the kernel."""

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""

    @property
    def nbytes(self) -> int:
        """Bytes that the packed matrix takes in memory."""

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
        """out = activation(A @ x + bias), every element of `out` written, none of it read.

        Args:
            x: (K, N), or (N, K) if transposed; C-contiguous.
            out: (M, N), or (N, M) if transposed; C-contiguous, not overlapping `x`.
            bias: (M,).
            activation: None or one of `ACTIVATIONS`.
            transposed: Whether x and out hold one vector a row, as a torch Linear does.
        """


class Kernel(Protocol):
    """One operation, for one storage format and value type, on some hardware or in some library."""

    @property
    def name(self) -> str:
        """op_format_dtype_isa; the registry key and the label in benchmarks."""

    @property
    def op(self) -> str:
        """The operation: spmm."""

    @property
    def format(self) -> str:
        """What it multiplies from: a format's name, or `dense`."""

    @property
    def dtype(self) -> str:
        """Value type it stores the weights in."""

    @property
    def isa(self) -> str:
        """Instruction set; for other libraries, the library's name."""

    @property
    def origin(self) -> str:
        """Who wrote it: native, numpy, torch, scipy, mkl, onnxruntime."""

    def why_not(self) -> str | None:
        """The reason why it cannot run on this machine; None where it can."""

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        """The reason why it does not take this matrix; None where it does."""

    def prepare(self, a: SparseMatrix) -> Prepared:
        """Pack a matrix of any format, converting it and rounding its values as the kernel needs."""


registry: Registry[Kernel] = Registry("kernel", "zeroskip.kernels")


@dataclass(frozen=True)
class KernelInfo:
    """The descriptive half of a kernel; peers inherit it."""

    name: str
    format: str
    dtype: str
    isa: str
    origin: str
    op: str = "spmm"

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large_in_full(a) if self.format == "dense" else None


_MOST_ELEMS = 2**30
# Origins of kernels that are ours: the native table, whose packings a whole model can run, and what builds on it.
OURS = ("native", "zeroskip")


def too_large_in_full(a: SparseMatrix) -> str | None:
    """Why a large graph is not laid out in full; None for what is small, or has a hundredth of all entries."""
    elems = a.shape[0] * a.shape[1]
    if elems <= _MOST_ELEMS or a.nnz > elems / 100:
        return None
    return f"laid out in full it takes {4 * elems / 1e9:.0f} GB"


def rounds_x_to(kernel: Kernel) -> str:
    """What a kernel rounds x to, of `X_DTYPES`; float32 where it multiplies x as it comes."""
    return str(getattr(kernel, "x_dtype", "float32"))


def rounds_within(kernel: Kernel, x_dtype: str) -> bool:
    """Whether a kernel rounds x no coarser than to `x_dtype`."""
    return X_DTYPES.index(rounds_x_to(kernel)) <= X_DTYPES.index(x_dtype)


def newest(kernels: Iterable[Kernel]) -> list[Kernel]:
    """Of kernels that differ in nothing but the instruction set, the newest; all of them run here.

    What x is rounded to makes a difference: the results are others.
    """

    def rank(kernel: Kernel) -> int:
        return ISAS.index(kernel.isa) if kernel.isa in ISAS else len(ISAS)

    best: dict[tuple[str, str], Kernel] = {}
    for kernel in kernels:
        variant = "_".join(part for part in kernel.name.split("_") if part != kernel.isa), rounds_x_to(kernel)
        if variant not in best or rank(kernel) > rank(best[variant]):
            best[variant] = kernel
    return list(best.values())


def num_threads() -> int:
    """Threads for libraries that ask how many: ZEROSKIP_NUM_THREADS, else the cores this process may use."""
    text = os.environ.get("ZEROSKIP_NUM_THREADS", "")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
